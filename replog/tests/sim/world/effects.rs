//! What the world does when a core wants something done.

use super::{CHUNK_BYTES, Machine, What, World};
use crate::sim::state::State;
use crate::sim::store::SimStore;
use crate::{Committed, Effect, Envelope, Error, Event, Member, Message, SnapshotMeta, Term, Ticket};
use std::time::Duration;

impl World {
    pub(super) fn carry_out(&mut self, node: u32, effect: Effect) {
        self.note(|| format!("{node} wants {effect:?}"));
        match effect {
            Effect::Persist(write) => {
                let ticket = write.ticket;
                self.check_entries(node, &write.entries);
                self.with(node, |machine| machine.store.order(write));
                self.plan_sync(node, ticket);
            }
            Effect::Install { ticket, meta } => {
                self.with(node, |machine| machine.store.order_install(ticket, meta));
                self.plan_sync(node, ticket);
            }
            Effect::Send(envelope) => self.send(envelope),
            Effect::SendChunk { to, term, meta, offset, mark } => {
                self.send_chunk(node, to, term, meta, offset, mark)
            }
            Effect::TakeChunk { meta, offset, bytes, size } => {
                let taken = self.store(node).take_chunk(&meta, offset, &bytes, size);
                self.unless_full(node, taken);
            }
            Effect::Restore(_) => self.restore(node),
            Effect::Commit(committed) => self.apply(node, &committed),
            Effect::MakeSnapshot(meta) => self.make_snapshot(node, meta),
            Effect::Trim(upto) => {
                let trimmed = self.store(node).trim(upto);
                self.unless_full(node, trimmed);
            }
            Effect::Rejected { request, refusal } => self.rejected(request, &refusal),
            Effect::ReadReady { request, index } => self.read_ready(node, request, index),
            Effect::Halted(why) => {
                self.note(|| format!("halted {node} {why}"));
                let full = self.machines[&node].store.full.get();
                if !full {
                    self.oracle.fault(self.now, format!("node {node} stops: {why}"));
                }
            }
            Effect::Accepted { .. } | Effect::Leadership { .. } | Effect::Voters(_) => {}
        }
    }

    fn with(&mut self, node: u32, change: impl FnOnce(&mut Machine)) {
        if let Some(machine) = self.machines.get_mut(&node) {
            change(machine);
        }
    }

    /// The log that a write makes must fit to all other logs.
    fn check_entries(&mut self, node: u32, entries: &[crate::Entry]) {
        let (Some(first), machine) = (entries.first(), &self.machines[&node]) else { return };
        let before = machine.core.as_ref().and_then(|core| core.stamp(first.stamp.index.before()));
        self.oracle.logged(self.now, machine.me, before, entries);
    }

    fn plan_sync(&mut self, node: u32, ticket: Ticket) {
        let machine = &self.machines[&node];
        let (run, slowest) = (machine.run, machine.disk_us_max);
        let after = Duration::from_micros(20 + self.prng.below(slowest));
        self.plan(after, What::Synced { node, run, ticket });
    }

    fn store(&mut self, node: u32) -> &mut SimStore {
        &mut self.machines.get_mut(&node).expect("only machines that run want something").store
    }

    /// What a full disk does not take ends the member's part; nothing else may go wrong.
    fn unless_full(&mut self, node: u32, outcome: Result<(), Error>) -> bool {
        let Err(error) = outcome else { return true };
        if !self.machines[&node].store.full.get() {
            self.oracle.fault(self.now, format!("node {node}: {error}"));
        }
        self.give(node, Event::StoreFailed(error.to_string()));
        false
    }

    pub(super) fn synced(&mut self, node: u32, ticket: Ticket) {
        let synced = self.store(node).sync(ticket);
        if self.unless_full(node, synced) {
            self.give(node, Event::Persisted(ticket));
        }
    }

    fn send(&mut self, envelope: Envelope) {
        // Now and then by way of the wire; it costs as much as all the rest.
        let envelope = match self.steps % 4 {
            0 => crate::wire::decode(crate::wire::encode(1, &envelope).into()).expect("our own message").1,
            _ => envelope,
        };
        let fate = self.network.fate(&mut self.prng, envelope.from.node.0, envelope.to.node.0);
        for after in fate {
            self.plan(Duration::from_nanos(after), What::Arrive(envelope.clone()));
        }
    }

    fn send_chunk(
        &mut self,
        node: u32,
        to: Member,
        term: Term,
        meta: SnapshotMeta,
        offset: u64,
        mark: crate::Mark,
    ) {
        let Some((bytes, size)) = self.store(node).read_chunk(meta.stamp, offset, CHUNK_BYTES) else {
            return;
        };
        let from = self.machines[&node].me;
        self.send(Envelope { from, to, term, body: Message::Chunk { meta, offset, bytes, size, mark } });
    }

    fn restore(&mut self, node: u32) {
        let (meta, bytes) = self.store(node).snapshot();
        let state = State::decode(bytes);
        let (me, stamp) = (self.machines[&node].me, meta.stamp);
        if state.index != stamp.index {
            self.oracle.fault(self.now, format!("{me} restores a snapshot of {} as {stamp:?}", state.index));
        }
        self.oracle.restores += 1;
        self.oracle.applied(self.now, me, &state);
        self.with(node, |machine| machine.state = state);
    }

    fn apply(&mut self, node: u32, committed: &[Committed]) {
        let now = self.now;
        for one in committed {
            let Some(machine) = self.machines.get_mut(&node) else { return };
            self.oracle.committed(now, machine.me, &machine.state, one);
            let done = machine.state.apply(one);
            self.oracle.carried_out(now, done, one.entry.stamp.index);
            let Some(machine) = self.machines.get(&node) else { return };
            self.oracle.applied(now, machine.me, &machine.state);
            if let Some(request) = one.request {
                self.acknowledged(request, one.entry.stamp.index);
            }
        }
    }

    fn make_snapshot(&mut self, node: u32, meta: SnapshotMeta) {
        let machine = &self.machines[&node];
        let (run, bytes) = (machine.run, machine.state.encode());
        if machine.state.index != meta.stamp.index {
            let what =
                format!("node {node} is asked for a snapshot of {:?} at {}", meta.stamp, machine.state.index);
            self.oracle.fault(self.now, what);
        }
        let after = Duration::from_micros(self.prng.below(5_000));
        self.plan(after, What::Made { node, run, meta, bytes });
    }

    /// The largest acknowledged place is in the state of this node.
    pub fn has_all(&self, node: u32) -> bool {
        self.machines.get(&node).is_some_and(|machine| machine.state.index >= self.oracle.acknowledged)
    }
}
