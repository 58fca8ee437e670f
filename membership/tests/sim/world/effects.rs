//! What a core wants done: carried out in its order, and torn in between where a test asks for crashes.

use super::World;
use crate::Feed;
use crate::core::{Effect, Event, Order, RequestId};
use crate::sim::agenda::What;
use crate::sim::machine::Daemon;
use crate::talk::{Answer, Request};
use base::NodeId;
use replog::{Envelope, Message};
use std::time::Duration;

/// Bytes of a snapshot in one message.
const CHUNK_BYTES: usize = 1_000;

impl World {
    pub(super) fn carry_out(&mut self, node: u32, effects: Vec<Effect>) {
        for effect in effects {
            if self.torn_one_in > 0 && self.prng.one_in(self.torn_one_in) {
                self.kill_daemon(node);
                self.start_daemon(node, 150);
                return;
            }
            match effect {
                Effect::Store(order) => {
                    self.with_daemon(node, |daemon| daemon.orders.push_back(order));
                    self.order_disk(node);
                }
                Effect::Log(envelope) => self.send_log(node, envelope),
                Effect::Publish(feed) => self.publish(node, &feed),
                Effect::Lease(Some(_)) => self.oracle.leased(node, self.machines[&node].life),
                Effect::Lease(None) | Effect::Reach(_) => {}
                Effect::Down { peer, down } => {
                    let downs = &mut self.machine(node).downs;
                    if down {
                        downs.insert(peer)
                    } else {
                        downs.remove(&peer)
                    };
                }
                Effect::Ask { to, request } => self.send(node, to, &request),
                Effect::Answer { id, answer } => self.send_answer(node, id, answer),
                Effect::Fence { node: of, life } => {
                    let run = self.machines[&node].run;
                    if self.machines[&of.0].life == life {
                        self.kill_node(of.0);
                        self.start_node(of.0, 400);
                    }
                    let after = Duration::from_millis(100);
                    self.plan(after, What::Fenced { node, run, of: of.0, life });
                }
                Effect::Evicted(_) => {
                    self.machine(node).evictions += 1;
                    self.kill_node(node);
                    self.start_node(node, 100);
                    return;
                }
                Effect::Failed(why) => {
                    self.oracle.faults.push(format!("node {node} ends: {why}"));
                    return self.kill_node(node);
                }
            }
        }
    }

    fn with_daemon(&mut self, node: u32, work: impl FnOnce(&mut Daemon)) {
        if let Some(daemon) = &mut self.machine(node).daemon {
            work(daemon);
        }
    }

    fn publish(&mut self, node: u32, feed: &Feed) {
        let before = self.machines[&node].table().clone();
        let ended = self.oracle.published(node, &before, feed);
        self.with_daemon(node, |daemon| {
            daemon.table.take(feed);
            daemon.saving = Some(daemon.table.clone());
        });
        self.order_disk(node);
        for (dead, life) in ended {
            let machine = &self.machines[&dead];
            if machine.life == life && !machine.left && self.is_leased(dead) {
                let fault = format!("life {life} of node {dead} is DOWN and has a lease{}", self.describe());
                self.oracle.faults.push(fault);
            }
        }
    }

    fn order_disk(&mut self, node: u32) {
        let (run, after) = (self.machines[&node].run, self.prng.below(self.disk_us_max));
        self.plan(Duration::from_micros(after), What::Disk { node, run });
    }

    /// The disk carries out what was ordered.
    pub(super) fn turn_disk(&mut self, node: u32) {
        let machine = self.machine(node);
        let Some(daemon) = &mut machine.daemon else { return };
        if let Some(table) = daemon.saving.take() {
            machine.saved = table;
        }
        let (mut ticket, mut events, mut chunks) = (None, Vec::new(), Vec::new());
        while let Some(order) = daemon.orders.pop_front() {
            match order {
                Order::Write(write) => {
                    daemon.store.write(&write);
                    ticket = Some(write.ticket);
                }
                Order::Install { ticket: given, meta } => {
                    daemon.store.install(&meta).unwrap();
                    ticket = Some(given);
                }
                Order::TakeChunk { meta, offset, bytes, size } => {
                    daemon.store.take_chunk(&meta, offset, &bytes, size).unwrap();
                }
                Order::SendChunk { to, term, meta, offset, mark } => {
                    let piece = daemon.store.read_chunk(meta.stamp, offset, CHUNK_BYTES).unwrap();
                    if let Some((bytes, size)) = piece {
                        let from = daemon.core.log().config().me;
                        let body = Message::Chunk { meta, offset, bytes, size, mark };
                        chunks.push(Envelope { from, to, term, body });
                    }
                }
                Order::SaveSnapshot { meta, bytes } => {
                    daemon.store.save_snapshot(&meta, &bytes).unwrap();
                    events.push(Event::SnapshotMade(meta));
                }
                Order::Trim(upto) => daemon.store.trim(upto).unwrap(),
                Order::ReadSnapshot => {
                    events.push(Event::SnapshotRead(daemon.store.read_snapshot().unwrap()))
                }
            }
        }
        daemon.store.commit().unwrap();
        let run = machine.run;
        chunks.into_iter().for_each(|envelope| self.send_log(node, envelope));
        for event in events.into_iter().chain(ticket.map(Event::Stored)) {
            if self.machines[&node].run == run {
                self.give(node, event);
            }
        }
    }

    fn send_log(&mut self, from: u32, envelope: Envelope) {
        let to = envelope.to.node.0;
        if self.machines[&from].downs.contains(&NodeId(to)) || !self.machines.contains_key(&to) {
            return;
        }
        for _ in 0..self.copies(from, to) {
            let delay = self.delay();
            self.plan(delay, What::Log { to, envelope: envelope.clone() });
        }
    }

    fn send(&mut self, from: u32, to: NodeId, request: &Request) {
        if self.machines[&from].downs.contains(&to) || !self.machines.contains_key(&to.0) {
            return;
        }
        for _ in 0..self.copies(from, to.0) {
            let (delay, run) = (self.delay(), self.machines[&from].run);
            self.plan(delay, What::Request { from, run, to: to.0, request: request.clone() });
        }
    }

    fn send_answer(&mut self, from: u32, id: RequestId, answer: Answer) {
        let Some((to, run)) = self.machine(from).waiting.remove(&id) else { return };
        if to == 0 {
            return self.machine(from).answers.push(answer);
        }
        for _ in 0..self.copies(from, to) {
            let delay = self.delay();
            self.plan(delay, What::Answer { to, run, from, answer: answer.clone() });
        }
    }
}
