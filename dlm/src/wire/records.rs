//! One record a message.
//!
//! ```text
//!  0      1       2      3             4           8
//!  | kind | flags | mode | name length | lockspace | by kind, in this order, then the name:
//!
//!   1 Lookup, 2 Ask       tag, [holds], [scoped]              flags 1 tries, 2 holds, 4 reads, 8 scoped
//!   3 Forward             tag, [holds], [scoped], from (u32), life          flags as Ask
//!   4 Yours               floor
//!   5 Queued              tag
//!   6 Granted             tag, lock, token, [value], [scope]  flags 1 value, 2 the value is valid, 4 a scope
//!   7 Denied              tag, why (u8)
//!   8 Cancel              tag
//!   9 Callback            lock, [scope]                       flags 1 tries, 4 a scope
//!  10 InUse               -
//!  11 Drop                lock, floor, [32 bytes], [scope]    flags 1 a mode is kept, 2 bytes, 4 they are valid, 8 a scope
//!  12 NotMaster           tag
//!  13 Release             floor
//!  14 Released            -
//!  15, 16, 31, 32         lists: see bulk.rs
//!  17 to 22               about deadlocks: see search.rs      no name
//!  23 Fetch               lock, number
//!  24 Fetched             number, [32 bytes]                  flags as Drop
//!  25 Purge               [holder]                            no name; flags 1 of one holder
//!  26 Moving              to (u32), number
//!  27 Noted               number
//!  28 Took, 29 Confirmed, 30 Taken       -
//!
//!  name           its bytes, and 32 more that say where below it if the highest bit of the length is set
//!  scoped         lock, holder, transaction, flags (u32), scope
//!  scope          0; 1, bits; 2, first, last, and the same desired
//!  value          serial, 32 bytes
//! ```

use super::reader::{Reader, mode};
use super::writer::{VALID, VALUE, Writer, value_flags};
use super::{bulk, search};
use crate::error::Error;
use crate::event::{LockId, Refusal, Transaction, VALUE_BYTES};
use crate::flags::Flags;
use crate::key::Key;
use crate::message::{Ask, Drop, Message, Scoped};
use crate::mode::Mode;
use crate::policy::Scope;
use base::{Incarnation, NodeId};

const LOOKUP: u8 = 1;
const ASK: u8 = 2;
const FORWARD: u8 = 3;
const YOURS: u8 = 4;
const QUEUED: u8 = 5;
const GRANTED: u8 = 6;
const DENIED: u8 = 7;
const CANCEL: u8 = 8;
const CALLBACK: u8 = 9;
const IN_USE: u8 = 10;
const DROP: u8 = 11;
const NOT_MASTER: u8 = 12;
const RELEASE: u8 = 13;
const RELEASED: u8 = 14;
const FETCH: u8 = 23;
const FETCHED: u8 = 24;
const PURGE: u8 = 25;
const MOVING: u8 = 26;
const NOTED: u8 = 27;
const TOOK: u8 = 28;
const CONFIRMED: u8 = 29;
const TAKEN: u8 = 30;

const TRIES: u8 = 1;
const HOLDS: u8 = 2;
const READS: u8 = 4;
const SCOPED: u8 = 8;
const SCOPE: u8 = 4;
const KEEPS: u8 = 1;
const BYTES: u8 = 2;
const BYTES_VALID: u8 = 4;
const KEEPS_SCOPE: u8 = 8;
const OF_ONE: u8 = 1;

/// Refusals by their numbers; what a peer says in words of its own is told in ours.
const REFUSALS: [Refusal; 11] = [
    Refusal::Again,
    Refusal::TimedOut,
    Refusal::Cancelled,
    Refusal::Deadlock,
    Refusal::NoLock,
    Refusal::Busy,
    Refusal::NotPending,
    Refusal::HasChildren,
    Refusal::NoOrphan,
    Refusal::Invalid("the master of the resource says so"),
    Refusal::Limit("of the master of the resource"),
];

/// Only the kind of a refusal travels.
fn number(why: Refusal) -> u8 {
    let same = |known: &Refusal| std::mem::discriminant(known) == std::mem::discriminant(&why);
    REFUSALS.iter().position(same).unwrap_or_default() as u8
}

/// Adds the record of a message.
pub fn put(message: &Message, out: &mut Vec<u8>) {
    let writer = &mut Writer::new(out);
    match message {
        Message::Lookup(ask) => put_ask(writer, LOOKUP, ask).name(&ask.key),
        Message::Ask(ask) => put_ask(writer, ASK, ask).name(&ask.key),
        Message::Forward { from, life, ask } => {
            put_ask(writer, FORWARD, ask).u32(from.0).u64(life.0).name(&ask.key);
        }
        Message::Yours { key, floor } => put_number(writer, YOURS, *floor, key),
        Message::Queued { tag, key } => put_number(writer, QUEUED, *tag, key),
        Message::Granted { tag, key, lock, mode, scope, token, value } => {
            let flags = value_flags(value) | some_scope(*scope, SCOPE);
            let record = writer.head(GRANTED, flags, Some(*mode), Some(key));
            put_scope(record.u64(*tag).u64(lock.0).u64(*token).value(value), scope).name(key);
        }
        Message::Denied { tag, key, why } => {
            writer.head(DENIED, 0, None, Some(key)).u64(*tag).u8(number(*why)).name(key);
        }
        Message::Cancel { tag, key } => put_number(writer, CANCEL, *tag, key),
        Message::Callback { key, lock, mode, scope, tries } => {
            let flags = if *tries { TRIES } else { 0 } | some_scope(*scope, SCOPE);
            let record = writer.head(CALLBACK, flags, Some(*mode), Some(key)).u64(lock.0);
            put_scope(record, scope).name(key);
        }
        Message::InUse { key, mode } => writer.head(IN_USE, 0, Some(*mode), Some(key)).name(key),
        Message::Fetch { key, lock, number } => {
            writer.head(FETCH, 0, None, Some(key)).u64(lock.0).u64(*number).name(key);
        }
        Message::Fetched { key, number, value } => {
            let record = writer.head(FETCHED, written_flags(value), None, Some(key)).u64(*number);
            record.bytes(written(value)).name(key);
        }
        Message::Drop(drop) => put_drop(writer, drop),
        Message::Purge { holder } => {
            let flags = if holder.is_some() { OF_ONE } else { 0 };
            writer.head(PURGE, flags, None, None);
            holder.iter().for_each(|holder| _ = writer.u64(*holder));
        }
        Message::NotMaster { tag, key } => put_number(writer, NOT_MASTER, *tag, key),
        Message::Release { key, floor } => put_number(writer, RELEASE, *floor, key),
        Message::Released { key } => put_name(writer, RELEASED, key),
        Message::Moving { key, to, number } => {
            writer.head(MOVING, 0, None, Some(key)).u32(to.0).u64(*number).name(key);
        }
        Message::Noted { key, number } => put_number(writer, NOTED, *number, key),
        Message::Tree { key, tokens, scoped, nodes, floor, more } => {
            let (floor, more) = (*floor, *more);
            bulk::put_tree(writer, &bulk::Freight { key, tokens, scoped, nodes, floor, more });
        }
        Message::Took { key } => put_name(writer, TOOK, key),
        Message::Confirmed { key } => put_name(writer, CONFIRMED, key),
        Message::Taken { key } => put_name(writer, TAKEN, key),
        Message::Moved { key, tokens, scoped, more } => bulk::put_moved(writer, key, tokens, scoped, *more),
        Message::Report(report) => bulk::put_report(writer, report),
        Message::Recovered { trees, scoped, done } => bulk::put_recovered(writer, trees, scoped, *done),
        Message::Search(said) => search::put(writer, said),
    }
}

fn put_name(writer: &mut Writer<'_>, kind: u8, key: &Key) {
    writer.head(kind, 0, None, Some(key)).name(key);
}

fn put_number(writer: &mut Writer<'_>, kind: u8, number: u64, key: &Key) {
    writer.head(kind, 0, None, Some(key)).u64(number).name(key);
}

fn some_scope(scope: Scope, flag: u8) -> u8 {
    if scope == Scope::Plain { 0 } else { flag }
}

fn put_scope<'w, 'a>(writer: &'w mut Writer<'a>, scope: &Scope) -> &'w mut Writer<'a> {
    if *scope == Scope::Plain { writer } else { writer.scope(scope) }
}

/// A value block that was written, and whether it is valid.
type Written = Option<([u8; VALUE_BYTES], bool)>;

fn written_flags(value: &Written) -> u8 {
    match value {
        None => 0,
        Some((_, false)) => BYTES,
        Some((_, true)) => BYTES | BYTES_VALID,
    }
}

fn written(value: &Written) -> &[u8] {
    value.as_ref().map_or(&[], |(bytes, _)| bytes)
}

fn put_ask<'w, 'a>(writer: &'w mut Writer<'a>, kind: u8, ask: &Ask) -> &'w mut Writer<'a> {
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    let flags = flag(ask.tries, TRIES) | flag(ask.holds.is_some(), HOLDS) | flag(ask.reads, READS);
    let flags = flags | flag(ask.scoped.is_some(), SCOPED);
    writer.head(kind, flags, Some(ask.mode), Some(&ask.key)).u64(ask.tag);
    if let Some(lock) = ask.holds {
        writer.u64(lock.0);
    }
    if let Some(Scoped { lock, holder, transaction, flags, scope }) = &ask.scoped {
        writer.u64(lock.0).u64(*holder).u64(transaction.0).u32(flags.0).scope(scope);
    }
    writer
}

fn put_drop(writer: &mut Writer<'_>, drop: &Drop) {
    let keeps = if drop.mode.is_some() { KEEPS } else { 0 };
    let flags = keeps | written_flags(&drop.value) | drop.scope.map_or(0, |_| KEEPS_SCOPE);
    writer.head(DROP, flags, drop.mode, Some(&drop.key)).u64(drop.lock.0).u64(drop.floor);
    writer.bytes(written(&drop.value));
    drop.scope.iter().for_each(|scope| _ = writer.scope(scope));
    writer.name(&drop.key);
}

/// The next record.
///
/// # Errors
/// [`Error::Wire`], or that of a name.
pub fn take(reader: &mut Reader<'_>) -> Result<Message, Error> {
    let (kind, flags, mode_number, length) = (reader.u8()?, reader.u8()?, reader.u8()?, reader.u8()?);
    let lockspace = reader.u32()?;
    let record = Record { kind, flags, mode_number, length, lockspace };
    match kind {
        LOOKUP | ASK | FORWARD => record.ask(reader),
        YOURS | RELEASE | QUEUED | CANCEL | NOT_MASTER | NOTED => record.numbered(reader),
        RELEASED | TOOK | CONFIRMED | TAKEN => record.named(reader),
        GRANTED => record.granted(reader),
        DENIED => {
            let (tag, why) = (reader.u64()?, reader.u8()?);
            let why = *REFUSALS.get(usize::from(why)).ok_or(Error::Wire("a refusal that there is not"))?;
            Ok(Message::Denied { tag, key: record.key(reader)?, why })
        }
        CALLBACK => {
            let (lock, mode) = (LockId(reader.u64()?), record.mode()?);
            let (scope, tries) = (record.scope(reader, SCOPE)?, flags & TRIES != 0);
            let scope = scope.unwrap_or(Scope::Plain);
            Ok(Message::Callback { key: record.key(reader)?, lock, mode, scope, tries })
        }
        IN_USE => Ok(Message::InUse { mode: record.mode()?, key: record.key(reader)? }),
        FETCH => {
            let (lock, number) = (LockId(reader.u64()?), reader.u64()?);
            Ok(Message::Fetch { key: record.key(reader)?, lock, number })
        }
        FETCHED => {
            let (number, value) = (reader.u64()?, record.written(reader)?);
            Ok(Message::Fetched { key: record.key(reader)?, number, value })
        }
        DROP => record.drop(reader),
        PURGE => {
            let holder = if flags & OF_ONE != 0 { Some(reader.u64()?) } else { None };
            Ok(Message::Purge { holder })
        }
        MOVING => {
            let (to, number) = (NodeId(reader.u32()?), reader.u64()?);
            Ok(Message::Moving { key: record.key(reader)?, to, number })
        }
        bulk::REPORT => bulk::take_report(reader, flags),
        bulk::RECOVERED => bulk::take_recovered(reader, flags),
        bulk::TREE => bulk::take_tree(reader, flags, |reader| record.key(reader)),
        bulk::MOVED => bulk::take_moved(reader, flags, |reader| record.key(reader)),
        search::WANTED..=search::VICTIM => search::take(reader, kind).map(Message::Search),
        _ => Err(Error::Wire("an unknown kind of record")),
    }
}

/// The first eight bytes of a record.
struct Record {
    kind: u8,
    flags: u8,
    mode_number: u8,
    length: u8,
    lockspace: u32,
}

impl Record {
    fn mode(&self) -> Result<Mode, Error> {
        mode(self.mode_number)
    }

    fn key(&self, reader: &mut Reader<'_>) -> Result<Key, Error> {
        reader.key(self.lockspace, self.length)
    }

    fn scope(&self, reader: &mut Reader<'_>, flag: u8) -> Result<Option<Scope>, Error> {
        if self.flags & flag == 0 { Ok(None) } else { reader.scope().map(Some) }
    }

    fn written(&self, reader: &mut Reader<'_>) -> Result<Written, Error> {
        match self.flags & BYTES {
            0 => Ok(None),
            _ => Ok(Some((reader.value_bytes()?, self.flags & BYTES_VALID != 0))),
        }
    }

    fn named(&self, reader: &mut Reader<'_>) -> Result<Message, Error> {
        let key = self.key(reader)?;
        Ok(match self.kind {
            RELEASED => Message::Released { key },
            TOOK => Message::Took { key },
            CONFIRMED => Message::Confirmed { key },
            _ => Message::Taken { key },
        })
    }

    fn numbered(&self, reader: &mut Reader<'_>) -> Result<Message, Error> {
        let number = reader.u64()?;
        let key = self.key(reader)?;
        Ok(match self.kind {
            YOURS => Message::Yours { key, floor: number },
            RELEASE => Message::Release { key, floor: number },
            QUEUED => Message::Queued { tag: number, key },
            CANCEL => Message::Cancel { tag: number, key },
            NOT_MASTER => Message::NotMaster { tag: number, key },
            _ => Message::Noted { key, number },
        })
    }

    fn granted(&self, reader: &mut Reader<'_>) -> Result<Message, Error> {
        let (tag, lock, token) = (reader.u64()?, LockId(reader.u64()?), reader.u64()?);
        let value = reader.value(self.flags & (VALUE | VALID))?;
        let scope = self.scope(reader, SCOPE)?.unwrap_or(Scope::Plain);
        let (mode, key) = (self.mode()?, self.key(reader)?);
        Ok(Message::Granted { tag, key, lock, mode, scope, token, value })
    }

    fn ask(&self, reader: &mut Reader<'_>) -> Result<Message, Error> {
        let (tag, mode) = (reader.u64()?, self.mode()?);
        let holds = if self.flags & HOLDS != 0 { Some(LockId(reader.u64()?)) } else { None };
        let scoped = if self.flags & SCOPED != 0 { Some(scoped(reader)?) } else { None };
        let asker = match self.kind {
            FORWARD => Some((NodeId(reader.u32()?), Incarnation(reader.u64()?))),
            _ => None,
        };
        let (tries, reads) = (self.flags & TRIES != 0, self.flags & READS != 0);
        let ask = Ask { tag, key: self.key(reader)?, mode, holds, tries, reads, scoped };
        Ok(match (self.kind, asker) {
            (_, Some((from, life))) => Message::Forward { from, life, ask },
            (LOOKUP, None) => Message::Lookup(ask),
            (_, None) => Message::Ask(ask),
        })
    }

    fn drop(&self, reader: &mut Reader<'_>) -> Result<Message, Error> {
        let (lock, floor) = (LockId(reader.u64()?), reader.u64()?);
        let mode = if self.flags & KEEPS != 0 { Some(self.mode()?) } else { None };
        let (value, scope) = (self.written(reader)?, self.scope(reader, KEEPS_SCOPE)?);
        Ok(Message::Drop(Drop { key: self.key(reader)?, lock, mode, scope, value, floor }))
    }
}

fn scoped(reader: &mut Reader<'_>) -> Result<Scoped, Error> {
    Ok(Scoped {
        lock: LockId(reader.u64()?),
        holder: reader.u64()?,
        transaction: Transaction(reader.u64()?),
        flags: Flags(reader.u32()?),
        scope: reader.scope()?,
    })
}
