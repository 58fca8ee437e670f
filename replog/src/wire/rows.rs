//! The rows that both the wire and the disk know: members, voters, entries, promises.
//!
//! Invariant: a row becomes a value only within the limits.

use crate::entry::{Entry, HardState, Origin, Payload, SnapshotMeta};
use crate::error::Error;
use crate::ids::{DiskId, Index, Member, Stamp, Term};
use crate::voters::{LEARNERS_MAX, VOTERS_MAX, Voters};
use base::NodeId;
use bytes::Bytes;
use prost::Message as _;
use std::collections::BTreeSet;

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct MemberRow {
    #[prost(uint32, tag = "1")]
    pub(super) node: u32,
    #[prost(fixed64, tag = "2")]
    pub(super) disk_low: u64,
    #[prost(fixed64, tag = "3")]
    pub(super) disk_high: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct VotersRow {
    #[prost(message, repeated, tag = "1")]
    pub(super) voters: Vec<MemberRow>,
    #[prost(message, repeated, tag = "2")]
    pub(super) outgoing: Vec<MemberRow>,
    #[prost(message, repeated, tag = "3")]
    pub(super) learners: Vec<MemberRow>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OriginRow {
    #[prost(uint64, tag = "1")]
    pub(super) session: u64,
    #[prost(uint32, tag = "2")]
    pub(super) slot: u32,
    #[prost(uint64, tag = "3")]
    pub(super) sequence: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct EntryRow {
    #[prost(uint64, tag = "1")]
    pub(super) term: u64,
    #[prost(uint64, tag = "2")]
    pub(super) index: u64,
    #[prost(message, optional, tag = "3")]
    pub(super) origin: Option<OriginRow>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub(super) command: Option<Bytes>,
    #[prost(message, optional, tag = "5")]
    pub(super) voters: Option<VotersRow>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HardRow {
    #[prost(uint64, tag = "1")]
    pub(super) term: u64,
    #[prost(message, optional, tag = "2")]
    pub(super) vote: Option<MemberRow>,
    #[prost(uint64, tag = "3")]
    pub(super) commit: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MetaRow {
    #[prost(uint64, tag = "1")]
    pub(super) term: u64,
    #[prost(uint64, tag = "2")]
    pub(super) index: u64,
    #[prost(message, optional, tag = "3")]
    pub(super) voters: Option<VotersRow>,
}

pub(super) fn malformed(error: impl std::fmt::Display) -> Error {
    Error::Malformed(error.to_string())
}

impl From<Member> for MemberRow {
    fn from(member: Member) -> MemberRow {
        let disk = member.disk.0;
        MemberRow { node: member.node.0, disk_low: disk as u64, disk_high: (disk >> 64) as u64 }
    }
}

impl From<MemberRow> for Member {
    fn from(row: MemberRow) -> Member {
        let disk = u128::from(row.disk_high) << 64 | u128::from(row.disk_low);
        Member { node: NodeId(row.node), disk: DiskId(disk) }
    }
}

fn rows(members: &BTreeSet<Member>) -> Vec<MemberRow> {
    members.iter().map(|&member| member.into()).collect()
}

fn members(rows: &[MemberRow], most: usize) -> Result<BTreeSet<Member>, Error> {
    if rows.len() > most {
        return Err(malformed(format_args!("{} members in a setting; the maximum is {most}", rows.len())));
    }
    Ok(rows.iter().map(|&row| row.into()).collect())
}

impl From<&Voters> for VotersRow {
    fn from(voters: &Voters) -> VotersRow {
        VotersRow {
            voters: rows(&voters.voters),
            outgoing: rows(&voters.outgoing),
            learners: rows(&voters.learners),
        }
    }
}

impl TryFrom<VotersRow> for Voters {
    type Error = Error;
    fn try_from(row: VotersRow) -> Result<Voters, Error> {
        Ok(Voters {
            voters: members(&row.voters, VOTERS_MAX)?,
            outgoing: members(&row.outgoing, VOTERS_MAX)?,
            learners: members(&row.learners, LEARNERS_MAX)?,
        })
    }
}

impl From<&SnapshotMeta> for MetaRow {
    fn from(meta: &SnapshotMeta) -> MetaRow {
        let Stamp { term, index } = meta.stamp;
        MetaRow { term: term.0, index: index.0, voters: Some((&meta.voters).into()) }
    }
}

impl TryFrom<MetaRow> for SnapshotMeta {
    type Error = Error;
    fn try_from(row: MetaRow) -> Result<SnapshotMeta, Error> {
        let voters = row.voters.unwrap_or_default().try_into()?;
        Ok(SnapshotMeta { stamp: stamp(row.term, row.index), voters })
    }
}

pub(super) fn stamp(term: u64, index: u64) -> Stamp {
    Stamp { term: Term(term), index: Index(index) }
}

impl From<&Entry> for EntryRow {
    fn from(entry: &Entry) -> EntryRow {
        let mut row =
            EntryRow { term: entry.stamp.term.0, index: entry.stamp.index.0, ..EntryRow::default() };
        match &entry.payload {
            Payload::Blank => {}
            Payload::Command { origin, bytes } => {
                row.command = Some(bytes.clone());
                row.origin =
                    origin.map(|Origin { session, slot, sequence }| OriginRow { session, slot, sequence });
            }
            Payload::Voters(voters) => row.voters = Some(voters.into()),
        }
        row
    }
}

impl TryFrom<EntryRow> for Entry {
    type Error = Error;
    fn try_from(row: EntryRow) -> Result<Entry, Error> {
        let payload = match (row.command, row.voters) {
            (None, None) => Payload::Blank,
            (Some(bytes), None) => {
                let origin = row.origin.map(|OriginRow { session, slot, sequence }| Origin {
                    session,
                    slot,
                    sequence,
                });
                Payload::Command { origin, bytes }
            }
            (None, Some(voters)) => Payload::Voters(voters.try_into()?),
            (Some(_), Some(_)) => return Err(malformed("an entry says two things")),
        };
        if row.index == 0 || row.index == u64::MAX {
            return Err(malformed("an entry stands at a place where none can"));
        }
        Ok(Entry { stamp: stamp(row.term, row.index), payload })
    }
}

/// An entry as bytes, added to `bytes`.
pub(crate) fn encode_entry(entry: &Entry, bytes: &mut Vec<u8>) {
    EntryRow::from(entry).encode(bytes).expect("a Vec grows");
}

/// An entry from bytes.
///
/// # Errors
/// [`Error::Malformed`].
pub(crate) fn decode_entry(bytes: Bytes) -> Result<Entry, Error> {
    EntryRow::decode(bytes).map_err(malformed)?.try_into()
}

/// The promises as bytes.
pub(crate) fn encode_hard(hard: &HardState) -> Vec<u8> {
    let HardState { term, vote, commit } = *hard;
    HardRow { term: term.0, vote: vote.map(Into::into), commit: commit.0 }.encode_to_vec()
}

/// The promises from bytes.
///
/// # Errors
/// [`Error::Malformed`].
pub(crate) fn decode_hard(bytes: Bytes) -> Result<HardState, Error> {
    let HardRow { term, vote, commit } = HardRow::decode(bytes).map_err(malformed)?;
    Ok(HardState { term: Term(term), vote: vote.map(Into::into), commit: Index(commit) })
}

/// What a snapshot stands for, as bytes.
pub(crate) fn encode_meta(meta: &SnapshotMeta) -> Vec<u8> {
    MetaRow::from(meta).encode_to_vec()
}

/// What a snapshot stands for, from bytes.
///
/// # Errors
/// [`Error::Malformed`].
pub(crate) fn decode_meta(bytes: Bytes) -> Result<SnapshotMeta, Error> {
    MetaRow::decode(bytes).map_err(malformed)?.try_into()
}
