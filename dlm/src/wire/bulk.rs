//! The records that carry lists: recoveries and moves of trees.
//!
//! ```text
//!  15 Report      floor, masters, handed (key, u32, era: 0 lives), copies, scoped copies     no name; flags 1 more
//!  16 Recovered   trees (key, lock), placed                                    no name; flags 1 done
//!  31 Tree        floor, tokens (u32, copy), scoped (u32, scoped copy), nodes (u32), name      flags 1 more
//!  32 Moved       tokens (key, lock), placed, name                             flags 1 more
//!
//!  a list is a count (u32) and so many; a key in it: | lockspace | length | name | [below] |
//!  copy           key | mode | flags | [value]                  flags 1 value, 2 the value is valid
//!  scoped copy    key | lock | holder | transaction | mode | scope | wanted (255: none) | flags | [value]
//!  placed         key | lock | lock at the master | mode
//! ```

use super::reader::{Reader, mode};
use super::writer::{Writer, value_flags};
use crate::error::Error;
use crate::event::{LockId, Transaction};
use crate::key::Key;
use crate::message::{Copy, Handed, Message, Placed, Report, ScopedCopy};
use crate::mode::Mode;
use base::{Epoch, NodeId};

pub const REPORT: u8 = 15;
pub const RECOVERED: u8 = 16;
pub const TREE: u8 = 31;
pub const MOVED: u8 = 32;

pub const MORE: u8 = 1;
const NO_MODE: u8 = 255;

pub fn put_report(writer: &mut Writer<'_>, report: &Report) {
    let flags = if report.more { MORE } else { 0 };
    writer.head(REPORT, flags, None, None).u64(report.floor);
    writer.list(&report.masters, |writer, key| {
        writer.listed(key);
    });
    writer.list(&report.handed, |writer, handed| {
        let ended = handed.ended.unwrap_or_default();
        writer.listed(&handed.key).u32(handed.to.0).u64(ended.0);
    });
    writer.list(&report.orphans, put_copy).list(&report.scoped, put_scoped);
}

pub fn put_recovered(writer: &mut Writer<'_>, trees: &[(Key, LockId)], scoped: &[Placed], done: bool) {
    let flags = if done { MORE } else { 0 };
    writer.head(RECOVERED, flags, None, None).list(trees, put_place).list(scoped, put_placed);
}

pub fn put_moved(
    writer: &mut Writer<'_>,
    key: &Key,
    tokens: &[(Key, LockId)],
    scoped: &[Placed],
    more: bool,
) {
    let flags = if more { MORE } else { 0 };
    writer.head(MOVED, flags, None, Some(key)).list(tokens, put_place).list(scoped, put_placed).name(key);
}

/// What a tree that goes to another master carries along.
pub struct Freight<'a> {
    pub key: &'a Key,
    pub tokens: &'a [(NodeId, Copy)],
    pub scoped: &'a [(NodeId, ScopedCopy)],
    pub nodes: &'a [NodeId],
    pub floor: u64,
    pub more: bool,
}

pub fn put_tree(writer: &mut Writer<'_>, tree: &Freight<'_>) {
    let flags = if tree.more { MORE } else { 0 };
    writer.head(TREE, flags, None, Some(tree.key)).u64(tree.floor);
    writer.list(tree.tokens, |writer, (node, copy)| put_copy(writer.u32(node.0), copy));
    writer.list(tree.scoped, |writer, (node, copy)| put_scoped(writer.u32(node.0), copy));
    writer.list(tree.nodes, |writer, node| {
        writer.u32(node.0);
    });
    writer.name(tree.key);
}

fn put_copy(writer: &mut Writer<'_>, copy: &Copy) {
    let value = &copy.value;
    writer.listed(&copy.key).u8(copy.mode as u8).u8(value_flags(value)).value(value);
}

fn put_scoped(writer: &mut Writer<'_>, copy: &ScopedCopy) {
    let value = &copy.value;
    writer.listed(&copy.key).u64(copy.lock.0).u64(copy.holder).u64(copy.transaction.0);
    writer.u8(copy.mode as u8).scope(&copy.scope).u8(copy.wanted.map_or(NO_MODE, |mode| mode as u8));
    writer.u8(value_flags(value)).value(value);
}

fn put_place(writer: &mut Writer<'_>, (key, lock): &(Key, LockId)) {
    writer.listed(key).u64(lock.0);
}

fn put_placed(writer: &mut Writer<'_>, placed: &Placed) {
    writer.listed(&placed.key).u64(placed.lock.0).u64(placed.at_master.0).u8(placed.mode as u8);
}

/// A list and its count.
fn all<'a, T>(
    reader: &mut Reader<'a>,
    one: impl Fn(&mut Reader<'a>) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let count = reader.u32()?;
    reader.list(count, one)
}

pub fn take_report(reader: &mut Reader<'_>, flags: u8) -> Result<Message, Error> {
    Ok(Message::Report(Report {
        floor: reader.u64()?,
        masters: all(reader, Reader::listed)?,
        handed: all(reader, handed)?,
        orphans: all(reader, copy)?,
        scoped: all(reader, scoped)?,
        more: flags & MORE != 0,
    }))
}

fn handed(reader: &mut Reader<'_>) -> Result<Handed, Error> {
    let (key, to, ended) = (reader.listed()?, NodeId(reader.u32()?), Epoch(reader.u64()?));
    Ok(Handed { key, to, ended: (ended != Epoch(0)).then_some(ended) })
}

pub fn take_recovered(reader: &mut Reader<'_>, flags: u8) -> Result<Message, Error> {
    let (trees, scoped) = (all(reader, place)?, all(reader, placed)?);
    Ok(Message::Recovered { trees, scoped, done: flags & MORE != 0 })
}

pub fn take_moved(
    reader: &mut Reader<'_>,
    flags: u8,
    key: impl Fn(&mut Reader<'_>) -> Result<Key, Error>,
) -> Result<Message, Error> {
    let (tokens, scoped) = (all(reader, place)?, all(reader, placed)?);
    Ok(Message::Moved { key: key(reader)?, tokens, scoped, more: flags & MORE != 0 })
}

pub fn take_tree(
    reader: &mut Reader<'_>,
    flags: u8,
    key: impl Fn(&mut Reader<'_>) -> Result<Key, Error>,
) -> Result<Message, Error> {
    let floor = reader.u64()?;
    let tokens = all(reader, |reader| Ok((NodeId(reader.u32()?), copy(reader)?)))?;
    let scoped = all(reader, |reader| Ok((NodeId(reader.u32()?), scoped(reader)?)))?;
    let nodes = all(reader, |reader| reader.u32().map(NodeId))?;
    Ok(Message::Tree { key: key(reader)?, tokens, scoped, nodes, floor, more: flags & MORE != 0 })
}

fn copy(reader: &mut Reader<'_>) -> Result<Copy, Error> {
    let (key, mode, flags) = (reader.listed()?, reader.mode()?, reader.u8()?);
    Ok(Copy { key, mode, value: reader.value(flags)? })
}

fn scoped(reader: &mut Reader<'_>) -> Result<ScopedCopy, Error> {
    let key = reader.listed()?;
    let (lock, holder) = (LockId(reader.u64()?), reader.u64()?);
    let (transaction, mode, scope) = (Transaction(reader.u64()?), reader.mode()?, reader.scope()?);
    let wanted = wanted(reader.u8()?)?;
    let flags = reader.u8()?;
    Ok(ScopedCopy { key, lock, holder, transaction, mode, scope, wanted, value: reader.value(flags)? })
}

fn wanted(number: u8) -> Result<Option<Mode>, Error> {
    if number == NO_MODE { Ok(None) } else { mode(number).map(Some) }
}

fn place(reader: &mut Reader<'_>) -> Result<(Key, LockId), Error> {
    Ok((reader.listed()?, LockId(reader.u64()?)))
}

fn placed(reader: &mut Reader<'_>) -> Result<Placed, Error> {
    let (key, lock) = (reader.listed()?, LockId(reader.u64()?));
    Ok(Placed { key, lock, at_master: LockId(reader.u64()?), mode: reader.mode()? })
}
