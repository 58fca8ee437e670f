//! The guard: runs the fencer for the core, with real agents and the real clock, as a task.
//!
//! Invariant: an agent is given up as soon as the life that it was sent for is not the node's last any more.

use super::agent::Crew;
use super::device::Plan;
use super::fencer::{Effect, Event, Fencer};
use crate::clock;
use crate::core::Event as CoreEvent;
use crate::shell::{Inbox, Input};
use crate::wire::{NodeState, View};
use base::{Incarnation, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How often the fencer looks at the clock.
const TICK: Duration = Duration::from_millis(500);

/// What the core wants fenced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) node: NodeId,
    pub(crate) life: u64,
}

/// The task's own.
pub(crate) struct Guard {
    fencer: Fencer,
    crew: Crew,
    /// Lives that are being fenced.
    pending: BTreeMap<NodeId, u64>,
    views: watch::Receiver<Arc<View>>,
    inbox: Inbox,
}

impl Guard {
    /// Starts the task, in the present tokio runtime; it ends when the sender is gone.
    pub(crate) fn start(
        plan: Plan,
        views: watch::Receiver<Arc<View>>,
        inbox: Inbox,
    ) -> mpsc::UnboundedSender<Wanted> {
        let (wanted, wants) = mpsc::unbounded_channel();
        let (ended, ends) = mpsc::unbounded_channel();
        let (fencer, crew) = (Fencer::new(plan), Crew::new(ended));
        let guard = Guard { fencer, crew, pending: BTreeMap::new(), views, inbox };
        tokio::spawn(guard.run(wants, ends));
        wanted
    }

    async fn run(
        mut self,
        mut wants: mpsc::UnboundedReceiver<Wanted>,
        mut ends: mpsc::UnboundedReceiver<Event>,
    ) {
        let mut ticks = tokio::time::interval(TICK);
        let mut views = self.views.clone();
        loop {
            tokio::select! {
                wanted = wants.recv() => match wanted {
                    Some(wanted) => self.begin(wanted),
                    None => return,
                },
                Some(event) = ends.recv() => self.handle(event),
                changed = views.changed() => match changed {
                    Ok(()) => self.settle(),
                    Err(_) => return,
                },
                _ = ticks.tick() => self.handle(Event::Tick),
            }
        }
    }

    fn begin(&mut self, wanted: Wanted) {
        let Wanted { node, life } = wanted;
        let Some(name) = self.views.borrow().node(node).map(|row| row.name.clone()) else { return };
        if self.fencer.can_fence(&name) {
            self.pending.insert(node, life);
            self.handle(Event::Fence { node, name, life: Incarnation(life) });
        }
    }

    /// Gives up agents for lives that are not DOWN any more: a later one has begun, or the node was removed.
    fn settle(&mut self) {
        let view = self.views.borrow().clone();
        let over = |node: NodeId, life: u64| {
            view.node(node).is_none_or(|row| row.incarnation != life || row.state() != NodeState::Down)
        };
        let settled: Vec<NodeId> =
            self.pending.iter().filter(|(node, life)| over(**node, **life)).map(|(&node, _)| node).collect();
        for node in settled {
            self.pending.remove(&node);
            self.handle(Event::Settled { node, confirmed: false });
        }
    }

    fn handle(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.fencer.handle(clock::now(), event, &mut effects);
        for effect in effects {
            self.crew.carry_out(&effect);
            match effect {
                Effect::Fenced { node, life, by } => {
                    tracing::info!("node {node}, life {life}: fenced by {by}");
                    let fenced = CoreEvent::Fenced { node, life: life.0, done: true, said: by };
                    // A full inbox loses it; the core asks again.
                    drop(self.inbox.try_send(Input::Event(fenced)));
                }
                Effect::Failed { node, life, why } => {
                    tracing::error!("node {node}, life {life} cannot be fenced: {why}");
                }
                Effect::Run { .. } | Effect::Kill(_) => {}
            }
        }
    }
}
