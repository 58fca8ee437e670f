//! Deadlocks over resources and nodes: who waits for whom is gathered at one node, and every circle confirmed before one of its waits is refused.
//!
//! ```text
//!  a node whose user waits for long     the detector: the live node with the smallest number            every node
//!     --Wanted-->                          --Gather-->                                                  its edges
//!                                          circles of <--Waits--
//!                                          --Confirm--> the sites of these edges                        those still there
//!                                          circles of <--StillWaits--  all of whose edges are
//!     <--Victim--                          the youngest's wait of each
//!
//!  the edges of one deadlock over two nodes:     user u of node A --> Asker(A, r)      in A's table: the ward is in the way
//!                                                Asker(A, r)  --> Holder(B, r)         in the master's table
//!                                                Holder(B, r) --> user v of node B     B was called, v's grant is in the way
//! ```
//!
//! Invariants: an edge is named by its wait and its grant, whose numbers are never used again; so what is seen in both rounds was there all the
//! time between, and a circle of such edges was there as a whole at the end of the first. Who does not answer hides circles, and makes none.

use super::users::NOWHERE;
use super::values::Parked;
use super::{Node, canary::sings};
use crate::deadlock::{Cycle, Sighting, cycles};
use crate::event::{Actor, Event, LockId, Owner, Refusal};
use crate::message::{Key, Message, Search};
use crate::table::{Edge, Held};
use base::{NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};

/// Edges that one node tells in one search; of more, only the first. A circle may be missed then, until some of these waits have ended.
const EDGES_MAX: usize = 16_384;
/// In place of a lock, in a wait that the table does not know: the wait's number is its tag then, and what holds it up is the ask of that number.
const PARKED: LockId = LockId(u64::MAX);

/// A node's part in the search for deadlocks.
#[derive(Clone, Debug, Default)]
pub struct Detector {
    /// The locks that wait: of this node's users, and of nodes for tokens whose master it is.
    users_waiting: BTreeSet<LockId>,
    tokens_waiting: BTreeSet<LockId>,
    /// Where users wait whom the table does not know.
    parked: BTreeSet<Key>,
    /// When it looks whether somebody waits for long.
    look_at: Option<Time>,
    last_round: u64,
    search: Option<Round>,
}

/// A search under way, at the detector.
#[derive(Clone, Debug)]
struct Round {
    number: u64,
    begun: Time,
    missing: BTreeSet<NodeId>,
    seen: Vec<Sighting>,
    /// What is to be confirmed; empty in the first round.
    circles: Vec<Cycle>,
}

impl Detector {
    /// When it has something to do.
    pub fn look_at(&self) -> Option<Time> {
        self.look_at
    }

    /// A new era: whoever waits will ask the detector of that era.
    pub fn forget_search(&mut self) {
        self.search = None;
    }
}

impl Node {
    /// A user's lock waits.
    pub(super) fn user_waits(&mut self, lock: LockId) {
        self.detector.users_waiting.insert(lock);
        self.detector.look_at.get_or_insert(self.now + self.config.table.patience);
    }

    /// A user waits for an ask to be answered, unknown to the table.
    pub(super) fn user_parks(&mut self, key: Key) {
        self.detector.parked.insert(key);
        self.detector.look_at.get_or_insert(self.now + self.config.table.patience);
    }

    /// Something of it has ended; perhaps its wait.
    pub(super) fn user_may_wait_no_more(&mut self, lock: LockId) {
        if self.users.waits_since(lock).is_none() {
            self.detector.users_waiting.remove(&lock);
        }
    }

    /// A token's lock waits.
    pub(super) fn token_waits(&mut self, lock: LockId) {
        self.detector.tokens_waiting.insert(lock);
    }

    /// Something of it has ended; perhaps its wait.
    pub(super) fn token_may_wait_no_more(&mut self, lock: LockId) {
        if self.table.waits_since(lock).is_none() {
            self.detector.tokens_waiting.remove(&lock);
        }
    }

    /// Asks for a search if a user has waited for long.
    pub(super) fn look_for_long_waits(&mut self) {
        if self.detector.look_at.is_none_or(|look_at| look_at > self.now) {
            return;
        }
        self.detector.look_at = None;
        let tokens = &self.tokens;
        self.detector.parked.retain(|key| tokens.get(key).is_some_and(|token| !token.parked.is_empty()));
        if self.detector.users_waiting.is_empty() && self.detector.parked.is_empty() {
            return;
        }
        self.detector.look_at = Some(self.now + self.config.table.patience);
        let patience = self.config.table.patience;
        let is_long = |since: Time| since + patience <= self.now;
        let mut waits = self.detector.users_waiting.iter();
        let is_long = waits.any(|lock| self.users.waits_since(*lock).is_some_and(is_long));
        if (is_long || !self.detector.parked.is_empty())
            && let Some(detector) = self.cluster.live().first()
        {
            self.post(*detector, Message::Search(Search::Wanted));
        }
    }

    /// A message about deadlocks, of this era.
    pub(super) fn search(&mut self, from: NodeId, search: Search) {
        match search {
            Search::Wanted => self.search_wanted(),
            Search::Gather { round } => {
                let edges = self.long_waits();
                self.post(from, Message::Search(Search::Waits { round, edges }));
            }
            Search::Confirm { round, mut edges } => {
                edges.retain(|edge| self.still_waits(edge));
                self.post(from, Message::Search(Search::StillWaits { round, edges }));
            }
            Search::Waits { round, edges } | Search::StillWaits { round, edges } => {
                self.answered(from, round, edges);
            }
            Search::Victim { lock: PARKED, wait } => {
                for key in self.detector.parked.iter().copied().collect::<Vec<_>>() {
                    self.refuse_parked(key, wait, Refusal::Deadlock);
                }
            }
            Search::Victim { lock, wait } => {
                self.user(Event::Victim { lock, wait, why: Refusal::Deadlock });
            }
        }
    }

    /// Begins a search; ends the present one with what it has, if somebody lets it wait.
    fn search_wanted(&mut self) {
        match self.detector.search.take() {
            Some(round) if round.begun + self.config.table.patience > self.now => {
                self.detector.search = Some(round);
            }
            Some(round) => self.conclude(round),
            None => {
                let live = self.cluster.live();
                let number = self.begin_round(live.iter().copied().collect(), Vec::new());
                for node in live {
                    self.post(node, Message::Search(Search::Gather { round: number }));
                }
            }
        }
    }

    fn begin_round(&mut self, missing: BTreeSet<NodeId>, circles: Vec<Cycle>) -> u64 {
        self.detector.last_round += 1;
        let number = self.detector.last_round;
        self.detector.search = Some(Round { number, begun: self.now, missing, seen: Vec::new(), circles });
        number
    }

    fn answered(&mut self, from: NodeId, number: u64, edges: Vec<Edge>) {
        let Some(mut round) = self.detector.search.take_if(|round| round.number == number) else { return };
        if round.missing.remove(&from) {
            round.seen.extend(edges.into_iter().map(|edge| Sighting { site: from, edge }));
        }
        if round.missing.is_empty() {
            self.conclude(round);
        } else {
            self.detector.search = Some(round);
        }
    }

    /// A round is over.
    fn conclude(&mut self, round: Round) {
        if round.circles.is_empty() {
            let found = cycles(&round.seen);
            if sings!(self, ConfirmsNothing) {
                return self.refuse_victims(&found, &round.seen);
            }
            return self.confirm(found);
        }
        self.refuse_victims(&round.circles, &round.seen);
    }

    /// Asks whether the edges of these circles are still there.
    fn confirm(&mut self, found: Vec<Cycle>) {
        if found.is_empty() {
            return;
        }
        let mut questions: BTreeMap<NodeId, BTreeSet<Edge>> = BTreeMap::new();
        for sighting in found.iter().flat_map(|circle| &circle.edges) {
            questions.entry(sighting.site).or_default().insert(sighting.edge);
        }
        let round = self.begin_round(questions.keys().copied().collect(), found);
        for (site, edges) in questions {
            let edges = edges.into_iter().collect();
            self.post(site, Message::Search(Search::Confirm { round, edges }));
        }
    }

    fn refuse_victims(&mut self, circles: &[Cycle], seen: &[Sighting]) {
        let seen: BTreeSet<Sighting> = seen.iter().copied().collect();
        for victim in circles.iter().filter_map(|circle| circle.victim(&seen)) {
            if matches!(victim.actor, Actor::Owner(_) | Actor::Transaction(_)) {
                let (lock, wait) = (victim.lock, victim.wait);
                self.post(victim.site, Message::Search(Search::Victim { lock, wait }));
            }
        }
    }

    /// The edges of all waits here that have lasted for half of the patience: what began together with a long wait elsewhere is among them.
    fn long_waits(&self) -> Vec<Edge> {
        let is_long = |since: Option<Time>| {
            since.is_some_and(|since| since + self.config.table.patience / 2 <= self.now)
        };
        let users = self.detector.users_waiting.iter().filter(|lock| is_long(self.users.waits_since(**lock)));
        let users = users.flat_map(|lock| self.user_edges(*lock));
        let tokens = self.detector.tokens_waiting.iter();
        let tokens = tokens.filter(|lock| is_long(self.table.waits_since(**lock)));
        let tokens = tokens.flat_map(|lock| self.token_edges(*lock));
        let called = self.tokens.that(|_, token| token.called.is_some());
        let called = called.flat_map(|(key, _)| self.called_edges(key));
        let parked = self.detector.parked.iter().flat_map(|key| self.parked_edges(key));
        users.chain(parked).chain(tokens).chain(called).take(EDGES_MAX).collect()
    }

    fn still_waits(&self, edge: &Edge) -> bool {
        match edge.waiter {
            _ if edge.lock == PARKED => match edge.blocker {
                Actor::Asker(_, key) => self.parked_edges(&key).contains(edge),
                _ => false,
            },
            Actor::Asker(..) => self.token_edges(edge.lock).contains(edge),
            Actor::Holder(_, key) => self.called_edges(&key).contains(edge),
            Actor::Owner(_) | Actor::Transaction(_) => self.user_edges(edge.lock).contains(edge),
        }
    }

    /// Whom a user's lock waits for. The ward's grant stands for a token that the node has not; its wait, for one that it gives back: that
    /// holds up new requests only.
    fn user_edges(&self, lock: LockId) -> Vec<Edge> {
        let Some(key) = self.users.key_of(lock) else { return Vec::new() };
        let me = self.me();
        let edges = self.users.edges_of_lock(lock, false).into_iter();
        let seen = |edge: Edge| match (edge.blocker, edge.held) {
            (Actor::Owner(Owner { node: NOWHERE, .. }), Held::Grant { .. }) => {
                Edge { blocker: Actor::Asker(me, key), ..edge }
            }
            (Actor::Owner(Owner { node: NOWHERE, .. }), Held::Wait(_)) => {
                Edge { blocker: Actor::Holder(me, key), ..edge }
            }
            _ => edge,
        };
        edges.map(seen).collect()
    }

    /// Users who wait until this node's ask is answered.
    fn parked_edges(&self, key: &Key) -> Vec<Edge> {
        let Some(token) = self.tokens.get(key) else { return Vec::new() };
        let Some(asked) = token.asked else { return Vec::new() };
        let (blocker, held) =
            (Actor::Asker(self.me(), *key), Held::Grant { lock: PARKED, token: asked.ask.tag });
        let edge = |parked: &Parked| {
            let (waiter, wait) = (self.parked_actor(&parked.event)?, Self::parked_tag(&parked.event)?);
            Some(Edge { waiter, lock: PARKED, wait, blocker, held })
        };
        token.parked.iter().filter_map(edge).collect()
    }

    /// Whom a node's ask waits for.
    fn token_edges(&self, lock: LockId) -> Vec<Edge> {
        let Some(key) = self.token_locks.get(&lock).copied() else { return Vec::new() };
        let node = |actor: Actor| if let Actor::Owner(owner) = actor { owner.node } else { NOWHERE };
        let seen = |edge: Edge| {
            let waiter = Actor::Asker(node(edge.waiter), key);
            let blocker = match edge.held {
                Held::Grant { .. } => Actor::Holder(node(edge.blocker), key),
                Held::Wait(_) => Actor::Asker(node(edge.blocker), key),
            };
            Edge { waiter, blocker, ..edge }
        };
        self.table.edges_of_lock(lock, true).into_iter().map(seen).collect()
    }

    /// Whom a token that was called back waits for: users whose grants are in the way.
    fn called_edges(&self, key: &Key) -> Vec<Edge> {
        let Some(token) = self.tokens.get(key) else { return Vec::new() };
        let Some(called) = token.called else { return Vec::new() };
        let waiter = Actor::Holder(self.me(), *key);
        let users = self.users.in_the_way(token.ward, called).into_iter();
        users.map(|(blocker, held)| Edge { waiter, lock: token.ward, wait: 0, blocker, held }).collect()
    }
}
