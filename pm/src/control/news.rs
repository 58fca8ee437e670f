//! The home part, towards the nodes where its tasks run: news of them, and the end of a node.

use super::home::{GRACE, failed};
use super::{Core, Due, Unclaimed};
use crate::wire::client::Event as Told;
use crate::wire::peer::{Body, Command, News, Order, SpawnOne};
use crate::wire::{Change, Failed, Mark, Piece, Started, TaskId};
use base::NodeId;
use rustix::io::Errno;
use std::collections::BTreeMap;

impl Core {
    /// The node `from` has news of a task of this home.
    pub(super) fn hear(&mut self, from: NodeId, id: TaskId, news: News) {
        match self.task(id).map(|task| task.node) {
            Some(node) if node == from => self.hear_of_known(id, news),
            // News of a node that the task does not run on: of an earlier life. It means nothing.
            Some(_) => {}
            None => self.hear_of_unknown(from, id, &news),
        }
    }

    fn hear_of_known(&mut self, id: TaskId, news: News) {
        match news {
            News::Started(started) => self.started(id, started),
            News::Failed(failed) => self.lose(id, failed),
            News::Output(piece) => self.forward(id, piece),
            News::Accepted(mark) => self.accepted(id, mark),
            News::Changed(change) => self.changed(id, change),
        }
    }

    /// This daemon was restarted, or the client forgot the task while the news travelled: the client gets the grace
    /// time to claim it.
    fn hear_of_unknown(&mut self, from: NodeId, id: TaskId, news: &News) {
        if !matches!(news, News::Started(_) | News::Changed(_)) || self.unclaimed.contains_key(&id) {
            return;
        }
        let until = self.now + GRACE;
        self.unclaimed.insert(id, Unclaimed { node: from, until });
        self.due.insert((until, Due::Unclaimed(id)));
        self.deliver_early(id);
    }

    pub(super) fn unclaimed_due(&mut self, id: TaskId) {
        if self.unclaimed.get(&id).is_some_and(|unclaimed| unclaimed.until <= self.now) {
            self.drop_unclaimed(id);
        }
    }

    /// Nobody wants this task: it is killed where it runs.
    pub(super) fn drop_unclaimed(&mut self, id: TaskId) {
        self.early.remove(&id);
        if let Some(unclaimed) = self.unclaimed.remove(&id) {
            let order = Command { task: Some(id), order: Some(Order::Forget(())) };
            self.post(unclaimed.node, Body::Command(order));
        }
    }

    fn started(&mut self, id: TaskId, started: Started) {
        let Some(task) = self.task(id).filter(|task| task.over.is_none()) else { return };
        task.spec = None;
        if task.started.as_ref() == Some(&started) {
            return;
        }
        task.started = Some(started.clone());
        let early = std::mem::take(&mut task.early);
        self.tell(id, Told::Started(started));
        self.send_unaccepted(id);
        for piece in early {
            self.forward(id, piece);
        }
    }

    /// There will be no more news of the task: it could not be started, or it is lost.
    pub(super) fn lose(&mut self, id: TaskId, failed: Failed) {
        let Some(task) = self.task(id).filter(|task| task.over.is_none()) else { return };
        task.end_without_status(failed);
        self.release_shadow(id);
        self.conclude(id);
    }

    fn forward(&mut self, id: TaskId, piece: Piece) {
        let room = self.has_room(id.into());
        let Some(task) = self.task(id) else { return };
        if task.spec.is_some() {
            // A client that has not heard of the start would ask for the start again, and for all output.
            task.early.push(piece);
            return;
        }
        if !room {
            // Nothing is lost: ssi-init keeps it, and the stream goes on from the offset that was sent last.
            task.lagging = true;
            return;
        }
        if let Some(new) = task.output.entry(piece.stream).or_default().forward(piece) {
            self.tell(id, Told::Output(new));
        }
    }

    fn accepted(&mut self, id: TaskId, mark: Mark) {
        let Some(task) = self.task(id) else { return };
        if task.input.entry(mark.stream).or_default().accepted(mark.offset) {
            self.tell(id, Told::Accepted(mark));
        }
    }

    fn changed(&mut self, id: TaskId, change: Change) {
        let Some(task) = self.task(id) else { return };
        if task.change.as_ref() == Some(&change) || task.has_ended() {
            return;
        }
        task.change = Some(change.clone());
        self.tell(id, Told::Changed(change.clone()));
        self.mirror(id, change);
    }

    /// The processes of `node` have ended for everybody else.
    pub(super) fn lose_node(&mut self, node: NodeId) {
        let lost: Vec<TaskId> = self.tasks_on(node).collect();
        for id in lost {
            let refusal = self.routes.nodes.refusal(node);
            let what = || failed(Errno::HOSTUNREACH, format!("node {node} was restarted"), node);
            self.lose(id, refusal.unwrap_or_else(what));
        }
        self.unclaimed.retain(|_, unclaimed| unclaimed.node != node);
    }

    fn tasks_on(&self, node: NodeId) -> impl Iterator<Item = TaskId> + '_ {
        self.sessions.iter().flat_map(move |(session, of)| {
            let there = of.tasks.iter().filter(move |(_, task)| task.node == node && task.over.is_none());
            there.map(|(index, _)| self.task_id(*session, *index))
        })
    }

    /// The daemon of `node` was restarted: what its predecessor may have taken down with it is sent again.
    pub(super) fn tell_again_as_home(&mut self, node: NodeId) {
        let mut spawns: BTreeMap<NodeId, Vec<SpawnOne>> = BTreeMap::new();
        for id in self.tasks_on(node).collect::<Vec<_>>() {
            let Some(task) = self.task(id) else { continue };
            if let Some(spec) = task.spec.clone() {
                spawns.entry(node).or_default().push(SpawnOne { task: Some(id), spec: Some(spec) });
                continue;
            }
            let marks: Vec<Mark> = task
                .output
                .iter()
                .map(|(stream, output)| Mark { stream: *stream, offset: output.mark() })
                .collect();
            for mark in marks {
                self.order(id, Order::Acknowledge(mark));
            }
            self.send_unaccepted(id);
        }
        self.send_spawns(spawns);
    }

    fn send_unaccepted(&mut self, id: TaskId) {
        let Some(task) = self.task(id) else { return };
        let pieces: Vec<Piece> = task.input.values().flat_map(|input| input.unaccepted().cloned()).collect();
        for piece in pieces {
            self.order(id, Order::Input(piece));
        }
    }
}
