//! How a leader is found: who stands, when, and who is voted for.
//!
//! Invariant: a member votes once a term, for one whose log has everything that its own has, and for nobody while it has
//! promised a leader not to (`election_min` from the last time it heard one), unless that leader itself wants it, or the connections of
//! both to it were closed. Whoever is elected in one of these ways reigns early: it has no lease before such promises are over.

use super::{Ballot, Core, Part};
use crate::config::Config;
use crate::ids::{Member, Term};
use crate::message::Message;
use base::Time;
use std::collections::BTreeSet;
use std::time::Duration;

/// Standing for election.
#[derive(Clone, Debug)]
pub(super) struct Campaign {
    trial: bool,
    early: bool,
    granted: BTreeSet<Member>,
}

impl Core {
    /// Stands for election: first on trial, then in earnest.
    pub(super) fn canvass(&mut self, now: Time, trial: bool, handover: bool) {
        let me = self.config.me;
        let term = self.hard.term.next();
        self.leader = None;
        self.part = Part::Candidate(Campaign {
            trial,
            early: self.abandoned.is_some() || handover,
            granted: BTreeSet::new(),
        });
        self.wait_for_votes(now, trial);
        if !trial {
            self.begin_term(term, Some(me));
        }
        let body =
            Message::Canvass { trial, last: self.log.last(), handover, early: self.abandoned.is_some() };
        for to in self.electorate() {
            if trial {
                let mut envelope = self.envelope(to, body.clone());
                envelope.term = term;
                self.out.push(crate::Effect::Send(envelope));
            } else {
                self.hold(to, body.clone());
            }
        }
        if trial {
            self.voted(now, me, term, true, true);
        } else {
            self.hold(me, Message::Vote { trial: false, granted: true });
        }
    }

    fn electorate(&self) -> Vec<Member> {
        let voters = self.log.voters();
        let me = self.config.me;
        voters.voters.union(&voters.outgoing).copied().filter(|&member| member != me).collect()
    }

    /// A candidate asks for this member's vote.
    pub(super) fn canvassed(&mut self, now: Time, from: Member, term: Term, ballot: Ballot) {
        let early = ballot.early && self.abandoned.is_some();
        let bound = self.is_bound(now) && !ballot.handover && !early && !self.canary.forgets_the_leader();
        let current = ballot.last >= self.log.last();
        if ballot.trial {
            let granted = current && !bound && term > self.hard.term;
            let mut envelope = self.envelope(from, Message::Vote { trial: true, granted });
            if granted {
                envelope.term = term;
            }
            return self.out.push(crate::Effect::Send(envelope));
        }
        // Bound to a leader one does not even take note of the term: that would end the reign.
        if bound {
            return;
        }
        if term > self.hard.term {
            self.enter(term);
        }
        let free = self.hard.vote.is_none_or(|vote| vote == from);
        // One that stands in earnest, or leads, has voted for itself.
        let granted = current && free && term == self.hard.term;
        if granted {
            self.part = Part::Follower;
            self.unsaved.hard |= self.hard.vote != Some(from);
            self.hard.vote = Some(from);
            self.wait_for_leader_from(now);
        }
        self.hold(from, Message::Vote { trial: false, granted });
    }

    /// A voter has answered.
    pub(super) fn voted(&mut self, now: Time, from: Member, term: Term, trial: bool, granted: bool) {
        let expected = if trial { self.hard.term.next() } else { self.hard.term };
        let Part::Candidate(campaign) = &mut self.part else { return };
        if !granted || term != expected || campaign.trial != trial {
            return;
        }
        campaign.granted.insert(from);
        if !self.log.voters().is_quorum(|member| campaign.granted.contains(&member)) {
            return;
        }
        let early = campaign.early;
        if trial {
            self.canvass(now, false, false);
        } else {
            self.reign(now, early);
        }
    }

    /// The leader of this term gives way to this member.
    pub(super) fn take_over(&mut self, now: Time, from: Member, term: Term) {
        let follows = matches!(self.part, Part::Follower) && self.leader == Some(from);
        if term == self.hard.term && follows && self.is_voter() {
            self.canvass(now, false, true);
        }
    }

    /// The connection to the leader was closed: this member stands soon, and those after it in the electorate later, so that two do
    /// not take each other's votes.
    pub(super) fn abandon(&mut self, now: Time) {
        let Some(leader) = self.leader.filter(|_| matches!(self.part, Part::Follower)) else { return };
        self.abandoned = Some((now, self.hard.term));
        let me = self.config.me;
        let before = self.electorate().into_iter().filter(|&member| member < me && member != leader).count();
        let turn = self.config.heartbeat / 2;
        let random = Duration::from_nanos(self.prng.below(span(turn / 5)));
        let wait = turn / 5 + turn * u32::try_from(before).unwrap_or(u32::MAX) + random;
        self.election_at = self.election_at.min(now + wait);
    }

    /// True while a leader has this member's promise, or may have had it before a restart.
    pub(super) fn is_bound(&self, now: Time) -> bool {
        let alone = self.decides_alone();
        matches!(self.part, Part::Leader(_)) || (!alone && now < self.heard + self.config.election_min)
    }

    /// A leader was heard: the promise begins anew.
    pub(super) fn wait_for_leader(&mut self, now: Time) {
        self.heard = now;
        // What was on its way when the connection was closed is no sign of life.
        if self
            .abandoned
            .is_none_or(|(since, term)| now >= since + self.config.heartbeat / 2 || term < self.hard.term)
        {
            self.abandoned = None;
            self.wait_for_leader_from(now);
        }
    }

    /// Nobody leads, but somebody may soon: this member does not stand at once.
    pub(super) fn wait_for_leader_from(&mut self, now: Time) {
        let random = self.prng.below(span(self.config.election_spread));
        self.election_at = now + self.config.election_min + Duration::from_nanos(random);
    }

    fn wait_for_votes(&mut self, now: Time, trial: bool) {
        let Config { heartbeat, election_spread, .. } = self.config;
        // The others may learn a moment later than this one that their connections are closed.
        let soon = trial && self.abandoned.is_some() && self.is_bound(now);
        let (wait, spread) =
            if soon { (heartbeat / 2, heartbeat / 2) } else { (heartbeat * 2, election_spread) };
        self.election_at = now + wait + Duration::from_nanos(self.prng.below(span(spread)));
    }
}

/// A length of time as the bound of a random number.
fn span(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX).max(1)
}
