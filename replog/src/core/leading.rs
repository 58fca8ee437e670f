//! A leader's side: sending the log, counting who has it, and knowing whether it still leads.
//!
//! Invariant: an entry is agreed when a quorum has it on disk and it is of this term; what stands before it is agreed with
//! it. A leader that a quorum has not answered for the length of a lease resigns; nobody else is elected before that.

use super::changing::{Change, Handover};
use super::reading::Read;
use super::{Core, Part};
use crate::config::Config;
use crate::entry::{Entry, Payload};
use crate::event::{Effect, Proposal, Refusal};
use crate::ids::{Index, Member, RequestId, Stamp, Term};
use crate::message::{Mark, Message};
use crate::progress::{Mode, Progress};
use base::Time;
use std::collections::BTreeMap;

/// What a leader knows beyond the log.
#[derive(Clone, Debug)]
pub(super) struct Reign {
    pub(super) peers: BTreeMap<Member, Progress>,
    since: Time,
    /// The blank entry with which it began.
    pub(super) first: Index,
    beat_at: Time,
    pub(super) beat_now: bool,
    pub(super) round: u64,
    pub(super) reads: Vec<Read>,
    pub(super) requests: BTreeMap<Index, (RequestId, usize)>,
    pending_bytes: usize,
    pub(super) change: Option<Change>,
    pub(super) handover: Option<Handover>,
    /// The setting after which those were dismissed who are not in it.
    pub(super) dismissed: Option<Index>,
    /// Another was asked to take over: from then on this leader cannot know that it is the only one.
    pub(super) lease_given_up: bool,
    /// Elected while promises to the leader before may not have been over: that one may have a lease still.
    early: bool,
}

impl Reign {
    /// The request that an agreed entry answers.
    pub(super) fn take_request(&mut self, entry: &Entry) -> Option<RequestId> {
        let (request, weight) = self.requests.remove(&entry.stamp.index)?;
        self.pending_bytes -= weight;
        Some(request)
    }

    /// Notes for whom an entry is.
    pub(super) fn expect(&mut self, index: Index, request: RequestId, weight: usize) {
        self.requests.insert(index, (request, weight));
        self.pending_bytes += weight;
    }
}

impl Core {
    /// Elected.
    pub(super) fn reign(&mut self, now: Time, early: bool) {
        let first = self.push(Payload::Blank).index;
        self.leader = Some(self.config.me);
        self.part = Part::Leader(Box::new(Reign {
            peers: BTreeMap::new(),
            since: now,
            first,
            beat_at: now,
            beat_now: true,
            round: 0,
            reads: Vec::new(),
            requests: BTreeMap::new(),
            pending_bytes: 0,
            change: None,
            handover: None,
            dismissed: None,
            lease_given_up: false,
            early,
        }));
        self.admit_peers(first);
    }

    /// Gives up a candidacy or leadership. Whoever waits for something is told that nobody knows.
    pub(super) fn resign(&mut self) {
        let Part::Leader(reign) = std::mem::replace(&mut self.part, Part::Follower) else { return };
        self.leader = None;
        self.wait_for_leader_from(self.now);
        let unknown = reign.requests.values().map(|(request, _)| *request);
        let unknown = unknown.chain(reign.change.iter().map(|change| change.request));
        let unknown = unknown.map(|request| (request, Refusal::Unknown));
        let reads = reign.reads.iter().map(|read| (read.request, Refusal::NotLeader(None)));
        let rejected = unknown.chain(reads).map(|(request, refusal)| Effect::Rejected { request, refusal });
        self.out.extend(rejected);
    }

    /// Puts proposals into the log.
    pub(super) fn propose(&mut self, proposals: Vec<Proposal>) {
        for Proposal { request, origin, bytes } in proposals {
            let refusal = match &self.part {
                Part::Leader(reign) if reign.handover.is_some() => Some(Refusal::HandingOver),
                Part::Leader(_) if bytes.len() > self.config.proposal_bytes_max => {
                    Some(Refusal::Invalid("the proposal is larger than a proposal may be"))
                }
                Part::Leader(reign) if reign.pending_bytes >= self.config.pending_bytes_max => {
                    Some(Refusal::Busy)
                }
                Part::Leader(_) => None,
                _ => Some(Refusal::NotLeader(self.leader)),
            };
            if let Some(refusal) = refusal {
                self.out.push(Effect::Rejected { request, refusal });
                continue;
            }
            let stamp = self.push(Payload::Command { origin, bytes });
            self.expect(stamp.index, request);
            self.out.push(Effect::Accepted { request, stamp });
        }
    }

    /// Notes for whom the last entry is.
    pub(super) fn expect(&mut self, index: Index, request: RequestId) {
        let weight = self.log.slice(index, index, 0).first().map_or(0, Entry::weight);
        if let Part::Leader(reign) = &mut self.part {
            reign.expect(index, request, weight);
        }
    }

    /// Time passes for a leader.
    pub(super) fn tick_leader(&mut self, now: Time) {
        let Part::Leader(reign) = &mut self.part else { return };
        reign.handover.take_if(|handover| now >= handover.until);
        let Part::Leader(reign) = &self.part else { return };
        if now >= self.heard_quorum(reign).max(reign.since) + self.config.lease {
            self.resign();
        }
    }

    /// When a leader wants to be woken.
    pub(super) fn reign_deadline(&self, reign: &Reign) -> Time {
        let lapse = self.heard_quorum(reign).max(reign.since) + self.config.lease;
        let change = reign.change.as_ref().map(|change| change.until);
        let handover = reign.handover.as_ref().map(|handover| handover.until);
        [Some(reign.beat_at), change, handover].into_iter().flatten().fold(lapse, Time::min)
    }

    /// A quorum has answered what was sent at this time, or later.
    fn heard_quorum(&self, reign: &Reign) -> Time {
        self.log.voters().quorum_value(|member| match reign.peers.get(&member) {
            _ if member == self.config.me => Time(u64::MAX),
            Some(progress) => progress.acked.map_or(Time(0), |mark| mark.sent),
            None => Time(0),
        })
    }

    /// Until when this member is sure of being the only leader; `None`: it is not.
    pub fn lease_until(&self) -> Option<Time> {
        self.followed_until().filter(|_| !self.reigns_early() || self.canary.trusts_the_close())
    }

    /// Until when a quorum will follow this leader, unless their connections to it are closed or it hands over. That is a lease
    /// but for one thing: while it [reigns early](Core::reigns_early) the leader before it may have one.
    pub fn followed_until(&self) -> Option<Time> {
        let Part::Leader(reign) = &self.part else { return None };
        let heard = self.heard_quorum(reign);
        let sure = heard > Time(0) && !reign.lease_given_up && self.commit >= reign.first;
        sure.then(|| heard + self.config.lease)
    }

    /// True if this member leads, was elected by handover or because connections to the leader before it were closed, and every
    /// lease of that one, and of any before it, need not be over yet. It has none itself so long.
    pub fn reigns_early(&self) -> bool {
        matches!(&self.part, Part::Leader(reign) if reign.early && self.now < reign.since + self.config.election_min)
    }

    /// Counts who has what.
    pub(super) fn count_matches(&mut self) {
        let Part::Leader(reign) = &self.part else { return };
        let reached = self.log.voters().quorum_value(|member| match reign.peers.get(&member) {
            _ if member == self.config.me => self.writes.safe(),
            Some(progress) => progress.matched,
            None => Index(0),
        });
        let own = self.log.term(reached) == Some(self.hard.term) || self.canary.counts_old_terms();
        if reached > self.commit && own {
            self.commit = reached;
        }
    }

    /// The progress of a follower that answers in this term.
    fn peer(&mut self, from: Member, term: Term, mark: Mark) -> Option<&mut Progress> {
        let Part::Leader(reign) = &mut self.part else { return None };
        let progress = reign.peers.get_mut(&from).filter(|_| term == self.hard.term)?;
        progress.heard(mark);
        Some(progress)
    }

    /// A follower has the log up to `matched`.
    pub(super) fn appended(&mut self, from: Member, term: Term, matched: Index, mark: Mark) {
        let last = self.log.last().index;
        if let Some(progress) = self.peer(from, term, mark).filter(|_| matched <= last) {
            progress.matched(matched);
        }
    }

    /// A follower's log does not go on from `prev`.
    pub(super) fn mismatch(&mut self, from: Member, term: Term, prev: Index, hint: Stamp, mark: Mark) {
        let agreement = self.log.agreement_before(hint.index, hint.term).index;
        if let Some(progress) = self.peer(from, term, mark) {
            progress.mismatched(prev, agreement);
        }
    }

    /// A follower wants the next piece of the snapshot.
    pub(super) fn chunk_taken(&mut self, from: Member, term: Term, of: Stamp, wanted: u64, mark: Mark) {
        let Some(progress) = self.peer(from, term, mark) else { return };
        if let Mode::Snapshot { stamp, offset, sent } = &mut progress.mode
            && *stamp == of
            && sent.is_none_or(|at| mark.sent >= at)
        {
            *offset = wanted;
            *sent = None;
        }
    }

    /// True while a follower gets a snapshot and answers.
    pub(super) fn is_sending_snapshot(&self) -> bool {
        let Part::Leader(reign) = &self.part else { return false };
        let recent = |mark: Mark| self.now.since(mark.sent) < self.config.election_min * 2;
        let gets = |progress: &Progress| {
            matches!(progress.mode, Mode::Snapshot { .. }) && progress.acked.is_some_and(recent)
        };
        reign.peers.values().any(gets)
    }

    /// There is a newer snapshot: whoever gets the old one begins anew.
    pub(super) fn renew_transfers(&mut self) {
        let Part::Leader(reign) = &mut self.part else { return };
        for progress in reign.peers.values_mut() {
            if matches!(progress.mode, Mode::Snapshot { .. }) {
                progress.mode = Mode::Snapshot { stamp: self.snapshot.stamp, offset: 0, sent: None };
            }
        }
    }

    /// Sends every follower what it may get, and at times that the leader is there.
    pub(super) fn replicate(&mut self, now: Time) {
        let Part::Leader(reign) = &mut self.part else { return };
        let beat = now >= reign.beat_at || reign.beat_now;
        if beat {
            reign.beat_now = false;
            reign.beat_at = now + self.config.heartbeat;
        }
        let members: Vec<Member> = reign.peers.keys().copied().collect();
        members.into_iter().for_each(|member| self.serve(now, member, beat));
    }

    fn serve(&mut self, now: Time, to: Member, beat: bool) {
        let (base, last) = (self.log.base().index, self.log.last().index);
        let Some((progress, mark)) = self.served(now, to) else { return };
        if progress.next.before() < base && !matches!(progress.mode, Mode::Snapshot { .. }) {
            progress.mode = Mode::Snapshot { stamp: Stamp::default(), offset: 0, sent: None };
        }
        if matches!(progress.mode, Mode::Snapshot { .. }) {
            return self.serve_snapshot(now, to, beat);
        }
        let mut silent = true;
        while let Some((progress, _)) = self.served(now, to) {
            let next = progress.next;
            if next > last || !self.may_send(to) {
                break;
            }
            let entries = self.log.slice(next, last, self.config.append_bytes_max);
            self.send_entries(now, to, entries, mark);
            silent = false;
        }
        let commit = self.commit;
        let untold = self.served(now, to).is_some_and(|(peer, _)| peer.is_idle() && peer.told < commit);
        if silent && (beat || untold) {
            self.send_entries(now, to, Vec::new(), mark);
        }
    }

    fn served(&mut self, now: Time, to: Member) -> Option<(&mut Progress, Mark)> {
        let Part::Leader(reign) = &mut self.part else { return None };
        let mark = Mark { sent: now, round: reign.round };
        reign.peers.get_mut(&to).map(|progress| (progress, mark))
    }

    fn may_send(&self, to: Member) -> bool {
        let Part::Leader(reign) = &self.part else { return false };
        reign.peers.get(&to).is_some_and(|progress| progress.may_send(&self.config))
    }

    fn send_entries(&mut self, now: Time, to: Member, entries: Vec<Entry>, mark: Mark) {
        let commit = self.commit;
        let Some((progress, _)) = self.served(now, to) else { return };
        let before = progress.next.before();
        progress.told = commit;
        if let Some(last) = entries.last() {
            progress.sent(last.stamp.index, entries.iter().map(Entry::weight).sum());
        }
        if let Some(prev) = self.log.stamp(before) {
            self.send(to, Message::Append { prev, entries, commit, mark });
        }
    }

    fn serve_snapshot(&mut self, now: Time, to: Member, beat: bool) {
        let (meta, patience) = (self.snapshot.clone(), self.config.election_min);
        let term = self.hard.term;
        let Some((progress, mark)) = self.served(now, to) else { return };
        let Mode::Snapshot { stamp, offset, sent } = &mut progress.mode else { return };
        if *stamp != meta.stamp {
            (*stamp, *offset, *sent) = (meta.stamp, 0, None);
        }
        let due = sent.is_none_or(|at| now >= at + patience);
        let from = *offset;
        if due {
            *sent = Some(now);
            self.out.push(Effect::SendChunk { to, term, meta, offset: from, mark });
        }
        // Nothing stands before place 0: this one always fits, and only says that the leader is there.
        if beat {
            let body =
                Message::Append { prev: Stamp::default(), entries: Vec::new(), commit: Index(0), mark };
            self.send(to, body);
        }
    }

    /// Begins to serve members that are new, from `next` on.
    pub(super) fn admit_peers(&mut self, next: Index) {
        let me = self.config.me;
        let members = self.log.voters().members();
        let Part::Leader(reign) = &mut self.part else { return };
        for member in members.into_iter().filter(|&member| member != me) {
            reign.peers.entry(member).or_insert_with(|| Progress::new(next));
        }
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }
}
