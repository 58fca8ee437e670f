//! What a device really can: tried out between two queue pairs of its own.
//!
//! Owns: nothing that outlives the trial. Invariant: a device that does something wrong, or not in time, is reported as one that
//! cannot do it; only being unable to try at all is an error.

use super::completion::{CompletionQueue, Completions, Work};
use super::memory::{Access, MemoryRegion, ProtectionDomain};
use super::port::PortAddress;
use super::queue_pair::{QueuePair, QueuePairConfig};
use super::request::{Operation, Request, Source};
use super::srq::{Received, SharedReceiveQueue};
use super::{Atomics, Device, Error};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io::IoSlice;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// Seconds that one operation of a trial may take.
const PATIENCE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };
/// Inline sizes that are tried, the best first.
const INLINE_SIZES: [u32; 4] = [256, 128, 64, 0];
/// Bytes of a receive buffer of a trial.
const SLOT: u32 = 512;

/// What was seen to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Bytes of a request that can go inline; 0 if none.
    pub inline: u32,
    /// Compare-and-swap and fetch-and-add give and leave the right words.
    pub atomics: bool,
    /// A write with an immediate number wakes the other end, with the bytes in place.
    pub write_immediate: bool,
}

/// Tries a device out, at one of its addresses. Takes some round trips, and seconds if the device does not do what it should.
///
/// # Errors
/// `Device` or `TooMuch` if the trial cannot be set up.
pub fn probe(device: &Arc<Device>, own: PortAddress) -> Result<Capabilities, Error> {
    let mut inline = 0;
    for size in INLINE_SIZES.into_iter().filter(|size| *size > 0) {
        // A device that cannot do so much refuses to make the queue pair.
        let Ok(mut trial) = Trial::prepare(device, own, size) else { continue };
        if trial.inline_is_right(size)? {
            inline = size;
            break;
        }
    }
    let write_immediate = Trial::prepare(device, own, 0)?.write_immediate_is_right()?;
    // A trial of its own: what a wrong atomic leaves behind may be a failed connection.
    let claims = device.limits().atomics != Atomics::None;
    let atomics = claims && Trial::prepare(device, own, 0)?.atomics_are_right()?;
    Ok(Capabilities { inline, atomics, write_immediate })
}

/// Two queue pairs that are connected to each other.
struct Trial {
    near: QueuePair,
    far: QueuePair,
    region: MemoryRegion,
    receives: Arc<SharedReceiveQueue>,
    completions: Arc<CompletionQueue>,
}

/// What came of an operation.
#[derive(Default)]
struct Outcome {
    sent: bool,
    received: Option<Received>,
}

impl Trial {
    fn prepare(device: &Arc<Device>, own: PortAddress, inline: u32) -> Result<Self, Error> {
        let domain = ProtectionDomain::create(device)?;
        let completions = CompletionQueue::create(device, 64, 0)?;
        let receives = SharedReceiveQueue::create(&domain, 4, SLOT)?;
        let config =
            QueuePairConfig { depth: 8, segments: 2, inline, signal_every: 1, ..QueuePairConfig::default() };
        let near = QueuePair::create(&domain, &completions, &receives, own, config)?;
        let far = QueuePair::create(&domain, &completions, &receives, own, config)?;
        near.connect(&far.coordinates())?;
        far.connect(&near.coordinates())?;
        let atomic = device.limits().atomics != Atomics::None;
        let region = MemoryRegion::allocate(&domain, 4096, Access { atomic, ..Access::READ_WRITE })?;
        Ok(Self { near, far, region, receives, completions })
    }

    fn inline_is_right(&mut self, size: u32) -> Result<bool, Error> {
        let bytes: Vec<u8> = (0..size).map(|at| at as u8 ^ 0x5a).collect();
        let (head, tail) = bytes.split_at(size as usize / 3);
        let parts = [IoSlice::new(head), IoSlice::new(tail)];
        let send = Operation::Send { from: Source::Inline(&parts), immediate: None };
        let outcome = self.run(send, true)?;
        Ok(outcome.sent && outcome.received.is_some_and(|received| *received == bytes[..]))
    }

    fn write_immediate_is_right(&mut self) -> Result<bool, Error> {
        self.region.word(0)?.store(u64::from_ne_bytes(*b"written!"), SeqCst);
        let from = [self.region.segment(0, 8)?];
        let to = self.region.place().further(1024);
        let write = Operation::Write { from: Source::Regions(&from), to, immediate: Some(0x0102_0304) };
        let outcome = Self::run_on(&mut self.near, &self.completions, &self.receives, write, true)?;
        let there = self.region.word(1024)?.load(SeqCst).to_ne_bytes();
        let told = outcome.received.is_some_and(|received| {
            received.immediate() == Some(0x0102_0304) && received.written() == Some(8)
        });
        Ok(told && there == *b"written!")
    }

    fn atomics_are_right(&mut self) -> Result<bool, Error> {
        let at = self.region.place().further(2048);
        self.region.word(2048)?.store(u64::from(u32::MAX), SeqCst);
        // Each with the old word and the word it leaves: a carry over 32 bits, a swap that fits, one that does not.
        let steps: [(Option<u64>, u64, u64, u64); 3] = [
            (None, 2, 0xffff_ffff, 0x1_0000_0001),
            (Some(0x1_0000_0001), 7 << 40, 0x1_0000_0001, 7 << 40),
            (Some(1), 3, 7 << 40, 7 << 40),
        ];
        for (expected, number, before, after) in steps {
            let old = self.region.segment(0, 8)?;
            let operation = match expected {
                None => Operation::FetchAdd { old, at, add: number },
                Some(expected) => Operation::CompareSwap { old, at, expected, desired: number },
            };
            let outcome = Self::run_on(&mut self.near, &self.completions, &self.receives, operation, false)?;
            let words = (self.region.word(0)?.load(SeqCst), self.region.word(2048)?.load(SeqCst));
            if !outcome.sent || words != (before, after) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn run(&mut self, operation: Operation<'_>, receives: bool) -> Result<Outcome, Error> {
        Self::run_on(&mut self.near, &self.completions, &self.receives, operation, receives)
    }

    /// Posts an operation and waits for its end, and for what arrives if something should.
    fn run_on(
        pair: &mut QueuePair,
        completions: &CompletionQueue,
        queue: &Arc<SharedReceiveQueue>,
        operation: Operation<'_>,
        receives: bool,
    ) -> Result<Outcome, Error> {
        pair.post(&[Request::signalled(operation)])?;
        let (mut outcome, mut news) = (Outcome::default(), Completions::new());
        loop {
            completions.arm()?;
            completions.poll(&mut news)?;
            for completion in news.drain() {
                if completion.outcome().is_err() {
                    return Ok(Outcome::default());
                }
                match completion.work() {
                    Work::Send { sequence } => {
                        pair.completed(sequence);
                        outcome.sent = true;
                    }
                    Work::Receive { .. } => outcome.received = queue.take(completion).ok(),
                }
            }
            if outcome.sent && (outcome.received.is_some() || !receives) {
                return Ok(outcome);
            }
            let mut waiting = [PollFd::from_borrowed_fd(completions.as_fd(), PollFlags::IN)];
            if !matches!(rustix::event::poll(&mut waiting, Some(&PATIENCE)), Ok(1..)) {
                return Ok(Outcome::default());
            }
            completions.acknowledge()?;
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        // Both ends at once, so that neither sends again to one that is gone. What is left is of no interest.
        let _ = (self.near.fail(), self.far.fail());
    }
}
