//! Bugs on request, so that the oracles of the simulation can be seen to catch them. They are compiled into tests only.
//!
//! Invariant: outside the crate's own tests there is one canary, and it does not sing.

/// Which bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Canary {
    /// None.
    #[default]
    None,
    /// A leader counts copies of an entry of an earlier term as agreement (Ongaro, figure 8).
    #[cfg(test)]
    CountsOldTerms,
    /// A vote and an answer are said before they are on disk.
    #[cfg(test)]
    SpeaksTooSoon,
    /// A voter elects another while it has promised not to.
    #[cfg(test)]
    ForgetsTheLeader,
    /// A leader serves reads without asking anybody.
    #[cfg(test)]
    TrustsItself,
    /// A new setting decides alone, without those that it replaces.
    #[cfg(test)]
    SkipsTheJointSetting,
    /// A leader that was elected early has a lease at once: a closed connection proves nothing.
    #[cfg(test)]
    TrustsTheClose,
}

impl Canary {
    pub(super) fn counts_old_terms(self) -> bool {
        #[cfg(test)]
        return self == Canary::CountsOldTerms;
        #[cfg(not(test))]
        false
    }

    pub(super) fn speaks_too_soon(self) -> bool {
        #[cfg(test)]
        return self == Canary::SpeaksTooSoon;
        #[cfg(not(test))]
        false
    }

    pub(super) fn forgets_the_leader(self) -> bool {
        #[cfg(test)]
        return self == Canary::ForgetsTheLeader;
        #[cfg(not(test))]
        false
    }

    pub(super) fn trusts_itself(self) -> bool {
        #[cfg(test)]
        return self == Canary::TrustsItself;
        #[cfg(not(test))]
        false
    }

    pub(super) fn trusts_the_close(self) -> bool {
        #[cfg(test)]
        return self == Canary::TrustsTheClose;
        #[cfg(not(test))]
        false
    }

    pub(super) fn skips_the_joint_setting(self) -> bool {
        #[cfg(test)]
        return self == Canary::SkipsTheJointSetting;
        #[cfg(not(test))]
        false
    }
}

#[cfg(test)]
impl super::Core {
    /// Lets a canary into this core.
    pub(crate) fn infect(&mut self, canary: Canary) {
        self.canary = canary;
    }
}
