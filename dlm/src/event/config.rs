//! Settings of a table.
//!
//! Invariant: a table is made only with settings that have passed [`Config::check`].

use crate::error::Error;
use crate::slab::ENTRIES_MAX;
use std::time::Duration;

/// Settings of a table.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Locks at most.
    pub locks_max: u32,
    /// Resources at most.
    pub resources_max: u32,
    /// Locks of one owner at most.
    pub locks_per_owner: u32,
    /// Converting and waiting locks of one resource at most.
    pub queue_max: u32,
    /// How long an empty resource tells of a writer's death.
    pub loss_kept: Duration,
    /// A wait that lasts longer is looked at for deadlocks.
    pub patience: Duration,
    /// Seed of the hashes of names: nobody who may choose names should know it. No effect depends on it.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            locks_max: ENTRIES_MAX,
            resources_max: 8 << 20,
            locks_per_owner: 65_536,
            queue_max: 65_536,
            loss_kept: Duration::from_secs(60),
            patience: Duration::from_secs(1),
            seed: 0,
        }
    }
}

impl Config {
    /// Checks that the limits can be kept.
    ///
    /// # Errors
    /// [`Error::Limit`] names the first that cannot.
    pub fn check(&self) -> Result<(), Error> {
        let limits = [
            ("locks_max", self.locks_max, ENTRIES_MAX),
            ("resources_max", self.resources_max, ENTRIES_MAX),
            ("locks_per_owner", self.locks_per_owner, ENTRIES_MAX),
            ("queue_max", self.queue_max, ENTRIES_MAX),
        ];
        match limits.into_iter().find(|(_, value, most)| *value == 0 || value > most) {
            Some((name, value, most)) => Err(Error::Limit { name, value, most }),
            None => Ok(()),
        }
    }
}
