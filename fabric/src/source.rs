//! Reads a connection: bytes from the socket, records out of the bytes, frames out of the records.

use crate::assembly::{Assembly, Received};
use crate::record::{self, LENGTH_BYTES, Opener, PLAIN_BYTES_MAX, TAG_BYTES};
use crate::status::Traffic;
use crate::wire::WireError;
use bytes::{Buf, BytesMut};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;

/// What is read at once from an idle connection, in bytes.
const READ_BYTES_MIN: usize = 8 << 10;
/// What is read at once while bulk comes in, in bytes: several full records.
const READ_BYTES_MAX: usize = 256 << 10;

/// Reads without a wait after which others of this thread, the connection's own writing among them, get their turn.
const READS_MAX: usize = 4;

/// Why a connection can be read no more.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The other end, or the network, ended it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The other end holds the key but does not keep to the protocol.
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl SourceError {
    /// The same as an error of the operating system's kind.
    pub fn into_io(self) -> io::Error {
        match self {
            SourceError::Io(error) => error,
            SourceError::Wire(error) => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    }
}

/// The receiving half of a connection.
pub struct Source {
    stream: Arc<TcpStream>,
    opener: Opener,
    traffic: Arc<Traffic>,
    buffer: BytesMut,
    read_bytes: usize,
    reads: usize,
    plain: Vec<u8>,
    assembly: Assembly,
    whole: VecDeque<Received>,
}

impl Source {
    /// Reads frames from `stream`.
    pub fn new(stream: Arc<TcpStream>, opener: Opener, traffic: Arc<Traffic>) -> Source {
        Source {
            stream,
            opener,
            traffic,
            buffer: BytesMut::new(),
            read_bytes: READ_BYTES_MIN,
            reads: 0,
            plain: Vec::new(),
            assembly: Assembly::default(),
            whole: VecDeque::new(),
        }
    }

    /// The next frame.
    ///
    /// # Errors
    /// The connection cannot be read on.
    pub async fn next(&mut self) -> Result<Received, SourceError> {
        loop {
            if let Some(frame) = self.whole.pop_front() {
                return Ok(frame);
            }
            if !self.open_record()? {
                self.fill().await?;
            }
        }
    }

    /// Opens the first record in the buffer. False if it is incomplete.
    fn open_record(&mut self) -> Result<bool, WireError> {
        let Some((sealed, _)) = record::split_record(&self.buffer)? else { return Ok(false) };
        let plain_bytes = sealed.len() - TAG_BYTES;
        if let Some(room) = self.assembly.room(plain_bytes) {
            self.opener.open(sealed, room)?;
            self.whole.extend(self.assembly.advance(plain_bytes));
        } else {
            if self.plain.len() < plain_bytes {
                self.plain.resize(plain_bytes.next_power_of_two().min(PLAIN_BYTES_MAX), 0);
            }
            self.opener.open(sealed, &mut self.plain)?;
            let mut rest = &self.plain[..plain_bytes];
            while let Some(frame) = self.assembly.push(&mut rest)? {
                self.whole.push_back(frame);
            }
        }
        self.buffer.advance(LENGTH_BYTES + plain_bytes + TAG_BYTES);
        Ok(true)
    }

    /// Waits for bytes and reads as many as there are, within bounds.
    async fn fill(&mut self) -> Result<(), io::Error> {
        self.buffer.reserve(self.read_bytes);
        self.reads += 1;
        if self.reads > READS_MAX {
            self.reads = 0;
            tokio::task::yield_now().await;
        }
        loop {
            match self.stream.try_read_buf(&mut self.buffer) {
                Ok(0) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the other end closed the connection",
                    ));
                }
                Ok(bytes) => {
                    self.traffic.received(bytes);
                    let full = self.buffer.len() == self.buffer.capacity();
                    self.read_bytes = if full { READ_BYTES_MAX } else { READ_BYTES_MIN };
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.reads = 0;
                    self.stream.readable().await?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
