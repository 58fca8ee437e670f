//! The lease: whether this node may serve at this moment.
//!
//! Invariant: it is looked up on the clock, not told by a thread: a node that was paused finds it gone.

use crate::clock;
use base::Time;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// This node's lease. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Lease {
    until: Arc<AtomicU64>,
    held: watch::Receiver<bool>,
}

/// The side that knows.
pub(crate) struct Lessor {
    until: Arc<AtomicU64>,
    held: watch::Sender<bool>,
}

impl Lease {
    /// A lease that is not held, and the one who can say otherwise.
    pub(crate) fn new() -> (Lessor, Lease) {
        let until = Arc::new(AtomicU64::new(0));
        let (out, held) = watch::channel(false);
        (Lessor { until: until.clone(), held: out }, Lease { until, held })
    }

    /// True if this node may serve now: grant a lock, write to what is shared.
    pub fn is_held(&self) -> bool {
        !self.left().is_zero()
    }

    /// For how long it may still serve; zero: it may not.
    pub fn left(&self) -> Duration {
        Time(self.until.load(Ordering::Acquire)).since(clock::now())
    }

    /// Waits until the lease is gained or lost, and says which; `None`: membership of this node has ended.
    /// It is told by a thread that may be late: before serving ask [`Lease::is_held`].
    pub async fn changed(&mut self) -> Option<bool> {
        self.held.changed().await.ok()?;
        Some(*self.held.borrow_and_update())
    }

    /// Waits until the lease is held; `false`: membership of this node has ended.
    pub async fn wait(&mut self) -> bool {
        self.held.wait_for(|held| *held).await.is_ok()
    }
}

impl Lessor {
    /// The lease goes until then; `None`: it is over.
    pub(crate) fn set(&self, until: Option<Time>) {
        self.until.store(until.map_or(0, |until| until.0), Ordering::Release);
        self.held.send_if_modified(|held| std::mem::replace(held, until.is_some()) != until.is_some());
    }
}
