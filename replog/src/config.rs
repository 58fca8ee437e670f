//! What one member's part is set to.

use crate::ids::Member;
use std::time::Duration;

/// The settings of one [`Core`](crate::Core). All members of a log have the same times.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who it is.
    pub me: Member,
    /// A leader lets itself be heard so often.
    pub heartbeat: Duration,
    /// A member that has heard a leader elects no other for so long, and none at all so soon after its own start.
    pub election_min: Duration,
    /// To this a random part of `election_spread` is added before it stands itself.
    pub election_spread: Duration,
    /// So long after a majority's answers were asked for a leader is sure of being the only one. Shorter than
    /// `election_min` by more than clocks can drift apart in that time.
    pub lease: Duration,
    /// Where the random parts begin: different for each member.
    pub seed: u64,
    /// The most bytes of entries in one message.
    pub append_bytes_max: usize,
    /// The most bytes of entries on the way to one follower.
    pub inflight_bytes_max: usize,
    /// The most messages with entries on the way to one follower.
    pub inflight_max: usize,
    /// The most bytes of one proposal.
    pub proposal_bytes_max: usize,
    /// The most bytes that are proposed and not yet agreed.
    pub pending_bytes_max: usize,
    /// A snapshot is asked for when the log weighs so many bytes.
    pub snapshot_after_bytes: usize,
    /// So many bytes before a snapshot stay, for followers that are a little behind.
    pub keep_bytes: usize,
    /// A new voter must have caught up within this time, or the change is given up.
    pub catch_up: Duration,
}

impl Config {
    /// The settings that suit nodes of one cluster: a lost leader is replaced within a second.
    pub fn new(me: Member, seed: u64) -> Config {
        Config {
            me,
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(400),
            election_spread: Duration::from_millis(300),
            lease: Duration::from_millis(300),
            seed,
            append_bytes_max: 512 << 10,
            inflight_bytes_max: 4 << 20,
            inflight_max: 64,
            proposal_bytes_max: 1 << 20,
            pending_bytes_max: 16 << 20,
            snapshot_after_bytes: 16 << 20,
            keep_bytes: 2 << 20,
            catch_up: Duration::from_secs(30),
        }
    }
}
