//! Our end of one of a task's descriptors: a pipe, a terminal's master, or a channel's socket.

use super::poller::{Poller, Ready, Registration};
use super::stream::{Input, Output};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// What the descriptor is, where that makes a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One end of a pipe.
    Pipe,
    /// The master of a pty.
    Terminal,
    /// One end of a stream socket pair.
    Channel,
}

/// Bytes read at once.
const READ_BYTES: usize = 32 << 10;
/// What ends the input of a terminal in its usual mode (^D).
const END_OF_TRANSMISSION: u8 = 4;

/// A descriptor and the streams that run through it.
#[derive(Debug)]
pub struct Endpoint {
    kind: Kind,
    fd: Option<OwnedFd>,
    registration: Registration,
    closing: bool,
    /// Into the task.
    pub input: Option<Input>,
    /// Out of the task.
    pub output: Option<Output>,
}

impl Endpoint {
    /// Takes over `fd`, makes it nonblocking and begins to watch it.
    ///
    /// # Errors
    /// fcntl(2) or epoll_ctl(2) failed.
    pub fn new(
        poller: &mut Poller,
        kind: Kind,
        fd: OwnedFd,
        input: Option<Input>,
        output: Option<Output>,
    ) -> io::Result<Endpoint> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        let mut endpoint =
            Endpoint { kind, fd: Some(fd), registration: poller.register(), closing: false, input, output };
        endpoint.watch(poller)?;
        Ok(endpoint)
    }

    /// The key of its events.
    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    /// The terminal's master, to set its size.
    pub fn terminal(&self) -> Option<&OwnedFd> {
        if self.kind == Kind::Terminal { self.fd.as_ref() } else { None }
    }

    /// Tells the poller what is wanted now. To be called after everything that changes the streams.
    ///
    /// # Errors
    /// epoll_ctl(2) failed.
    pub fn watch(&mut self, poller: &Poller) -> io::Result<()> {
        let Some(fd) = &self.fd else { return Ok(()) };
        if self.closing {
            // Taken out before it is closed: a child that has not become its program yet may hold a copy, and then the
            // kernel would go on telling of it.
            poller.watch(&mut self.registration, fd, Ready::default())?;
            self.fd = None;
            return Ok(());
        }
        let read = self.output.as_ref().is_some_and(|output| output.room() > 0);
        let write = self.input.as_ref().is_some_and(|input| !input.next_bytes().is_empty());
        poller.watch(&mut self.registration, fd, Ready { read, write })
    }

    /// Reads what there is and fits. True if the output has grown or ended.
    pub fn read(&mut self) -> bool {
        let (Some(fd), Some(output)) = (&self.fd, &mut self.output) else { return false };
        let mut buffer = [0; READ_BYTES];
        let room = output.room().min(buffer.len());
        if room == 0 {
            return false;
        }
        match rustix::io::read(fd, &mut buffer[..room]) {
            Ok(0) => output.finish(),
            Ok(n) => output.push(&buffer[..n]),
            Err(Errno::AGAIN | Errno::INTR) => return false,
            // EIO: nobody holds the terminal's other side any more. Any other error ends the stream as well.
            Err(_) => output.finish(),
        }
        true
    }

    /// Writes what there is and fits, and marks the end behind it. True if the accepted mark has moved.
    pub fn write(&mut self) -> bool {
        let Some(input) = &mut self.input else { return false };
        let before = input.mark();
        while let Some(fd) = &self.fd
            && !input.next_bytes().is_empty()
        {
            match write_quietly(self.kind, fd, input.next_bytes()) {
                Ok(n) => input.wrote(n),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => input.discard(),
            }
        }
        if input.take_end() {
            self.close_input();
        }
        self.input.as_ref().is_some_and(|input| input.mark() != before)
    }

    fn close_input(&mut self) {
        let Some(fd) = &self.fd else { return };
        match self.kind {
            Kind::Pipe => self.closing = true,
            Kind::Channel => {
                let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Write);
            }
            Kind::Terminal => {
                let _ = rustix::io::write(fd, &[END_OF_TRANSMISSION]);
            }
        }
    }

    /// Nobody wants this endpoint any more.
    pub fn close(&mut self, poller: &Poller) {
        self.closing = true;
        let _ = self.watch(poller);
    }

    /// The task has ended: nobody will read its standard input.
    pub fn abandon_input(&mut self) {
        if let Some(input) = &mut self.input {
            input.discard();
            self.closing |= self.output.is_none();
        }
    }
}

/// SIGPIPE is ignored by us, but a socket says so explicitly.
fn write_quietly(kind: Kind, fd: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    match kind {
        Kind::Channel => rustix::net::send(fd.as_fd(), bytes, rustix::net::SendFlags::NOSIGNAL),
        Kind::Pipe | Kind::Terminal => rustix::io::write(fd, bytes),
    }
}
