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
