//! One record a message.
//!
//! ```text
//!  0      1       2      3             4           8
//!  | kind | flags | mode | name length | lockspace | by kind, in this order:
//!
//!   1 Lookup, 2 Ask       tag, [holds]                        flags 1 tries, 2 holds
//!   3 Forward             tag, [holds], from (u32), life      flags as Ask
//!   4 Yours               floor
//!   5 Queued              tag
//!   6 Granted             tag, lock, token, [value]           flags 1 value, 2 the value is valid
//!   7 Denied              tag, why (u8)
//!   8 Cancel              tag
//!   9 Callback            lock                                flags 1 tries
//!  10 InUse               -
//!  11 Drop                lock, floor, [32 bytes]             flags 1 a mode is kept, 2 bytes, 4 they are valid
//!  12 NotMaster           tag
//!  13 Release             floor
//!  14 Released            -
//!  15 Report              masters (u32), orphans (u32), floor, keys, copies      no name; flags 1 more
//!  16 Recovered           trees (u32), keys with locks                           no name; flags 1 done
//!  17 to 22               about deadlocks: see search.rs                         no name
//!
//!  value: serial, 32 bytes      in a list: key | lockspace | length | name |, copy | key | mode | flags | [value] |
//! ```

use super::reader::{Reader, mode};
use super::search;
use super::writer::Writer;
use crate::error::Error;
use crate::event::{LockId, Refusal};
use crate::message::{Ask, Copy, Drop, Key, Message, Report};
use crate::mode::Mode;
use crate::resource::Value;
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
const REPORT: u8 = 15;
const RECOVERED: u8 = 16;

const TRIES: u8 = 1;
const HOLDS: u8 = 2;
const VALUE: u8 = 1;
const VALID: u8 = 2;
const KEEPS: u8 = 1;
const BYTES: u8 = 2;
const BYTES_VALID: u8 = 4;
const MORE: u8 = 1;

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

fn value_flags(value: &Value) -> u8 {
    let there = if *value == Value::NEW { 0 } else { VALUE };
    there | if value.is_valid { VALID } else { 0 }
}

/// Only the kind of a refusal travels.
fn number(why: Refusal) -> u8 {
    let same = |known: &Refusal| std::mem::discriminant(known) == std::mem::discriminant(&why);
    REFUSALS.iter().position(same).unwrap_or_default() as u8
}

/// Adds the record of a message.
pub fn put(message: &Message, out: &mut Vec<u8>) {
    let mut writer = Writer::new(out);
    match message {
        Message::Lookup(ask) => put_ask(&mut writer, LOOKUP, ask).name(&ask.key),
        Message::Ask(ask) => put_ask(&mut writer, ASK, ask).name(&ask.key),
        Message::Forward { from, life, ask } => {
            put_ask(&mut writer, FORWARD, ask).u32(from.0).u64(life.0).name(&ask.key);
        }
        Message::Yours { key, floor } => writer.head(YOURS, 0, None, Some(key)).u64(*floor).name(key),
        Message::Queued { tag, key } => writer.head(QUEUED, 0, None, Some(key)).u64(*tag).name(key),
        Message::Granted { tag, key, lock, mode, token, value } => {
            let head = writer.head(GRANTED, value_flags(value), Some(*mode), Some(key));
            head.u64(*tag).u64(lock.0).u64(*token).value(value).name(key);
        }
        Message::Denied { tag, key, why } => {
            writer.head(DENIED, 0, None, Some(key)).u64(*tag).u8(number(*why)).name(key);
        }
        Message::Cancel { tag, key } => writer.head(CANCEL, 0, None, Some(key)).u64(*tag).name(key),
        Message::Callback { key, lock, mode, tries } => {
            let flags = if *tries { TRIES } else { 0 };
            writer.head(CALLBACK, flags, Some(*mode), Some(key)).u64(lock.0).name(key);
        }
        Message::InUse { key, mode } => writer.head(IN_USE, 0, Some(*mode), Some(key)).name(key),
        Message::Drop(drop) => put_drop(&mut writer, drop),
        Message::NotMaster { tag, key } => writer.head(NOT_MASTER, 0, None, Some(key)).u64(*tag).name(key),
        Message::Release { key, floor } => writer.head(RELEASE, 0, None, Some(key)).u64(*floor).name(key),
        Message::Released { key } => writer.head(RELEASED, 0, None, Some(key)).name(key),
        Message::Report(report) => put_report(&mut writer, report),
        Message::Recovered { trees, done } => {
            let flags = if *done { MORE } else { 0 };
            writer.head(RECOVERED, flags, None, None).u32(trees.len() as u32);
            for (key, lock) in trees {
                writer.listed(key).u64(lock.0);
            }
        }
        Message::Search(said) => search::put(&mut writer, said),
    }
}

fn put_ask<'w, 'a>(writer: &'w mut Writer<'a>, kind: u8, ask: &Ask) -> &'w mut Writer<'a> {
    let tries = if ask.tries { TRIES } else { 0 };
    let holds = if ask.holds.is_some() { HOLDS } else { 0 };
    writer.head(kind, tries | holds, Some(ask.mode), Some(&ask.key)).u64(ask.tag);
    if let Some(lock) = ask.holds {
        writer.u64(lock.0);
    }
    writer
}

fn put_drop(writer: &mut Writer<'_>, drop: &Drop) {
    let mut flags = if drop.mode.is_some() { KEEPS } else { 0 };
    if let Some((_, is_valid)) = drop.value {
        flags |= BYTES | if is_valid { BYTES_VALID } else { 0 };
    }
    writer.head(DROP, flags, drop.mode, Some(&drop.key)).u64(drop.lock.0).u64(drop.floor);
    if let Some((bytes, _)) = &drop.value {
        writer.bytes(bytes);
    }
    writer.name(&drop.key);
}

fn put_report(writer: &mut Writer<'_>, report: &Report) {
    let flags = if report.more { MORE } else { 0 };
    writer.head(REPORT, flags, None, None);
    writer.u32(report.masters.len() as u32).u32(report.orphans.len() as u32).u64(report.floor);
    for key in &report.masters {
        writer.listed(key);
    }
    for Copy { key, mode, value } in &report.orphans {
        writer.listed(key).u8(*mode as u8).u8(value_flags(value)).value(value);
    }
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
        YOURS | RELEASE => {
            let floor = reader.u64()?;
            let key = record.key(reader)?;
            Ok(if kind == YOURS { Message::Yours { key, floor } } else { Message::Release { key, floor } })
        }
        QUEUED | CANCEL | NOT_MASTER => {
            let tag = reader.u64()?;
            let key = record.key(reader)?;
            Ok(match kind {
                QUEUED => Message::Queued { tag, key },
                CANCEL => Message::Cancel { tag, key },
                _ => Message::NotMaster { tag, key },
            })
        }
        GRANTED => {
            let (tag, lock, token) = (reader.u64()?, LockId(reader.u64()?), reader.u64()?);
            let value = value(reader, flags)?;
            let (mode, key) = (record.mode()?, record.key(reader)?);
            Ok(Message::Granted { tag, key, lock, mode, token, value })
        }
        DENIED => {
            let (tag, why) = (reader.u64()?, reader.u8()?);
            let why = *REFUSALS.get(usize::from(why)).ok_or(Error::Wire("a refusal that there is not"))?;
            Ok(Message::Denied { tag, key: record.key(reader)?, why })
        }
        CALLBACK => {
            let (lock, mode) = (LockId(reader.u64()?), record.mode()?);
            Ok(Message::Callback { key: record.key(reader)?, lock, mode, tries: flags & TRIES != 0 })
        }
        IN_USE => Ok(Message::InUse { mode: record.mode()?, key: record.key(reader)? }),
        DROP => record.drop(reader),
        RELEASED => Ok(Message::Released { key: record.key(reader)? }),
        REPORT => report(reader, flags),
        RECOVERED => {
            let count = reader.u32()?;
            let trees = list(reader, count, |reader| Ok((listed(reader)?, LockId(reader.u64()?))))?;
            Ok(Message::Recovered { trees, done: flags & MORE != 0 })
        }
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

    fn ask(&self, reader: &mut Reader<'_>) -> Result<Message, Error> {
        let (tag, mode) = (reader.u64()?, self.mode()?);
        let holds = if self.flags & HOLDS != 0 { Some(LockId(reader.u64()?)) } else { None };
        let asker = match self.kind {
            FORWARD => Some((NodeId(reader.u32()?), Incarnation(reader.u64()?))),
            _ => None,
        };
        let ask = Ask { tag, key: self.key(reader)?, mode, holds, tries: self.flags & TRIES != 0 };
        Ok(match (self.kind, asker) {
            (_, Some((from, life))) => Message::Forward { from, life, ask },
            (LOOKUP, None) => Message::Lookup(ask),
            (_, None) => Message::Ask(ask),
        })
    }

    fn drop(&self, reader: &mut Reader<'_>) -> Result<Message, Error> {
        let (lock, floor) = (LockId(reader.u64()?), reader.u64()?);
        let mode = if self.flags & KEEPS != 0 { Some(self.mode()?) } else { None };
        let value = match self.flags & BYTES {
            0 => None,
            _ => Some((reader.value_bytes()?, self.flags & BYTES_VALID != 0)),
        };
        Ok(Message::Drop(Drop { key: self.key(reader)?, lock, mode, value, floor }))
    }
}

fn value(reader: &mut Reader<'_>, flags: u8) -> Result<Value, Error> {
    if flags & VALUE == 0 {
        return Ok(Value::NEW);
    }
    let serial = reader.u64()?;
    Ok(Value { serial, bytes: reader.value_bytes()?, is_valid: flags & VALID != 0 })
}

pub(super) fn listed(reader: &mut Reader<'_>) -> Result<Key, Error> {
    let (lockspace, length) = (reader.u32()?, reader.u8()?);
    reader.key(lockspace, length)
}

fn report(reader: &mut Reader<'_>, flags: u8) -> Result<Message, Error> {
    let (masters, orphans, floor) = (reader.u32()?, reader.u32()?, reader.u64()?);
    let masters = list(reader, masters, listed)?;
    let orphans = list(reader, orphans, |reader| {
        let (key, mode, flags) = (listed(reader)?, mode(reader.u8()?)?, reader.u8()?);
        Ok(Copy { key, mode, value: value(reader, flags)? })
    })?;
    Ok(Message::Report(Report { masters, orphans, floor, more: flags & MORE != 0 }))
}

/// So many of them; room is made only for as many as the bytes that came can hold.
pub(super) fn list<T>(
    reader: &mut Reader<'_>,
    count: u32,
    one: impl Fn(&mut Reader<'_>) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let mut all = Vec::with_capacity((count as usize).min(reader.left() / 6));
    for _ in 0..count {
        all.push(one(reader)?);
    }
    Ok(all)
}
