//! The links that spoke last: who polls looks at these, without asking the system which descriptors are ready.
//!
//! Invariant: no link stands in the list twice, and the list has a bounded length.

use crate::session::LinkId;

/// So often a link is looked at in vain before it is left to its descriptor.
const QUIET_MAX: u32 = 256;

/// A link that spoke lately.
struct Recent {
    id: LinkId,
    /// How often it has been looked at in vain since.
    quiet: u32,
}

/// Those that spoke last, the latest first.
#[derive(Default)]
pub struct Recents {
    list: Vec<Recent>,
}

impl Recents {
    /// As many at most.
    pub const MAX: usize = 8;

    /// It spoke.
    pub fn remember(&mut self, id: LinkId) {
        if let Some(first) = self.list.first_mut().filter(|first| first.id == id) {
            first.quiet = 0;
            return;
        }
        self.forget(id);
        self.list.truncate(Recents::MAX - 1);
        self.list.insert(0, Recent { id, quiet: 0 });
    }

    /// It is no more.
    pub fn forget(&mut self, id: LinkId) {
        self.list.retain(|recent| recent.id != id);
    }

    /// True if it is one of them.
    pub fn has(&self, id: LinkId) -> bool {
        self.list.iter().any(|recent| recent.id == id)
    }

    /// The one at this place.
    pub fn at(&self, place: usize) -> Option<LinkId> {
        self.list.get(place).map(|recent| recent.id)
    }

    /// All have been looked at. Those that stay silent are looked at no more, but for the last that spoke.
    pub fn looked(&mut self) {
        if self.list.len() < 2 {
            return;
        }
        let mut first = true;
        self.list.retain_mut(|recent| {
            recent.quiet += 1;
            std::mem::take(&mut first) || recent.quiet <= QUIET_MAX
        });
    }
}
