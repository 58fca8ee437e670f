//! One member's part in the log: Raft (Ongaro 2014) with trial votes, leases, joint changes of voters and handover, as a
//! pure state machine. README.md draws it.
//!
//! Each event is applied, then [`Core::settle`] restores what must always hold, cheaply and unconditionally: it
//! counts what is agreed, hands it out, sends what may be sent, and orders what must be on disk.
//!
//! Invariants, checked in simulation: one leader a term; two logs with the same stamp are the same up to it; what is agreed
//! is in the log of every later leader; what is promised is on disk before it is said.

mod canary;
mod changing;
mod election;
mod following;
mod leading;
mod outgoing;
mod reading;
mod status;

pub use canary::Canary;
pub use status::{Role, Status};

use crate::config::Config;
use crate::entry::{Committed, Entry, HardState, Payload, Recovered, SnapshotMeta};
use crate::event::{Effect, Event, Refusal};
use crate::ids::{Index, Member, Stamp, Term, Ticket};
use crate::log::Log;
use crate::message::{Envelope, Mark, Message};
use crate::voters::Voters;
use crate::writes::Writes;
use base::{Prng, Time};
use election::Campaign;
use following::Incoming;
use leading::Reign;
use outgoing::Unsaved;

/// After a snapshot that could not be made: so many patiences until the next.
const SNAPSHOT_PAUSE: u32 = 10;

#[derive(Clone, Debug)]
enum Part {
    Follower,
    Candidate(Campaign),
    Leader(Box<Reign>),
}

/// One member's part.
#[derive(Clone, Debug)]
pub struct Core {
    config: Config,
    prng: Prng,
    hard: HardState,
    log: Log,
    snapshot: SnapshotMeta,
    part: Part,
    leader: Option<Member>,
    /// The time of the event that is being handled.
    now: Time,
    /// When a leader was last heard, or this core was started: no other is elected for `election_min`.
    heard: Time,
    election_at: Time,
    /// When this member's connection to its leader was closed, and that leader's term, if no leader was heard since.
    abandoned: Option<(Time, Term)>,
    commit: Index,
    /// Up to here agreed entries were handed out.
    delivered: Index,
    /// As a follower: up to here the log is the leader's; and the newest message of that leader.
    agreed: Index,
    mark: Mark,
    incoming: Option<Incoming>,
    /// A snapshot that is being installed: nothing is handed out before.
    restoring: Option<(Ticket, SnapshotMeta)>,
    making_snapshot: bool,
    /// After a failure: not before then.
    snapshot_again: Time,
    writes: Writes,
    unsaved: Unsaved,
    holding: Vec<Envelope>,
    held: Vec<(Ticket, Envelope)>,
    told_leader: (Option<Member>, Term),
    told_voters: Option<Voters>,
    halted: Option<String>,
    out: Vec<Effect>,
    canary: Canary,
}

impl Core {
    /// The part of `config.me`, whose store holds `recovered`. The first effects come with the first event: give it
    /// [`Event::Tick`] at once.
    pub fn new(now: Time, config: Config, recovered: Recovered) -> Core {
        let log = Log::new(&recovered.snapshot, recovered.entries);
        let (start, last) = (recovered.snapshot.stamp.index, log.last().index);
        let commit = recovered.hard.commit.clamp(start, last);
        let mut core = Core {
            prng: Prng::new(config.seed),
            hard: HardState { commit, ..recovered.hard },
            log,
            part: Part::Follower,
            leader: None,
            now,
            heard: now,
            election_at: now,
            abandoned: None,
            commit,
            delivered: start,
            agreed: commit,
            mark: Mark::default(),
            incoming: None,
            restoring: None,
            making_snapshot: false,
            snapshot_again: Time(0),
            writes: Writes::new(last),
            unsaved: Unsaved::default(),
            holding: Vec::new(),
            held: Vec::new(),
            told_leader: (None, Term(0)),
            told_voters: None,
            halted: None,
            out: Vec::new(),
            canary: Canary::None,
            snapshot: recovered.snapshot,
            config,
        };
        if !core.decides_alone() {
            core.wait_for_leader(now);
        }
        if start > Index(0) {
            core.out.push(Effect::Restore(core.snapshot.clone()));
        }
        core
    }

    /// Takes in one event and says what must be done about it.
    pub fn handle(&mut self, now: Time, event: Event, effects: &mut Vec<Effect>) {
        if self.halted.is_some() {
            return self.refuse_halted(event, effects);
        }
        self.now = now;
        match event {
            Event::Tick => self.tick(now),
            Event::Message(envelope) => self.message(now, envelope),
            Event::Propose(proposals) => self.propose(proposals),
            Event::Read(request) => self.read(now, request),
            Event::ChangeVoters { request, voters, learners } => {
                self.change_voters(now, request, voters, learners);
            }
            Event::Transfer(to) => self.hand_over(now, to),
            Event::LeaderUnlinked => self.abandon(now),
            Event::Persisted(ticket) => self.persisted(now, ticket),
            Event::StoreFailed(why) => self.halt(&why),
            Event::SnapshotMade(meta) => self.snapshot_made(meta),
            Event::SnapshotFailed => {
                self.making_snapshot = false;
                self.snapshot_again = now + self.config.election_min * SNAPSHOT_PAUSE;
            }
        }
        self.settle(now);
        effects.append(&mut self.out);
    }

    /// When [`Event::Tick`] is wanted at the latest; `None`: nothing is waited for.
    pub fn next_deadline(&self) -> Option<Time> {
        if self.halted.is_some() {
            return None;
        }
        match &self.part {
            Part::Leader(reign) => Some(self.reign_deadline(reign)),
            Part::Candidate(_) => Some(self.election_at),
            Part::Follower => self.may_stand().then_some(self.election_at),
        }
    }

    fn message(&mut self, now: Time, envelope: Envelope) {
        let Envelope { from, to, term, body } = envelope;
        if to != self.config.me || from == self.config.me {
            return;
        }
        let binding = !matches!(body, Message::Canvass { .. } | Message::Vote { trial: true, granted: true });
        if binding && term > self.hard.term {
            self.enter(term);
        }
        match body {
            Message::Canvass { trial, last, handover, early } => {
                self.canvassed(now, from, term, Ballot { trial, last, handover, early });
            }
            Message::Vote { trial, granted } => self.voted(now, from, term, trial, granted),
            Message::Append { prev, entries, commit, mark } => {
                if self.follow(now, from, term, mark) {
                    self.append(prev, entries, commit, mark);
                }
            }
            Message::Chunk { meta, offset, bytes, size, mark } => {
                if self.follow(now, from, term, mark) {
                    self.chunk(meta, offset, bytes, size, mark);
                }
            }
            Message::TakeOver => self.take_over(now, from, term),
            Message::Appended { matched, mark } => self.appended(from, term, matched, mark),
            Message::Mismatch { prev, hint, mark } => self.mismatch(from, term, prev, hint, mark),
            Message::ChunkTaken { stamp, offset, mark } => self.chunk_taken(from, term, stamp, offset, mark),
        }
    }

    fn tick(&mut self, now: Time) {
        match &self.part {
            Part::Leader(_) => self.tick_leader(now),
            _ if now >= self.election_at && self.may_stand() => self.canvass(now, true, false),
            _ => {}
        }
    }

    /// Enters a later term as a follower of nobody yet.
    fn enter(&mut self, term: Term) {
        self.resign();
        self.begin_term(term, None);
    }

    /// What belongs to the term before is forgotten.
    fn begin_term(&mut self, term: Term, vote: Option<Member>) {
        debug_assert!(term > self.hard.term);
        self.hard.term = term;
        self.hard.vote = vote;
        self.unsaved.hard = true;
        self.leader = None;
        self.agreed = self.commit;
        self.mark = Mark::default();
        self.incoming = None;
    }

    /// What must always hold after an event.
    fn settle(&mut self, now: Time) {
        if matches!(self.part, Part::Leader(_)) {
            self.count_matches();
            self.advance_change(now);
            self.advance_handover();
        }
        self.deliver();
        if matches!(self.part, Part::Leader(_)) {
            self.dismiss(now);
            self.answer_reads(now);
            self.replicate(now);
        }
        self.want_snapshot();
        self.seal();
        self.release(now);
        self.tell();
    }

    /// Hands out what is agreed and safe on this disk.
    fn deliver(&mut self) {
        let upto = self.commit.min(self.writes.safe());
        if self.restoring.is_some() || upto <= self.delivered {
            return;
        }
        let entries = self.log.slice(self.delivered.next(), upto, usize::MAX);
        let committed = entries.into_iter().map(|entry| {
            let request = match &mut self.part {
                Part::Leader(reign) => reign.take_request(&entry),
                _ => None,
            };
            Committed { entry, request }
        });
        let committed: Vec<Committed> = committed.collect();
        self.delivered = upto;
        self.out.push(Effect::Commit(committed));
    }

    fn snapshot_made(&mut self, meta: SnapshotMeta) {
        self.making_snapshot = false;
        if meta.stamp.index <= self.snapshot.stamp.index
            || self.log.stamp(meta.stamp.index) != Some(meta.stamp)
        {
            return;
        }
        self.snapshot = meta;
        let to = self.log.compaction(self.snapshot.stamp.index, self.config.keep_bytes);
        if to > self.log.base().index {
            self.log.compact(to);
            self.out.push(Effect::Trim(to));
        }
        self.renew_transfers();
    }

    fn want_snapshot(&mut self) {
        const PATIENCE: usize = 4;
        let due = self.config.snapshot_after_bytes;
        let weight = self.log.weight();
        // A follower that gets the present one would have to begin anew with the next.
        let patient = self.is_sending_snapshot() && weight < due.saturating_mul(PATIENCE);
        let new = self.delivered > self.snapshot.stamp.index;
        let early = self.now < self.snapshot_again;
        if weight < due || patient || early || !new || self.making_snapshot || self.restoring.is_some() {
            return;
        }
        if let Some(stamp) = self.log.stamp(self.delivered) {
            self.making_snapshot = true;
            let voters = self.log.voters_at(stamp.index).clone();
            self.out.push(Effect::MakeSnapshot(SnapshotMeta { stamp, voters }));
        }
    }

    /// Puts something to the end of the leader's log.
    fn push(&mut self, payload: Payload) -> Stamp {
        let stamp = Stamp { term: self.hard.term, index: self.log.last().index.next() };
        self.log.append(Entry { stamp, payload });
        self.unsaved.from.get_or_insert(stamp.index);
        stamp
    }

    fn is_voter(&self) -> bool {
        self.log.voters().is_voter(self.config.me)
    }

    /// A voter, or one that was voted out as far as it knows, but not yet for sure: it may be the only one that has the
    /// entry which says so, and then nobody else can be elected.
    fn may_stand(&self) -> bool {
        let since = self.log.voters_index();
        let before = self.log.voters_at(since.before());
        self.is_voter() || (since > self.commit && before.is_voter(self.config.me))
    }

    fn decides_alone(&self) -> bool {
        self.log.voters().is_quorum(|member| member == self.config.me)
    }

    /// Stops for good: the disk fails, or somebody breaks the rules in a way that no message can mend.
    fn halt(&mut self, why: &str) {
        self.resign();
        self.leader = None;
        self.holding.clear();
        self.held.clear();
        self.halted = Some(why.to_owned());
        self.out.push(Effect::Halted(why.to_owned()));
    }

    fn refuse_halted(&mut self, event: Event, effects: &mut Vec<Effect>) {
        let why = self.halted.clone().unwrap_or_default();
        let requests = match event {
            Event::Propose(proposals) => proposals.into_iter().map(|proposal| proposal.request).collect(),
            Event::Read(request) | Event::ChangeVoters { request, .. } => vec![request],
            _ => Vec::new(),
        };
        let refused = |request| Effect::Rejected { request, refusal: Refusal::Halted(why.clone()) };
        effects.extend(requests.into_iter().map(refused));
    }
}

/// What a candidate asks with.
#[derive(Clone, Copy, Debug)]
struct Ballot {
    trial: bool,
    last: Stamp,
    handover: bool,
    early: bool,
}
