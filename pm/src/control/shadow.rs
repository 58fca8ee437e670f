//! The home part, towards shadows: the process here that bears the pid of a task elsewhere.
//!
//! ```text
//!  none --Spawn(keep_pid)--> SEIZED --task stops, goes on, ends--> mirrored at once; after the end it is a plain
//!                              |                                   process, which ends itself as the task did
//!                              |--there is no task after all-----> released
//!                              '--the shadow is gone-------------> the task is killed
//! ```

use super::Core;
use super::limits::EARLY_REPORTS_MAX;
use super::nodes::origin;
use crate::wire::peer::{Body, Command, Order};
use crate::wire::{Change, Signal, TaskId, init};
use base::NodeId;

impl Core {
    /// The client's own process becomes the task's shadow, before the task exists.
    pub(super) fn seize(&mut self, id: TaskId, pid: u32, node: NodeId) {
        let Some(task) = self.task(id) else { return };
        task.shadow = Some(pid);
        self.order_init(id, init::Request::Shadow(init::Shadow { pid, change: None, release: false }));
        if node != self.config.node && origin(self.config.regions, pid) == Some(self.config.node) {
            self.routes.away.insert(pid, node);
            self.routes_version += 1;
        }
    }

    /// After a restart of this daemon: `ssi-init` still holds the shadow. A pid that is not the client's is ignored.
    pub(super) fn seize_again(&mut self, id: TaskId, pid: u32, node: NodeId) {
        let own = self.sessions.get(&id.into()).map(|session| session.client_pid);
        let pid = if pid == 0 { own.unwrap_or(0) } else { pid };
        if pid == 0 || own != Some(pid) {
            return;
        }
        self.seize(id, pid, node);
        let early = self.early.remove(&id).unwrap_or_default();
        for signal in early.signals {
            self.order(id, Order::Signal(signal));
        }
        if early.gone {
            self.shadow_gone(id);
        }
    }

    /// The shadow does what the task did.
    pub(super) fn mirror(&mut self, id: TaskId, change: Change) {
        let Some(pid) = self.task(id).and_then(|task| task.shadow) else { return };
        self.order_init(
            id,
            init::Request::Shadow(init::Shadow { pid, change: Some(change), release: false }),
        );
    }

    /// There is no task any more: the process that was its shadow goes on as itself.
    pub(super) fn release_shadow(&mut self, id: TaskId) {
        if self.drop_shadow(id) {
            // By its task alone: the number may be another process's by now.
            self.order_init(id, init::Request::Shadow(init::Shadow { pid: 0, change: None, release: true }));
        }
    }

    fn drop_shadow(&mut self, id: TaskId) -> bool {
        let Some(pid) = self.task(id).and_then(|task| task.shadow.take()) else { return false };
        self.routes.away.remove(&pid);
        self.routes_version += 1;
        true
    }

    /// Somebody sent the shadow a signal: it is meant for the task.
    pub(super) fn shadow_signal(&mut self, id: TaskId, signal: Signal) {
        let signal = Signal { target: 0, start_time: 0, ..signal };
        if self.task(id).is_some() {
            return self.order(id, Order::Signal(signal));
        }
        if self.make_early(id) {
            self.early.entry(id).or_default().signals.push(signal);
            self.deliver_early(id);
        }
    }

    /// The shadow is no more: nobody is left to wait for the task.
    pub(super) fn shadow_gone(&mut self, id: TaskId) {
        if self.task(id).is_some() {
            self.drop_shadow(id);
            return self.remove_task(id);
        }
        if self.make_early(id) {
            self.early.entry(id).or_default().gone = true;
            self.deliver_early(id);
        }
    }

    fn make_early(&self, id: TaskId) -> bool {
        let kept: usize = self.early.values().map(|early| 1 + early.signals.len()).sum();
        id.home == self.config.node.0 && kept < EARLY_REPORTS_MAX
    }

    /// A task whose client has not come back yet can be reached once its node has told of it.
    pub(super) fn deliver_early(&mut self, id: TaskId) {
        let Some(node) = self.unclaimed.get(&id).map(|unclaimed| unclaimed.node) else { return };
        let Some(early) = self.early.remove(&id) else { return };
        for signal in early.signals {
            let order = Command { task: Some(id), order: Some(Order::Signal(signal)) };
            self.post(node, Body::Command(order));
        }
        if early.gone {
            self.drop_unclaimed(id);
        }
    }
}
