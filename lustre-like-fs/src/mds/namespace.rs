//! The core of the metadata server: requests in, replies out, over a [`Store`].
//!
//! Invariants: each request is one batch, so a crash leaves all of it or nothing; a change that carries an
//! [`Operation`] happens once, however often it is asked, because its reply is kept in the same batch.

use super::change::Change;
use super::record::{self, DIRECTORY, Inode, ROOT};
use super::store::{Batch, Store};
use crate::error::Error;
use crate::layout::Layout;
use crate::wire::{Handle, MetaReply, MetaRequest, MetaVerb, Operation};
use base::NodeId;
use prost::Message;
use rustix::io::Errno;
use std::collections::{BTreeSet, HashMap, VecDeque};

/// Replies kept for each source of changes. A mount has far fewer requests under way.
pub const REPLIES_PER_SOURCE_MAX: usize = 4_096;

/// The namespace of the filesystem.
pub struct Namespace<S> {
    store: S,
    servers: Vec<NodeId>,
    /// The kept replies of each source, oldest first.
    kept: HashMap<(u32, u64), VecDeque<u64>>,
    purges: Purges,
}

/// Files that are gone and whose objects are not yet. A search of the store would meet every one that ever was.
#[derive(Default)]
struct Purges {
    due: BTreeSet<u64>,
    /// Their servers did not do it.
    postponed: BTreeSet<u64>,
}

impl Purges {
    /// Follows a batch that was committed.
    fn follow(&mut self, changes: Vec<(u64, bool)>) {
        for (ino, is_gone) in changes {
            if is_gone {
                self.due.insert(ino);
            } else {
                self.due.remove(&ino);
                self.postponed.remove(&ino);
            }
        }
    }
}

impl<S: Store> Namespace<S> {
    /// The namespace in `store`; an empty store becomes an empty filesystem, its root open to everybody (mode 1777).
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn open(mut store: S, now: i64) -> Result<Namespace<S>, Error> {
        if store.read(&record::inode_key(ROOT))?.is_none() {
            let root = Inode {
                ino: ROOT,
                mode: DIRECTORY | 0o1777,
                nlink: 2,
                atime: now,
                mtime: now,
                ctime: now,
                parent: ROOT,
                next_cookie: record::COOKIE_FIRST,
                ..Inode::default()
            };
            store.commit(Batch::from([(record::inode_key(ROOT), Some(root.encode_to_vec()))]))?;
        }
        let mut kept: HashMap<(u32, u64), VecDeque<u64>> = HashMap::new();
        for (key, _) in store.scan(record::REPLIES, record::REPLIES, usize::MAX)? {
            if let Some(operation) = record::operation_of_key(&key) {
                let source = (operation.node, operation.source);
                kept.entry(source).or_default().push_back(operation.sequence);
            }
        }
        let purges = store.scan(record::PURGES, record::PURGES, usize::MAX)?;
        let due = purges.iter().filter_map(|(key, _)| record::ino_of_purge(key)).collect();
        let purges = Purges { due, ..Purges::default() };
        Ok(Namespace { store, servers: Vec::new(), kept, purges })
    }

    /// The object servers that new files may be laid out over, ordered by node number.
    pub fn set_servers(&mut self, servers: Vec<NodeId>) {
        self.servers = servers;
    }

    /// Carries out one request at time `now` (nanoseconds since 1970).
    pub fn handle(&mut self, now: i64, request: MetaRequest) -> MetaReply {
        self.try_handle(now, request).unwrap_or_else(|error| {
            if !matches!(error, Error::Errno(_)) {
                tracing::error!(%error, "metadata request failed");
            }
            MetaReply { errno: error.errno().raw_os_error().unsigned_abs(), ..MetaReply::default() }
        })
    }

    fn try_handle(&mut self, now: i64, request: MetaRequest) -> Result<MetaReply, Error> {
        if let Some(reply) = self.remembered(request.operation.as_ref())? {
            return Ok(reply);
        }
        let mut change = Change::new(&self.store, now, (request.uid, request.gid), &self.servers);
        let reply = answer(&mut change, request.verb.ok_or(Errno::NOSYS)?)?;
        let mut batch = change.into_batch();
        if !batch.is_empty() {
            if let Some(operation) = &request.operation {
                self.keep(operation, &reply, &mut batch);
            }
            self.commit(batch)?;
        }
        Ok(reply)
    }

    fn commit(&mut self, batch: Batch) -> Result<(), Error> {
        let purge = |(key, value): (&Vec<u8>, &Option<Vec<u8>>)| {
            record::ino_of_purge(key).map(|ino| (ino, value.is_some()))
        };
        let purges = batch.iter().filter_map(purge).collect();
        self.store.commit(batch)?;
        self.purges.follow(purges);
        Ok(())
    }

    fn remembered(&self, operation: Option<&Operation>) -> Result<Option<MetaReply>, Error> {
        let Some(operation) = operation else { return Ok(None) };
        let key = record::reply_key(operation);
        let reply = self.store.read(&key)?;
        reply.map(|value| super::change::decode(&key, &value)).transpose()
    }

    /// Adds the reply to the batch of its change, and drops the source's oldest beyond the maximum.
    fn keep(&mut self, operation: &Operation, reply: &MetaReply, batch: &mut Batch) {
        batch.insert(record::reply_key(operation), Some(reply.encode_to_vec()));
        let kept = self.kept.entry((operation.node, operation.source)).or_default();
        kept.push_back(operation.sequence);
        if kept.len() > REPLIES_PER_SOURCE_MAX
            && let Some(sequence) = kept.pop_front()
        {
            batch.insert(record::reply_key(&Operation { sequence, ..*operation }), None);
        }
    }

    /// Closes every handle whose node's life has ended (`is_over(node, incarnation)`), and forgets what was kept for
    /// those lives. Files without a name that only they held go too.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn drop_lives(&mut self, now: i64, is_over: impl Fn(NodeId, u64) -> bool) -> Result<(), Error> {
        let mut batch = Batch::new();
        self.kept.retain(|&(node, source), sequences| {
            let over = is_over(NodeId(node), crate::peers::incarnation_of(source));
            for &sequence in sequences.iter().filter(|_| over) {
                batch.insert(record::reply_key(&Operation { node, source, sequence }), None);
            }
            !over
        });
        self.store.commit(batch)?;
        for (key, _) in self.store.scan(record::OPENS, record::OPENS, usize::MAX)? {
            let Some(open) = record::open_of_key(&key) else { continue };
            if is_over(NodeId(open.node), open.incarnation) {
                self.close(now, open)?;
            }
        }
        Ok(())
    }

    fn close(&mut self, now: i64, open: Handle) -> Result<(), Error> {
        let mut change = Change::new(&self.store, now, (0, 0), &self.servers);
        change.release(&open)?;
        let batch = change.into_batch();
        self.commit(batch)
    }

    /// At most `limit` files whose objects are to be destroyed now.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn purges(&self, limit: usize) -> Result<Vec<(u64, Layout)>, Error> {
        let due = self.purges.due.iter().take(limit).map(|&ino| {
            let key = record::purge_key(ino);
            let value = self.store.read(&key)?;
            let value =
                value.ok_or_else(|| Error::Record { key: key.clone(), what: "it is missing".into() })?;
            Ok((ino, super::change::decode(&key, &value)?))
        });
        due.collect()
    }

    /// The objects of these files cannot be destroyed now.
    pub fn postpone(&mut self, inos: &[u64]) {
        let due = inos.iter().filter(|ino| self.purges.due.remove(ino));
        self.purges.postponed.extend(due);
    }

    /// What was postponed is due again.
    pub fn resume_purges(&mut self) {
        self.purges.due.append(&mut self.purges.postponed);
    }

    /// The objects of these files are gone.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn purged(&mut self, inos: &[u64]) -> Result<(), Error> {
        self.commit(inos.iter().map(|&ino| (record::purge_key(ino), None)).collect())
    }
}

/// One verb, one method; see `ops/`.
fn answer<S: Store>(change: &mut Change<'_, S>, verb: MetaVerb) -> Result<MetaReply, Error> {
    match verb {
        MetaVerb::Lookup(place) => change.lookup(&place),
        MetaVerb::Getattr(ino) => change.getattr(ino),
        MetaVerb::Setattr(setattr) => change.setattr(&setattr),
        MetaVerb::Readlink(ino) => change.readlink(ino),
        MetaVerb::Create(create) => change.create(create),
        MetaVerb::Unlink(place) => change.unlink(&place),
        MetaVerb::Rmdir(place) => change.rmdir(&place),
        MetaVerb::Rename(rename) => change.rename(&rename),
        MetaVerb::Link(link) => change.link(&link),
        MetaVerb::Open(handle) => change.open(&handle),
        MetaVerb::Release(handle) => change.release(&handle),
        MetaVerb::Readdir(readdir) => change.readdir(&readdir),
        MetaVerb::Setxattr(setxattr) => change.setxattr(setxattr),
        MetaVerb::Getxattr(place) => change.getxattr(&place),
        MetaVerb::Listxattr(ino) => change.listxattr(ino),
        MetaVerb::Removexattr(place) => change.removexattr(&place),
        MetaVerb::Sync(()) => Ok(MetaReply::default()),
        MetaVerb::SetPattern(set) => change.set_pattern(set),
        MetaVerb::Statfs(()) => change.statfs(),
    }
}
