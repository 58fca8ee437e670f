//! The home part, towards shadows: the process here that bears the pid of a task elsewhere.
//!
//! ```text
//!  none --Spawn(keep_pid)--> SEIZED --task stops, goes on--> mirrored at once
//!                              | --task exits------------> mirrored at once; the client ends itself
//!                              | --task killed-----------> mirrored when the client has all output, or says Forget,
//!                              |                            or after LAST_OUTPUT
//!                              | --no task after all------> released
//!                              '--shadow gone-------------> the task is killed
//! ```

use super::limits::{EARLY_REPORTS_MAX, LAST_OUTPUT};
use super::nodes::origin;
use super::session::ShadowOf;
use super::{Core, Due};
use crate::wire::peer::{Body, Command, Order};
use crate::wire::{Change, Signal, TaskId, init};
use base::NodeId;

fn was_killed(change: &Change) -> bool {
    change.ended && change.wait_status & 0x7f != 0
}

fn is_stop(change: &Change) -> bool {
    !change.ended && change.wait_status & 0xff == 0x7f
}

impl Core {
    /// The client's own process becomes the task's shadow, before the task exists.
    pub(super) fn seize(&mut self, id: TaskId, pid: u32, node: NodeId) {
        let Some(task) = self.task(id) else { return };
        task.shadow = Some(ShadowOf { pid, ended: false, end_at: None });
        self.to_init(id, init::Request::Shadow(init::Shadow { pid, change: None, release: false }));
        if node != self.config.node && origin(self.config.regions, pid) == Some(self.config.node) {
            self.routes.away.insert(pid, node);
            self.routes_version += 1;
        }
    }

    /// After a restart of this daemon: `ssi-init` still holds the shadow. A pid that is not the client's is ignored.
    pub(super) fn seize_again(&mut self, id: TaskId, pid: u32, node: NodeId) {
        let own = self.sessions.get(&id.session).map(|session| session.client_pid);
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
    pub(super) fn mirror(&mut self, id: TaskId, before: Option<&Change>, change: Change) {
        let latest = self.now + LAST_OUTPUT;
        let Some(task) = self.task(id) else { return };
        let drained = task.is_drained();
        let Some(shadow) = &mut task.shadow else { return };
        let pid = shadow.pid;
        // A stopped client cannot take any output: waiting would gain nothing.
        if was_killed(&change) && !drained && !before.is_some_and(is_stop) {
            shadow.end_at = Some(latest);
            self.due.insert((latest, Due::ShadowEnd(id)));
            return;
        }
        shadow.ended = change.ended;
        self.to_init(id, init::Request::Shadow(init::Shadow { pid, change: Some(change), release: false }));
    }

    pub(super) fn shadow_due(&mut self, id: TaskId) {
        let now = self.now;
        let due = |shadow: &ShadowOf| shadow.end_at.is_some_and(|at| at <= now);
        if self.task(id).and_then(|task| task.shadow.as_ref()).is_some_and(due) {
            self.end_shadow(id);
        }
    }

    pub(super) fn end_shadow_if_drained(&mut self, id: TaskId) {
        if self.task(id).is_some_and(|task| task.shadow.is_some() && task.has_ended() && task.is_drained()) {
            self.end_shadow(id);
        }
    }

    /// Lets the shadow die as its task did, once.
    fn end_shadow(&mut self, id: TaskId) {
        let Some(task) = self.task(id) else { return };
        let (Some(shadow), Some(change)) = (&mut task.shadow, task.change.clone()) else { return };
        if !change.ended || std::mem::replace(&mut shadow.ended, true) {
            return;
        }
        let pid = shadow.pid;
        self.to_init(id, init::Request::Shadow(init::Shadow { pid, change: Some(change), release: false }));
    }

    /// The task's record goes: its shadow ends with it, or is an ordinary process again.
    pub(super) fn part_from_shadow(&mut self, id: TaskId) {
        if self.task(id).is_some_and(|task| task.has_ended()) {
            self.end_shadow(id);
            self.drop_shadow(id);
        } else {
            self.release_shadow(id);
        }
    }

    /// There is no task: the process that was to be its shadow goes on as itself.
    pub(super) fn release_shadow(&mut self, id: TaskId) {
        if let Some(pid) = self.drop_shadow(id) {
            self.to_init(id, init::Request::Shadow(init::Shadow { pid, change: None, release: true }));
        }
    }

    fn drop_shadow(&mut self, id: TaskId) -> Option<u32> {
        let pid = self.task(id)?.shadow.take()?.pid;
        self.routes.away.remove(&pid);
        self.routes_version += 1;
        Some(pid)
    }

    /// Somebody sent the shadow a signal: it is meant for the task. The kernel has checked the sender's right to.
    pub(super) fn shadow_signal(&mut self, id: TaskId, signal: Signal) {
        let signal = Signal { target: 0, start_time: 0, privileged: true, ..signal };
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
