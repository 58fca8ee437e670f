//! The history: the newest view and the transitions that led to it, for everybody in a daemon who wants to know.
//!
//! Invariant: whoever waits on [`Transitions`] sees every transition behind his starting point, once and in order, or is
//! told that it lies too far back.

use crate::table::{Feed, Table};
use crate::transition::Transition;
use crate::wire::View;
use base::Epoch;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Why there is no next transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missed {
    /// What lies before this number is forgotten here: begin again with the present view.
    #[error("transitions before {oldest} are forgotten here; begin again with the present view")]
    TooOld {
        /// The oldest that is still known.
        oldest: u64,
    },
    /// Membership of this node has ended.
    #[error("membership of this node has ended: there are no more transitions")]
    Ended,
}

/// The newest view and how it came about. Clones are the same one.
#[derive(Clone)]
pub struct History {
    shared: Arc<Shared>,
}

struct Shared {
    table: Mutex<Table>,
    out: watch::Sender<Arc<View>>,
    views: watch::Receiver<Arc<View>>,
}

impl History {
    /// A history that begins with `table`.
    pub fn new(table: Table) -> History {
        let (out, views) = watch::channel(Arc::new(table.view().clone()));
        History { shared: Arc::new(Shared { table: Mutex::new(table), out, views }) }
    }

    fn table_locked(&self) -> MutexGuard<'_, Table> {
        self.shared.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what has happened; gives the new view, if there is one.
    pub fn take(&self, feed: &Feed) -> Option<Arc<View>> {
        let mut table = self.table_locked();
        if !table.take(feed) {
            return None;
        }
        let view = Arc::new(table.view().clone());
        drop(table);
        self.shared.out.send_replace(view.clone());
        Some(view)
    }

    /// The table as it is now.
    pub fn table(&self) -> Table {
        self.table_locked().clone()
    }

    /// What somebody lacks who knows everything up to `after`.
    pub fn feed(&self, after: u64) -> Feed {
        self.table_locked().feed(after)
    }

    /// The newest view.
    pub fn view(&self) -> Arc<View> {
        self.shared.views.borrow().clone()
    }

    /// The newest view, and being told of newer ones.
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.shared.views.clone()
    }

    /// True while somebody else holds this history, or watches it.
    pub(crate) fn is_watched(&self) -> bool {
        Arc::strong_count(&self.shared) > 1 || self.shared.out.receiver_count() > 1
    }

    /// Every transition behind `after`.
    pub fn transitions(&self, after: Epoch) -> Transitions {
        Transitions { history: self.clone(), views: self.watch(), after: after.0, view: None, ended: None }
    }

    /// The transition `number` and the view after it, made from `before` where that is at hand.
    fn step(&self, number: u64, before: Option<View>) -> Result<Option<(Arc<Transition>, View)>, Missed> {
        let table = self.table_locked();
        if number > table.view().epoch {
            return Ok(None);
        }
        let missed = Missed::TooOld { oldest: table.oldest() };
        let step = table.transition(number).cloned().ok_or(missed)?;
        if let Some(mut view) = before
            && view.advance(&step)
        {
            return Ok(Some((step, view)));
        }
        let view = table.view_at(number).ok_or(missed)?;
        Ok(Some((step, view)))
    }
}

/// The transitions behind some point, one by one.
pub struct Transitions {
    history: History,
    views: watch::Receiver<Arc<View>>,
    after: u64,
    view: Option<View>,
    ended: Option<watch::Receiver<bool>>,
}

impl Transitions {
    /// Ends with [`Missed::Ended`] when `ended` says so.
    #[must_use]
    pub fn until(mut self, ended: watch::Receiver<bool>) -> Transitions {
        self.ended = Some(ended);
        self
    }

    /// The next transition and the view after it; waits for one. Cancel safe.
    ///
    /// # Errors
    /// [`Missed::TooOld`]: it is forgotten here (at most [`HISTORY_MAX`](crate::table::HISTORY_MAX) are kept);
    /// [`Missed::Ended`].
    pub async fn next(&mut self) -> Result<Arc<(Transition, View)>, Missed> {
        loop {
            // Marked as seen before looking: what comes after the look wakes us.
            self.views.borrow_and_update();
            let number = self.after.saturating_add(1);
            if let Some((step, view)) = self.history.step(number, self.view.clone())? {
                self.after = number;
                self.view = Some(view.clone());
                return Ok(Arc::new((Transition::clone(&step), view)));
            }
            self.wait().await?;
        }
    }

    /// The number of the last one seen.
    pub fn seen(&self) -> Epoch {
        Epoch(self.after)
    }

    async fn wait(&mut self) -> Result<(), Missed> {
        let Some(ended) = &mut self.ended else {
            return self.views.changed().await.map_err(|_| Missed::Ended);
        };
        tokio::select! {
            changed = self.views.changed() => changed.map_err(|_| Missed::Ended),
            _ = ended.wait_for(|ended| *ended) => Err(Missed::Ended),
        }
    }
}
