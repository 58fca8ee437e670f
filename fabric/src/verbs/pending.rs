//! A connection between two queue pairs that is being set up.
//!
//! ```text
//!  dialling end                                          accepting end
//!  made; Open { queue pair }        -- sealed, TCP -->   made, connected
//!  connected                        <-- sealed, TCP --   Welcome { queue pair }
//!  a message without bytes          ---- the device -->
//!  its acknowledgement: the path carries, the link begins
//! ```
//!
//! The TCP connection over which both ends have proved themselves stays open as the link's life line: who closes it, or dies, ends
//! the link. What the device carries has neither encryption nor a MAC, whatever `Security` says: RDMA is for networks that are trusted.
//!
//! Invariant: the numbers of the other end are checked before the device sees them.

use super::adapter::Adapter;
use super::completion::{Completion, CompletionQueue, Completions, Work};
use super::connection::Coordinates;
use super::memory::{Access, MemoryRegion};
use super::outgoing::WORKS_MAX;
use super::pool::Promise;
use super::port::Mtu;
use super::queue_pair::{QueuePair, QueuePairConfig};
use super::request::{Operation, Request, Source};
use super::{Error, SLOT_BYTES};
use crate::session::Lane;
use crate::setup;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Messages without bytes that may be under way besides those that were promised: one when the path is tried, and one for each half of
/// what was promised.
const WORDS_MAX: u32 = 4;
/// Requests of a queue pair.
const DEPTH: u32 = 128;
/// Bytes that a request should carry inline; the first that the device takes.
const INLINE_BYTES: [u32; 4] = [256, 128, 64, 0];
/// Messages that an end of another program may promise at most.
const PROMISED_MAX: u32 = 4096;

/// What each lane has.
struct Sizes {
    /// Messages that may be under way to this end.
    promised: u32,
    /// Messages that may be under way from it, if they are not short.
    slots: usize,
}

fn sizes(lane: Lane) -> Sizes {
    match lane {
        Lane::Urgent => Sizes { promised: 32, slots: 16 },
        Lane::Bulk => Sizes { promised: 64, slots: 32 },
    }
}

/// A connection that is being set up.
pub struct Pending {
    pub(super) adapter: Arc<Adapter>,
    pub(super) pair: QueuePair,
    pub(super) slots: MemoryRegion,
    pub(super) completions: Arc<CompletionQueue>,
    pub(super) promise: Promise,
    /// The device says that it has failed.
    pub(super) failed: Arc<AtomicBool>,
    pub(super) promised: u32,
    /// Messages that the other end promises to take.
    pub(super) allowed: u32,
    /// The other end's number for its rail.
    pub(super) their_rail: u8,
    /// The path has been seen to carry.
    pub(super) through: bool,
    /// What came while the path was tried: the other end may speak as soon as it has heard this one.
    pub(super) early: Vec<Completion>,
    rail: u8,
}

impl Pending {
    /// This end's half, on its rail of this number.
    ///
    /// # Errors
    /// The port is down, or the device or the memory does not suffice.
    pub fn new(adapter: &Arc<Adapter>, rail: u8, lane: Lane) -> Result<Pending, Error> {
        let Sizes { promised, slots } = sizes(lane);
        let own = adapter.address()?;
        let promise = adapter.promise(promised + WORDS_MAX)?;
        let completions = CompletionQueue::create(adapter.device(), DEPTH + promise.slots(), 0)?;
        let slots = MemoryRegion::allocate(adapter.domain(), slots * SLOT_BYTES, Access::LOCAL)?;
        let mut number = [0; 4];
        getrandom::fill(&mut number).expect("the kernel has randomness once it has booted");
        let make = |inline: u32| {
            let config = QueuePairConfig {
                depth: DEPTH,
                segments: 2,
                inline,
                timeout_power: 15,
                first_packet: u32::from_le_bytes(number),
                ..QueuePairConfig::default()
            };
            QueuePair::create(adapter.domain(), &completions, promise.queue(), own, config)
        };
        // A device that cannot do so much refuses to make the queue pair.
        let [first, others @ ..] = INLINE_BYTES;
        let pair = others.into_iter().fold(make(first), |made, inline| made.or_else(|_| make(inline)))?;
        let failed = adapter.enter(pair.number());
        Ok(Pending {
            adapter: adapter.clone(),
            pair,
            slots,
            completions,
            promise,
            failed,
            promised,
            allowed: 0,
            their_rail: 0,
            through: false,
            early: Vec::new(),
            rail,
        })
    }

    /// What the other end must know of it.
    pub fn terms(&self) -> setup::QueuePair {
        let own = self.pair.coordinates();
        setup::QueuePair {
            number: own.number,
            first_packet: own.first_packet,
            gid: own.gid.to_vec(),
            lid: u32::from(own.lid),
            mtu: u32::from(own.mtu.code()),
            receives: self.promised,
            rail: u32::from(self.rail),
            reads: u32::from(own.reads_served),
        }
    }

    /// Connects it to the other end's half.
    ///
    /// # Errors
    /// What the other end told makes no sense, or its address cannot be reached.
    pub fn connect(&mut self, theirs: &setup::QueuePair) -> Result<(), Error> {
        let (coordinates, rail) = checked(theirs)
            .ok_or_else(|| Error::Unavailable { why: "the other end's queue pair is none".to_owned() })?;
        self.pair.connect(&coordinates)?;
        (self.allowed, self.their_rail) = (theirs.receives, rail);
        Ok(())
    }

    /// Sends a message without bytes, so that its acknowledgement shows that the path carries.
    ///
    /// # Errors
    /// The device does not take it.
    pub fn try_path(&mut self) -> Result<(), Error> {
        let send = Operation::Send { from: Source::Regions(&[]), immediate: Some(0) };
        self.pair.post(&[Request::signalled(send)]).map(drop)
    }

    /// True once the path has been seen to carry; else this half's descriptor will be readable when there is news.
    ///
    /// # Errors
    /// It does not carry.
    pub fn is_through(&mut self) -> Result<bool, Error> {
        let mut news = Completions::new();
        self.completions.acknowledge()?;
        self.completions.arm()?;
        self.completions.poll(&mut news)?;
        for completion in news.drain() {
            completion.outcome().map_err(|failure| Error::Unavailable {
                why: format!("nothing comes through on the RDMA path: {failure}"),
            })?;
            match completion.work() {
                Work::Send { sequence } => {
                    self.pair.completed(sequence);
                    self.through = true;
                }
                Work::Receive { .. } => self.early.push(completion),
            }
        }
        Ok(self.through)
    }
}

impl AsFd for Pending {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.completions.as_fd()
    }
}

/// What the other end says of its half, if it can be true.
fn checked(theirs: &setup::QueuePair) -> Option<(Coordinates, u8)> {
    let coordinates = Coordinates {
        number: Some(theirs.number).filter(|number| *number < 1 << 24)?,
        first_packet: theirs.first_packet,
        gid: theirs.gid.as_slice().try_into().ok()?,
        lid: u16::try_from(theirs.lid).ok()?,
        mtu: Mtu::from_code(u8::try_from(theirs.mtu).ok()?)?,
        reads_served: u8::try_from(theirs.reads).ok()?,
    };
    let rail = u8::try_from(theirs.rail).ok()?;
    (1..=PROMISED_MAX).contains(&theirs.receives).then_some((coordinates, rail))
}

// Of a queue's places each kind of request has its share.
const _: () = assert!(DEPTH as usize >= 64 + 16 + WORKS_MAX + WORDS_MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_another_end_says_is_taken_only_if_it_can_be_true(
            number: u32, mtu in 0u32..8, gid in 14usize..18, receives in 0u32..5000, rail in 0u32..300,
        ) {
            let theirs = setup::QueuePair {
                number, mtu, receives, rail, gid: vec![0; gid], first_packet: 0, lid: 0, reads: 16,
            };
            let possible = number < 1 << 24 && (1..=5).contains(&mtu) && gid == 16
                && (1..=PROMISED_MAX).contains(&receives) && rail < 256;
            prop_assert_eq!(checked(&theirs).is_some(), possible);
        }
    }
}
