//! Policies: what of a resource a lock is about, and when two locks are in each other's way at all.
//!
//! ```text
//!  PLAIN   the whole                              IBITS   |1|0|1|1|  bits: aspects of one thing
//!  EXTENT  [first, last], required and desired    0 ----[=====required=====]------------> 2^64 - 1
//!                                                   [---------- desired ----------]
//! ```
//!
//! Invariant: a scope that has passed [`Scope::is_sound`] is not empty. All locks of one resource have one policy.

/// Which kind of scopes a resource's locks have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Each lock is about the whole resource (VMS).
    Plain,
    /// Sets of aspects.
    Bits,
    /// Ranges.
    Extent,
}

/// Numbers from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

impl Span {
    /// All numbers.
    pub const ALL: Span = Span { first: 0, last: u64::MAX };

    /// True if they have a number in common.
    pub const fn meets(self, other: Span) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The smallest range that holds both.
    pub fn hull(self, other: Span) -> Span {
        Span { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    /// True if all of `other` is in this one.
    pub const fn holds(self, other: Span) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

/// What of a resource a lock is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The whole.
    Plain,
    /// These aspects.
    Bits(u64),
    /// This range; in a request: required, see [`Scope::Extent::desired`].
    Extent {
        /// What is needed, or, in a grant, what is had.
        span: Span,
        /// What is liked: holds `span`. In a grant the same as `span`.
        desired: Span,
    },
}

impl Scope {
    /// A range without a wish for more.
    pub const fn extent(first: u64, last: u64) -> Scope {
        let span = Span { first, last };
        Scope::Extent { span, desired: span }
    }

    /// Its policy.
    pub const fn policy(self) -> Policy {
        match self {
            Scope::Plain => Policy::Plain,
            Scope::Bits(_) => Policy::Bits,
            Scope::Extent { .. } => Policy::Extent,
        }
    }

    /// True if it is about something, and desires no less than it requires.
    pub const fn is_sound(self) -> bool {
        match self {
            Scope::Plain => true,
            Scope::Bits(bits) => bits != 0,
            Scope::Extent { span, desired } => span.first <= span.last && desired.holds(span),
        }
    }

    /// True if the two are about something in common. Only for scopes of one policy.
    pub const fn meets(self, other: Scope) -> bool {
        match (self, other) {
            (Scope::Bits(one), Scope::Bits(other)) => one & other != 0,
            (Scope::Extent { span: one, .. }, Scope::Extent { span: other, .. }) => one.meets(other),
            _ => true,
        }
    }

    /// True if `other` is about nothing that this one is not about.
    pub const fn holds(self, other: Scope) -> bool {
        match (self, other) {
            (Scope::Plain, Scope::Plain) => true,
            (Scope::Bits(one), Scope::Bits(other)) => one & other == other,
            (Scope::Extent { span: one, .. }, Scope::Extent { span: other, .. }) => one.holds(other),
            _ => false,
        }
    }

    /// The range, everything for scopes that have none.
    pub const fn span(self) -> Span {
        match self {
            Scope::Extent { span, .. } => span,
            _ => Span::ALL,
        }
    }
}
