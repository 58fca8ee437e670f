//! io_uring: receiving into buffers that the kernel chooses, sending memory that the ring owns meanwhile.
//!
//! Invariant: memory that the kernel was told of stays in `flights` or in `pool` until the kernel has said that it is done with it, or the
//! ring is gone and everything in it was cancelled.

use super::Stretch;
use crate::tcp::parcel::Parcel;
use io_uring::types::{BufRingEntry, CancelBuilder, Fd};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use slab::Slab;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// Requests that are handed to the kernel at once.
const ENTRIES: u32 = 256;
/// Completions that may wait; more are kept by the kernel.
const COMPLETIONS: u32 = 4096;
/// Buffers for what is received; a power of two.
const BUFFERS: u16 = 32;
/// Bytes of each.
pub const BUFFER_BYTES: usize = 16 << 10;
/// The number of the one group of buffers.
const GROUP: u16 = 0;
const PAGE: usize = 4096;
/// What a request is for stands in the upper half of its number, whom it concerns in the lower.
const RECEIVE: u64 = 0;
const SEND: u64 = 1 << 32;
const CANCEL: u64 = 2 << 32;

/// One page of buffer descriptions that the kernel reads, and the buffers behind it.
struct Pool {
    start: NonNull<u8>,
    tail: u16,
}

// SAFETY: the mapping belongs to this value alone; whoever holds the ring mutably is the only one in this process who touches it.
unsafe impl Send for Pool {}

impl Pool {
    const BYTES: usize = PAGE + BUFFERS as usize * BUFFER_BYTES;

    fn new() -> io::Result<Pool> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh private mapping where the kernel chooses; it is unmapped once, in drop.
        let start =
            unsafe { mmap_anonymous(std::ptr::null_mut(), Pool::BYTES, protection, MapFlags::PRIVATE) }?;
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mmap gave the null page"))?;
        Ok(Pool { start, tail: 0 })
    }

    fn buffer(&self, number: u16) -> *mut u8 {
        debug_assert!(number < BUFFERS);
        // SAFETY: buffer `number` lies inside the mapping.
        unsafe { self.start.as_ptr().add(PAGE + usize::from(number) * BUFFER_BYTES) }
    }

    /// Lends a buffer to the kernel.
    fn give(&mut self, number: u16) {
        let base = self.start.as_ptr().cast::<BufRingEntry>();
        let address = self.buffer(number) as u64;
        // SAFETY: the page holds BUFFERS descriptions; the kernel reads one only after the tail says so, which is written behind it.
        unsafe {
            let entry = &mut *base.add(usize::from(self.tail & (BUFFERS - 1)));
            entry.set_addr(address);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(number);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(base).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length; the ring that knew of it is gone.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), Pool::BYTES) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours can be unmapped");
    }
}

/// A parcel that the kernel sends.
struct Flight {
    parcel: Parcel,
    stream: usize,
    bytes: usize,
    /// It was not sent whole, which is reported when the kernel reads it no more.
    failed: Option<io::Result<usize>>,
    message: libc::msghdr,
    parts: Vec<libc::iovec>,
}

// SAFETY: the pointers lead into `parts` and into the parcel, both of which the flight owns; only the kernel follows them.
unsafe impl Send for Flight {}

/// What the kernel has done.
pub enum Done {
    /// Something about receiving on this stream.
    Received {
        /// Which.
        stream: usize,
        /// The buffer and the bytes in it, the end (no buffer, no bytes), or what went wrong.
        outcome: io::Result<(Option<u16>, usize)>,
        /// It goes on receiving.
        more: bool,
    },
    /// A parcel of this stream was sent, or a part of it.
    Sent {
        /// Which.
        stream: usize,
        /// Bytes that were sent.
        outcome: io::Result<usize>,
        /// The parcel; `None` if all of it was sent and the kernel still reads it.
        parcel: Option<Parcel>,
    },
}

/// A ring.
pub struct Uring {
    // Dropped in this order: the ring before the memory it knows of.
    ring: IoUring,
    flights: Slab<Box<Flight>>,
    pool: Pool,
}

impl Uring {
    /// A ring and its buffers.
    ///
    /// # Errors
    /// The kernel has none for us: too old, or forbidden.
    pub fn new() -> io::Result<Uring> {
        let ring = IoUring::builder().setup_cqsize(COMPLETIONS).setup_clamp().build(ENTRIES)?;
        let mut pool = Pool::new()?;
        // SAFETY: the page is mapped, aligned, and stays until the ring is gone (order of the fields).
        unsafe {
            ring.submitter().register_buf_ring_with_flags(pool.start.as_ptr() as u64, BUFFERS, GROUP, 0)
        }?;
        (0..BUFFERS).for_each(|number| pool.give(number));
        Ok(Uring { ring, flights: Slab::new(), pool })
    }

    /// Receives on this socket until something says otherwise.
    ///
    /// # Errors
    /// io_uring_enter(2).
    pub fn receive(&mut self, socket: BorrowedFd<'_>, stream: usize) -> io::Result<()> {
        let entry = opcode::RecvMulti::new(Fd(socket.as_raw_fd()), GROUP).build();
        self.push(entry.user_data(RECEIVE | stream as u64))
    }

    /// Sends what of the parcel goes into one call; `zero_copy` without the kernel copying it.
    ///
    /// # Errors
    /// io_uring_enter(2).
    pub fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        stream: usize,
        parcel: Parcel,
        zero_copy: bool,
    ) -> io::Result<()> {
        // SAFETY: a message header of zeroes is one without address, parts and control data.
        let message = unsafe { std::mem::zeroed() };
        let mut flight =
            Box::new(Flight { parcel, stream, bytes: 0, failed: None, message, parts: Vec::new() });
        let parts: Vec<libc::iovec> =
            flight.parcel.places().map(|stretch: Stretch<'_>| stretch.iovec()).collect();
        flight.bytes = parts.iter().map(|part| part.iov_len).sum();
        flight.parts = parts;
        (flight.message.msg_iov, flight.message.msg_iovlen) = (flight.parts.as_mut_ptr(), flight.parts.len());
        let message = &raw const flight.message;
        let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32;
        let socket = Fd(socket.as_raw_fd());
        let entry = if zero_copy {
            opcode::SendMsgZc::new(socket, message).flags(flags).build()
        } else {
            opcode::SendMsg::new(socket, message).flags(flags).build()
        };
        let number = self.flights.insert(flight);
        self.push(entry.user_data(SEND | number as u64))
    }

    /// Stops receiving on this stream; that it stopped is reported.
    ///
    /// # Errors
    /// io_uring_enter(2).
    pub fn cancel(&mut self, stream: usize) -> io::Result<()> {
        let entry = opcode::AsyncCancel::new(RECEIVE | stream as u64).build();
        self.push(entry.user_data(CANCEL))
    }

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        // SAFETY: what the entry points at is in a boxed flight, which stays until its completion came; sockets are only numbers.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.ring.submit()?;
        }
        Ok(())
    }

    /// Hands the kernel what was asked of it.
    ///
    /// # Errors
    /// io_uring_enter(2).
    pub fn submit(&mut self) -> io::Result<()> {
        while !self.ring.submission().is_empty() {
            match self.ring.submit() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(|_| ()),
            }
        }
        Ok(())
    }

    /// The next thing that the kernel has done.
    pub fn next(&mut self) -> Option<Done> {
        loop {
            let Some(entry) = self.ring.completion().next() else {
                // The kernel keeps what did not fit, until it is asked.
                if self.ring.submission().cq_overflow()
                    && self.ring.submit().is_ok()
                    && !self.ring.completion().is_empty()
                {
                    continue;
                }
                return None;
            };
            let (number, flags) = ((entry.user_data() & 0xffff_ffff) as usize, entry.flags());
            let result =
                usize::try_from(entry.result()).map_err(|_| io::Error::from_raw_os_error(-entry.result()));
            match entry.user_data() & !0xffff_ffff {
                RECEIVE => {
                    let outcome = result.map(|bytes| (cqueue::buffer_select(flags), bytes));
                    return Some(Done::Received { stream: number, outcome, more: cqueue::more(flags) });
                }
                SEND if cqueue::notif(flags) => {
                    let Some(flight) = self.flights.try_remove(number) else { continue };
                    if let Some(outcome) = flight.failed {
                        return Some(Done::Sent {
                            stream: flight.stream,
                            outcome,
                            parcel: Some(flight.parcel),
                        });
                    }
                }
                SEND if cqueue::more(flags) => {
                    let Some(flight) = self.flights.get_mut(number) else { continue };
                    if result.as_ref().is_ok_and(|bytes| *bytes == flight.bytes) {
                        return Some(Done::Sent { stream: flight.stream, outcome: result, parcel: None });
                    }
                    flight.failed = Some(result);
                }
                SEND => {
                    let Some(flight) = self.flights.try_remove(number) else { continue };
                    let parcel = Some(flight.parcel);
                    return Some(Done::Sent { stream: flight.stream, outcome: result, parcel });
                }
                _ => {}
            }
        }
    }

    /// What the kernel wrote into a buffer that it has given.
    pub fn bytes(&self, buffer: u16, from: usize, to: usize) -> &[u8] {
        assert!(buffer < BUFFERS && from <= to && to <= BUFFER_BYTES, "only what was received is read");
        // SAFETY: inside the mapping; the kernel has given this buffer and writes there no more until it is lent again.
        unsafe { std::slice::from_raw_parts(self.pool.buffer(buffer).add(from), to - from) }
    }

    /// Lends a buffer that was given to the kernel again.
    pub fn lend(&mut self, buffer: u16) {
        self.pool.give(buffer);
    }
}

impl AsFd for Uring {
    /// Readable while something was done.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring's descriptor is open as long as the ring, which is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        let cancelled = self.ring.submitter().register_sync_cancel(None, CancelBuilder::any());
        let none = cancelled.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if cancelled.is_err() && !none {
            // The kernel may still read them: better lost than changed under its hands.
            std::mem::take(&mut self.flights).into_iter().for_each(|(_, flight)| std::mem::forget(flight));
        }
    }
}
