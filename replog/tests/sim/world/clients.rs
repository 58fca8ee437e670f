//! Clients: each has one request at a time, and sends it again, with the same number, until it is acknowledged.
//!
//! Invariant: a request is carried out once however often it is sent; a read sees all that was acknowledged before it.

use super::{What, World, millis};
use crate::{Event, Index, Origin, Proposal, Refusal, RequestId};
use bytes::Bytes;
use std::collections::BTreeSet;

/// A client.
pub struct Client {
    pub session: u64,
    sequence: u64,
    /// What it waits for, at which node.
    waiting: Option<(RequestId, u32)>,
    reading: Option<(RequestId, Index)>,
    attempt: u64,
    /// Whom it asked last.
    pub asked: Option<u32>,
    pub busy: bool,
}

impl Client {
    pub fn new(session: u64) -> Client {
        Client { session, sequence: 0, waiting: None, reading: None, attempt: 0, asked: None, busy: true }
    }

    fn request(&mut self) -> RequestId {
        self.attempt += 1;
        RequestId(self.session << 32 | self.attempt)
    }
}

fn client_of(request: RequestId) -> usize {
    (request.0 >> 32) as usize - 1
}

impl World {
    pub(super) fn act(&mut self, client: usize) {
        let pace = 2 + self.prng.below(20);
        self.plan(millis(pace), What::Act { client });
        self.ask(client);
    }

    /// A client asks for something: of the leader, of the one it asked before, or of anybody.
    fn ask(&mut self, client: usize) {
        let nodes = u64::from(self.nodes());
        let any = 1 + self.prng.below(nodes) as u32;
        let node = match self.prng.below(4) {
            0 => any,
            1 => self.clients[client].asked.unwrap_or(any),
            _ => self.leader().unwrap_or(any),
        };
        self.ask_at(client, node);
    }

    /// A client asks this one.
    pub(super) fn ask_at(&mut self, client: usize, node: u32) {
        if !self.clients[client].busy
            || self.machines[&node].core.is_none()
            || self.machines[&node].paused > self.now
        {
            return;
        }
        self.clients[client].asked = Some(node);
        match self.prng.below(3) {
            0 => self.ask_read(client, node),
            _ => self.ask_write(client, node),
        }
    }

    fn ask_write(&mut self, client: usize, node: u32) {
        // Now and then it loses patience and asks another as well.
        if self.clients[client].waiting.is_some() && !self.prng.one_in(8) {
            return;
        }
        let one = &mut self.clients[client];
        if one.waiting.is_none() {
            one.sequence += 1;
        }
        let request = one.request();
        one.waiting = Some((request, node));
        let (session, sequence) = (one.session, one.sequence);
        let origin = Some(Origin { session, slot: 0, sequence });
        // The same request says the same: what it says comes from its number.
        let filler = vec![7; (sequence % 60) as usize];
        let bytes = Bytes::from([&sequence.to_le_bytes()[..], &session.to_le_bytes(), &filler].concat());
        self.give(node, Event::Propose(vec![Proposal { request, origin, bytes }]));
    }

    fn ask_read(&mut self, client: usize, node: u32) {
        let floor = self.oracle.acknowledged;
        let one = &mut self.clients[client];
        let request = one.request();
        one.reading = Some((request, floor));
        self.give(node, Event::Read(request));
    }

    pub(super) fn acknowledged(&mut self, request: RequestId, index: Index) {
        if request.0 >> 32 == 0 {
            return;
        }
        self.oracle.acknowledge(index);
        let one = &mut self.clients[client_of(request)];
        if one.waiting.is_some_and(|(waiting, _)| waiting == request) {
            one.waiting = None;
        }
    }

    pub(super) fn rejected(&mut self, request: RequestId, refusal: &Refusal) {
        if request.0 >> 32 == 0 {
            return;
        }
        let one = &mut self.clients[client_of(request)];
        // It sends the same again.
        if one.waiting.take_if(|(waiting, _)| *waiting == request).is_some() {
            one.sequence -= 1;
        }
        self.note(|| format!("rejected {request:?} {refusal}"));
    }

    pub(super) fn read_ready(&mut self, node: u32, request: RequestId, index: Index) {
        self.oracle.reads += 1;
        let applied = self.machines[&node].state.index;
        if applied < index {
            self.oracle.fault(self.now, format!("node {node} reads at {index} and has applied {applied}"));
        }
        let one = &mut self.clients[client_of(request)];
        let Some((_, floor)) = one.reading.take_if(|(asked, _)| *asked == request) else { return };
        if applied < floor {
            self.oracle
                .fault(self.now, format!("node {node} reads at {applied} what was acknowledged at {floor}"));
        }
    }

    /// Which machines vote, by the word of the present leader.
    pub fn voting(&self) -> Option<BTreeSet<crate::Member>> {
        let leader = self.leader()?;
        let core = self.machines[&leader].core.as_ref()?;
        Some(core.status().voters.voters)
    }
}
