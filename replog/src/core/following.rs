//! A follower's side: taking in the leader's log, or its snapshot.
//!
//! Invariant: what is agreed is never taken back; what is answered as had is on this disk.

use super::{Core, Part};
use crate::entry::{Entry, SnapshotMeta};
use crate::event::Effect;
use crate::ids::{Index, Member, Stamp, Term};
use crate::log::Log;
use crate::message::{Mark, Message};
use base::Time;
use bytes::Bytes;

/// A snapshot on its way in.
#[derive(Clone, Debug)]
pub(super) struct Incoming {
    stamp: Stamp,
    size: u64,
    offset: u64,
}

impl Core {
    /// A leader is heard. False if it is one no more.
    pub(super) fn follow(&mut self, now: Time, from: Member, term: Term, mark: Mark) -> bool {
        if term < self.hard.term {
            // It learns of the later term from the answer.
            self.send(from, Message::Mismatch { prev: Index(0), hint: Stamp::default(), mark });
            return false;
        }
        if matches!(self.part, Part::Leader(_)) || self.leader.is_some_and(|leader| leader != from) {
            self.halt(&format!("{from} leads in term {term}, which has another leader already"));
            return false;
        }
        self.part = Part::Follower;
        self.leader = Some(from);
        self.wait_for_leader(now);
        self.mark = Mark { sent: self.mark.sent.max(mark.sent), round: self.mark.round.max(mark.round) };
        true
    }

    /// The leader's log goes on so.
    pub(super) fn append(&mut self, prev: Stamp, entries: Vec<Entry>, commit: Index, mark: Mark) {
        let Some(leader) = self.leader else { return };
        if !is_chain(prev, &entries, self.hard.term) {
            return;
        }
        let (known, last) = (self.commit, self.log.last().index);
        if prev.index > known && self.log.stamp(prev.index) != Some(prev) {
            let hint = self.log.agreement_before(prev.index.before().min(last), prev.term);
            return self.send(leader, Message::Mismatch { prev: prev.index, hint, mark });
        }
        let upto = entries.last().map_or(prev, |entry| entry.stamp).index;
        let new = match self.graft(entries) {
            Ok(new) => new,
            Err(why) => return self.halt(&why),
        };
        self.agreed = self.agreed.max(upto).max(known);
        self.commit = known.max(commit.min(self.agreed));
        // What is new is answered when it is on disk.
        if !new || self.canary.speaks_too_soon() {
            self.report_safe_now(leader);
        }
    }

    /// Puts entries into the log, in place of others where they differ. True if there were new ones.
    fn graft(&mut self, entries: Vec<Entry>) -> Result<bool, String> {
        let mut new = false;
        for entry in entries {
            let index = entry.stamp.index;
            if index <= self.log.base().index || self.log.stamp(index) == Some(entry.stamp) {
                continue;
            }
            if index <= self.commit {
                return Err(format!(
                    "the leader of term {} denies entry {index}, which is agreed",
                    self.hard.term
                ));
            }
            if index <= self.log.last().index {
                self.log.truncate(index);
                self.writes.truncated(index);
                self.unsaved.truncate = Some(index);
                self.agreed = self.agreed.min(index.before());
            }
            self.log.append(entry);
            self.unsaved.from.get_or_insert(index);
            new = true;
        }
        Ok(new)
    }

    /// After a write: tells the leader, if this member follows one.
    pub(super) fn report_safe(&mut self) {
        if let (Part::Follower, Some(leader)) = (&self.part, self.leader) {
            self.report_safe_now(leader);
        }
    }

    fn report_safe_now(&mut self, leader: Member) {
        let safe = if self.canary.speaks_too_soon() { self.agreed } else { self.writes.safe() };
        let matched = self.agreed.min(safe);
        self.send(leader, Message::Appended { matched, mark: self.mark });
    }

    /// A piece of the leader's snapshot.
    pub(super) fn chunk(&mut self, meta: SnapshotMeta, offset: u64, bytes: Bytes, size: u64, mark: Mark) {
        let Some(leader) = self.leader else { return };
        let stamp = meta.stamp;
        if stamp.index <= self.commit || self.log.stamp(stamp.index) == Some(stamp) {
            self.commit = self.commit.max(stamp.index);
            self.agreed = self.agreed.max(self.commit);
            return self.report_safe_now(leader);
        }
        if self.restoring.is_some() {
            return;
        }
        let same = |incoming: &&Incoming| incoming.stamp == stamp && incoming.size == size;
        let known = self.incoming.as_ref().filter(same).map_or(0, |incoming| incoming.offset);
        let end = offset.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if (offset != known && offset != 0) || end > size {
            return self.send(leader, Message::ChunkTaken { stamp, offset: known, mark });
        }
        self.incoming = Some(Incoming { stamp, size, offset: end });
        self.out.push(Effect::TakeChunk { meta: meta.clone(), offset, bytes, size });
        if end == size {
            self.install(meta);
        } else {
            self.send(leader, Message::ChunkTaken { stamp, offset: end, mark });
        }
    }

    /// The snapshot is whole: it takes the place of the log.
    fn install(&mut self, meta: SnapshotMeta) {
        self.seal();
        let index = meta.stamp.index;
        self.writes.truncated(self.commit.next());
        self.log = Log::new(&meta, Vec::new());
        let ticket = self.writes.order(index);
        self.commit = index;
        self.agreed = index;
        self.incoming = None;
        self.making_snapshot = false;
        self.snapshot = meta.clone();
        self.restoring = Some((ticket, meta.clone()));
        self.out.push(Effect::Install { ticket, meta });
    }
}

/// True if the entries follow `prev` without a gap, with terms that never fall.
fn is_chain(prev: Stamp, entries: &[Entry], term: Term) -> bool {
    let mut before = prev;
    for entry in entries {
        if entry.stamp.index != before.index.next() || entry.stamp.term < before.term {
            return false;
        }
        before = entry.stamp;
    }
    before.term <= term
}
