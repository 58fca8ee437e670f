//! Exactly once: the last outcome of every slot of every client, kept by the state machine's shell as part of its state.
//!
//! The log itself may hold a request twice (a client that heard nothing sends it again, to another leader). Every entry
//! bears its [`Origin`], and whoever applies entries asks here first; the table is the same on all members
//! because it is changed by agreed entries only, and it travels in snapshots.
//!
//! Invariant: a request whose outcome is here is never carried out again. Outcomes are forgotten, the oldest first, when
//! there are more than [`SLOTS_MAX`] slots: a client must not resend what lies so far back.

use crate::entry::Origin;
use crate::error::Error;
use crate::ids::Index;
use bytes::Bytes;
use prost::Message;
use std::collections::BTreeMap;

/// How many slots are remembered.
pub const SLOTS_MAX: usize = 65_536;

/// What is to be done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Carry it out.
    New,
    /// It was carried out: this came of it.
    Repeat(Bytes),
    /// A later request of the slot was carried out: nobody waits for this one any more.
    Stale,
}

#[derive(Clone, PartialEq, Message)]
struct Slot {
    #[prost(uint64, tag = "1")]
    session: u64,
    #[prost(uint32, tag = "2")]
    slot: u32,
    #[prost(uint64, tag = "3")]
    sequence: u64,
    #[prost(uint64, tag = "4")]
    index: u64,
    #[prost(bytes = "bytes", tag = "5")]
    outcome: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Table {
    #[prost(message, repeated, tag = "1")]
    slots: Vec<Slot>,
}

/// The outcomes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sessions {
    slots: BTreeMap<(u64, u32), Slot>,
    by_age: BTreeMap<u64, (u64, u32)>,
}

impl Sessions {
    /// What is to be done with the request `origin`.
    pub fn turn(&self, origin: Origin) -> Turn {
        match self.slots.get(&(origin.session, origin.slot)) {
            Some(slot) if slot.sequence == origin.sequence => Turn::Repeat(slot.outcome.clone()),
            Some(slot) if slot.sequence > origin.sequence => Turn::Stale,
            _ => Turn::New,
        }
    }

    /// The request `origin`, agreed at `index`, was carried out; this came of it.
    pub fn done(&mut self, origin: Origin, index: Index, outcome: Bytes) {
        let Origin { session, slot, sequence } = origin;
        let key = (session, slot);
        let row = Slot { session, slot, sequence, index: index.0, outcome };
        if let Some(before) = self.slots.insert(key, row) {
            self.by_age.remove(&before.index);
        }
        self.by_age.insert(index.0, key);
        while self.slots.len() > SLOTS_MAX {
            let Some((_, oldest)) = self.by_age.pop_first() else { break };
            self.slots.remove(&oldest);
        }
    }

    /// The table as bytes, for a snapshot.
    pub fn encode(&self) -> Vec<u8> {
        Table { slots: self.slots.values().cloned().collect() }.encode_to_vec()
    }

    /// The table from a snapshot.
    ///
    /// # Errors
    /// [`Error::Malformed`]: these bytes are no table.
    pub fn decode(bytes: Bytes) -> Result<Sessions, Error> {
        let table = Table::decode(bytes).map_err(|error| Error::Malformed(error.to_string()))?;
        if table.slots.len() > SLOTS_MAX {
            return Err(Error::Malformed(format!(
                "{} sessions; the maximum is {SLOTS_MAX}",
                table.slots.len()
            )));
        }
        let mut sessions = Sessions::default();
        for slot in table.slots {
            let key = (slot.session, slot.slot);
            if sessions.by_age.insert(slot.index, key).is_some() || sessions.slots.insert(key, slot).is_some()
            {
                return Err(Error::Malformed("a session or an entry stands there twice".into()));
            }
        }
        Ok(sessions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn origin(session: u64, sequence: u64) -> Origin {
        Origin { session, slot: 0, sequence }
    }

    #[test]
    fn a_resend_gets_the_stored_outcome_and_an_older_one_nothing() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.turn(origin(1, 5)), Turn::New);
        sessions.done(origin(1, 5), Index(9), Bytes::from_static(b"five"));
        assert_eq!(sessions.turn(origin(1, 5)), Turn::Repeat(Bytes::from_static(b"five")));
        assert_eq!(sessions.turn(origin(1, 4)), Turn::Stale);
        assert_eq!(sessions.turn(origin(1, 6)), Turn::New);
        assert_eq!(sessions.turn(origin(2, 5)), Turn::New);
    }

    #[test]
    fn the_oldest_outcome_is_forgotten_first() {
        let mut sessions = Sessions::default();
        for session in 0..=SLOTS_MAX as u64 {
            sessions.done(origin(session, 1), Index(session + 1), Bytes::new());
        }
        assert_eq!(sessions.turn(origin(0, 1)), Turn::New);
        assert_eq!(sessions.turn(origin(1, 1)), Turn::Repeat(Bytes::new()));
        assert_eq!(Sessions::decode(sessions.encode().into()).unwrap(), sessions);
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_or_a_table(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(sessions) = Sessions::decode(bytes.into()) {
                prop_assert_eq!(Sessions::decode(sessions.encode().into()).unwrap(), sessions);
            }
        }
    }
}
