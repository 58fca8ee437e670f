//! The system calls that move bytes from and into memory which is no Rust slice: regions, and room that holds nothing yet.
#![allow(unsafe_code)]

pub mod uring;

use crate::region::Span;
use bytes::BytesMut;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// The most parts that one call sends.
pub const GATHER_MAX: usize = 32;
const NOTHING: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

/// Bytes that lie behind each other in memory.
pub enum Stretch<'a> {
    /// In Rust's.
    Bytes(&'a [u8]),
    /// In a region's.
    Span(&'a Span),
}

impl Stretch<'_> {
    fn iovec(&self) -> libc::iovec {
        let (start, length) = match self {
            Stretch::Bytes(bytes) => (bytes.as_ptr().cast_mut(), bytes.len()),
            Stretch::Span(span) => (span.address(), span.length()),
        };
        libc::iovec { iov_base: start.cast(), iov_len: length }
    }
}

/// Parts of memory that are sent one after the other. They stay where they are as long as it lives.
pub struct Gather<'a> {
    parts: [libc::iovec; GATHER_MAX],
    count: usize,
    bytes: usize,
    memory: PhantomData<&'a [u8]>,
}

impl<'a> Gather<'a> {
    /// No parts.
    pub fn new() -> Gather<'a> {
        Gather { parts: [NOTHING; GATHER_MAX], count: 0, bytes: 0, memory: PhantomData }
    }

    /// Bytes in all.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// One more part; at most [`GATHER_MAX`].
    pub fn add(&mut self, stretch: Stretch<'a>) {
        let part = stretch.iovec();
        self.parts[self.count] = part;
        self.count += 1;
        self.bytes += part.iov_len;
    }
}

/// Sends as many of the bytes as the socket takes at once.
///
/// # Errors
/// send(2); `WouldBlock` if it takes none.
pub fn send(socket: BorrowedFd<'_>, gather: &Gather<'_>) -> io::Result<usize> {
    const FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    retried(|| {
        if gather.count == 1 {
            let part = gather.parts[0];
            // SAFETY: the part is memory that `gather` borrows; the kernel only reads it, before the call returns.
            return unsafe { libc::send(socket.as_raw_fd(), part.iov_base, part.iov_len, FLAGS) };
        }
        // SAFETY: a message header of zeroes is one without address, parts and control data.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = gather.parts.as_ptr().cast_mut();
        message.msg_iovlen = gather.count;
        // SAFETY: the header names `count` parts of memory that `gather` borrows; the kernel only reads, before the call returns.
        unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, FLAGS) }
    })
}

/// Where received bytes go first.
pub enum Area<'a> {
    /// Nowhere: all of them go to the buffer behind.
    None,
    /// Into this part of a region.
    Span(&'a Span),
    /// To the end of this buffer, so many.
    Fresh(&'a mut BytesMut, usize),
}

/// Receives into the area, and behind it at most `more` bytes to the end of `buffer`, which has room for them. Gives back how many came
/// for the area, and how many behind it.
///
/// # Errors
/// recv(2); `WouldBlock` if there is nothing.
pub fn receive(
    socket: BorrowedFd<'_>,
    area: Area<'_>,
    buffer: &mut BytesMut,
    more: usize,
) -> io::Result<(usize, usize)> {
    let spare = buffer.spare_capacity_mut();
    let behind = libc::iovec { iov_base: spare.as_mut_ptr().cast(), iov_len: more.min(spare.len()) };
    let first = match &area {
        Area::None => NOTHING,
        Area::Span(span) => libc::iovec { iov_base: span.address().cast(), iov_len: span.length() },
        Area::Fresh(fresh, missing) => {
            assert!(*missing <= fresh.capacity() - fresh.len(), "a fresh buffer has room for its record");
            // SAFETY: one past the bytes that are there is still inside the allocation, which has room for `missing` more.
            let end = unsafe { fresh.as_ptr().add(fresh.len()) };
            libc::iovec { iov_base: end.cast_mut().cast(), iov_len: *missing }
        }
    };
    let got = retried(|| {
        if first.iov_len == 0 {
            // SAFETY: `behind` is spare room of `buffer`, borrowed for this call.
            return unsafe {
                libc::recv(socket.as_raw_fd(), behind.iov_base, behind.iov_len, libc::MSG_DONTWAIT)
            };
        }
        let mut parts = [first, behind];
        // SAFETY: a message header of zeroes is one without address, parts and control data.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        (message.msg_iov, message.msg_iovlen) = (parts.as_mut_ptr(), parts.len());
        // SAFETY: the first part is a region's memory (kept alive by the span, written only as raw memory) or spare room of a buffer
        // that is borrowed mutably for this call; the second is spare room of `buffer`, likewise.
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) }
    })?;
    let there = got.min(first.iov_len);
    if let Area::Fresh(fresh, _) = area {
        // SAFETY: the kernel has written `there` bytes to its end.
        unsafe { fresh.set_len(fresh.len() + there) };
    }
    // SAFETY: the kernel has written the rest to the end of `buffer`.
    unsafe { buffer.set_len(buffer.len() + got - there) };
    Ok((there, got - there))
}

/// The round trip that the kernel has measured on a TCP connection; `None` of another stream, or before the first measure.
pub fn round_trip(socket: BorrowedFd<'_>) -> Option<Duration> {
    // SAFETY: all of it are numbers, for which zeroes are good.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `info`, which lives for the call.
    let result = unsafe {
        let info = (&raw mut info).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info, &raw mut length)
    };
    (result == 0 && info.tcpi_rtt > 0).then(|| Duration::from_micros(info.tcpi_rtt.into()))
}

/// Runs a system call again while a signal interrupts it.
fn retried(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(bytes) => return Ok(bytes),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Copies a part of a region to the end of `out`.
pub fn append(span: &Span, out: &mut Vec<u8>) {
    out.reserve(span.length());
    // SAFETY: `out` has room for so many bytes behind its end, all of which are written before its length says so; a region and a Rust
    // allocation never overlap.
    unsafe {
        let end = out.as_mut_ptr().add(out.len());
        std::ptr::copy_nonoverlapping(span.address(), end, span.length());
        out.set_len(out.len() + span.length());
    }
}
