//! How two ends that share an authenticated Unix socket come to share memory.
//!
//! ```text
//!  dialling end                                                       accepting end
//!  | "SSISHM\1\0" | bytes of a ring: u64 |  with memory, bell, bell  --->  checks them, maps the memory
//!                                                                   <---  | "SSISHM\1\1" |
//! ```
//!
//! The first bell is the dialling end's. The memory holds the control lines and two rings ([`super::track`]): the first goes to the accepting
//! end. The socket carries nothing else but lent memories from then on; its end is the link's end.
//!
//! Invariant: nothing that the other end passed is used before it was checked; what fails closes everything.

use super::bell::Bell;
use super::incoming::Incoming;
use super::lending::check_sealed;
use super::link::ShmLink;
use super::outgoing::Outgoing;
use super::passing;
use super::ring::{Consumer, Producer};
use super::sys::Shared;
use super::track::Track;
use crate::reactor::{Reactor, Token};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

const OFFER: [u8; 8] = *b"SSISHM\x01\x00";
const TAKEN: [u8; 8] = *b"SSISHM\x01\x01";

/// Which end of the socket this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It dialled: it makes the memory, with two rings of so many bytes (a power of two, 32 KiB to 16 MiB).
    Dialled {
        /// Bytes of each ring.
        ring_bytes: usize,
    },
    /// It accepted: it takes the memory that the other end makes.
    Accepted,
}

/// Bytes of a ring of a link for calls that are urgent.
pub const URGENT_RING_BYTES: usize = 64 << 10;
/// Bytes of a ring of a link for everything else. Larger ones do not fit into a core's cache together with what they carry.
pub const BULK_RING_BYTES: usize = 256 << 10;

/// What has become of a set-up.
pub enum Step {
    /// The other end has to do something first; its socket becomes ready in the reactor then.
    Waiting(Setup),
    /// The link stands.
    Linked(Box<ShmLink>),
}

/// A link that is being set up.
pub struct Setup {
    socket: OwnedFd,
    token: Token,
    /// At the dialling end: what it offered.
    offered: Option<Box<Offered>>,
}

type Halves = (Outgoing, Incoming);
type Offered = (Halves, (Bell, Bell));

impl Setup {
    /// Begins to set up a link over a connected Unix stream socket that the reactor does not watch and on which nothing is left to read.
    /// From here on the reactor reports the socket, and later the link, as `token`.
    ///
    /// # Errors
    /// The system gives no memory or descriptor, the other end is gone, there are no rings of this length.
    pub fn start(socket: OwnedFd, end: End, token: Token, reactor: &mut Reactor) -> io::Result<Setup> {
        let offered = match end {
            End::Accepted => None,
            End::Dialled { ring_bytes } => Some(Box::new(offer(&socket, ring_bytes)?)),
        };
        reactor.watch_level(&socket, token)?;
        Ok(Setup { socket, token, offered })
    }

    /// Goes on as far as it can without waiting. Call it once after `start`, and whenever the reactor reports the token.
    ///
    /// # Errors
    /// The other end is gone, or passed something that cannot be used. Everything is closed.
    pub fn advance(mut self, reactor: &mut Reactor) -> io::Result<Step> {
        let ready = match self.offered.take() {
            None => accept(&self.socket)?.map(Box::new),
            Some(offered) => match passing::receive::<8>(&self.socket)? {
                Some((TAKEN, _)) => Some(offered),
                Some(_) => return Err(bad("the other end did not answer what was offered")),
                None => {
                    self.offered = Some(offered);
                    None
                }
            },
        };
        let Some(offered) = ready else { return Ok(Step::Waiting(self)) };
        let (halves, bells) = *offered;
        reactor.forget(&self.socket)?;
        let link = ShmLink::start(halves, bells, self.socket, self.token, reactor)?;
        Ok(Step::Linked(Box::new(link)))
    }

    /// Gives it up.
    pub fn close(self, reactor: &mut Reactor) {
        // As in a link's `close`: a process that was forked meanwhile may still have the socket.
        let _ = reactor.forget(&self.socket);
    }
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Makes memory and bells and passes them over.
fn offer(socket: &OwnedFd, ring_bytes: usize) -> io::Result<Offered> {
    let [to, from] = Track::pair(ring_bytes)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "there are no rings of this length"))?;
    let file = memfd_create("ssi-link", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, Track::memory_bytes(ring_bytes) as u64)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    let (ours, theirs) = (Bell::new()?, Bell::new()?);
    let halves = halves(&file, ring_bytes, to, from)?;
    let mut message = [0; 16];
    message[..8].copy_from_slice(&OFFER);
    message[8..].copy_from_slice(&(ring_bytes as u64).to_le_bytes());
    passing::send(socket, &message, &[file.as_fd(), ours.as_fd(), theirs.as_fd()])?;
    Ok((halves, (ours, theirs)))
}

/// Takes what the dialling end offers, once it has come.
fn accept(socket: &OwnedFd) -> io::Result<Option<Offered>> {
    let Some((message, descriptors)) = passing::receive::<16>(socket)? else { return Ok(None) };
    let (tag, length) = message.split_at(8);
    if tag != OFFER {
        return Err(bad("the other end offered something else than shared memory"));
    }
    let length = length.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let ring_bytes = usize::try_from(length).unwrap_or(usize::MAX);
    let [from, to] = Track::pair(ring_bytes).ok_or_else(|| bad("the other end offered impossible rings"))?;
    let [file, theirs, ours]: [OwnedFd; 3] =
        descriptors.try_into().map_err(|_| bad("the other end did not pass what shared memory takes"))?;
    check_sealed(&file, Track::memory_bytes(ring_bytes))?;
    let (ours, theirs) = (Bell::from_peer(ours)?, Bell::from_peer(theirs)?);
    let halves = halves(&file, ring_bytes, to, from)?;
    passing::send(socket, &TAKEN, &[])?;
    Ok(Some((halves, (ours, theirs))))
}

fn halves(file: &OwnedFd, ring_bytes: usize, to: Track, from: Track) -> io::Result<Halves> {
    let shared = Arc::new(Shared::map(file, Track::memory_bytes(ring_bytes))?);
    let outgoing = Outgoing::new(Producer::new(shared.clone(), to));
    Ok((outgoing, Incoming::new(Consumer::new(shared, from))))
}
