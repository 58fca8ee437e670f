//! A program's connection: calls that wait for their reply, and notices as they come.
//!
//! Invariant: both descriptors are closed on exec, unless the program says otherwise.

use super::status;
use super::wire::{Call, Notice, Reply, SERVICE, VERSION, What};
use crate::error::Error;
use base::codec::ServiceHello;
use base::{FrameReader, encode_frame};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg};
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Names the socket of the lock manager, in a program's environment.
pub const SOCKET_VARIABLE: &str = "SSI_DLM_SOCKET";
/// Where the socket is inside a cluster's view.
const VIEW_SOCKET: &str = "/run/ssi/admin/dlm.sock";
/// How long the lock manager may take for a reply: it answers at once, whoever holds what.
const REPLY_WITHIN: Duration = Duration::from_secs(30);

/// The socket that a program uses if it is told nothing: `SSI_DLM_SOCKET`, or the view's.
pub fn default_socket() -> PathBuf {
    let named = std::env::var_os(SOCKET_VARIABLE).filter(|name| !name.is_empty());
    named.map_or_else(|| VIEW_SOCKET.into(), PathBuf::from)
}

/// Both ends of a program's conversation.
pub struct Connection {
    /// For calls.
    pub calls: Calls,
    /// For what is told.
    pub notices: Notices,
}

/// The first socket: one call at a time.
pub struct Calls {
    stream: UnixStream,
    reader: FrameReader,
    last_tag: u64,
}

/// The second socket: it is readable when there is something to tell.
pub struct Notices {
    stream: UnixStream,
    reader: FrameReader,
}

impl Connection {
    /// Connects to the lock manager at `socket`.
    ///
    /// # Errors
    /// [`Error::NoServer`], or [`Error::Broken`] if it speaks something else.
    pub fn connect(socket: &Path) -> Result<Connection, Error> {
        let no_server = |source| Error::NoServer { path: socket.into(), source };
        let stream = UnixStream::connect(socket).map_err(no_server)?;
        stream.set_read_timeout(Some(REPLY_WITHIN)).map_err(no_server)?;
        let hello = ServiceHello { service: SERVICE.into(), version: VERSION };
        send(&stream, &encode_frame(&hello))?;
        let mut calls = Calls { stream, reader: FrameReader::default(), last_tag: 0 };
        let second = calls.welcome()?;
        let notices = Notices { stream: second.into(), reader: FrameReader::default() };
        Ok(Connection { calls, notices })
    }
}

impl Connection {
    /// As [`Calls::close`].
    pub fn close(self) {
        self.calls.close();
    }
}

impl Calls {
    /// The server's first word, and the descriptor that comes with it.
    fn welcome(&mut self) -> Result<OwnedFd, Error> {
        let broken = |source: rustix::io::Errno| Error::Broken(source.into());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut second = None;
        loop {
            let mut buffer = [0; 512];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let got = match recvmsg(&self.stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => continue,
                got => got.map_err(broken)?,
            };
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    second = descriptors.last();
                }
            }
            if got.bytes == 0 {
                return Err(Error::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
            self.reader.push(&buffer[..got.bytes]);
            let Some(reply) = self.reader.next::<Reply>().map_err(malformed)? else { continue };
            refused(&reply)?;
            return second.ok_or_else(|| Error::Broken(io::Error::other("no second socket came")));
        }
    }

    /// Ends the conversation, also for processes that have inherited it, and waits until the server has taken the locks away.
    pub fn close(mut self) {
        if self.stream.shutdown(std::net::Shutdown::Write).is_ok() {
            // Whatever comes, or goes wrong: this is the end.
            while let Ok(1..) = self.stream.read(&mut [0; 512]) {}
        }
    }

    /// A tag that this connection has not used.
    pub fn next_tag(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }

    /// Calls, and waits for the reply, which is at once. If the answer has several replies, they come as one.
    ///
    /// # Errors
    /// [`Error::Refused`], or [`Error::Broken`] if the server is gone.
    pub fn call(&mut self, tag: u64, what: What) -> Result<Reply, Error> {
        send(&self.stream, &encode_frame(&Call { tag, what: Some(what) }))?;
        let mut whole = Reply::default();
        loop {
            let part = next::<Reply>(&mut self.stream, &mut self.reader)?
                .ok_or_else(|| Error::Broken(io::ErrorKind::UnexpectedEof.into()))?;
            refused(&part)?;
            if part.tag != tag {
                return Err(Error::Broken(io::Error::other("a reply to another call")));
            }
            let more = part.more;
            whole = Reply {
                rows: [whole.rows, part.rows].concat(),
                waits: [whole.waits, part.waits].concat(),
                more: false,
                ..part
            };
            if !more {
                return Ok(whole);
            }
        }
    }
}

impl Notices {
    /// The next notice; waits for it. `None`: the server is gone, and every lock of this connection with it.
    ///
    /// # Errors
    /// [`Error::Broken`].
    pub fn wait(&mut self) -> Result<Option<Notice>, Error> {
        next(&mut self.stream, &mut self.reader)
    }

    /// The next notice, if one is there.
    ///
    /// # Errors
    /// [`Error::Broken`], also if the server is gone.
    pub fn poll(&mut self) -> Result<Option<Notice>, Error> {
        let mut buffer = [0; 4 << 10];
        loop {
            if let Some(notice) = self.reader.next().map_err(malformed)? {
                return Ok(Some(notice));
            }
            match rustix::net::recv(&self.stream, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(Error::Broken(io::ErrorKind::UnexpectedEof.into())),
                Ok((n, _)) => self.reader.push(&buffer[..n]),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(Error::Broken(error.into())),
            }
        }
    }
}

impl AsFd for Calls {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl AsFd for Notices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn malformed(source: base::FrameError) -> Error {
    Error::Broken(io::Error::other(source))
}

fn refused(reply: &Reply) -> Result<(), Error> {
    match reply.status {
        status::OK => Ok(()),
        status => Err(Error::Refused { status }),
    }
}

/// Writes without SIGPIPE: a C program may not expect it.
fn send(stream: &UnixStream, mut frame: &[u8]) -> Result<(), Error> {
    while !frame.is_empty() {
        match rustix::net::send(stream, frame, SendFlags::NOSIGNAL) {
            Ok(sent) => frame = &frame[sent..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::Broken(error.into())),
        }
    }
    Ok(())
}

fn next<M: prost::Message + Default>(
    stream: &mut UnixStream,
    reader: &mut FrameReader,
) -> Result<Option<M>, Error> {
    let mut buffer = [0; 4 << 10];
    loop {
        if let Some(message) = reader.next().map_err(malformed)? {
            return Ok(Some(message));
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(n) => reader.push(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::Broken(error)),
        }
    }
}
