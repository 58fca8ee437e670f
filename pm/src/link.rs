//! The connection of a daemon to the `ssi-init` of its node, and the descriptors that come with it.
//!
//! Owns: the socket and the handshake on it. Invariant: a [`Link`] exists only after `ssi-init` said Welcome and handed
//! over as many descriptors as it announced.

use crate::wire::init::{FromInit, Hello, Report, Request, ToInit, VERSION, Welcome};
use base::{FrameError, FrameReader, encode_frame};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Descriptors in one welcome, at most.
const DESCRIPTORS_MAX: usize = 16;
/// How long `ssi-init` may take to say welcome.
const WELCOME_LONGEST: Duration = Duration::from_secs(5);

/// Why there is no link to `ssi-init`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers at the socket.
    #[error("ssi-init does not answer at {path}: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("the connection to ssi-init broke: {0}")]
    Broken(#[from] std::io::Error),
    /// What came is no frame of the conversation.
    #[error("ssi-init sent something that is no frame: {0}")]
    Frame(#[from] FrameError),
    /// The other end speaks another version.
    #[error("ssi-init speaks version {theirs}, this daemon {VERSION}: restart the node's view")]
    Version {
        /// Its version.
        theirs: u32,
    },
    /// The first answer was no welcome, or the descriptors did not come with it.
    #[error("ssi-init's welcome is not complete: {0}")]
    Welcome(&'static str),
}

/// The connection after its handshake.
#[derive(Debug)]
pub struct Link {
    stream: UnixStream,
    reader: FrameReader,
}

impl Link {
    /// Connects to the `ssi-init` that listens at `path`, as `ssid --data` if `data`. Blocks for a few seconds at most.
    /// The descriptors come in the order that `wire::init` names.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn connect(path: &Path, data: bool) -> Result<(Link, Welcome, Vec<OwnedFd>), Error> {
        let refused = |source| Error::Connect { path: path.to_owned(), source };
        Link::greet(UnixStream::connect(path).map_err(refused)?, data)
    }

    /// The handshake on a stream that is connected already.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn greet(mut stream: UnixStream, data: bool) -> Result<(Link, Welcome, Vec<OwnedFd>), Error> {
        stream.set_read_timeout(Some(WELCOME_LONGEST))?;
        let hello = Request::Hello(Hello { version: VERSION, data });
        stream.write_all(&encode_frame(&ToInit { task: None, request_id: 0, request: Some(hello) }))?;
        let (mut reader, mut descriptors) = (FrameReader::default(), Vec::new());
        let first: FromInit = loop {
            if let Some(frame) = reader.next()? {
                break frame;
            }
            reader.push(&receive(&stream, &mut descriptors)?);
        };
        let Some(Report::Welcome(welcome)) = first.report else {
            return Err(Error::Welcome("something else came first"));
        };
        if welcome.version != VERSION {
            return Err(Error::Version { theirs: welcome.version });
        }
        if welcome.descriptors as usize != descriptors.len() {
            return Err(Error::Welcome("descriptors are missing"));
        }
        stream.set_read_timeout(None)?;
        Ok((Link { stream, reader }, welcome, descriptors))
    }

    /// Sends one request; blocks while the socket is full.
    ///
    /// # Errors
    /// [`Error::Broken`]: `ssi-init` is gone.
    pub fn send(&mut self, request: Request) -> Result<(), Error> {
        let frame = encode_frame(&ToInit { task: None, request_id: 0, request: Some(request) });
        Ok(self.stream.write_all(&frame)?)
    }

    /// Waits for the next report. `None`: `ssi-init` closed the connection (it ended, or welcomed another daemon).
    ///
    /// # Errors
    /// See [`Error`].
    pub fn receive(&mut self) -> Result<Option<FromInit>, Error> {
        let mut buffer = vec![0; 16 << 10];
        loop {
            if let Some(frame) = self.reader.next()? {
                return Ok(Some(frame));
            }
            match self.stream.read(&mut buffer)? {
                0 => return Ok(None),
                n => self.reader.push(&buffer[..n]),
            }
        }
    }

    /// The stream and what was read from it beyond the welcome, for an asynchronous shell.
    pub fn into_parts(self) -> (UnixStream, FrameReader) {
        (self.stream, self.reader)
    }
}

/// One read with the descriptors that ride along.
fn receive(stream: &UnixStream, descriptors: &mut Vec<OwnedFd>) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; 16 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        match recvmsg(stream, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            received => break received.map_err(std::io::Error::from)?,
        }
    };
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Err(Error::Welcome("the connection was closed"));
    }
    bytes.truncate(received.bytes);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::io::IoSlice;
    use std::os::fd::AsFd;

    fn welcome(version: u32, descriptors: u32) -> Vec<u8> {
        let welcome = Welcome { version, descriptors, incarnation: 5, fuse_state: vec![1, 2] };
        encode_frame(&FromInit { task: None, request_id: 0, report: Some(Report::Welcome(welcome)) })
    }

    fn send_with(stream: &UnixStream, bytes: &[u8], descriptors: &[std::os::fd::BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
        sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::empty()).unwrap();
    }

    #[test]
    fn a_welcome_brings_its_descriptors_and_loses_nothing_that_follows() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let mut bytes = welcome(VERSION, 2);
        bytes.extend(encode_frame(&FromInit { task: None, request_id: 9, report: Some(Report::Errno(3)) }));
        let (head, tail) = bytes.split_at(7);
        send_with(&theirs, head, &[null.as_fd(), null.as_fd()]);
        theirs.write_all(tail).unwrap();
        let (mut link, welcome, descriptors) = Link::greet(ours, false).unwrap();
        assert_eq!((welcome.incarnation, welcome.fuse_state, descriptors.len()), (5, vec![1, 2], 2));
        assert_eq!(link.receive().unwrap().unwrap().request_id, 9);
    }

    #[test]
    fn a_wrong_welcome_is_refused_with_its_reason() {
        for (answer, why) in [
            (welcome(VERSION + 1, 0), "speaks version"),
            (welcome(VERSION, 3), "descriptors are missing"),
            (vec![0xff; 64], "no frame"),
            (vec![], "closed"),
        ] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(&answer).unwrap();
            theirs.shutdown(std::net::Shutdown::Write).unwrap();
            let error = Link::greet(ours, true).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_missing_socket_is_named() {
        let error = Link::connect(Path::new("/nonexistent/init.sock"), false).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/init.sock"), "{error}");
    }
}
