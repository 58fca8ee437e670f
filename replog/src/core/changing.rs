//! Changes of who decides and who leads.
//!
//! Invariants: a change begins only when the one before it is agreed, and when this leader has had an entry of its own term
//! agreed; between two sets of voters there is always a joint setting; a leader that was voted out leads until
//! that is agreed, and not longer.

use super::{Core, Part};
use crate::entry::Payload;
use crate::event::{Effect, Refusal};
use crate::ids::{Member, RequestId};
use crate::message::Message;
use crate::progress::{Mode, Progress};
use crate::voters::{LEARNERS_MAX, VOTERS_MAX, Voters};
use base::Time;
use std::collections::BTreeSet;

/// A member has caught up if it lacks no more entries than this.
const LAG_MAX: u64 = 1_024;

/// A change of voters that waits for new ones to catch up, or for the joint setting to be agreed.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) request: RequestId,
    voters: BTreeSet<Member>,
    learners: BTreeSet<Member>,
    pub(super) until: Time,
}

/// Leadership on its way to another.
#[derive(Clone, Debug)]
pub(super) struct Handover {
    to: Member,
    pub(super) until: Time,
    told: bool,
}

impl Core {
    /// Others shall decide.
    pub(super) fn change_voters(
        &mut self,
        now: Time,
        request: RequestId,
        voters: BTreeSet<Member>,
        learners: BTreeSet<Member>,
    ) {
        if let Some(refusal) = self.change_refusal(&voters, &learners) {
            return self.out.push(Effect::Rejected { request, refusal });
        }
        let present = self.log.voters().clone();
        if voters == present.voters {
            let stamp = self.push(Payload::Voters(Voters { voters, learners, ..Voters::default() }));
            self.expect(stamp.index, request);
        } else {
            let learning: BTreeSet<Member> = voters.difference(&present.voters).copied().collect();
            if !learning.is_subset(&present.learners) {
                let learners = present.learners.union(&learning).copied().collect();
                self.push(Payload::Voters(Voters { learners, ..present }));
            }
            let until = now + self.config.catch_up;
            if let Part::Leader(reign) = &mut self.part {
                reign.change = Some(Change { request, voters, learners, until });
            }
        }
        self.admit_peers(self.log.last().index);
    }

    fn change_refusal(&self, voters: &BTreeSet<Member>, learners: &BTreeSet<Member>) -> Option<Refusal> {
        let Part::Leader(reign) = &self.part else { return Some(Refusal::NotLeader(self.leader)) };
        let present = self.log.voters();
        let union = present.learners.union(voters).count();
        if voters.is_empty()
            || voters.len() > VOTERS_MAX
            || learners.len() > LEARNERS_MAX
            || union > LEARNERS_MAX
        {
            return Some(Refusal::Invalid("there are 1 to 7 voters and at most 16 learners"));
        }
        if !voters.is_disjoint(learners) {
            return Some(Refusal::Invalid("one member cannot be voter and learner at once"));
        }
        if self.commit < reign.first {
            return Some(Refusal::ChangeUnderWay("this leader has agreed nothing yet"));
        }
        if reign.handover.is_some() {
            return Some(Refusal::HandingOver);
        }
        let busy = reign.change.is_some() || present.is_joint() || self.commit < self.log.voters_index();
        busy.then_some(Refusal::ChangeUnderWay("another change is not agreed yet"))
    }

    /// Takes the next step of a change, when the one before it is agreed.
    pub(super) fn advance_change(&mut self, now: Time) {
        let present = self.log.voters();
        let Part::Leader(reign) = &mut self.part else { return };
        let at_rest = !present.is_joint() && reign.change.is_none();
        if at_rest || self.commit < self.log.voters_index() {
            return;
        }
        let present = present.clone();
        if present.is_joint() {
            let request = reign.change.take().map(|change| change.request);
            let stamp = self.push(Payload::Voters(present.settled()));
            if let Some(request) = request {
                self.expect(stamp.index, request);
            }
            return;
        }
        let Some(change) = reign.change.clone() else { return };
        let mut new = change.voters.difference(&present.voters);
        let ready = new.all(|&member| self.has_caught_up(member));
        let Part::Leader(reign) = &mut self.part else { return };
        if ready {
            let next = match self.canary.skips_the_joint_setting() {
                true => Voters { voters: change.voters, learners: change.learners, ..Voters::default() },
                false => present.towards(&change.voters, &change.learners),
            };
            self.push(Payload::Voters(next));
            self.admit_peers(self.log.last().index);
        } else if now >= change.until {
            reign.change = None;
            let (request, refusal) = (change.request, Refusal::NotCaughtUp);
            self.out.push(Effect::Rejected { request, refusal });
        }
    }

    fn has_caught_up(&self, member: Member) -> bool {
        let Part::Leader(reign) = &self.part else { return false };
        let last = self.log.last().index;
        reign.peers.get(&member).is_some_and(|progress| {
            let recent = progress.acked.is_some_and(|mark| self.now.since(mark.sent) < self.config.lease);
            progress.mode == Mode::Pipeline && recent && last.0 - progress.matched.0 <= LAG_MAX
        })
    }

    /// After a change is agreed and handed out: whoever is not in it is served no more, be it the leader itself.
    pub(super) fn dismiss(&mut self, now: Time) {
        let (present, since) = (self.log.voters(), self.log.voters_index());
        let Part::Leader(reign) = &mut self.part else { return };
        if reign.dismissed == Some(since) || self.delivered < since || present.is_joint() {
            return;
        }
        reign.dismissed = Some(since);
        let (me, members) = (self.config.me, present.members());
        let leaves = !present.is_voter(me);
        let Part::Leader(reign) = &mut self.part else { return };
        if !leaves && reign.peers.keys().all(|peer| members.contains(peer)) {
            return;
        }
        // All hear that it is agreed, those who go for the last time.
        reign.beat_now = true;
        self.replicate(now);
        let Part::Leader(reign) = &mut self.part else { return };
        reign.peers.retain(|peer, _| members.contains(peer));
        if leaves {
            if let Some(to) = self.best_successor() {
                self.send(to, Message::TakeOver);
            }
            self.resign();
        }
    }

    /// Another shall lead.
    pub(super) fn hand_over(&mut self, now: Time, to: Option<Member>) {
        let Some(to) = to.or_else(|| self.best_successor()) else { return };
        let able = to != self.config.me && self.log.voters().voters.contains(&to);
        let until = now + self.config.election_min;
        if let Part::Leader(reign) = &mut self.part
            && able
            && reign.handover.is_none()
        {
            reign.handover = Some(Handover { to, until, told: false });
        }
    }

    /// Tells the successor, when it has everything.
    pub(super) fn advance_handover(&mut self) {
        let last = self.log.last().index;
        let Part::Leader(reign) = &mut self.part else { return };
        let Some(handover) = reign.handover.as_mut().filter(|handover| !handover.told) else { return };
        let to = handover.to;
        if reign.peers.get(&to).is_some_and(|progress| progress.matched == last) {
            handover.told = true;
            // The message may arrive late, even after this leader has gone on: it can never be sure again.
            reign.lease_given_up = true;
            self.send(to, Message::TakeOver);
        }
    }

    fn best_successor(&self) -> Option<Member> {
        let Part::Leader(reign) = &self.part else { return None };
        let able = reign.peers.iter().filter(|(member, _)| self.log.voters().voters.contains(member));
        let rank = |progress: &Progress| (progress.matched, progress.acked.map_or(Time(0), |mark| mark.sent));
        able.max_by_key(|(_, progress)| rank(progress)).map(|(member, _)| *member)
    }
}
