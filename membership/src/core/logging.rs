//! The core's log: what it is told, what it wants, and what comes of agreed entries.
//!
//! Invariant: entries reach the machine in order; while a snapshot is being read they wait.

use super::Core;
use super::event::{Effect, Order};
use super::leading::Purpose;
use crate::command::{Act, Command};
use crate::machine::Machine;
use base::Time;
use bytes::Bytes;
use prost::Message;
use replog::{Committed, Origin, Payload, Proposal};

impl Core {
    /// Tells the log something and takes up what it wants.
    pub(super) fn drive(&mut self, now: Time, event: replog::Event) {
        let mut wanted = Vec::new();
        self.log.handle(now, event, &mut wanted);
        for effect in wanted {
            self.take_up(now, effect);
        }
    }

    fn take_up(&mut self, now: Time, effect: replog::Effect) {
        use replog::Effect as Log;
        let order = match effect {
            Log::Persist(write) => Order::Write(write),
            Log::Install { ticket, meta } => Order::Install { ticket, meta },
            Log::TakeChunk { meta, offset, bytes, size } => Order::TakeChunk { meta, offset, bytes, size },
            Log::SendChunk { to, term, meta, offset, mark } => {
                Order::SendChunk { to, term, meta, offset, mark }
            }
            Log::Trim(upto) => Order::Trim(upto),
            Log::MakeSnapshot(meta) => Order::SaveSnapshot { meta, bytes: self.machine.encode() },
            Log::Restore(meta) => {
                // What waits for an older snapshot is in this one.
                self.restoring = Some(Vec::new());
                self.machine.index = meta.stamp.index;
                Order::ReadSnapshot
            }
            Log::Send(envelope) => return self.out.push(Effect::Log(envelope)),
            Log::Commit(entries) => return self.agreed(entries),
            Log::Rejected { request, refusal } => return self.rejected(now, request.0, &refusal),
            Log::Accepted { .. } | Log::ReadReady { .. } | Log::Leadership { .. } | Log::Voters(_) => return,
            // It is seen in the log's state, once.
            Log::Halted(_) => return,
        };
        self.out.push(Effect::Store(order));
    }

    fn agreed(&mut self, entries: Vec<Committed>) {
        if let Some(waiting) = &mut self.restoring {
            return waiting.extend(entries);
        }
        for Committed { entry, request } in entries {
            let index = entry.stamp.index;
            let outcome = match entry.payload {
                Payload::Command { origin, bytes } => Some(self.machine.apply(index, origin, &bytes)),
                Payload::Blank | Payload::Voters(_) => None,
            };
            self.machine.index = index;
            if let Some(request) = request {
                self.decided(request.0, outcome);
            }
        }
    }

    /// The snapshot that was asked for is here.
    pub(super) fn take_snapshot(&mut self, now: Time, bytes: Bytes) {
        let Some(waiting) = self.restoring.take() else { return };
        match Machine::decode(self.machine.index, bytes) {
            Ok(machine) => self.machine = machine,
            Err(why) => {
                let why = format!("the snapshot cannot be taken over: {why}");
                return self.drive(now, replog::Event::StoreFailed(why));
            }
        }
        self.agreed(waiting);
    }

    /// Has the log agree on something.
    pub(super) fn propose(&mut self, now: Time, act: Act, session: Option<u64>, purpose: Purpose) {
        let (wall_ms, at) = self.wall;
        let at_ms = wall_ms.saturating_add(u64::try_from(now.since(at).as_millis()).unwrap_or(0));
        let bytes = Bytes::from(Command { at_ms, act: Some(act) }.encode_to_vec());
        let request = self.expect(purpose);
        let origin = session.map(|session| Origin { session, slot: 0, sequence: 1 });
        self.drive(now, replog::Event::Propose(vec![Proposal { request, origin, bytes }]));
    }

    /// A number for something that is asked of the log.
    pub(super) fn expect(&mut self, purpose: Purpose) -> replog::RequestId {
        self.next_proposal += 1;
        self.proposed.insert(self.next_proposal, purpose);
        replog::RequestId(self.next_proposal)
    }

    /// What the log says and is not published yet.
    pub(super) fn publish_log(&mut self) {
        if self.machine.table.view().epoch <= self.known.view().epoch {
            return;
        }
        if let Some(feed) = self.known.catch_up(&self.machine.table) {
            let view = self.known.view().clone();
            self.learn_end(&view);
            self.out.push(Effect::Publish(feed));
        }
    }
}
