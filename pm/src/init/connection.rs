//! One daemon's connection: frames in, frames out, and the descriptors that ride with the first one.

use crate::wire::init::{FromInit, ToInit};
use base::{FrameError, FrameReader, encode_frame};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Bytes that may wait for a daemon before it is given up as hung.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Bytes that may wait before no more output of tasks is added: that is kept in its own window.
const QUEUE_BYTES_FULL: usize = 1 << 20;

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The daemon closed it, or died.
    #[error("the daemon closed its connection")]
    Closed,
    /// The daemon does not read.
    #[error("a daemon let {QUEUE_BYTES_MAX} bytes wait")]
    Hung,
    /// The socket failed.
    #[error("the daemon's connection failed: {0}")]
    Io(#[from] io::Error),
    /// What came is no frame.
    #[error("a daemon sent what is no message: {0}")]
    Frame(#[from] FrameError),
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    reader: FrameReader,
    waiting: VecDeque<u8>,
    attached: Vec<OwnedFd>,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Connection {
    /// Over a socket just accepted.
    ///
    /// # Errors
    /// It cannot be made nonblocking.
    pub fn new(stream: UnixStream) -> io::Result<Connection> {
        stream.set_nonblocking(true)?;
        Ok(Connection {
            stream,
            reader: FrameReader::default(),
            waiting: VecDeque::new(),
            attached: Vec::new(),
        })
    }

    /// Everything that the daemon has sent and that is whole.
    ///
    /// # Errors
    /// [`Broken`], also when messages came before the end: then the daemon is gone and wants no answer.
    pub fn receive(&mut self) -> Result<Vec<ToInit>, Broken> {
        let mut buffer = [0; 64 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(Broken::Closed),
            Ok(n) => self.reader.push(&buffer[..n]),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
        let mut messages = Vec::new();
        while let Some(message) = self.reader.next()? {
            messages.push(message);
        }
        Ok(messages)
    }

    /// Puts the first message, with descriptors, in the queue.
    pub fn welcome(&mut self, message: &FromInit, descriptors: Vec<OwnedFd>) {
        self.attached = descriptors;
        self.send(message);
    }

    /// Puts a message in the queue.
    pub fn send(&mut self, message: &FromInit) {
        self.waiting.extend(encode_frame(message));
    }

    /// True while output of tasks may be added to the queue.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < QUEUE_BYTES_FULL
    }

    /// True while something waits to be written.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Writes as much as the socket takes.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn flush(&mut self) -> Result<(), Broken> {
        while !self.waiting.is_empty() {
            match self.write_some() {
                Ok(n) => {
                    self.waiting.drain(..n);
                    self.attached.clear();
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.waiting.len() > QUEUE_BYTES_MAX { Err(Broken::Hung) } else { Ok(()) }
    }

    fn write_some(&self) -> io::Result<usize> {
        let bytes = [IoSlice::new(self.waiting.as_slices().0)];
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<BorrowedFd<'_>> = self.attached.iter().map(AsFd::as_fd).collect();
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        Ok(rustix::net::sendmsg(&self.stream, &bytes, &mut control, flags)?)
    }
}
