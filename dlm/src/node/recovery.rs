//! A new era: lives have begun or ended. Everybody reports to everybody; the owners of partitions rebuild what has lost its master.
//!
//! ```text
//!  view of era e:  purge the dead -> Report(e) to each live node ----> owner O, still in era e, has all reports:
//!                                                                       entries from the masters, orphans into O's own trees
//!  asks again what was under way  <---------- Recovered(e) -----------  serves
//! ```
//!
//! Invariants: O finishes era e only while its era is e. A living master's claim wins over orphans. Only partitions that moved, and trees
//! whose master is dead, do not serve meanwhile.

mod rebuilding;

use super::canary::sings;
use super::{Member, MemberState, Node, PARTITIONS, partition};
use crate::event::{Event, Gone, LockId};
use crate::message::{Ask, Copy, Key, Message, Placed, Report, ScopedCopy};
use crate::resource::Value;
use base::{Epoch, Incarnation, NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};

/// Entries of each kind in one report message: together less than the fabric takes.
const REPORT_MAX: usize = 8_000;

/// What one node knows of the recovery of its era.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// Partitions of this node that do not serve yet.
    pub frozen: BTreeSet<u32>,
    /// Trees whose master is dead, in partitions that serve.
    pub lost: BTreeSet<Key>,
    reports: BTreeMap<NodeId, Report>,
    finished: BTreeSet<NodeId>,
    is_done: bool,
    /// The last era whose recovery ended here.
    pub last_done: Epoch,
    /// The last era in which each owner finished, as far as this node was told.
    recovered: BTreeMap<NodeId, Epoch>,
    /// Masters that asked to be forgotten while the partition did not serve.
    pub releases: Vec<(NodeId, Key, u64)>,
    /// DOWN, not FENCED, and until when they may still touch storage.
    unfenced: BTreeMap<NodeId, Time>,
    /// The lives that were last seen DOWN.
    downs: BTreeMap<NodeId, Incarnation>,
    /// What they may hold without anybody alive knowing.
    pub held_keys: BTreeSet<Key>,
    held_partitions: BTreeSet<u32>,
    held_asks: Vec<(NodeId, Ask)>,
}

impl Recovery {
    /// Keeps an ask until nobody dead can touch what it is about.
    pub fn hold(&mut self, from: NodeId, ask: Ask) {
        self.held_asks.push((from, ask));
    }

    /// When the last lease of the dead is over.
    pub fn held_until(&self) -> Option<Time> {
        self.unfenced.values().min().copied()
    }
}

impl Node {
    pub(super) fn is_frozen(&self, partition: u32) -> bool {
        self.recovery.frozen.contains(&partition)
    }

    /// True if somebody dead, unknown to all who live, may still have it and touch the storage that it guards.
    pub(super) fn is_held(&self, key: &Key) -> bool {
        !sings!(self, GivesOnGuards)
            && self.config.guarded.contains(&key.lockspace)
            && !self.recovery.unfenced.is_empty()
            && (self.recovery.held_keys.contains(&key.root())
                || self.recovery.held_partitions.contains(&partition(key)))
    }

    /// A view.
    pub(super) fn view(&mut self, epoch: Epoch, members: Vec<Member>) {
        let live = members.iter().filter(|member| member.state == MemberState::Alive);
        let live: BTreeMap<NodeId, Incarnation> = live.map(|member| (member.node, member.life)).collect();
        let last_era = self.cluster.era();
        self.note_downs(&members);
        if let Some(ended) = self.cluster.change(epoch, live) {
            self.end_moves();
            self.enter_era(epoch);
            self.end_hands(&ended);
            self.forget_masters(&ended);
            for node in ended {
                let state = members.iter().find(|member| member.node == node).map(|member| member.state);
                self.node_ended(node, state);
            }
            self.renew_directory(epoch);
            self.renew_leaving();
            self.send_reports(last_era);
        }
        for member in members.iter().filter(|member| member.state != MemberState::Down) {
            if self.recovery.unfenced.remove(&member.node).is_some() {
                self.master(Event::Gone(Gone::Fenced(member.node)));
            }
        }
        self.release_held();
        let early = std::mem::take(&mut self.early);
        self.inbox.extend(early);
    }

    /// Lives that are DOWN and not FENCED: also those that ended before this node came.
    fn note_downs(&mut self, members: &[Member]) {
        let until = self.now + self.config.lease;
        for member in members.iter().filter(|member| member.state == MemberState::Down) {
            if self.recovery.downs.insert(member.node, member.life) != Some(member.life) {
                self.recovery.unfenced.insert(member.node, until);
            }
        }
    }

    /// DOWN, or replaced by a later life of the node (which proves that the earlier can do nothing any more).
    fn node_ended(&mut self, node: NodeId, state: Option<MemberState>) {
        let until = self.now + self.config.lease;
        let gone = match state {
            Some(MemberState::Down) => Gone::Down { node, until },
            _ => Gone::Fenced(node),
        };
        self.trees.for_each(|tree| tree.waiting.retain(|(from, _)| *from != node));
        self.spots.for_each(|spot| {
            spot.ahead.remove(&node);
            spot.readers.retain(|reader| reader.from != node);
        });
        self.recovery.held_asks.retain(|(from, _)| *from != node);
        self.recovery.recovered.remove(&node);
        self.master(Event::Gone(gone));
        for key in self.spots.keys_that(|_, spot| !spot.readers.is_empty()) {
            self.release_readers(key);
        }
    }

    /// Tokens and asks whose master is dead have none.
    fn forget_masters(&mut self, ended: &[NodeId]) {
        let is_dead = |node: Option<NodeId>| node.is_some_and(|node| ended.contains(&node));
        self.recovery.lost.extend(self.directory.entries.keys_that(|_, master| ended.contains(master)));
        self.directory.entries.retain(|_, master| !ended.contains(master));
        self.forget_scoped_masters(ended);
        for key in self.tokens.keys_that(|_, token| token.called.is_some() && is_dead(token.master)) {
            self.forget_call(key);
        }
        self.tokens.for_each(|token| {
            if is_dead(token.master) {
                token.master = None;
                token.lock = None;
            }
            token.moving.take_if(|(one, other)| is_dead(Some(*one)) || is_dead(Some(*other)));
            if let Some(asked) = token.asked.as_mut().filter(|asked| is_dead(asked.to)) {
                asked.to = None;
                asked.is_cancelled = false;
            }
        });
    }

    fn renew_directory(&mut self, era: Epoch) {
        let me = self.me();
        let mine = |partition: u32| self.cluster.owner(partition) == Some(me);
        let is_new = |partition: &u32| self.cluster.moved_since(*partition, Epoch(era.0 - 1));
        let was_frozen = std::mem::take(&mut self.recovery.frozen);
        let all = (0..PARTITIONS).filter(|partition| mine(*partition));
        self.recovery.frozen = all.filter(|p| is_new(p) || was_frozen.contains(p)).collect();
        let frozen = &self.recovery.frozen;
        self.directory.entries.retain(|key, _| {
            let partition = partition(key);
            mine(partition) && !frozen.contains(&partition)
        });
        let cluster = &self.cluster;
        self.directory
            .waiting
            .retain(|(from, life, ask)| mine(partition(&ask.key)) && cluster.is_live_life(*from, *life));
        self.recovery.lost.retain(|key| mine(partition(key)) && !frozen.contains(&partition(key)));
        self.directory.floor = self.directory.floor.max(self.table.last_token());
        self.recovery.reports.clear();
        self.recovery.finished.clear();
        self.recovery.releases.clear();
        self.recovery.is_done = false;
    }

    /// Trees that were to be left: the owner of the partition is asked again; if it is a new one, they are left.
    fn renew_leaving(&mut self) {
        let era = self.cluster.era();
        // One that the dead have just left empty has been asked about in this era.
        let is_old = |tree: &super::Tree| tree.is_leaving && tree.left_in != era;
        for key in self.trees.keys_that(|_, tree| is_old(tree)) {
            if !self.cluster.moved_since(partition(&key), Epoch(era.0 - 1)) {
                self.leave(key);
                continue;
            }
            // Its old owner may have made somebody else master: it is empty, so nothing is lost with it.
            let waiting = self.trees.remove(&key).map(|tree| tree.waiting).unwrap_or_default();
            for (from, ask) in waiting {
                self.post(from, Message::NotMaster { tag: ask.tag, key: ask.key });
            }
        }
    }

    fn send_reports(&mut self, last_era: Epoch) {
        let era = self.cluster.era();
        let mut reports: BTreeMap<NodeId, Report> = BTreeMap::new();
        let needs_claim = |cluster: &super::Cluster, owner: NodeId, key: &Key| {
            self.recovery.recovered.get(&owner) != Some(&last_era)
                || cluster.moved_since(partition(key), Epoch(era.0 - 1))
        };
        for (key, tree) in self.trees.that(|_, tree| tree.handed.is_none()) {
            let Some(owner) = self.cluster.owner(partition(key)) else { continue };
            if needs_claim(&self.cluster, owner, key) || tree.taken_from.is_some() {
                reports.entry(owner).or_default().masters.push(*key);
            }
        }
        let is_orphan = |_: &Key, token: &super::Token| {
            token.mode.is_some() && token.master.is_none() && token.moving.is_none()
        };
        for (key, token) in self.tokens.that(is_orphan) {
            let Some(mode) = token.mode else { continue };
            let Some(owner) = self.cluster.owner(partition(key)) else { continue };
            let local = self.token_value(key);
            let serial = token.serial + (local.serial - token.synced.min(local.serial));
            let value = Value { serial, ..local };
            reports.entry(owner).or_default().orphans.push(Copy { key: *key, mode, value });
        }
        for copy in self.scoped_orphans() {
            let Some(owner) = self.cluster.owner(partition(&copy.key)) else { continue };
            reports.entry(owner).or_default().scoped.push(copy);
        }
        for handed in self.report_handed() {
            let Some(owner) = self.cluster.owner(partition(&handed.key)) else { continue };
            reports.entry(owner).or_default().handed.push(handed);
        }
        let floor = self.table.last_token().max(self.users.last_token());
        for node in self.cluster.live() {
            let report = reports.remove(&node).unwrap_or_default();
            self.send_report(node, report, floor);
        }
    }

    fn send_report(&mut self, to: NodeId, report: Report, floor: u64) {
        let (mut masters, mut orphans) =
            (report.masters.chunks(REPORT_MAX), report.orphans.chunks(REPORT_MAX));
        let mut scoped = report.scoped.chunks(REPORT_MAX);
        let (mut next_masters, mut next_orphans) = (masters.next(), orphans.next());
        let mut next_scoped = scoped.next();
        let mut handed = report.handed;
        loop {
            let part = Report {
                masters: next_masters.map(<[_]>::to_vec).unwrap_or_default(),
                orphans: next_orphans.map(<[_]>::to_vec).unwrap_or_default(),
                scoped: next_scoped.map(<[_]>::to_vec).unwrap_or_default(),
                handed: std::mem::take(&mut handed),
                floor,
                more: false,
            };
            (next_masters, next_orphans) = (masters.next(), orphans.next());
            next_scoped = scoped.next();
            let more = next_masters.is_some() || next_orphans.is_some() || next_scoped.is_some();
            self.post(to, Message::Report(Report { more, ..part }));
            if !more {
                return;
            }
        }
    }

    pub(super) fn report(&mut self, from: NodeId, report: Report) {
        self.directory.floor = self.directory.floor.max(report.floor);
        let all = self.recovery.reports.entry(from).or_default();
        // In a partition that serves, the entries are newer than what was reported when the era began.
        let frozen = &self.recovery.frozen;
        all.masters.extend(report.masters.into_iter().filter(|key| frozen.contains(&partition(key))));
        all.orphans.extend(report.orphans);
        all.scoped.extend(report.scoped);
        all.handed.extend(report.handed);
        if !report.more {
            self.recovery.finished.insert(from);
        }
        // Reports of this era are of those who live in it.
        if !self.recovery.is_done && self.recovery.finished.len() == self.cluster.live_count() {
            self.finish(&self.cluster.live());
        }
    }

    /// All have reported: rebuilds, and serves.
    fn finish(&mut self, live: &[NodeId]) {
        self.recovery.is_done = true;
        let floor = self.directory.floor;
        self.lift(floor);
        let reports = std::mem::take(&mut self.recovery.reports);
        let mut orphans: Vec<(NodeId, Copy)> = Vec::new();
        let mut scoped: BTreeMap<Key, Vec<(NodeId, ScopedCopy)>> = BTreeMap::new();
        self.find_receivers(&reports);
        self.recovery.last_done = self.cluster.era();
        for (node, report) in reports {
            for key in report.masters {
                // (Who has taken it over since the report has said so.)
                if !self.directory.entries.contains_key(&key) {
                    self.directory.entries.insert(key, node);
                }
            }
            orphans.extend(report.orphans.into_iter().map(|copy| (node, copy)));
            for copy in report.scoped {
                scoped.entry(copy.key).or_default().push((node, copy));
            }
        }
        let frozen = std::mem::take(&mut self.recovery.frozen);
        self.recovery.held_partitions.extend(frozen);
        let lost = std::mem::take(&mut self.recovery.lost);
        let is_guarded = |key: &Key| self.config.guarded.contains(&key.lockspace);
        self.recovery.held_keys.extend(lost.into_iter().filter(is_guarded));
        let mut told: BTreeMap<NodeId, Vec<(Key, LockId)>> = BTreeMap::new();
        orphans.retain(|(_, copy)| !self.directory.entries.contains_key(&copy.key.root()));
        // Each node's are sorted already: they are merged. Those of one resource stay in the order of nodes.
        orphans.sort_by_key(|(_, copy)| copy.key);
        scoped.retain(|key, _| !self.directory.entries.contains_key(&key.root()));
        for copies in orphans.chunk_by(|(_, one), (_, next)| one.key == next.key) {
            self.rebuild(copies[0].1.key, copies, &mut told);
        }
        let mut told_scoped: BTreeMap<NodeId, Vec<Placed>> = BTreeMap::new();
        for (key, copies) in scoped {
            self.rebuild_scoped(key, &copies, &mut told_scoped);
        }
        for node in live {
            let trees = told.remove(node).unwrap_or_default();
            let scoped = told_scoped.remove(node).unwrap_or_default();
            let mut scoped = scoped.chunks(REPORT_MAX).map(<[_]>::to_vec).peekable();
            let mut parts = trees.chunks(REPORT_MAX).peekable();
            while let Some(part) = parts.next_if(|part| part.len() == REPORT_MAX) {
                let (trees, scoped) = (part.to_vec(), Vec::new());
                self.post(*node, Message::Recovered { trees, scoped, done: false });
            }
            let trees = parts.next().map(<[_]>::to_vec).unwrap_or_default();
            while let Some(part) = scoped.next_if(|part| part.len() == REPORT_MAX) {
                self.post(*node, Message::Recovered { trees: Vec::new(), scoped: part, done: false });
            }
            let scoped = scoped.next().unwrap_or_default();
            self.post(*node, Message::Recovered { trees, scoped, done: true });
        }
        for (from, key, floor) in std::mem::take(&mut self.recovery.releases) {
            self.release(from, key, floor);
        }
        self.serve_waiting();
    }

    /// What is left of a node that is not there any more.
    pub(super) fn purge_dead(&mut self, node: NodeId) {
        let gone = match self.recovery.unfenced.get(&node) {
            Some(until) => Gone::Down { node, until: *until },
            None => Gone::Fenced(node),
        };
        self.master(Event::Gone(gone));
    }

    /// An owner serves; some tokens have a new master.
    pub(super) fn recovered(&mut self, from: NodeId, era: Epoch, trees: &[(Key, LockId)], done: bool) {
        for (key, lock) in trees {
            self.token_placed(from, *key, *lock);
        }
        if done && era == self.cluster.era() {
            self.recovery.recovered.insert(from, era);
            self.forget_lost_hands(from);
            let again = |key: &Key, token: &super::Token| {
                let lost = token.asked.is_some_and(|asked| asked.to.is_none());
                lost && self.cluster.owner(partition(key)) == Some(from)
            };
            for key in self.tokens.keys_that(again) {
                self.send_ask(key);
            }
        }
        for (key, _) in trees {
            self.settle(*key);
        }
    }

    /// Looks again at what waited for the dead to be harmless.
    pub(super) fn release_held(&mut self) {
        let now = self.now;
        self.recovery.unfenced.retain(|_, until| *until > now);
        if !self.recovery.unfenced.is_empty() {
            return;
        }
        self.recovery.held_keys.clear();
        self.recovery.held_partitions.clear();
        for (from, ask) in std::mem::take(&mut self.recovery.held_asks) {
            self.asked(from, ask);
        }
        self.serve_waiting();
    }

    fn serve_waiting(&mut self) {
        for (from, life, ask) in std::mem::take(&mut self.directory.waiting) {
            if self.cluster.is_live_life(from, life) {
                self.lookup(from, life, ask);
            }
        }
    }
}
