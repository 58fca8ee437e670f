//! Bugs on request, so that the oracles of the simulation can be seen to catch them. They are compiled into the crate's own tests only.
//!
//! Invariant: outside these tests there is one canary, and it does not sing.

/// Which bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Canary {
    /// None.
    #[default]
    None,
    /// A new master forgets what one survivor holds, and grants beside it.
    #[cfg(test)]
    ForgetsACopy,
    /// A `Drop` that was sent before the present era is lost.
    #[cfg(test)]
    LosesADrop,
    /// A rebuilt value of which nobody knows whether it is the newest is not marked.
    #[cfg(test)]
    TrustsAnyValue,
    /// A new master and a new holder begin their fencing tokens where they like, not above those given before.
    #[cfg(test)]
    TokensGoBack,
    /// The reports of an aborted recovery count in the next one.
    #[cfg(test)]
    CountsOldReports,
    /// What a dead node held over storage is given on at once, if nobody alive knows of it.
    #[cfg(test)]
    GivesOnGuards,
    /// A directory's answer counts though its partition has moved since.
    #[cfg(test)]
    BelievesOldAnswers,
    /// A deadlock's victim is refused after the first gathering, unconfirmed.
    #[cfg(test)]
    ConfirmsNothing,
}

impl Canary {
    /// True if this bug is in. `song` is looked at in tests only.
    #[cfg(test)]
    pub(super) fn sings(self, song: Canary) -> bool {
        self == song
    }
}

/// Whether a bug is in: never, outside the crate's tests.
macro_rules! sings {
    ($node:expr, $song:ident) => {{
        #[cfg(test)]
        let sings = $node.canary.sings(crate::node::Canary::$song);
        #[cfg(not(test))]
        let sings = $node.canary != crate::node::Canary::None;
        sings
    }};
}
pub(super) use sings;

#[cfg(test)]
impl super::Node {
    /// Lets a canary into this node.
    pub(crate) fn infect(&mut self, canary: Canary) {
        self.canary = canary;
    }
}
