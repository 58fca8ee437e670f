//! An arena: entries by index, and ids that go stale when their entry goes.
//!
//! ```text
//!  id   | serial: 40 bits | index: 24 bits |      the serial grows each time the place is used again
//! ```
//!
//! Invariant: an id names at most one entry ever; entries that are freed are used again, so a table in steady state allocates nothing.

use std::ops::{Index, IndexMut};

/// No entry.
pub const NONE: u32 = u32::MAX;
const INDEX_BITS: u32 = 24;
/// Entries at most.
pub const ENTRIES_MAX: u32 = (1 << INDEX_BITS) - 1;

#[derive(Clone, Debug)]
struct Slot<T> {
    serial: u64,
    next_free: u32,
    entry: Option<T>,
}

/// The arena.
#[derive(Clone, Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: u32,
    count: u32,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { slots: Vec::new(), free: NONE, count: 0 }
    }
}

impl<T> Slab<T> {
    /// How many entries there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Puts `entry` in. The caller keeps [`Slab::count`] below [`ENTRIES_MAX`].
    pub fn insert(&mut self, entry: T) -> u32 {
        self.count += 1;
        if self.free == NONE {
            let index = self.slots.len() as u32;
            assert!(index < ENTRIES_MAX, "the table keeps its limits, which are smaller");
            self.slots.push(Slot { serial: 1, next_free: NONE, entry: Some(entry) });
            return index;
        }
        let index = self.free;
        let slot = &mut self.slots[index as usize];
        self.free = slot.next_free;
        slot.entry = Some(entry);
        index
    }

    /// Drops the entry at `index`; its id is stale from now on. (Entries are large: it is not moved out.)
    pub fn remove(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.entry.is_some(), "only live entries are removed");
        slot.entry = None;
        slot.serial += 1;
        slot.next_free = self.free;
        self.free = index;
        self.count -= 1;
    }

    /// The id of the entry at `index`.
    pub fn id(&self, index: u32) -> u64 {
        self.slots[index as usize].serial << INDEX_BITS | u64::from(index)
    }

    /// The entry that `id` names, if it is still there.
    pub fn find(&self, id: u64) -> Option<u32> {
        let index = (id & u64::from(ENTRIES_MAX)) as u32;
        let slot = self.slots.get(index as usize)?;
        (slot.serial == id >> INDEX_BITS && slot.entry.is_some()).then_some(index)
    }

    /// All entries by index.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| Some((index as u32, slot.entry.as_ref()?)))
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;
    fn index(&self, index: u32) -> &T {
        self.slots[index as usize].entry.as_ref().expect("indices are kept only of live entries")
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        self.slots[index as usize].entry.as_mut().expect("indices are kept only of live entries")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_stale_once_its_entry_is_gone() {
        let mut slab = Slab::default();
        let first = slab.insert('a');
        let id = slab.id(first);
        assert_eq!(slab.find(id), Some(first));
        slab.remove(first);
        assert_eq!(slab.find(id), None);
        let second = slab.insert('b');
        assert_eq!(first, second);
        assert_eq!(slab.find(id), None);
        assert_ne!(slab.id(second), id);
        assert_eq!(slab.find(u64::MAX), None);
    }
}
