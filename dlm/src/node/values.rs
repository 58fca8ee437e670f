//! Value blocks that are read beside a writer: in NL and CR, while another node has PW or EX and may change the value without a message.
//!
//! ```text
//!  reader's node --Ask{reads}--> master --Fetch--> the one node with PW or EX
//!         ^                        |   <--Fetched--
//!         +-------- Granted -------+                also after its Drop, or its death (then the value is not valid)
//! ```
//!
//! Invariant: what is read was the value at some moment between the user's request and its grant. A fetch that began before a request proves nothing to it: each
//! ask that reads is fetched for by itself, and a request that came after the ask asks again.

use super::{Node, tokens::Token};
use crate::event::{Event as TableEvent, LockId, VALUE_BYTES};
use crate::flags::Flags;
use crate::message::{Ask, Key, Message};
use crate::mode::Mode;
use crate::resource::Value;
use base::NodeId;

/// An ask that waits for the value.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    pub from: NodeId,
    pub ask: Ask,
    /// Who was asked for the value.
    pub writer: NodeId,
    pub number: u64,
}

/// A user's request that is not shown to the table yet.
#[derive(Clone, Copy, Debug)]
pub struct Parked {
    pub event: TableEvent,
    /// The last ask before it: its answer says nothing of the value as this one may see it.
    pub after: u64,
}

impl Parked {
    /// True if it reads the value.
    pub fn reads(&self) -> bool {
        match &self.event {
            TableEvent::Request(request) => request.flags.has(Flags::VALBLK),
            TableEvent::Convert(convert) => convert.flags.has(Flags::VALBLK),
            _ => false,
        }
    }

    /// True if the table would show it a value that is too old, after the answer to `answered`.
    pub fn would_read_old(&self, token: &Token, answered: Option<Ask>) -> bool {
        let is_weak = token.mode.is_none_or(|mode| mode < Mode::CW);
        let is_fresh = answered.is_some_and(|ask| ask.reads && ask.tag > self.after);
        self.reads() && is_weak && !is_fresh
    }
}

impl Node {
    /// True if the ask waits: the one who may change the value is asked for it.
    pub(super) fn fetch_first(&mut self, from: NodeId, ask: Ask) -> bool {
        let Some((writer, lock)) = self.writer_of(&ask.key, from) else { return false };
        self.last_fetch += 1;
        let number = self.last_fetch;
        if let Some(spot) = self.spots.get_mut(&ask.key) {
            spot.readers.push(Reader { from, ask, writer, number });
        }
        self.post(writer, Message::Fetch { key: ask.key, lock, number });
        true
    }

    /// Who lives and may change the value, besides one.
    fn writer_of(&self, key: &Key, besides: NodeId) -> Option<(NodeId, LockId)> {
        let holders = self.spots.get(key)?.holders.iter();
        let mut writers = holders.filter(|(node, holder)| {
            **node != besides && holder.mode.is_some_and(Mode::writes_value) && self.cluster.is_live(**node)
        });
        writers.next().map(|(node, holder)| (*node, holder.lock))
    }

    /// The master wants to know the value.
    pub(super) fn fetch(&mut self, from: NodeId, key: Key, lock: LockId, number: u64) {
        let is_mine = |token: &Token| token.lock == Some(lock) && token.master == Some(from);
        let value = match self.tokens.get(&key).is_some_and(is_mine) {
            true => self.changed_value(key),
            // A Drop is on its way before this answer.
            false => None,
        };
        self.post(from, Message::Fetched { key, number, value });
    }

    /// The value, if it was changed here since the master saw it: now it sees it.
    pub(super) fn changed_value(&mut self, key: Key) -> Option<([u8; VALUE_BYTES], bool)> {
        let local = self.token_value(&key);
        let token = self.tokens.get_mut(&key)?;
        let is_changed = local.serial != token.synced;
        token.serial += u64::from(is_changed);
        token.synced = local.serial;
        is_changed.then_some((local.bytes, local.is_valid))
    }

    /// The value as it was a moment ago: whoever waits for it goes on.
    pub(super) fn fetched(
        &mut self,
        from: NodeId,
        key: Key,
        number: u64,
        value: Option<([u8; VALUE_BYTES], bool)>,
    ) {
        if self.put_aside(from, &key, Message::Fetched { key, number, value }) {
            return;
        }
        let Some(spot) = self.spots.get_mut(&key) else { return };
        let is_asked = |reader: &Reader| reader.number == number && reader.writer == from;
        let reader = spot.readers.iter().position(is_asked).map(|at| spot.readers.remove(at));
        if let Some((bytes, is_valid)) = value {
            let (lockspace, name) = key.flat();
            let serial = self.table.value(lockspace, name).map_or(0, |value| value.serial) + 1;
            self.set_master_value(key, Value { bytes, serial, is_valid });
        }
        if let Some(Reader { from, ask, .. }) = reader {
            self.asked(from, Ask { reads: false, ..ask });
        }
    }

    /// Readers whose writer has nothing any more, or is dead: the master knows the value, or its loss.
    pub(super) fn release_readers(&mut self, key: Key) {
        let Some(spot) = self.spots.get_mut(&key).filter(|spot| !spot.readers.is_empty()) else { return };
        let cluster = &self.cluster;
        let holders = &spot.holders;
        let may_write = |reader: &Reader| {
            let writer = holders.get(&reader.writer);
            writer.is_some_and(|held| held.mode.is_some_and(Mode::writes_value))
                && cluster.is_live(reader.writer)
        };
        let (waiting, ready): (Vec<_>, Vec<_>) = spot.readers.drain(..).partition(may_write);
        spot.readers = waiting;
        for Reader { from, ask, .. } in ready {
            self.asked(from, ask);
        }
    }
}
