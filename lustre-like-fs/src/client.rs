//! The client: what a program asks of a file becomes requests to the metadata server and to the object servers.
//!
//! It keeps nothing that could go stale: layouts of files, which never change, and which file a name stood for when it was
//! last looked up, which is only a guess whose objects to ask before the answer is there. It may die at any time and
//! begin anew under a mount that stays.
//!
//! **Size and time of a file** are on its objects. `stat` asks the metadata server for the rest and every object server of
//! the layout for its object: the size is the furthest end; the mtime is the latest of those objects whose time differs
//! from the one in the inode. Whoever sets the time, or cuts the file, first sets it in the inode and then on every
//! object, so an object whose time differs was written to since. No two clocks are compared.

pub mod attributes;
pub mod data;
pub mod stripes;

use crate::clock::now_ns;
use crate::error::Error;
use crate::layout::Layout;
use crate::peers::Peers;
use crate::wire::{Handle, MetaReply, MetaRequest, MetaVerb, Operation, Place};
use base::Incarnation;
use fabric::Endpoint;
use membership::View;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// Layouts kept; they are found again on the metadata server.
const LAYOUTS_MAX: usize = 16_384;
/// Names kept, likewise.
const GUESSES_MAX: usize = 16_384;

/// Who asks, and under which name of change.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The name of the change that the request makes, if it makes one.
    pub operation: Operation,
}

/// The filesystem as this node sees it. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    pub(crate) peers: Peers,
    pub(crate) incarnation: Incarnation,
    sequence: Arc<AtomicU64>,
    layouts: Arc<Mutex<HashMap<u64, Arc<Layout>>>>,
    guesses: Arc<Mutex<HashMap<Place, u64>>>,
}

impl Client {
    /// A client that asks through `endpoint` (of role Data). `incarnation` is this life of the node: files that are
    /// open here stay open until it ends. Must be called inside a tokio runtime.
    pub fn new(endpoint: Endpoint, incarnation: Incarnation, view: watch::Receiver<Arc<View>>) -> Client {
        let peers = Peers::new(endpoint, view);
        tokio::spawn(peers.clone().follow());
        Client {
            peers,
            incarnation,
            // A daemon of the same life that was here before used smaller ones.
            sequence: Arc::new(AtomicU64::new(now_ns().unsigned_abs())),
            layouts: Arc::default(),
            guesses: Arc::default(),
        }
    }

    /// What a FUSE session serves. Must be called inside the tokio runtime that shall do the work.
    pub fn filesystem(&self) -> Arc<dyn fuse::Filesystem> {
        Arc::new(crate::mount::Mount::new(self.clone(), tokio::runtime::Handle::current()))
    }

    /// The caller of a request of the mount: the kernel's number of the request names the change, so a request that is
    /// delivered again after a restart of this daemon is known again.
    pub(crate) fn mounted(&self, header: &fuse::Header) -> Caller {
        let sequence = header.unique & !fuse::abi::UNIQUE_RESEND;
        let operation = Operation { node: self.peers.local().0, source: self.incarnation.0, sequence };
        Caller { uid: header.uid, gid: header.gid, operation }
    }

    /// A caller of the daemon's own.
    pub fn caller(&self, uid: u32, gid: u32) -> Caller {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let operation = Operation { node: self.peers.local().0, source: !self.incarnation.0, sequence };
        Caller { uid, gid, operation }
    }

    /// The name of an open file at the metadata server.
    pub fn handle(&self, ino: u64, handle: u64) -> Handle {
        Handle { ino, node: self.peers.local().0, incarnation: self.incarnation.0, handle }
    }

    /// Asks the metadata server something that changes nothing, or the same however often it is asked.
    ///
    /// # Errors
    /// What the server says, or that it does not.
    pub async fn ask(&self, verb: MetaVerb) -> Result<MetaReply, Error> {
        self.remember(self.peers.meta(&MetaRequest { verb: Some(verb), ..MetaRequest::default() }).await?)
    }

    /// Asks the metadata server for a change, which happens once.
    ///
    /// # Errors
    /// What the server says, or that it does not.
    pub async fn change(&self, caller: Caller, verb: MetaVerb) -> Result<MetaReply, Error> {
        let Caller { uid, gid, operation } = caller;
        let request = MetaRequest { operation: Some(operation), uid, gid, verb: Some(verb) };
        self.remember(self.peers.meta(&request).await?)
    }

    fn remember(&self, reply: MetaReply) -> Result<MetaReply, Error> {
        if let (Some(attr), Some(layout)) = (&reply.attr, &reply.layout) {
            if !layout.is_valid() {
                return Err(rustix::io::Errno::IO.into());
            }
            let mut layouts = self.layouts.lock();
            if layouts.len() >= LAYOUTS_MAX {
                layouts.clear();
            }
            layouts.entry(attr.ino).or_insert_with(|| Arc::new(layout.clone()));
        }
        Ok(reply)
    }

    /// The regular file that `place` stood for when it was last looked up, and its layout.
    fn guess(&self, place: &Place) -> Option<(u64, Arc<Layout>)> {
        let ino = *self.guesses.lock().get(place)?;
        Some((ino, self.known_layout(ino)?))
    }

    /// `place` stands for `ino` now.
    fn remember_name(&self, place: Place, ino: u64) {
        let mut guesses = self.guesses.lock();
        if guesses.len() >= GUESSES_MAX {
            guesses.clear();
        }
        guesses.insert(place, ino);
    }

    /// The layout of a file that was met before.
    fn known_layout(&self, ino: u64) -> Option<Arc<Layout>> {
        self.layouts.lock().get(&ino).cloned()
    }

    /// Where the bytes of the regular file `ino` lie.
    ///
    /// # Errors
    /// EINVAL if it is none.
    pub async fn layout(&self, ino: u64) -> Result<Arc<Layout>, Error> {
        match self.known_layout(ino) {
            Some(layout) => Ok(layout),
            None => {
                let reply = self.ask(MetaVerb::Getattr(ino)).await?;
                reply.layout.map(Arc::new).ok_or(Error::Errno(rustix::io::Errno::INVAL))
            }
        }
    }
}
