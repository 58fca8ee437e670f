//! How messages and entries look on the wire and on disk: tagged messages (prost). The drawing is in README.md.
//!
//! Invariant: what decodes is within the limits; everything else is an [`Error`], whoever sent it.

mod rows;

pub(crate) use rows::{decode_entry, decode_hard, decode_meta, encode_entry, encode_hard, encode_meta};

use crate::entry::Entry;
use crate::error::Error;
use crate::ids::{Index, Stamp, Term};
use crate::message::{Envelope, Mark, Message};
use base::Time;
use bytes::Bytes;
use prost::Message as _;
use rows::{EntryRow, MemberRow, MetaRow, malformed, stamp};

#[derive(Clone, PartialEq, prost::Message)]
struct EnvelopeRow {
    #[prost(uint64, tag = "1")]
    log: u64,
    #[prost(message, optional, tag = "2")]
    from: Option<MemberRow>,
    #[prost(message, optional, tag = "3")]
    to: Option<MemberRow>,
    #[prost(uint64, tag = "4")]
    term: u64,
    #[prost(fixed64, tag = "5")]
    sent: u64,
    #[prost(uint64, tag = "6")]
    round: u64,
    #[prost(oneof = "BodyRow", tags = "7, 8, 9, 10, 11, 12, 13, 14")]
    body: Option<BodyRow>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum BodyRow {
    #[prost(message, tag = "7")]
    Canvass(CanvassRow),
    #[prost(message, tag = "8")]
    Vote(VoteRow),
    #[prost(message, tag = "9")]
    Append(AppendRow),
    #[prost(uint64, tag = "10")]
    Appended(u64),
    #[prost(message, tag = "11")]
    Mismatch(MismatchRow),
    #[prost(message, tag = "12")]
    Chunk(ChunkRow),
    #[prost(message, tag = "13")]
    ChunkTaken(ChunkTakenRow),
    #[prost(message, tag = "14")]
    TakeOver(()),
}

#[derive(Clone, PartialEq, prost::Message)]
struct CanvassRow {
    #[prost(bool, tag = "1")]
    trial: bool,
    #[prost(uint64, tag = "2")]
    last_term: u64,
    #[prost(uint64, tag = "3")]
    last_index: u64,
    #[prost(bool, tag = "4")]
    handover: bool,
    #[prost(bool, tag = "5")]
    early: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct VoteRow {
    #[prost(bool, tag = "1")]
    trial: bool,
    #[prost(bool, tag = "2")]
    granted: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AppendRow {
    #[prost(uint64, tag = "1")]
    prev_term: u64,
    #[prost(uint64, tag = "2")]
    prev_index: u64,
    #[prost(message, repeated, tag = "3")]
    entries: Vec<EntryRow>,
    #[prost(uint64, tag = "4")]
    commit: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MismatchRow {
    #[prost(uint64, tag = "1")]
    prev: u64,
    #[prost(uint64, tag = "2")]
    hint_term: u64,
    #[prost(uint64, tag = "3")]
    hint_index: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ChunkRow {
    #[prost(message, optional, tag = "1")]
    meta: Option<MetaRow>,
    #[prost(uint64, tag = "2")]
    offset: u64,
    #[prost(bytes = "bytes", tag = "3")]
    bytes: Bytes,
    #[prost(uint64, tag = "4")]
    size: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ChunkTakenRow {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    index: u64,
    #[prost(uint64, tag = "3")]
    offset: u64,
}

/// A message as bytes. `log` says which of a node's logs it is about.
pub fn encode(log: u64, envelope: &Envelope) -> Vec<u8> {
    let mark = match &envelope.body {
        Message::Append { mark, .. }
        | Message::Appended { mark, .. }
        | Message::Mismatch { mark, .. }
        | Message::Chunk { mark, .. }
        | Message::ChunkTaken { mark, .. } => *mark,
        Message::Canvass { .. } | Message::Vote { .. } | Message::TakeOver => Mark::default(),
    };
    let (from, to) = (Some(envelope.from.into()), Some(envelope.to.into()));
    let (sent, round, term) = (mark.sent.0, mark.round, envelope.term.0);
    EnvelopeRow { log, from, to, term, sent, round, body: Some(body_row(&envelope.body)) }.encode_to_vec()
}

fn body_row(body: &Message) -> BodyRow {
    match body {
        Message::Canvass { trial, last, handover, early } => BodyRow::Canvass(CanvassRow {
            trial: *trial,
            last_term: last.term.0,
            last_index: last.index.0,
            handover: *handover,
            early: *early,
        }),
        Message::Vote { trial, granted } => BodyRow::Vote(VoteRow { trial: *trial, granted: *granted }),
        Message::Append { prev, entries, commit, .. } => BodyRow::Append(AppendRow {
            prev_term: prev.term.0,
            prev_index: prev.index.0,
            entries: entries.iter().map(EntryRow::from).collect(),
            commit: commit.0,
        }),
        Message::Appended { matched, .. } => BodyRow::Appended(matched.0),
        Message::Mismatch { prev, hint, .. } => {
            BodyRow::Mismatch(MismatchRow { prev: prev.0, hint_term: hint.term.0, hint_index: hint.index.0 })
        }
        Message::Chunk { meta, offset, bytes, size, .. } => BodyRow::Chunk(ChunkRow {
            meta: Some(meta.into()),
            offset: *offset,
            bytes: bytes.clone(),
            size: *size,
        }),
        Message::ChunkTaken { stamp: Stamp { term, index }, offset, .. } => {
            BodyRow::ChunkTaken(ChunkTakenRow { term: term.0, index: index.0, offset: *offset })
        }
        Message::TakeOver => BodyRow::TakeOver(()),
    }
}

/// A message from bytes, and which log it is about.
///
/// # Errors
/// [`Error::Malformed`]: these bytes are no message, or one beyond the limits.
pub fn decode(bytes: Bytes) -> Result<(u64, Envelope), Error> {
    let row = EnvelopeRow::decode(bytes).map_err(malformed)?;
    let (Some(from), Some(to), Some(body)) = (row.from, row.to, row.body) else {
        return Err(malformed("a message lacks its sender, its receiver or its content"));
    };
    let mark = Mark { sent: Time(row.sent), round: row.round };
    let body = body_of(body, mark)?;
    Ok((row.log, Envelope { from: from.into(), to: to.into(), term: Term(row.term), body }))
}

fn body_of(row: BodyRow, mark: Mark) -> Result<Message, Error> {
    Ok(match row {
        BodyRow::Canvass(CanvassRow { trial, last_term, last_index, handover, early }) => {
            Message::Canvass { trial, last: stamp(last_term, last_index), handover, early }
        }
        BodyRow::Vote(VoteRow { trial, granted }) => Message::Vote { trial, granted },
        BodyRow::Append(AppendRow { prev_term, prev_index, entries, commit }) => Message::Append {
            prev: stamp(prev_term, prev_index),
            entries: entries.into_iter().map(Entry::try_from).collect::<Result<_, _>>()?,
            commit: Index(commit),
            mark,
        },
        BodyRow::Appended(matched) => Message::Appended { matched: Index(matched), mark },
        BodyRow::Mismatch(MismatchRow { prev, hint_term, hint_index }) => {
            Message::Mismatch { prev: Index(prev), hint: stamp(hint_term, hint_index), mark }
        }
        BodyRow::Chunk(ChunkRow { meta, offset, bytes, size }) => {
            Message::Chunk { meta: meta.unwrap_or_default().try_into()?, offset, bytes, size, mark }
        }
        BodyRow::ChunkTaken(ChunkTakenRow { term, index, offset }) => {
            Message::ChunkTaken { stamp: stamp(term, index), offset, mark }
        }
        BodyRow::TakeOver(()) => Message::TakeOver,
    })
}

#[cfg(test)]
mod tests;
