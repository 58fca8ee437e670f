//! The asking end of the service `admin`: blocking, one question at a time, without a runtime.
//!
//! Invariant: after an error the connection is not used again; nothing here raises SIGPIPE in the program.

use crate::error::Error;
use crate::wire::{Answer, Ask, Request, SERVICE, VERSION, Why};
use base::codec::ServiceHello;
use base::{FrameReader, encode_frame};
use rustix::net::SendFlags;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a daemon may take for an answer.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// A connection for questions.
pub struct Client {
    stream: UnixStream,
    reader: FrameReader,
}

impl Client {
    /// Connects and says which service is wanted.
    ///
    /// # Errors
    /// [`Error::NoDaemon`].
    pub fn connect(socket: &Path) -> Result<Client, Error> {
        let no_daemon = |source| Error::NoDaemon { path: socket.into(), source };
        let stream = UnixStream::connect(socket).map_err(no_daemon)?;
        let hello = ServiceHello { service: SERVICE.into(), version: VERSION };
        send(&stream, &encode_frame(&hello)).map_err(no_daemon)?;
        Ok(Client { stream, reader: FrameReader::default() })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// The connection broke, the answer took too long, or the daemon says that it failed.
    pub fn ask(&mut self, ask: Ask) -> Result<Answer, Error> {
        self.ask_within(ask, ANSWER_WITHIN)
    }

    /// As [`Client::ask`], with another patience.
    ///
    /// # Errors
    /// The same.
    pub fn ask_within(&mut self, ask: Ask, limit: Duration) -> Result<Answer, Error> {
        self.send(ask)?;
        let until = Instant::now() + limit;
        loop {
            match self.receive(until.saturating_duration_since(Instant::now())) {
                Err(Error::Interrupted) => {}
                answered => return answered,
            }
        }
    }

    /// Sends a question, to be answered by [`Client::receive`].
    ///
    /// # Errors
    /// The connection broke.
    pub fn send(&mut self, ask: Ask) -> Result<(), Error> {
        send(&self.stream, &encode_frame(&Request { ask: Some(ask) })).map_err(Error::Broken)
    }

    /// Waits for the answer to the question that was sent.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if a signal came first: the answer can still be waited for. Otherwise as [`Client::ask`].
    pub fn receive(&mut self, limit: Duration) -> Result<Answer, Error> {
        // A timeout of zero would be none.
        let limit = limit.max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(limit)).map_err(Error::Broken)?;
        let mut buffer = [0; 16 << 10];
        loop {
            if let Some(answer) = self.reader.next::<Answer>()? {
                return accepted(answer);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Error::Closed),
                Ok(n) => self.reader.push(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(Error::Interrupted),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(Error::Broken(io::ErrorKind::TimedOut.into()));
                }
                Err(error) => return Err(Error::Broken(error)),
            }
        }
    }
}

fn accepted(answer: Answer) -> Result<Answer, Error> {
    match answer.error.is_empty() {
        true => Ok(answer),
        false => {
            Err(Error::Refused { why: Why::try_from(answer.why).unwrap_or(Why::Failed), text: answer.error })
        }
    }
}

/// Writes without SIGPIPE: a C program may not expect it.
fn send(stream: &UnixStream, mut frame: &[u8]) -> io::Result<()> {
    while !frame.is_empty() {
        match rustix::net::send(stream, frame, SendFlags::NOSIGNAL) {
            Ok(sent) => frame = &frame[sent..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
