//! All connections of a node, its lockspaces, and its orphans. Pure: calls and effects in, replies, notices and events out.
//!
//! Invariant: numbers of locks are unlike each other while both last. What a connection may do is decided here, before anything behind it hears
//! of it.

use super::locks::Listing;
use super::orphans::Orphans;
use super::session::{Peer, Session};
use super::spaces::Spaces;
use super::told::Told;
use crate::client::status;
use crate::client::wire::{Call, Open, Purge, Release, Reply, Row, Wait, What};
use crate::deadlock::{Sighting, cycles};
use crate::event::{Actor, Effect, Event, Gone, LockId, Owner};
use crate::table::{Edge, Held};
use base::{NodeId, Time};
use std::collections::BTreeMap;

/// Rows in one reply.
const ROWS_MAX: usize = 1_024;

/// What a call leads to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// To the program: one, or the parts of one.
    pub replies: Vec<Reply>,
    /// To the table.
    pub events: Vec<Event>,
}

/// The register.
#[derive(Debug)]
pub struct Register {
    node: NodeId,
    sessions: BTreeMap<u64, Session>,
    spaces: Spaces,
    orphans: Orphans,
    last_lkid: u32,
}

/// What a call is granted at once: the number of its lock, and what the table is told.
type Accepted = Result<(u32, Vec<Event>), u32>;

impl Register {
    /// An empty one; `owner` runs the node.
    pub fn new(node: NodeId, owner: u32) -> Register {
        let (sessions, orphans) = (BTreeMap::new(), Orphans::default());
        Register { node, sessions, spaces: Spaces::new(owner), orphans, last_lkid: 0 }
    }

    /// A new connection.
    pub fn enter(&mut self, owner: Owner, peer: Peer) {
        self.sessions.insert(owner.holder, Session::new(owner, peer));
    }

    /// A connection is gone. The caller tells [`super::Locks`] so.
    pub fn leave(&mut self, holder: u64, now: Time) {
        if let Some(session) = self.sessions.remove(&holder) {
            self.orphans.add(session.owner, session.lasting(now), now);
        }
    }

    /// Something has become of a connection's lock.
    pub fn effect(&mut self, holder: u64, effect: Effect, now: Time) -> Told {
        if let Effect::Granted(grant) = &effect {
            self.orphans.adopted(grant.lock);
        }
        self.sessions.get_mut(&holder).map(|session| session.effect(effect, now)).unwrap_or_default()
    }

    /// A call. `is_late`: the program has not fetched what it was told long ago, and gets no new locks before it has.
    pub fn call(&mut self, holder: u64, call: Call, is_late: bool, now: Time) -> Outcome {
        let tag = call.tag;
        let accepted = match call.what {
            Some(What::Lock(_) | What::Convert(_)) if is_late => Err(status::NO_ROOM),
            Some(what) => self.accept(holder, tag, what, now),
            None => Err(status::INVALID),
        };
        let (status, lkid, events) = match accepted {
            Ok((lkid, events)) => (status::OK, lkid, events),
            Err(status) => (status, 0, Vec::new()),
        };
        Outcome { replies: vec![Reply { tag, status, lkid, ..Reply::default() }], events }
    }

    fn accept(&mut self, holder: u64, tag: u64, what: What, now: Time) -> Accepted {
        match what {
            What::Open(open) => self.open(holder, &open),
            What::Release(release) => self.release(holder, &release),
            What::Purge(purge) => self.purge(holder, &purge),
            What::Lock(lock) => {
                let lkid = self.free_lkid();
                let event = self.session(holder)?.lock(tag, lkid, &lock, now)?;
                Ok((lkid, vec![event]))
            }
            What::Convert(convert) => {
                let event = self.session(holder)?.convert(tag, &convert, now)?;
                Ok((convert.lkid, vec![event]))
            }
            What::Unlock(unlock) => {
                let event = self.session(holder)?.unlock(tag, &unlock)?;
                Ok((unlock.lkid, event.into_iter().collect()))
            }
            What::Cancel(lkid) => {
                let event = self.session(holder)?.cancel(tag, lkid, false)?;
                Ok((lkid, event.into_iter().collect()))
            }
            What::DeadlockCancel(lkid) => {
                let event = self.session(holder)?.cancel(tag, lkid, true)?;
                Ok((lkid, event.into_iter().collect()))
            }
            // These are answered elsewhere.
            What::List(()) | What::Waits(()) => Err(status::INVALID),
        }
    }

    fn session(&mut self, holder: u64) -> Result<&mut Session, u32> {
        self.sessions.get_mut(&holder).ok_or(status::GONE)
    }

    /// A number that no lock has.
    fn free_lkid(&mut self) -> u32 {
        loop {
            self.last_lkid = self.last_lkid.checked_add(1).unwrap_or(1);
            if !self.sessions.values().any(|session| session.has_lock(self.last_lkid)) {
                return self.last_lkid;
            }
        }
    }

    fn open(&mut self, holder: u64, open: &Open) -> Accepted {
        let session = self.sessions.get(&holder).ok_or(status::GONE)?;
        if session.space.is_some() {
            return Err(status::INVALID);
        }
        let mut peer = session.peer;
        let space = match open.create {
            true => self.spaces.create(&open.name, &peer, open.mode, open.exclusive)?,
            false => self.spaces.open(&open.name, &peer)?,
        };
        if open.pid != 0 {
            peer.pid = open.pid;
        }
        let session = self.session(holder)?;
        (session.space, session.peer) = (Some((space.number, space.name)), peer);
        Ok((0, Vec::new()))
    }

    /// The connection's own locks go whatever comes of it, as its program closes its handle.
    fn release(&mut self, holder: u64, release: &Release) -> Accepted {
        let Release { name, force } = release;
        let session = self.sessions.get(&holder).ok_or(status::GONE)?;
        let (peer, own) = (session.peer, session.owner);
        let is_in = |session: &&Session| session.space.as_ref().is_some_and(|(_, space)| space == name);
        let others: Vec<Owner> = self
            .sessions
            .values()
            .filter(|session| session.owner != own && session.has_locks())
            .filter(is_in)
            .map(|session| session.owner)
            .collect();
        let is_used = !others.is_empty() || self.orphans.are_in(name);
        let is_gone = self.spaces.release(name, &peer, is_used, *force)?;
        let mut events = vec![Event::Gone(Gone::Holder(own)), Event::Gone(Gone::OrphansOf(own))];
        if is_gone {
            events.extend(others.into_iter().map(|owner| Event::Gone(Gone::Holder(owner))));
            let orphans = self.orphans.take(|row| row.space == *name);
            events.extend(orphans.into_iter().map(|owner| Event::Gone(Gone::OrphansOf(owner))));
            for session in self.sessions.values_mut() {
                if session.space.as_ref().is_some_and(|(_, space)| space == name) {
                    session.clear();
                    session.space = None;
                }
            }
        }
        Ok((0, events))
    }

    fn purge(&mut self, holder: u64, purge: &Purge) -> Accepted {
        let session = self.sessions.get_mut(&holder).ok_or(status::GONE)?;
        let (owner, peer) = (session.owner, session.peer);
        let (_, space) = session.space.clone().ok_or(status::INVALID)?;
        if purge.node != 0 && purge.node != self.node.0 {
            return Err(status::INVALID);
        }
        if purge.pid == peer.pid {
            session.clear();
            return Ok((0, vec![Event::Gone(Gone::Holder(owner)), Event::Gone(Gone::OrphansOf(owner))]));
        }
        let may = self.spaces.is_privileged(&peer);
        let wanted = |row: &Row| {
            row.space == space && (purge.pid == 0 || row.pid == purge.pid) && (may || row.uid == peer.uid)
        };
        let owners = self.orphans.take(wanted);
        Ok((0, owners.into_iter().map(|owner| Event::Gone(Gone::OrphansOf(owner))).collect()))
    }

    /// The locks of this node's programs.
    pub fn rows(&self, now: Time) -> Vec<Row> {
        let mut rows: Vec<Row> = self.sessions.values().flat_map(|session| session.rows(now)).collect();
        rows.extend(self.orphans.rows(now));
        rows
    }

    /// The locks of all programs, of which those of other nodes are known from `elsewhere`.
    pub fn list(&self, tag: u64, elsewhere: Listing, now: Time) -> Vec<Reply> {
        let mut rows = self.rows(now);
        rows.extend(elsewhere.rows);
        rows.sort_by(|a, b| (&a.space, &a.name, a.node, a.lkid).cmp(&(&b.space, &b.name, b.node, b.lkid)));
        let parts = rows.chunks(ROWS_MAX).map(|rows| Reply { tag, rows: rows.to_vec(), ..Reply::default() });
        let mut parts = in_parts(tag, parts.collect());
        if let Some(last) = parts.last_mut() {
            last.silent = elsewhere.silent.iter().map(|node| node.0).collect();
        }
        parts
    }

    /// Who waits for whom, program by program, and in which circles.
    pub fn waits(&self, tag: u64, sightings: &[Sighting], now: Time) -> Vec<Reply> {
        let waiters: BTreeMap<u64, LockId> =
            sightings.iter().map(|seen| (seen.edge.wait, seen.edge.lock)).collect();
        let mut waits = Vec::new();
        let mut edges = Vec::new();
        for seen in sightings {
            let blocker = match seen.edge.held {
                Held::Grant { lock, .. } => Some(lock),
                Held::Wait(number) => waiters.get(&number).copied(),
            };
            let waiter = self.row_of(seen.edge.lock, now);
            let blocker = blocker.and_then(|lock| self.row_of(lock, now));
            if let (Some(waiter), Some(blocker)) = (&waiter, &blocker) {
                edges.push(Sighting { edge: by_process(seen.edge, waiter, blocker), ..*seen });
            }
            waits.push((seen.edge.wait, Wait { waiter, blocker, circle: 0 }));
        }
        for (number, cycle) in cycles(&edges).iter().enumerate() {
            let pairs: Vec<_> = cycle.edges.iter().map(|seen| (seen.edge.wait, seen.edge.blocker)).collect();
            for (wait, row) in &mut waits {
                let blocker = row.blocker.as_ref().map(process);
                if pairs.iter().any(|(number, actor)| number == wait && Some(*actor) == blocker) {
                    row.circle = number as u32 + 1;
                }
            }
        }
        let waits: Vec<Wait> = waits.into_iter().map(|(_, wait)| wait).collect();
        let parts =
            waits.chunks(ROWS_MAX).map(|part| Reply { tag, waits: part.to_vec(), ..Reply::default() });
        in_parts(tag, parts.collect())
    }

    fn row_of(&self, lock: LockId, now: Time) -> Option<Row> {
        let here = self.sessions.values().find_map(|session| session.row_of(lock, now));
        here.or_else(|| self.orphans.row_of(lock, now))
    }
}

/// A process as an actor: whoever looks for deadlocks between programs takes all that one has for one.
fn process(row: &Row) -> Actor {
    Actor::Owner(Owner { node: NodeId(row.node), holder: u64::from(row.pid) })
}

fn by_process(edge: Edge, waiter: &Row, blocker: &Row) -> Edge {
    Edge { waiter: process(waiter), blocker: process(blocker), ..edge }
}

/// At least one reply; all but the last say that more comes.
fn in_parts(tag: u64, mut parts: Vec<Reply>) -> Vec<Reply> {
    if parts.is_empty() {
        parts.push(Reply { tag, ..Reply::default() });
    }
    let last = parts.len() - 1;
    parts[..last].iter_mut().for_each(|part| part.more = true);
    parts
}
