//! Messages with descriptors over the Unix socket of a link.
//!
//! Invariant: a message comes whole and with its descriptors, or is an error; descriptors that nobody takes are closed.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The most descriptors that one message has.
const DESCRIPTORS_MAX: usize = 3;

/// Sends a message of a few bytes and up to three descriptors.
///
/// # Errors
/// sendmsg(2); `WouldBlock` if the other end has not read what was sent before.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("more descriptors than a message may have"));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let sent = sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags)?;
    // The kernel queues a message of one page whole or not at all.
    (sent == bytes.len()).then_some(()).ok_or_else(|| io::Error::other("a message was sent in part"))
}

/// The next message of `N` bytes and its descriptors; `None` if none has come yet.
///
/// # Errors
/// recvmsg(2); `UnexpectedEof` if the other end is gone; `InvalidData` if it sent something else.
pub fn receive<const N: usize>(socket: impl AsFd) -> io::Result<Option<([u8; N], Vec<OwnedFd>)>> {
    let mut bytes = [0; N];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
        Ok(message) => message.bytes,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    match received {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other end closed the socket")),
        length if length == N => Ok(Some((bytes, descriptors))),
        _ => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "the other end sent a message of another length"))
        }
    }
}
