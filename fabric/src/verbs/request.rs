//! What is asked of a queue pair, and how it is said to the library.
//!
//! Owns: nothing. Invariant: a request borrows everything that the processor reads while it is posted (inline
//! bytes, lists of segments, the regions behind them), so nothing of it can be gone before `post` returns; what the device
//! reads later is guarded by its registration.

use super::Error;
use super::completion::Work;
use super::ffi::{self, SendWr, Sge, Target};
use super::memory::{RemotePlace, Segment};
use std::io::IoSlice;

/// Where the bytes of a request come from.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// The device reads them from regions, after the posting.
    Regions(&'a [Segment<'a>]),
    /// The processor copies them into the request. Short ones only; the memory is free again at once.
    Inline(&'a [IoSlice<'a>]),
}

/// What is to be done.
#[derive(Clone, Copy)]
pub enum Operation<'a> {
    /// A message into one of the peer's receive buffers.
    Send {
        /// The message.
        from: Source<'a>,
        /// A number to go with it.
        immediate: Option<u32>,
    },
    /// Bytes into a peer's region. With an immediate number it takes one of the peer's receive buffers and wakes it.
    Write {
        /// The bytes.
        from: Source<'a>,
        /// Their place there.
        to: RemotePlace,
        /// The number.
        immediate: Option<u32>,
    },
    /// Bytes from a peer's region.
    Read {
        /// Where to put them.
        into: &'a [Segment<'a>],
        /// Their place there.
        from: RemotePlace,
    },
    /// Replaces an aligned word in a peer's region if it is `expected`. What it was comes into `old` (8 bytes).
    CompareSwap {
        /// Where to put what it was.
        old: Segment<'a>,
        /// The word.
        at: RemotePlace,
        /// What it must be.
        expected: u64,
        /// What it becomes.
        desired: u64,
    },
    /// Adds to an aligned word in a peer's region. What it was comes into `old` (8 bytes).
    FetchAdd {
        /// Where to put what it was.
        old: Segment<'a>,
        /// The word.
        at: RemotePlace,
        /// What is added, wrapping.
        add: u64,
    },
}

/// One request.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// What is to be done.
    pub operation: Operation<'a>,
    /// Tell its completion. Others are told now and then, and stand for all before them.
    pub signalled: bool,
    /// Begin only when the reads and atomics before it are done.
    pub fenced: bool,
}

impl<'a> Request<'a> {
    /// A request whose completion is told.
    pub fn signalled(operation: Operation<'a>) -> Self {
        Self { operation, signalled: true, fenced: false }
    }

    /// A request whose completion matters to nobody.
    pub fn quiet(operation: Operation<'a>) -> Self {
        Self { operation, signalled: false, fenced: false }
    }

    pub(super) fn segments(&self) -> usize {
        match self.operation {
            Operation::Send { from, .. } | Operation::Write { from, .. } => match from {
                Source::Regions(segments) => segments.len(),
                Source::Inline(parts) => parts.len(),
            },
            Operation::Read { into, .. } => into.len(),
            Operation::CompareSwap { .. } | Operation::FetchAdd { .. } => 1,
        }
    }

    fn inline_length(&self) -> Option<usize> {
        match self.operation {
            Operation::Send { from: Source::Inline(parts), .. }
            | Operation::Write { from: Source::Inline(parts), .. } => {
                Some(parts.iter().map(|part| part.len()).sum())
            }
            _ => None,
        }
    }

    /// Whether a queue pair with these limits can take it.
    pub(super) fn check(&self, segments_max: usize, inline_max: usize) -> Result<(), Error> {
        let segments = self.segments();
        if segments > segments_max {
            return Err(Error::TooMuch {
                what: "segments of a request",
                value: segments,
                limit: segments_max,
            });
        }
        if let Some(length) = self.inline_length().filter(|length| *length > inline_max) {
            return Err(Error::TooMuch {
                what: "inline bytes of a request",
                value: length,
                limit: inline_max,
            });
        }
        if let Operation::CompareSwap { old, .. } | Operation::FetchAdd { old, .. } = self.operation
            && old.raw.length != 8
        {
            let value = old.raw.length as usize;
            return Err(Error::TooMuch { what: "bytes of an atomic's old word", value, limit: 8 });
        }
        Ok(())
    }

    /// Writes its segments into `into`, which has room for them; tells how many.
    pub(super) fn write_segments(&self, into: &mut [Sge]) -> usize {
        let registered = |segments: &[Segment<'_>], into: &mut [Sge]| {
            into.iter_mut().zip(segments).for_each(|(to, from)| *to = from.raw);
        };
        match self.operation {
            Operation::Send { from, .. } | Operation::Write { from, .. } => match from {
                Source::Regions(segments) => registered(segments, into),
                Source::Inline(parts) => into.iter_mut().zip(parts).for_each(|(to, from)| {
                    // `check` has limited the length to what a queue pair takes inline.
                    *to = Sge { addr: from.as_ptr().addr() as u64, length: from.len() as u32, lkey: 0 };
                }),
            },
            Operation::Read { into: segments, .. } => registered(segments, into),
            Operation::CompareSwap { old, .. } | Operation::FetchAdd { old, .. } => registered(&[old], into),
        }
        self.segments()
    }

    /// What the library is told, with `segments` at `list`, as the request number `sequence`.
    pub(super) fn work_request(&self, sequence: u64, list: *mut Sge, signal: bool) -> SendWr {
        let (opcode, immediate, target) = self.code();
        let flag = |wanted: bool, flag: u32| if wanted { flag } else { 0 };
        SendWr {
            wr_id: Work::Send { sequence }.identity(),
            next: std::ptr::null_mut(),
            sg_list: list,
            num_sge: self.segments() as i32,
            opcode,
            send_flags: flag(signal, ffi::SEND_SIGNALED)
                | flag(self.fenced, ffi::SEND_FENCE)
                | flag(self.inline_length().is_some(), ffi::SEND_INLINE),
            imm_data: immediate.to_be(),
            target,
            xrc_srqn: 0,
            _bind_mw: [0; 6],
        }
    }

    fn code(&self) -> (u32, u32, Target) {
        let rdma = |place: RemotePlace| Target::rdma(place.address, place.key);
        match self.operation {
            Operation::Send { immediate: None, .. } => (ffi::WR_SEND, 0, Target::NONE),
            Operation::Send { immediate: Some(number), .. } => (ffi::WR_SEND_WITH_IMM, number, Target::NONE),
            Operation::Write { to, immediate: None, .. } => (ffi::WR_RDMA_WRITE, 0, rdma(to)),
            Operation::Write { to, immediate: Some(number), .. } => {
                (ffi::WR_RDMA_WRITE_WITH_IMM, number, rdma(to))
            }
            Operation::Read { from, .. } => (ffi::WR_RDMA_READ, 0, rdma(from)),
            Operation::CompareSwap { at, expected, desired, .. } => {
                (ffi::WR_ATOMIC_CMP_AND_SWP, 0, Target::atomic(at.address, at.key, expected, desired))
            }
            Operation::FetchAdd { at, add, .. } => {
                (ffi::WR_ATOMIC_FETCH_AND_ADD, 0, Target::atomic(at.address, at.key, add, 0))
            }
        }
    }
}
