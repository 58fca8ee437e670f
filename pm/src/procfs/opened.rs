//! Open files and directories of the view's /proc: each shows what was there when it was opened.

use super::listing::Listing;
use super::node::Node;
use fuse::Errno;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Files and directories open at once.
const OPEN_MAX: usize = 65_536;

/// What an open handle holds.
#[derive(Clone, Debug)]
pub(crate) enum Opened {
    /// A directory that nobody has read yet.
    Unread,
    /// A directory's entries.
    Listing(Arc<Listing>),
    /// A file's bytes.
    Content(Arc<Vec<u8>>),
}

/// The handles of this life of the daemon, and those of earlier lives that were used again.
pub(crate) struct Handles {
    next: AtomicU64,
    open: Mutex<HashMap<u64, (Node, Opened)>>,
}

impl Handles {
    /// None open. The first number is the time in nanoseconds, so no number of an earlier life comes again while a
    /// program may still have it open.
    pub(crate) fn new() -> Handles {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Handles { next: AtomicU64::new(now.as_nanos() as u64), open: Mutex::default() }
    }

    /// A new handle.
    pub(crate) fn open(&self, node: Node, opened: Opened) -> Result<u64, Errno> {
        let fh = self.next.fetch_add(1, Ordering::Relaxed);
        self.keep(node, fh, opened)?;
        Ok(fh)
    }

    /// Sets what the handle holds.
    pub(crate) fn keep(&self, node: Node, fh: u64, opened: Opened) -> Result<(), Errno> {
        let mut open = self.open.lock();
        if open.len() >= OPEN_MAX && !open.contains_key(&fh) {
            return Err(Errno::NFILE);
        }
        open.insert(fh, (node, opened));
        Ok(())
    }

    /// What the handle holds, if it is known and of this node.
    pub(crate) fn find(&self, node: Node, fh: u64) -> Option<Opened> {
        let open = self.open.lock();
        let (of, opened) = open.get(&fh)?;
        (*of == node).then(|| opened.clone())
    }

    /// Forgets the handle.
    pub(crate) fn close(&self, fh: u64) {
        self.open.lock().remove(&fh);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_known_until_it_is_closed_and_only_for_its_node() {
        let handles = Handles::new();
        let fh = handles.open(Node::Root, Opened::Unread).unwrap();
        assert!(handles.find(Node::Root, fh).is_some());
        assert!(handles.find(Node::Tasks { pid: 1 }, fh).is_none());
        handles.close(fh);
        assert!(handles.find(Node::Root, fh).is_none());
    }

    #[test]
    fn open_handles_are_limited() {
        let handles = Handles::new();
        for _ in 0..OPEN_MAX {
            handles.open(Node::Root, Opened::Unread).unwrap();
        }
        assert_eq!(handles.open(Node::Root, Opened::Unread).unwrap_err(), Errno::NFILE);
    }
}
