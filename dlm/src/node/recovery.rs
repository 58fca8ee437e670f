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

use super::canary::sings;
use super::{Member, MemberState, Node, PARTITIONS, partition};
use crate::event::{Effect, Event, Gone, LockId};
use crate::message::{Ask, Copy, Key, Message, Report};
use crate::mode::Mode;
use crate::resource::Value;
use base::{Epoch, Incarnation, NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};

/// Entries of one report message.
const REPORT_MAX: usize = 20_000;

/// What one node knows of the recovery of its era.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// Partitions of this node that do not serve yet.
    frozen: BTreeSet<u32>,
    /// Trees whose master is dead, in partitions that serve.
    pub lost: BTreeSet<Key>,
    reports: BTreeMap<NodeId, Report>,
    finished: BTreeSet<NodeId>,
    is_done: bool,
    /// The last era in which each owner finished, as far as this node was told.
    recovered: BTreeMap<NodeId, Epoch>,
    /// Masters that asked to be forgotten while the partition did not serve.
    pub releases: Vec<(NodeId, Key, u64)>,
    /// DOWN, not FENCED, and until when they may still touch storage.
    unfenced: BTreeMap<NodeId, Time>,
    /// The lives that were last seen DOWN.
    downs: BTreeMap<NodeId, Incarnation>,
    /// What they may hold without anybody alive knowing.
    held_keys: BTreeSet<Key>,
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
            && (self.recovery.held_keys.contains(key)
                || self.recovery.held_partitions.contains(&partition(key)))
    }

    /// A view.
    pub(super) fn view(&mut self, epoch: Epoch, members: Vec<Member>) {
        let live = members.iter().filter(|member| member.state == MemberState::Alive);
        let live: BTreeMap<NodeId, Incarnation> = live.map(|member| (member.node, member.life)).collect();
        let last_era = self.cluster.era();
        self.note_downs(&members);
        if let Some(ended) = self.cluster.change(epoch, live) {
            self.enter_era(epoch);
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
        for tree in self.trees.values_mut() {
            tree.waiting.retain(|(from, _)| *from != node);
            tree.ahead.remove(&node);
        }
        self.recovery.held_asks.retain(|(from, _)| *from != node);
        self.recovery.recovered.remove(&node);
        self.master(Event::Gone(gone));
    }

    /// Tokens and asks whose master is dead have none.
    fn forget_masters(&mut self, ended: &[NodeId]) {
        let is_dead = |node: Option<NodeId>| node.is_some_and(|node| ended.contains(&node));
        let lost = self.directory.entries.iter().filter(|(_, master)| ended.contains(master));
        self.recovery.lost.extend(lost.map(|(key, _)| *key));
        self.directory.entries.retain(|_, master| !ended.contains(master));
        for token in self.tokens.values_mut() {
            if is_dead(token.master) {
                token.master = None;
                token.lock = None;
                token.called = None;
            }
            if let Some(asked) = token.asked.as_mut().filter(|asked| is_dead(asked.to)) {
                asked.to = None;
                asked.is_cancelled = false;
            }
        }
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

    /// Trees that were to be left: a new owner of the partition knows nothing of that; an old one is asked again.
    fn renew_leaving(&mut self) {
        let era = self.cluster.era();
        let leaving = self.trees.iter().filter(|(_, tree)| tree.is_leaving).map(|(key, _)| *key);
        for key in leaving.collect::<Vec<_>>() {
            if !self.cluster.moved_since(partition(&key), Epoch(era.0 - 1)) {
                self.leave(key);
                continue;
            }
            let Some(tree) = self.trees.get_mut(&key) else { continue };
            tree.is_leaving = false;
            for (from, ask) in std::mem::take(&mut tree.waiting) {
                self.asked(from, ask);
            }
            self.note_empty(key);
        }
    }

    fn send_reports(&mut self, last_era: Epoch) {
        let era = self.cluster.era();
        let mut reports: BTreeMap<NodeId, Report> = BTreeMap::new();
        let needs_claim = |cluster: &super::Cluster, owner: NodeId, key: &Key| {
            self.recovery.recovered.get(&owner) != Some(&last_era)
                || cluster.moved_since(partition(key), Epoch(era.0 - 1))
        };
        for key in self.trees.keys() {
            let Some(owner) = self.cluster.owner(partition(key)) else { continue };
            if needs_claim(&self.cluster, owner, key) {
                reports.entry(owner).or_default().masters.push(*key);
            }
        }
        for (key, token) in &self.tokens {
            let (Some(mode), None) = (token.mode, token.master) else { continue };
            let Some(owner) = self.cluster.owner(partition(key)) else { continue };
            let local = self.users.value(key.lockspace, key.name).unwrap_or(Value::NEW);
            let serial = token.serial + (local.serial - token.synced.min(local.serial));
            let value = Value { serial, ..local };
            reports.entry(owner).or_default().orphans.push(Copy { key: *key, mode, value });
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
        let (mut next_masters, mut next_orphans) = (masters.next(), orphans.next());
        loop {
            let part = Report {
                masters: next_masters.map(<[_]>::to_vec).unwrap_or_default(),
                orphans: next_orphans.map(<[_]>::to_vec).unwrap_or_default(),
                floor,
                more: false,
            };
            (next_masters, next_orphans) = (masters.next(), orphans.next());
            let more = next_masters.is_some() || next_orphans.is_some();
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
        let mut orphans: BTreeMap<Key, Vec<(NodeId, Copy)>> = BTreeMap::new();
        for (node, report) in reports {
            for key in report.masters {
                self.directory.entries.insert(key, node);
            }
            for copy in report.orphans {
                orphans.entry(copy.key).or_default().push((node, copy));
            }
        }
        let frozen = std::mem::take(&mut self.recovery.frozen);
        self.recovery.held_partitions.extend(frozen);
        let lost = std::mem::take(&mut self.recovery.lost);
        self.recovery.held_keys.extend(lost);
        let mut told: BTreeMap<NodeId, Vec<(Key, LockId)>> = BTreeMap::new();
        for (key, copies) in orphans {
            if !self.directory.entries.contains_key(&key) {
                self.rebuild(key, &copies, &mut told);
            }
        }
        for node in live {
            let trees = told.remove(node).unwrap_or_default();
            let mut parts = trees.chunks(REPORT_MAX).peekable();
            while let Some(part) = parts.next_if(|part| part.len() == REPORT_MAX) {
                self.post(*node, Message::Recovered { trees: part.to_vec(), done: false });
            }
            let last = parts.next().map(<[_]>::to_vec).unwrap_or_default();
            self.post(*node, Message::Recovered { trees: last, done: true });
        }
        for (from, key, floor) in std::mem::take(&mut self.recovery.releases) {
            self.release(from, key, floor);
        }
        self.serve_waiting();
    }

    /// This node becomes master of a tree, whose state is in the copies of those who survive.
    fn rebuild(
        &mut self,
        key: Key,
        copies: &[(NodeId, Copy)],
        told: &mut BTreeMap<NodeId, Vec<(Key, LockId)>>,
    ) {
        self.directory.entries.insert(key, self.me());
        self.recovery.held_keys.insert(key);
        self.trees.entry(key).or_default();
        let forgets = usize::from(sings!(self, ForgetsACopy));
        for (node, copy) in copies.iter().skip(forgets) {
            let request = self.token_request(*node, super::master::NO_ANSWER, key, copy.mode);
            let mut effects = Vec::new();
            self.table.handle(self.now, Event::Request(request), &mut effects);
            if let Some(Effect::Granted(grant)) = effects.first() {
                self.place_holder(key, grant);
                told.entry(*node).or_default().push((key, grant.lock));
            } else {
                debug_assert!(false, "copies of survivors are compatible: {copies:?}");
            }
        }
        let surely_current = copies.iter().filter(|(_, copy)| copy.mode >= Mode::CW);
        let best = surely_current.map(|(_, copy)| copy.value).max_by_key(|value| value.serial);
        let newest = copies.iter().map(|(_, copy)| copy.value).max_by_key(|value| value.serial);
        let is_valid = sings!(self, TrustsAnyValue);
        let value = best.or(newest.map(|value| Value { is_valid, ..value }));
        if let Some(value) = value {
            self.master(Event::Value { lockspace: key.lockspace, name: key.name, value });
        }
        self.note_empty(key);
    }

    /// An owner serves; some tokens have a new master.
    pub(super) fn recovered(&mut self, from: NodeId, era: Epoch, trees: &[(Key, LockId)], done: bool) {
        for (key, lock) in trees {
            let Some(token) = self.tokens.get_mut(key).filter(|token| token.mode.is_some()) else {
                self.post(
                    from,
                    Message::Drop(crate::message::Drop {
                        key: *key,
                        lock: *lock,
                        mode: None,
                        value: None,
                        floor: 0,
                    }),
                );
                continue;
            };
            token.master = Some(from);
            token.lock = Some(*lock);
            // An ask that went to the directory named no token: to a master who knows this one it would seem to have overtaken its `Drop`.
            if token.asked.is_some_and(|asked| asked.to.is_none()) {
                self.send_ask(*key);
            }
        }
        if done && era == self.cluster.era() {
            self.recovery.recovered.insert(from, era);
            let again = |key: &&Key| {
                let lost = self.tokens[*key].asked.is_some_and(|asked| asked.to.is_none());
                lost && self.cluster.owner(partition(key)) == Some(from)
            };
            for key in self.tokens.keys().filter(again).copied().collect::<Vec<_>>() {
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
