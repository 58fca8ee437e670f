//! One connection to the `ssid` of this node: frames in and out, never blocking.

use super::Error;
use crate::wire::client::{ToClient, ToDaemon};
use base::{FrameReader, ServiceHello, encode_frame};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The conversation's name in the admin socket's hello.
pub(crate) const SERVICE: &str = "tasks";
/// The version of [`crate::wire::client`] that we speak.
pub(crate) const VERSION: u32 = 1;

/// An open connection, the hello already on its way.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    outgoing: Vec<u8>,
    frames: FrameReader,
}

/// What came of reading.
pub(crate) enum Received {
    /// These messages, perhaps none.
    Messages(Vec<ToClient>),
    /// These messages, and then the other end was gone, for this reason.
    Closed(Vec<ToClient>, String),
}

/// Why a connection cannot be made: worth another attempt or not.
pub(crate) enum Refused {
    /// Nobody listens at the moment.
    Absent(std::io::Error),
    /// Trying again would not help.
    Final(Error),
}

impl Connection {
    /// Connects and names the conversation.
    pub(crate) fn open(path: &Path) -> Result<Connection, Refused> {
        let stream = UnixStream::connect(path).map_err(|source| match source.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::WouldBlock => {
                Refused::Absent(source)
            }
            _ => Refused::Final(Error::Connect { path: path.to_owned(), source }),
        })?;
        stream
            .set_nonblocking(true)
            .map_err(|source| Refused::Final(Error::Connect { path: path.to_owned(), source }))?;
        let hello = ServiceHello { service: SERVICE.to_owned(), version: VERSION };
        Ok(Connection { stream, outgoing: encode_frame(&hello), frames: FrameReader::default() })
    }

    /// Queues a message.
    pub(crate) fn send(&mut self, message: &ToDaemon) {
        self.outgoing.extend(encode_frame(message));
    }

    /// True while bytes wait to be written.
    pub(crate) fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Writes as much as the socket takes.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) fn flush(&mut self) -> std::io::Result<()> {
        let mut written = 0;
        let outcome = loop {
            if written == self.outgoing.len() {
                break Ok(());
            }
            match self.stream.write(&self.outgoing[written..]) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(n) => written += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.outgoing.drain(..written);
        outcome
    }

    /// Reads what is there.
    pub(crate) fn receive(&mut self) -> Received {
        let mut buffer = [0; 64 << 10];
        let mut messages = Vec::new();
        // A bounded number of reads: who waits for other descriptors is served in between.
        for _ in 0..16 {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Received::Closed(messages, "it closed the connection".to_owned()),
                Ok(n) => {
                    self.frames.push(&buffer[..n]);
                    if let Err(why) = self.decode(&mut messages) {
                        return Received::Closed(messages, why);
                    }
                    if n < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Received::Closed(messages, error.to_string()),
            }
        }
        Received::Messages(messages)
    }

    fn decode(&mut self, messages: &mut Vec<ToClient>) -> Result<(), String> {
        while let Some(message) = self.frames.next().map_err(|error| error.to_string())? {
            messages.push(message);
        }
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
