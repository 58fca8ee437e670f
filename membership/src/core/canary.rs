//! Bugs on request, so that the oracles of the simulation can be seen to catch them. They are compiled into tests only.
//!
//! Invariant: outside the crate's own tests there is one canary, and it does not sing.

/// Which bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Canary {
    /// None.
    #[default]
    None,
    /// A master grants leases that outlast its own.
    #[cfg(test)]
    GrantsBlindly,
    /// A node goes on serving when its lease is over.
    #[cfg(test)]
    KeepsItsLease,
    /// A master declares others DOWN without asking the log.
    #[cfg(test)]
    DecidesAlone,
    /// A master that was elected early declares others DOWN at once, as if the master before were dead for sure.
    #[cfg(test)]
    JudgesAtOnce,
}

impl Canary {
    pub(super) fn grants_blindly(self) -> bool {
        #[cfg(test)]
        return self == Canary::GrantsBlindly;
        #[cfg(not(test))]
        false
    }

    pub(super) fn keeps_its_lease(self) -> bool {
        #[cfg(test)]
        return self == Canary::KeepsItsLease;
        #[cfg(not(test))]
        false
    }

    pub(super) fn judges_at_once(self) -> bool {
        #[cfg(test)]
        return self == Canary::JudgesAtOnce;
        #[cfg(not(test))]
        false
    }

    pub(super) fn decides_alone(self) -> bool {
        #[cfg(test)]
        return self == Canary::DecidesAlone;
        #[cfg(not(test))]
        false
    }
}
