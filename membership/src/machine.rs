//! What the log says: the table after all agreed entries, and who has been answered what.
//!
//! Invariant: the same entries in the same order make the same machine, also through a snapshot; a request that is in the
//! log twice is carried out once.

use crate::command::{Command, Outcome};
use crate::table::{HISTORY_MAX, Table};
use bytes::Bytes;
use prost::Message;
use replog::{Index, Origin, Sessions, Turn};

/// The state machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// The table.
    pub table: Table,
    /// The place of the last entry that is in it.
    pub index: Index,
    sessions: Sessions,
}

/// [`Machine`] in a snapshot.
#[derive(Clone, PartialEq, prost::Message)]
struct Resting {
    #[prost(bytes = "bytes", tag = "1")]
    table: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    sessions: Bytes,
}

impl Machine {
    /// Carries out an agreed command.
    pub fn apply(&mut self, index: Index, origin: Option<Origin>, command: &[u8]) -> Outcome {
        self.index = index;
        let Some(origin) = origin else { return self.carry_out(command) };
        match self.sessions.turn(origin) {
            Turn::New => {
                let outcome = self.carry_out(command);
                self.sessions.done(origin, index, outcome.encode_to_vec().into());
                outcome
            }
            // Its own words come back; they decode.
            Turn::Repeat(outcome) => Outcome::decode(outcome).unwrap_or_default(),
            Turn::Stale => {
                Outcome { refused: "a later request was carried out".into(), ..Outcome::default() }
            }
        }
    }

    fn carry_out(&mut self, command: &[u8]) -> Outcome {
        match Command::decode(command) {
            Ok(command) => self.table.apply(&command),
            Err(error) => Outcome { refused: error.to_string(), ..Outcome::default() },
        }
    }

    /// The machine as bytes.
    pub fn encode(&self) -> Bytes {
        let (table, sessions) = (self.table.encode(HISTORY_MAX).into(), self.sessions.encode().into());
        Resting { table, sessions }.encode_to_vec().into()
    }

    /// The machine from a snapshot that was made after `index`. No bytes are the machine before the first entry.
    ///
    /// # Errors
    /// What is wrong with the bytes, as a sentence.
    pub fn decode(index: Index, bytes: Bytes) -> Result<Machine, String> {
        if bytes.is_empty() {
            return Ok(Machine { index, ..Machine::default() });
        }
        let resting = Resting::decode(bytes).map_err(|error| error.to_string())?;
        let sessions = Sessions::decode(resting.sessions).map_err(|error| error.to_string())?;
        Ok(Machine { table: Table::decode(&resting.table)?, index, sessions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Act;
    use crate::wire::Node;
    use proptest::prelude::*;

    #[test]
    fn a_request_that_is_in_the_log_twice_is_carried_out_once_also_behind_a_snapshot() {
        let first = Node { name: "one".into(), cpus: 1, ..Node::default() };
        let mut machine = Machine::default();
        let found = Act::Found(crate::table::founded("blue", &first, 16_384));
        let command = |act| Command { at_ms: 1, act: Some(act) }.encode_to_vec();
        machine.apply(Index(1), None, &command(found));
        let wanted = Act::Join(Node {
            name: "two".into(),
            control_address: "10.0.0.2:1".into(),
            data_address: "10.0.0.2:2".into(),
            cpus: 1,
            ..Node::default()
        });
        let origin = Some(Origin { session: 5, slot: 0, sequence: 1 });
        let outcome = machine.apply(Index(2), origin, &command(wanted.clone()));
        assert_eq!((outcome.node, outcome.number), (2, 2));
        let mut copy = Machine::decode(Index(2), machine.encode()).unwrap();
        assert_eq!(copy, machine);
        assert_eq!(copy.apply(Index(3), origin, &command(wanted)), outcome);
        assert_eq!(copy.table, machine.table);
        assert!(!machine.apply(Index(3), None, b"nonsense").refused.is_empty());
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_or_a_machine(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(machine) = Machine::decode(Index(7), bytes.into()) {
                prop_assert_eq!(Machine::decode(Index(7), machine.encode()).unwrap(), machine);
            }
        }
    }
}
