//! One table behind the socket: a node by itself.
//!
//! Invariant: what the table says reaches its owners in the table's order.

use super::locks::{Locks, Surveying};
use crate::deadlock::{Sighting, cycles};
use crate::error::Error;
use crate::event::{Config, Effect, Event, Gone, Owner, Refusal};
use crate::table::Table;
use base::{NodeId, Time};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

/// A wait that lasts longer may be a deadlock's.
const SUSPECT_AFTER: Duration = Duration::from_secs(1);

/// A table, and the tasks that tell it the time.
pub struct Single {
    node: NodeId,
    began: Instant,
    state: Mutex<State>,
    /// The table's next deadline may have come nearer, or somebody has begun to wait.
    changed: Notify,
}

struct State {
    table: Table,
    owners: BTreeMap<u64, UnboundedSender<Effect>>,
    last_holder: u64,
    /// Who waits: (holder, tag).
    waiting: BTreeSet<(u64, u64)>,
    effects: Vec<Effect>,
}

impl Single {
    /// An empty table with its clock, on the present tokio runtime. The clock ends with the last reference.
    ///
    /// # Errors
    /// [`Error::Limit`].
    pub fn start(node: NodeId, config: Config) -> Result<Arc<Single>, Error> {
        let state = State {
            table: Table::new(config)?,
            owners: BTreeMap::new(),
            last_holder: 0,
            waiting: BTreeSet::new(),
            effects: Vec::new(),
        };
        let single = Single { node, began: Instant::now(), state: Mutex::new(state), changed: Notify::new() };
        let single = Arc::new(single);
        let weak = Arc::downgrade(&single);
        tokio::spawn(async move {
            while let Some(single) = weak.upgrade() {
                let pause = single.pause();
                let _ = tokio::time::timeout(pause, single.changed.notified()).await;
                single.tick();
            }
        });
        Ok(single)
    }

    /// How long nothing is due.
    fn pause(&self) -> Duration {
        let now = self.now();
        let state = self.state.lock();
        let due = state.table.next_deadline().map_or(SUSPECT_AFTER * 60, |time| time.since(now));
        if state.waiting.is_empty() { due } else { due.min(SUSPECT_AFTER) }
    }

    fn tick(&self) {
        let now = self.now();
        let mut state = self.state.lock();
        if state.table.next_deadline().is_some_and(|due| due <= now) {
            state.handle(now, Event::Tick);
        }
        if !state.waiting.is_empty() {
            state.break_deadlocks(self.node, now);
        }
    }
}

impl State {
    fn handle(&mut self, now: Time, event: Event) {
        let mut effects = std::mem::take(&mut self.effects);
        self.table.handle(now, event, &mut effects);
        for effect in effects.drain(..) {
            let owner = owner(&effect);
            if let Effect::Queued { tag, .. } = effect {
                self.waiting.insert((owner.holder, tag));
            } else if let Some(tag) = effect.ended() {
                self.waiting.remove(&(owner.holder, tag));
            }
            // Who has left is not told.
            if let Some(listener) = self.owners.get(&owner.holder) {
                let _ = listener.send(effect);
            }
        }
        self.effects = effects;
    }

    /// In one table all edges are of one moment: a circle is a deadlock.
    fn break_deadlocks(&mut self, node: NodeId, now: Time) {
        let old = Time(now.0.saturating_sub(SUSPECT_AFTER.as_nanos() as u64));
        for cycle in cycles(&sightings(&self.table, node, old)) {
            if let Some(youngest) = cycle.edges.first() {
                let (lock, wait, why) = (youngest.edge.lock, youngest.edge.wait, Refusal::Deadlock);
                self.handle(now, Event::Victim { lock, wait, why });
            }
        }
    }
}

fn sightings(table: &Table, site: NodeId, since_before: Time) -> Vec<Sighting> {
    table.edges(since_before).into_iter().map(|edge| Sighting { site, edge }).collect()
}

fn owner(effect: &Effect) -> Owner {
    match effect {
        Effect::Granted(grant) => grant.owner,
        Effect::Queued { owner, .. }
        | Effect::Refused { owner, .. }
        | Effect::Done { owner, .. }
        | Effect::Blocking { owner, .. }
        | Effect::Purged { owner, .. } => *owner,
    }
}

impl Locks for Single {
    fn node(&self) -> NodeId {
        self.node
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn join(&self, effects: UnboundedSender<Effect>) -> Owner {
        let mut state = self.state.lock();
        state.last_holder += 1;
        let holder = state.last_holder;
        state.owners.insert(holder, effects);
        Owner { node: self.node, holder }
    }

    fn submit(&self, event: Event) {
        let now = self.now();
        let mut state = self.state.lock();
        let (due, waited) = (state.table.next_deadline(), !state.waiting.is_empty());
        state.handle(now, event);
        let is_sooner = state.table.next_deadline().is_some_and(|next| due.is_none_or(|due| next < due));
        if is_sooner || !waited && !state.waiting.is_empty() {
            self.changed.notify_one();
        }
    }

    fn leave(&self, owner: Owner) {
        self.state.lock().owners.remove(&owner.holder);
        self.submit(Event::Gone(Gone::Holder(owner)));
    }

    fn survey(&self) -> Surveying<'_> {
        let seen = sightings(&self.state.lock().table, self.node, Time(u64::MAX));
        Box::pin(std::future::ready(seen))
    }
}
