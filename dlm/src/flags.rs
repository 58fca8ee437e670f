//! What a request may ask for besides a mode. The numbers are libdlm's (`linux/dlmconstants.h`), so that its programs pass theirs on.

use std::ops::BitOr;

/// A set of flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct Flags(pub u32);

impl Flags {
    /// None.
    pub const NONE: Flags = Flags(0);
    /// Do not wait: refuse (`Again`) what cannot be granted at once.
    pub const NOQUEUE: Flags = Flags(0x0001);
    /// Move the value block (see [`crate::mode::value_move`]).
    pub const VALBLK: Flags = Flags(0x0008);
    /// Conversion: stand behind other waiting conversions, even if it could be granted in place.
    pub const QUECVT: Flags = Flags(0x0010);
    /// Where the value would be written: mark it not valid instead.
    pub const IVVALBLK: Flags = Flags(0x0020);
    /// Conversion: in a conversion deadlock give up the granted mode (for NL) and wait on, rather than be refused.
    pub const CONVDEADLK: Flags = Flags(0x0040);
    /// The lock outlives its owner: it becomes an orphan.
    pub const PERSISTENT: Flags = Flags(0x0080);
    /// This wait is never the victim of a deadlock, and is not looked at when one is searched for.
    pub const NODLCKWT: Flags = Flags(0x0100);
    /// The holder gives way when called back: nobody who waits for it counts as deadlocked by it.
    pub const NODLCKBLK: Flags = Flags(0x0200);
    /// New NL lock: grant at once, whoever waits.
    pub const EXPEDITE: Flags = Flags(0x0400);
    /// With NOQUEUE: tell those who are in the way all the same.
    pub const NOQUEUEBAST: Flags = Flags(0x0800);
    /// Wait at the head of the queue; so nobody in that queue is a reason to wait.
    pub const HEADQUE: Flags = Flags(0x1000);
    /// Grant as soon as no granted lock is in the way, whoever waits.
    pub const NOORDER: Flags = Flags(0x2000);
    /// Adopt the orphan of this name and mode.
    pub const ORPHAN: Flags = Flags(0x4000);
    /// If the mode cannot be granted at once, PR will do.
    pub const ALTPR: Flags = Flags(0x8000);
    /// If the mode cannot be granted at once, CW will do.
    pub const ALTCW: Flags = Flags(0x1_0000);
    /// Unlock even if it waits, converts, or has locks below it.
    pub const FORCEUNLOCK: Flags = Flags(0x2_0000);
    /// The request has a deadline.
    pub const TIMEOUT: Flags = Flags(0x4_0000);
    /// (ours) The lock guards shared storage: after its node's death it is given on only when that node can touch nothing any more.
    pub const GUARD: Flags = Flags(0x100_0000);
    /// (ours) Conversion: while it waits, other conversions pass it as if it were not there. New requests stand behind it all the same.
    pub const YIELD: Flags = Flags(0x200_0000);
    /// (ours) The table does not grant it: somebody else decides, see [`crate::Event::Allow`] and [`crate::Event::Deny`].
    pub const AWAIT: Flags = Flags(0x400_0000);

    /// These without `other`.
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }

    /// True if all of `other` is set.
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// True if any of `other` is set.
    pub const fn has_any(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}
