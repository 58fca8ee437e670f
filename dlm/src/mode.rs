//! The six modes of a lock: which go together, and which conversion moves the value block.
//!
//! ```text
//!              wanted   NL  CR  CW  PR  PW  EX
//!  granted  NL           +   +   +   +   +   +       NL  null: holds a place
//!           CR           +   +   +   +   +   .       CR  concurrent read
//!           CW           +   +   +   .   .   .       CW  concurrent write
//!           PR           +   +   .   +   .   .       PR  protected read
//!           PW           +   +   .   .   .   .       PW  protected write
//!           EX           +   .   .   .   .   .       EX  exclusive
//!
//!  strength:   NL < CR < CW, PR < PW < EX            CW and PR: neither covers the other, their meet is CR
//! ```
//!
//! Invariant: the matrix is symmetric, and a stronger mode goes with no more than a weaker one.

use std::fmt;

/// What a lock allows its holder, and thereby forbids others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Mode {
    /// Null: interest without access; keeps the resource and its value alive.
    NL = 0,
    /// Concurrent read: others may write.
    CR = 1,
    /// Concurrent write: others may write.
    CW = 2,
    /// Protected read: nobody writes.
    PR = 3,
    /// Protected write: nobody else writes, others read in CR.
    PW = 4,
    /// Exclusive.
    EX = 5,
}

use Mode::{CR, CW, EX, NL, PR, PW};

/// What a grant does with the value block, if the caller wants it (VALBLK).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueMove {
    /// Nothing.
    Stays,
    /// The grant carries the resource's value.
    Read,
    /// The resource takes the caller's value.
    Write,
}

/// For each mode those that do not go with it.
const CONFLICTS: [ModeSet; 6] = [
    ModeSet::of(&[]),
    ModeSet::of(&[EX]),
    ModeSet::of(&[PR, PW, EX]),
    ModeSet::of(&[CW, PW, EX]),
    ModeSet::of(&[CW, PR, PW, EX]),
    ModeSet::of(&[CR, CW, PR, PW, EX]),
];

impl Mode {
    /// All modes, weakest first.
    pub const ALL: [Mode; 6] = [NL, CR, CW, PR, PW, EX];

    /// The mode with libdlm's number `number` (0 to 5).
    pub fn from_number(number: u32) -> Option<Mode> {
        Mode::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// The modes that do not go with this one.
    pub const fn conflicts(self) -> ModeSet {
        CONFLICTS[self as usize]
    }

    /// True if two locks on the same thing may have these modes at once.
    pub const fn goes_with(self, other: Mode) -> bool {
        !self.conflicts().has(other)
    }

    /// True if a holder of this mode may do all that `other` allows.
    pub const fn covers(self, other: Mode) -> bool {
        self as u8 >= other as u8 && !matches!((self, other), (PR, CW))
    }

    /// The strongest mode that both cover: what a holder may rely on while it converts from one to the other.
    pub const fn meet(self, other: Mode) -> Mode {
        match (self.covers(other), other.covers(self)) {
            (true, _) => other,
            (_, true) => self,
            _ => CR,
        }
    }

    /// The weakest mode that covers both.
    pub const fn join(self, other: Mode) -> Mode {
        match (self.covers(other), other.covers(self)) {
            (true, _) => self,
            (_, true) => other,
            _ => PW,
        }
    }

    /// True for the modes whose holder may change the value block.
    pub const fn writes_value(self) -> bool {
        matches!(self, PW | EX)
    }

    /// True if a conversion from this mode to `wanted` may be told to queue (QUECVT): it asks for more, or for something else.
    pub const fn may_queue(self, wanted: Mode) -> bool {
        !self.covers(wanted)
    }
}

/// What a grant of `wanted` moves, for a lock that has `granted` until then (`None`: a new lock).
///
/// ```text
///  granted \ wanted  NL  CR  CW  PR  PW  EX
///  (new)             r   r   r   r   r   r
///  NL                r   r   r   r   r   r
///  CR                .   r   r   r   r   r
///  CW                .   .   r   r   r   r
///  PR                .   .   .   r   r   r
///  PW                w   w   w   w   w   r
///  EX                w   w   w   w   w   w
/// ```
pub fn value_move(granted: Option<Mode>, wanted: Mode) -> ValueMove {
    match granted {
        None => ValueMove::Read,
        Some(EX) => ValueMove::Write,
        Some(PW) if wanted != EX => ValueMove::Write,
        Some(granted) if wanted >= granted => ValueMove::Read,
        Some(_) => ValueMove::Stays,
    }
}

/// A set of modes.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct ModeSet(u8);

impl ModeSet {
    /// The set of these.
    pub const fn of(modes: &[Mode]) -> ModeSet {
        let (mut bits, mut at) = (0, 0);
        while at < modes.len() {
            bits |= 1 << modes[at] as u8;
            at += 1;
        }
        ModeSet(bits)
    }

    /// True if `mode` is in it.
    pub const fn has(self, mode: Mode) -> bool {
        self.0 & (1 << mode as u8) != 0
    }

    /// True if nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is in both.
    pub const fn and(self, other: ModeSet) -> ModeSet {
        ModeSet(self.0 & other.0)
    }

    /// True if all of `other` is in this one.
    pub const fn has_all(self, other: ModeSet) -> bool {
        self.0 & other.0 == other.0
    }

    /// Puts `mode` in.
    pub fn insert(&mut self, mode: Mode) {
        self.0 |= 1 << mode as u8;
    }

    /// Takes `mode` out.
    pub fn remove(&mut self, mode: Mode) {
        self.0 &= !(1 << mode as u8);
    }

    /// Its modes, strongest first.
    pub fn strongest_first(self) -> impl Iterator<Item = Mode> {
        Mode::ALL.into_iter().rev().filter(move |mode| self.has(*mode))
    }
}

impl fmt::Debug for ModeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.strongest_first()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The matrix as the module's drawing has it.
    const DRAWN: [&str; 6] = ["++++++", "+++++.", "+++...", "++.+..", "++....", "+....."];

    fn pairs() -> impl Iterator<Item = (Mode, Mode)> {
        Mode::ALL.into_iter().flat_map(|one| Mode::ALL.map(|other| (one, other)))
    }

    #[test]
    fn the_matrix_is_the_one_that_is_drawn() {
        for (granted, wanted) in pairs() {
            let drawn = DRAWN[granted as usize].as_bytes()[wanted as usize] == b'+';
            assert_eq!(granted.goes_with(wanted), drawn, "{granted:?} {wanted:?}");
            assert_eq!(granted.goes_with(wanted), wanted.goes_with(granted));
        }
    }

    #[test]
    fn a_mode_that_covers_another_conflicts_with_at_least_as_much() {
        for (one, other) in pairs() {
            assert_eq!(one.covers(other), one.conflicts().has_all(other.conflicts()), "{one:?} {other:?}");
        }
    }

    #[test]
    fn meet_and_join_are_the_nearest_bounds() {
        for (one, other) in pairs() {
            let (meet, join) = (one.meet(other), one.join(other));
            assert!(one.covers(meet) && other.covers(meet) && join.covers(one) && join.covers(other));
            for third in Mode::ALL {
                assert!(!(one.covers(third) && other.covers(third)) || meet.covers(third));
                assert!(!(third.covers(one) && third.covers(other)) || third.covers(join));
            }
        }
    }

    #[test]
    fn the_value_moves_as_drawn() {
        let drawn = ["rrrrrr", ".rrrrr", "..rrrr", "...rrr", "wwwwwr", "wwwwww"];
        for (granted, wanted) in pairs() {
            let moves = match drawn[granted as usize].as_bytes()[wanted as usize] {
                b'r' => ValueMove::Read,
                b'w' => ValueMove::Write,
                _ => ValueMove::Stays,
            };
            assert_eq!(value_move(Some(granted), wanted), moves, "{granted:?} {wanted:?}");
        }
    }

    #[test]
    fn what_writes_the_value_never_waits() {
        for (granted, wanted) in pairs() {
            if value_move(Some(granted), wanted) == ValueMove::Write {
                assert!(!granted.may_queue(wanted) && granted.conflicts().has_all(wanted.conflicts()));
            }
        }
    }
}
