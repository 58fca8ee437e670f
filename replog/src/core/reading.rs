//! Reads that see everything that was acknowledged before they were asked, without an entry in the log.
//!
//! Invariant: a read is answered after its question reached a leader that was the only one at a later time: its lease
//! holds, or a quorum has answered a message that was sent after the question.

use super::{Core, Part};
use crate::event::{Effect, Refusal};
use crate::ids::{Index, RequestId};
use base::Time;

/// How many reads may wait.
const READS_MAX: usize = 65_536;

/// A read that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    pub(super) request: RequestId,
    /// What was agreed when it was asked, and the round of messages that must be answered; `None`: this leader does not
    /// know yet what is agreed.
    since: Option<(Index, u64)>,
}

impl Core {
    /// Somebody wants to read.
    pub(super) fn read(&mut self, now: Time, request: RequestId) {
        let refusal = match &mut self.part {
            Part::Leader(reign) if reign.reads.len() < READS_MAX => {
                reign.reads.push(Read { request, since: None });
                return self.answer_reads(now);
            }
            Part::Leader(_) => Refusal::Busy,
            _ => Refusal::NotLeader(self.leader),
        };
        self.out.push(Effect::Rejected { request, refusal });
    }

    /// Answers what can be answered.
    pub(super) fn answer_reads(&mut self, now: Time) {
        let sure = self.canary.trusts_itself() || self.lease_until().is_some_and(|until| now < until);
        let Part::Leader(reign) = &mut self.part else { return };
        if reign.reads.is_empty() || self.commit < reign.first {
            return;
        }
        if reign.reads.iter().any(|read| read.since.is_none()) {
            reign.round += 1;
            reign.beat_now |= !sure;
        }
        let since = (self.commit, reign.round);
        reign.reads.iter_mut().for_each(|read| {
            read.since.get_or_insert(since);
        });
        let answered = self.log.voters().quorum_value(|member| match reign.peers.get(&member) {
            _ if member == self.config.me => u64::MAX,
            Some(progress) => progress.acked.map_or(0, |mark| mark.round),
            None => 0,
        });
        let delivered = self.delivered;
        let ready = |read: &mut Read| {
            read.since.is_some_and(|(index, round)| index <= delivered && (sure || round <= answered))
        };
        for Read { request, since } in reign.reads.extract_if(.., ready) {
            let index = since.map_or(Index(0), |(index, _)| index);
            self.out.push(Effect::ReadReady { request, index });
        }
    }
}
