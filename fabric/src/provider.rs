//! What every provider of links offers: the seam between the engine, which knows calls and regions, and whatever carries bytes.
//!
//! A *link* is one authenticated way to one peer. It carries frames whole, in order and once, or fails as a whole; it never
//! decides what to send. The engine pulls frames out of the sessions while the link has room and pushes them, so nothing waits
//! inside a link but what is about to go.
//!
//! ```text
//!   engine: while link.room() { link.push(session.next()) }  ->  link.flush()  ->  wire
//!   wire -> readiness of a descriptor (or a poll) -> link.receive(sink) -> sink.frame / sink.place + sink.placed -> session
//! ```
//!
//! Invariant: a link touches a region's memory only where `Sink::place` told it to and only until [`Link::forsake`] of that
//! region returns.

use crate::frame::{Access, Header, WireError};
use crate::reactor::Reactor;
use crate::region::Span;
use bytes::Bytes;
use std::fmt;
use std::io;
use std::sync::Arc;

/// What carries a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    /// Memory shared by two processes of one host.
    Shm,
    /// An RDMA device, through ibverbs.
    Verbs,
    /// A TCP connection.
    Tcp,
    /// A simulated network, in virtual time.
    Sim,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Provider::Shm => "shm",
            Provider::Verbs => "verbs",
            Provider::Tcp => "tcp",
            Provider::Sim => "sim",
        })
    }
}

/// Why a link is over.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkError {
    /// It broke, or the other end closed it.
    #[error("{0}")]
    Lost(Arc<io::Error>),
    /// The other end broke the protocol.
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> LinkError {
        LinkError::Lost(Arc::new(error))
    }
}

/// What follows a header: exactly `header.carried()` bytes.
#[derive(Clone, Debug)]
pub enum Body {
    /// Parts of a message (head, bulk), either of them may be empty.
    Message(Bytes, Bytes),
    /// A piece of a one-sided transfer: an access, and memory of a region of this end that stays as it is until the transfer is over.
    Piece(Access, Span),
    /// An access alone (a read that is asked for).
    Access(Access),
    /// Nothing.
    Empty,
}

/// A frame on its way out.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its header.
    pub header: Header,
    /// What follows it.
    pub body: Body,
}

/// Where the bytes of a one-sided piece go.
#[derive(Debug)]
pub enum Place {
    /// Into this memory, which is as long as the piece.
    Span(Span),
    /// Nowhere: the transfer is over or refused; read them off the wire and forget them. `Sink::placed` is not called.
    Skip,
}

/// Who takes what a link receives.
pub trait Sink {
    /// A frame came whole: its header and the bytes it carried. Not for Write and ReadData with bulk.
    ///
    /// # Errors
    /// The peer broke the protocol: the link ends.
    fn frame(&mut self, header: Header, body: Bytes) -> Result<(), WireError>;
    /// A one-sided piece (Write or ReadData) is coming: where to?
    ///
    /// # Errors
    /// The peer broke the protocol: the link ends.
    fn place(&mut self, header: &Header, access: &Access) -> Result<Place, WireError>;
    /// All bytes of that piece are where `place` said.
    ///
    /// # Errors
    /// The peer broke the protocol: the link ends.
    fn placed(&mut self, header: &Header, access: &Access) -> Result<(), WireError>;
    /// A one-sided operation that this end posted ([`OneSided`]) is over.
    fn posted(&mut self, work: u64, outcome: Result<(), LinkError>);
    /// A notifying write of the peer, carried out by its device, is complete in this region.
    fn notified(&mut self, region: u64);
}

/// What a link has carried so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames sent.
    pub frames_sent: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Bytes sent, as they were on the wire.
    pub bytes_sent: u64,
    /// Bytes received, as they were on the wire.
    pub bytes_received: u64,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, more: Traffic) {
        self.frames_sent += more.frames_sent;
        self.frames_received += more.frames_received;
        self.bytes_sent += more.bytes_sent;
        self.bytes_received += more.bytes_received;
    }
}

/// One authenticated way to one peer. Never blocks.
pub trait Link: Send {
    /// What carries it.
    fn provider(&self) -> Provider;

    /// Bytes (headers included) that [`Link::push`] may still take. 0 while what was pushed waits for the wire. A frame may be
    /// pushed whenever this is not 0, whatever the frame's length: the link is then full by as much.
    fn room(&self) -> usize;

    /// Takes a frame. Small bodies are copied; of large ones the memory is held until they are on the wire.
    fn push(&mut self, frame: Frame);

    /// Hands what was pushed to the wire, as far as the wire takes it.
    ///
    /// # Errors
    /// The link is over.
    fn flush(&mut self, reactor: &mut Reactor) -> Result<(), LinkError>;

    /// Takes in what came: about `most` bytes at most, and no more than the link itself finds good for one time. True if there may be
    /// more right now.
    ///
    /// # Errors
    /// The link is over. What came before has been given to the sink.
    fn receive(&mut self, reactor: &mut Reactor, sink: &mut dyn Sink, most: usize)
    -> Result<bool, LinkError>;

    /// True if nothing has come since and nothing of what was pushed waits, as far as can be told at almost no cost.
    fn is_quiet(&self) -> bool {
        false
    }

    /// True if whatever comes makes its descriptor ready although it is not armed.
    fn always_rings(&self) -> bool {
        false
    }

    /// Called before the engine sleeps: from here on whatever comes must make a descriptor of the reactor ready. True if
    /// something is there already, so that the engine must not sleep.
    ///
    /// # Errors
    /// The link is over.
    fn arm(&mut self, reactor: &mut Reactor) -> Result<bool, LinkError>;

    /// No byte more goes into this region: what is still on its way to it is skipped.
    fn forsake(&mut self, region: u64);

    /// One-sided operations by the device, where it has them; else they go as frames.
    fn one_sided(&mut self) -> Option<&mut dyn OneSided> {
        None
    }

    /// What it has carried.
    fn traffic(&self) -> Traffic;

    /// Ends it: takes its descriptors out of the reactor. Dropping it closes them.
    fn close(&mut self, reactor: &mut Reactor);
}

/// One-sided operations that a device carries out by itself.
pub trait OneSided {
    /// Operations that may still be posted.
    fn room(&self) -> usize;

    /// True if operations are under way.
    fn is_busy(&self) -> bool;

    /// True if operations are under way and none has ended since this was asked last.
    fn is_stuck(&mut self) -> bool;

    /// The rail of the other end that it leads to, as that end's device keys name it.
    fn rail(&self) -> u8;

    /// Posts a write of `from` to the peer's memory (address and key are the peer's device's), completed by `Sink::posted(work)`.
    /// With `notify` the peer's region of that number counts one arrival.
    ///
    /// # Errors
    /// The link is over.
    fn write(
        &mut self,
        work: u64,
        from: &Span,
        to: DeviceAddress,
        notify: Option<u32>,
    ) -> Result<(), LinkError>;

    /// Posts a read of the peer's memory into `into`.
    ///
    /// # Errors
    /// The link is over.
    fn read(&mut self, work: u64, from: DeviceAddress, into: &Span) -> Result<(), LinkError>;
}

/// A place in a peer's memory as its device names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceAddress {
    /// The virtual address that the peer registered.
    pub address: u64,
    /// The remote key of that registration.
    pub rkey: u32,
}
