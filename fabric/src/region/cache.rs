//! Memory between two uses: what a dropped region leaves is kept for the next, because registering is what costs.
//!
//! Owns memory that no region uses, by size classes (powers of two from 4 KiB). Invariant: it keeps at most `bytes_max`, and hands out only
//! memory that nobody else holds: no span in a link, no transfer, no device of a peer.
//!
//! Memory comes back with the bytes of its former use in it. That stays inside this process, which could read them anyway; whoever grants
//! a region to a peer overwrites it first, or asks for less than it holds.

use super::memory::Memory;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// The smallest class.
const CLASS_BYTES_MIN: usize = 4 << 10;
/// The largest class is 2^CLASSES_MAX times as long: 1 GiB. What is longer is never kept.
const CLASSES_MAX: usize = 19;

struct Kept {
    memory: Arc<Memory>,
    /// When it came, in comings.
    since: u64,
}

/// Memory that waits for its next use.
pub struct Registrations {
    /// The oldest of each class first.
    classes: [VecDeque<Kept>; CLASSES_MAX],
    bytes: usize,
    bytes_max: usize,
    comings: u64,
}

impl Registrations {
    /// Keeps at most so many bytes.
    pub fn new(bytes_max: usize) -> Registrations {
        Registrations { classes: Default::default(), bytes: 0, bytes_max, comings: 0 }
    }

    /// Memory of at least `length` bytes: kept one, registrations and old bytes included, or else new.
    ///
    /// # Errors
    /// The system gives none.
    pub fn obtain(&mut self, length: usize) -> io::Result<Arc<Memory>> {
        let Some(class) = class(length) else { return Memory::new(length) };
        match self.unused(class) {
            Some(memory) => Ok(memory),
            None => Memory::new(CLASS_BYTES_MIN << class),
        }
    }

    /// Takes back the memory of a region that was dropped. Peers' devices lose it at once; if one does not confirm that, the memory
    /// serves no other use. Spans of it may still be about: it is handed out again when the last is gone.
    pub fn give(&mut self, memory: Arc<Memory>) {
        let length = memory.length();
        let class = class(length).filter(|class| CLASS_BYTES_MIN << class == length);
        let Some(class) = class.filter(|_| length <= self.bytes_max) else { return };
        if !memory.conceal() {
            return;
        }
        self.comings += 1;
        self.bytes += length;
        self.classes[class].push_back(Kept { memory, since: self.comings });
        while self.bytes > self.bytes_max {
            self.drop_oldest();
        }
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The latest of a class that nobody else holds: it is the warmest.
    fn unused(&mut self, class: usize) -> Option<Arc<Memory>> {
        let kept = &mut self.classes[class];
        // `get_mut` and not `strong_count`: it orders our next use after the last one of whoever let go.
        let at = kept.iter_mut().rposition(|kept| Arc::get_mut(&mut kept.memory).is_some())?;
        let found = kept.remove(at)?;
        self.bytes -= found.memory.length();
        Some(found.memory)
    }

    fn drop_oldest(&mut self) {
        let age = |class: &&mut VecDeque<Kept>| class.front().map_or(u64::MAX, |kept| kept.since);
        let oldest = self.classes.iter_mut().min_by_key(age).and_then(VecDeque::pop_front);
        match oldest {
            Some(kept) => self.bytes -= kept.memory.length(),
            None => self.bytes = 0,
        }
    }
}

/// The class that holds `length` bytes: the power of two above 4 KiB.
fn class(length: usize) -> Option<usize> {
    let whole = length.max(CLASS_BYTES_MIN).checked_next_power_of_two()?;
    let class = (whole / CLASS_BYTES_MIN).trailing_zeros() as usize;
    (class < CLASSES_MAX).then_some(class)
}

#[cfg(test)]
mod tests {
    use super::super::attachment::{Attachment, DeviceUse};
    use super::super::memory::Span;
    use super::*;

    const K: usize = 1 << 10;

    #[test]
    fn classes_are_powers_of_two() {
        assert_eq!([0, 1, 4 * K, 4 * K + 1, 1 << 30].map(class), [0, 0, 0, 1, 18].map(Some));
        assert_eq!([(1 << 30) + 1, usize::MAX].map(class), [None; 2]);
    }

    #[test]
    fn memory_comes_back_once_nobody_holds_it() {
        let mut kept = Registrations::new(64 * K);
        let memory = kept.obtain(5 * K).unwrap();
        assert_eq!(memory.length(), 8 * K);
        let (span, address) = (Span::of(&memory, 0, 1).unwrap(), memory.address());
        kept.give(memory);
        assert_ne!(kept.obtain(8 * K).unwrap().address(), address, "a link may still write there");
        drop(span);
        assert_eq!(kept.bytes(), 8 * K);
        assert_eq!(kept.obtain(6 * K).unwrap().address(), address);
        assert_eq!(kept.bytes(), 0);
    }

    #[test]
    fn the_oldest_goes_first_when_it_is_too_much() {
        let mut kept = Registrations::new(16 * K);
        let [first, second, third] = [4 * K, 8 * K, 8 * K].map(|length| kept.obtain(length).unwrap());
        let addresses = [second.address(), third.address()];
        for memory in [first, second, third] {
            kept.give(memory);
        }
        assert_eq!(kept.bytes(), 16 * K);
        let again = [kept.obtain(8 * K).unwrap(), kept.obtain(8 * K).unwrap()];
        assert_eq!(again.map(|memory| memory.address()), [addresses[1], addresses[0]]);
        kept.give(Memory::new(32 * K).unwrap());
        assert_eq!(kept.bytes(), 0, "longer than all that may be kept");
    }

    struct Stubborn;

    impl Attachment for Stubborn {
        fn end(&self) -> bool {
            false
        }
    }

    #[test]
    fn memory_that_a_device_does_not_let_go_is_not_used_again() {
        let mut kept = Registrations::new(64 * K);
        let memory = kept.obtain(4 * K).unwrap();
        assert!(memory.attach(DeviceUse { device: 0, exposed: true }, Arc::new(Stubborn)));
        kept.give(memory);
        assert_eq!(kept.bytes(), 0);
    }
}
