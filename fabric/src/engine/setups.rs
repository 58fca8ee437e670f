//! Connections that are not links yet: dialled or accepted, and proving themselves.
//!
//! ```text
//!  dialled:   connecting -> proving -> (shm: passing memory; verbs: trying the path) -> link
//!  accepted:              proving -> welcoming -> (shm: passing memory) -> link
//! ```
//!
//! Invariant: whoever has proved nothing costs one socket for at most the handshake's time.

use crate::Refusal;
use crate::reactor::Token;
use crate::setup::{Accepting, Dialled, Dialling, Opened};
use crate::shm;
use base::time::Time;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

/// How far a setup is.
pub enum Phase {
    /// connect(2) is under way.
    Connecting,
    /// The dialling end's handshake.
    Dialling(Box<Dialling>),
    /// The accepting end's handshake.
    Accepting(Box<Accepting>),
    /// The welcome is on its way out; then the link begins.
    Welcoming(Box<Opened>, usize),
    /// The dialling end looks whether the devices' path carries.
    Trying(Box<Proved>),
    /// Shared memory is passed.
    Passing(Box<shm::Setup>, Box<Proved>),
}

/// What the two ends know when both have proved themselves.
pub enum Proved {
    /// At the dialling end.
    Dialled(Dialled),
    /// At the accepting end: and which guest.
    Opened(Opened, usize),
}

/// Whose connection it is.
#[derive(Clone, Debug)]
pub enum Whose {
    /// This end's, for this remote.
    Ours {
        /// The remote.
        remote: usize,
    },
    /// Somebody's, from there.
    Theirs {
        /// His address, for the log.
        from: String,
        /// It came over the Unix socket.
        local: bool,
    },
}

/// A connection that is not a link yet.
pub struct Setup {
    /// Its number, never used twice.
    pub number: u64,
    /// Under which it is watched.
    pub token: Token,
    /// The connection; none once it is given away.
    pub stream: Option<OwnedFd>,
    /// When its present phase takes too long.
    pub late: Time,
    /// How far it is.
    pub phase: Phase,
    /// Whose it is.
    pub whose: Whose,
    /// What came and has not been looked at.
    pub input: Vec<u8>,
    /// What is to be sent.
    pub output: Vec<u8>,
    /// The other end has closed its side.
    pub ended: bool,
}

/// Why a setup failed.
#[derive(Debug)]
pub enum SetupError {
    /// The connection broke or cannot be made.
    Io(io::Error),
    /// One of the ends refuses the other.
    Refused(Refusal),
    /// The other end cannot carry the link in this way.
    Useless(String),
}

impl From<io::Error> for SetupError {
    fn from(error: io::Error) -> SetupError {
        SetupError::Io(error)
    }
}

impl From<Refusal> for SetupError {
    fn from(why: Refusal) -> SetupError {
        SetupError::Refused(why)
    }
}

/// The most bytes that a setup reads ahead: a link takes what follows the handshake.
const INPUT_BYTES_MAX: usize = 64 << 10;

impl Setup {
    /// True once connect(2) has succeeded.
    ///
    /// # Errors
    /// It has failed.
    pub fn is_connected(&self) -> io::Result<bool> {
        let Some(stream) = &self.stream else { return Ok(false) };
        rustix::net::sockopt::socket_error(stream)??;
        Ok(rustix::net::getpeername(stream).is_ok())
    }

    /// Sends what is to be sent, as far as the socket takes it. True if all is sent.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn send(&mut self) -> io::Result<bool> {
        let Some(stream) = &self.stream else { return Ok(true) };
        while !self.output.is_empty() {
            match rustix::net::send(stream, &self.output, rustix::net::SendFlags::NOSIGNAL) {
                Ok(sent) => drop(self.output.drain(..sent)),
                Err(rustix::io::Errno::AGAIN) => return Ok(false),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// The connection is broken, or floods.
    pub fn receive(&mut self) -> io::Result<()> {
        let Some(stream) = &self.stream else { return Ok(()) };
        let mut chunk = [0; 4096];
        while !self.ended && self.input.len() < INPUT_BYTES_MAX {
            match rustix::io::read(stream, &mut chunk[..]) {
                Ok(0) => self.ended = true,
                Ok(read) => self.input.extend_from_slice(&chunk[..read]),
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// All setups, the oldest first.
#[derive(Default)]
pub struct Setups {
    setups: BTreeMap<u64, Setup>,
    last: u64,
}

impl Setups {
    /// The number for the next one.
    pub fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Keeps it.
    pub fn insert(&mut self, setup: Setup) {
        self.setups.insert(setup.number, setup);
    }

    /// Takes it out.
    pub fn take(&mut self, number: u64) -> Option<Setup> {
        self.setups.remove(&number)
    }

    /// Accepted connections that have not proved themselves.
    pub fn half_open(&self) -> usize {
        self.setups.values().filter(|setup| matches!(setup.phase, Phase::Accepting(_))).count()
    }

    /// The oldest of them.
    pub fn oldest_half_open(&self) -> Option<u64> {
        self.setups
            .values()
            .find(|setup| matches!(setup.phase, Phase::Accepting(_)))
            .map(|setup| setup.number)
    }

    /// The numbers of all.
    pub fn numbers(&self) -> Vec<u64> {
        self.setups.keys().copied().collect()
    }
}
