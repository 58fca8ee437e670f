//! The runner part: the tasks of any home that run on this node. `ssi-init` has the truth about them; this part knows
//! enough to tell a home again, and to know which foreign pids are here.

use super::home::failed;
use super::lane::Track;
use super::limits::{HOSTED_MAX, LANE_QUEUE_BYTES_MAX};
use super::nodes::origin;
use super::{Core, FENCE};
use crate::wire::client::Resume;
use crate::wire::init::{FromInit, Report, Request, TaskState};
use crate::wire::peer::{Body, News, Notice, Order, SpawnMany};
use crate::wire::{CHANNEL, Change, Mark, Piece, STDOUT, Signal, Started, TaskId};
use base::NodeId;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};

/// A task that runs here, or has ended and was not forgotten.
#[derive(Debug, Default)]
pub(super) struct Hosted {
    started: Option<Started>,
    change: Option<Change>,
    accepted: BTreeMap<u32, u64>,
    /// Output that did not fit into the lane: from where `ssi-init` is to send it again.
    left_out: BTreeMap<u32, u64>,
}

impl Core {
    /// A home wants these started.
    pub(super) fn host(&mut self, home: NodeId, many: SpawnMany) {
        for one in many.tasks {
            let (Some(task), Some(spec)) = (one.task, one.spec) else { continue };
            if task.home != home.0 {
                continue;
            }
            if self.hosted.len() >= HOSTED_MAX && !self.hosted.contains_key(&task) {
                let what = format!("node {} runs {HOSTED_MAX} tasks already", self.config.node);
                self.report(task, News::Failed(failed(Errno::AGAIN, what, self.config.node)));
                continue;
            }
            self.hosted.entry(task).or_default();
            // Known or not: ssi-init answers a repeated one with what is known of it.
            self.order_init(task, Request::Spawn(spec));
        }
    }

    /// The home of `task` orders.
    pub(super) fn obey(&mut self, task: TaskId, order: Order) {
        match order {
            Order::Input(piece) => self.order_init(task, Request::Input(piece)),
            Order::Acknowledge(mark) => self.order_init(task, Request::Acknowledge(mark)),
            Order::Resize(size) => self.order_init(task, Request::Resize(size)),
            Order::Signal(signal) => self.signal_hosted(task, signal),
            Order::Resume(resume) => self.resume_hosted(task, &resume),
            Order::Forget(()) => self.drop_hosted(task),
        }
    }

    fn signal_hosted(&mut self, task: TaskId, signal: Signal) {
        let Some(hosted) = self.hosted.get(&task) else { return };
        let process = hosted.started.clone().unwrap_or_default();
        let signal = Signal { target: process.pid as i32, start_time: process.start_time, ..signal };
        self.order_init(task, Request::Signal(signal));
    }

    fn resume_hosted(&mut self, task: TaskId, resume: &Resume) {
        let Some(hosted) = self.hosted.get_mut(&task) else {
            let what = format!("node {} does not know the task any more", self.config.node);
            return self.report(task, News::Failed(failed(Errno::SRCH, what, self.config.node)));
        };
        hosted.left_out.clear();
        for stream in STDOUT..=CHANNEL {
            let received = resume.received.iter().find(|mark| mark.stream == stream);
            let offset = received.map_or(0, |mark| mark.offset);
            self.order_init(task, Request::Rewind(Mark { stream, offset }));
        }
        self.announce(task);
    }

    fn drop_hosted(&mut self, task: TaskId) {
        if let Some(Hosted { started: Some(started), .. }) = self.hosted.remove(&task) {
            self.leave_route(&started);
        }
        self.order_init(task, Request::Forget(()));
    }

    /// The home `node` is no more: nobody will ever ask for its tasks.
    pub(super) fn drop_home(&mut self, node: NodeId) {
        let orphans: Vec<TaskId> = self.hosted.keys().filter(|task| task.home == node.0).copied().collect();
        for task in orphans {
            self.drop_hosted(task);
        }
    }

    /// Tasks that were found here and whose home had gone before this daemon began.
    pub(super) fn drop_dead_homes(&mut self) {
        let homes: BTreeSet<NodeId> = self.hosted.keys().map(|task| NodeId(task.home)).collect();
        for home in homes {
            if home != self.config.node && !self.routes.nodes.is_alive(home) {
                self.drop_home(home);
            }
        }
    }

    /// `ssi-init` reports.
    pub(super) fn take_report(&mut self, from_init: FromInit) {
        let (Some(task), Some(report)) = (from_init.task, from_init.report) else {
            if from_init.request_id == FENCE && !self.settled {
                self.settled();
            }
            return;
        };
        match report {
            Report::Task(state) => self.found(task, state),
            Report::ShadowSignal(signal) => self.shadow_signal(task, signal),
            Report::ShadowGone(_) => self.shadow_gone(task),
            report => self.hosted_report(task, report),
        }
    }

    /// A task that was here before this daemon.
    fn found(&mut self, task: TaskId, state: TaskState) {
        let hosted = self.hosted.entry(task).or_default();
        hosted.change = state.change;
        hosted.accepted.extend(state.accepted.iter().map(|mark| (mark.stream, mark.offset)));
        if let Some(started) = state.started {
            self.enter_route(&started);
            self.hosted.entry(task).or_default().started = Some(started);
        }
        self.announce(task);
    }

    fn hosted_report(&mut self, task: TaskId, report: Report) {
        // A task that was being launched when this daemon began is first heard of now.
        let first = matches!(report, Report::Started(_) | Report::Failed(_));
        if !first && !self.hosted.contains_key(&task) {
            return;
        }
        let hosted = self.hosted.entry(task).or_default();
        let news = match report {
            Report::Started(started) => {
                hosted.started = Some(started.clone());
                self.enter_route(&started);
                News::Started(started)
            }
            Report::Failed(failed) => {
                self.hosted.remove(&task);
                News::Failed(failed)
            }
            Report::Output(piece) => return self.relay_output(task, piece),
            Report::Accepted(mark) => {
                hosted.accepted.insert(mark.stream, mark.offset);
                News::Accepted(mark)
            }
            Report::Changed(change) => {
                hosted.change = Some(change.clone());
                if let (true, Some(started)) = (change.ended, hosted.started.clone()) {
                    self.leave_route(&started);
                }
                News::Changed(change)
            }
            Report::Welcome(_) | Report::Task(_) | Report::Errno(_) => return,
            Report::ShadowSignal(_) | Report::ShadowGone(_) => return,
        };
        self.report(task, news);
    }

    fn relay_output(&mut self, task: TaskId, piece: Piece) {
        let lane = self.lanes.get(&(NodeId(task.home), Track::Data));
        let full = lane.is_some_and(|lane| lane.bytes() > LANE_QUEUE_BYTES_MAX);
        let Some(hosted) = self.hosted.get_mut(&task) else { return };
        if full || hosted.left_out.contains_key(&piece.stream) {
            hosted.left_out.entry(piece.stream).or_insert(piece.offset);
            return;
        }
        self.report(task, News::Output(piece));
    }

    /// The lane to `home` has room again: what was left out is sent after all.
    pub(super) fn catch_up(&mut self, home: NodeId) {
        let behind =
            |(task, hosted): &(&TaskId, &mut Hosted)| task.home == home.0 && !hosted.left_out.is_empty();
        let mut rewinds = Vec::new();
        for (task, hosted) in self.hosted.iter_mut().filter(behind) {
            let marks = std::mem::take(&mut hosted.left_out);
            rewinds.extend(marks.into_iter().map(|(stream, offset)| (*task, Mark { stream, offset })));
        }
        for (task, mark) in rewinds {
            self.order_init(task, Request::Rewind(mark));
        }
    }

    /// Tells `home` of all its tasks here.
    pub(super) fn announce_all(&mut self, home: NodeId) {
        for task in self.hosted.keys().filter(|task| task.home == home.0).copied().collect::<Vec<_>>() {
            self.announce(task);
        }
    }

    /// Tells a task's home all that is known of it, except output.
    fn announce(&mut self, task: TaskId) {
        let Some(hosted) = self.hosted.get(&task) else { return };
        let started = hosted.started.clone().map(News::Started);
        let accepted: Vec<News> = hosted
            .accepted
            .iter()
            .map(|(stream, offset)| News::Accepted(Mark { stream: *stream, offset: *offset }))
            .collect();
        let changed = hosted.change.clone().map(News::Changed);
        for news in started.into_iter().chain(accepted).chain(changed) {
            self.report(task, news);
        }
    }

    fn report(&mut self, task: TaskId, news: News) {
        self.post(NodeId(task.home), Body::Notice(Notice { task: Some(task), news: Some(news) }));
    }

    fn enter_route(&mut self, started: &Started) {
        if origin(self.config.regions, started.pid).is_some_and(|node| node != self.config.node) {
            self.routes.hosted.insert(started.pid);
            self.routes_version += 1;
        }
    }

    fn leave_route(&mut self, started: &Started) {
        if self.routes.hosted.remove(&started.pid) {
            self.routes_version += 1;
        }
    }
}
