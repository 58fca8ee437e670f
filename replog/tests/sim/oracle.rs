//! The oracles: what must hold after every step, whatever happens.
//!
//! Invariant: an oracle believes nobody; it keeps its own account from what members hand out.

use super::state::{State, hash};
use crate::{Committed, Core, Entry, Index, Member, Origin, Payload, Stamp, Term};
use base::Time;
use std::collections::BTreeMap;

/// The account.
#[derive(Default)]
pub struct Oracle {
    leaders: BTreeMap<Term, Member>,
    /// Every entry that was ever in a log: what stood before it, and what it said.
    entries: BTreeMap<Stamp, (Stamp, u64)>,
    /// What was handed out at each place.
    agreed: BTreeMap<Index, (Stamp, u64)>,
    /// The state after each place.
    chains: BTreeMap<Index, u64>,
    done: BTreeMap<Origin, Index>,
    /// The largest place of an acknowledged request, and how many there were.
    pub acknowledged: Index,
    pub acknowledgements: u64,
    pub reads: u64,
    pub elections: u64,
    pub changes: u64,
    pub restores: u64,
    pub faults: Vec<String>,
}

fn meaning(entry: &Entry) -> u64 {
    match &entry.payload {
        Payload::Blank => 1,
        Payload::Command { origin, bytes } => hash(bytes) ^ origin.map_or(0, |origin| origin.sequence),
        Payload::Voters(voters) => hash(format!("{voters:?}").as_bytes()),
    }
}

impl Oracle {
    pub fn fault(&mut self, now: Time, what: String) {
        if self.faults.len() < 5 {
            self.faults.push(format!("at {} us: {what}", now.0 / 1_000));
        }
    }

    /// One leader a term.
    pub fn leads(&mut self, now: Time, core: &Core, me: Member) {
        if !core.is_leader() {
            return;
        }
        let known = self.leaders.len();
        let leader = *self.leaders.entry(core.term()).or_insert(me);
        self.elections += (self.leaders.len() - known) as u64;
        if leader != me {
            self.fault(now, format!("term {} has two leaders: {leader} and {me}", core.term()));
        }
    }

    /// Two logs with the same stamp are the same up to it.
    pub fn logged(&mut self, now: Time, me: Member, before: Option<Stamp>, entries: &[Entry]) {
        let Some(mut before) = before else { return };
        for entry in entries {
            let said = (before, meaning(entry));
            let known = *self.entries.entry(entry.stamp).or_insert(said);
            if known != said {
                let stamp = entry.stamp;
                self.fault(
                    now,
                    format!("{me} has at {stamp:?} after {before:?} what follows {:?} elsewhere", known.0),
                );
            }
            before = entry.stamp;
        }
    }

    /// What is agreed is the same everywhere, and in order.
    pub fn committed(&mut self, now: Time, me: Member, state: &State, committed: &Committed) {
        let entry = &committed.entry;
        let index = entry.stamp.index;
        if index != state.index.next() {
            self.fault(now, format!("{me} is given entry {index} after entry {}", state.index));
        }
        let said = (entry.stamp, meaning(entry));
        let fresh = !self.agreed.contains_key(&index);
        let known = *self.agreed.entry(index).or_insert(said);
        if known != said {
            self.fault(now, format!("{me} is given {:?} where others were given {:?}", entry.stamp, known.0));
        }
        if fresh && matches!(entry.payload, Payload::Voters(_)) {
            self.changes += 1;
        }
    }

    /// The same entries make the same state.
    pub fn applied(&mut self, now: Time, me: Member, state: &State) {
        let known = *self.chains.entry(state.index).or_insert(state.chain);
        if known != state.chain {
            self.fault(now, format!("{me} has another state after entry {} than others", state.index));
        }
    }

    /// A request was carried out: everywhere at the same place, and once.
    pub fn carried_out(&mut self, now: Time, done: Option<Origin>, index: Index) {
        let Some(origin) = done else { return };
        let known = *self.done.entry(origin).or_insert(index);
        if known != index {
            self.fault(now, format!("{origin:?} is carried out at {known} and at {index}"));
        }
    }

    /// A request was acknowledged.
    pub fn acknowledge(&mut self, index: Index) {
        self.acknowledged = self.acknowledged.max(index);
        self.acknowledgements += 1;
    }
}
