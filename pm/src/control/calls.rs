//! The fabric side of the shell: numbered requests in their order, questions, and the answers to both.

use super::Event;
use super::lane::{Ticket, Track};
use super::limits::{ATTEMPT, KILL_LONGEST, RETRY_LONGEST, RETRY_SHORTEST, TABLE_LONGEST};
use super::nodes::origin;
use super::routes::Route;
use super::shell::Shared;
use crate::wire::Signal;
use crate::wire::peer::{Answer, Body, Request};
use base::NodeId;
use fabric::{Message, Peer, Priority, Reply, Role, Service, service};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use prost::Message as _;
use rustix::io::Errno;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

fn raw(errno: Errno) -> u32 {
    errno.raw_os_error() as u32
}

fn answer_of(errno: Errno) -> Answer {
    Answer { errno: raw(errno), ..Answer::default() }
}

/// A numbered request on its way to a poster.
pub(super) struct Outgoing {
    pub(super) ticket: Ticket,
    pub(super) request: Request,
}

/// One task for each lane, so that the fabric gets its requests in order. Bounded by the lanes' windows.
#[derive(Default)]
pub(super) struct Posters {
    lanes: Mutex<HashMap<(NodeId, Track), UnboundedSender<Outgoing>>>,
}

impl Posters {
    pub(super) fn post(&self, shared: &Arc<Shared>, to: NodeId, track: Track, outgoing: Outgoing) {
        let mut lanes = self.lanes.lock();
        let lane = lanes.entry((to, track)).or_insert_with(|| {
            let (sender, receiver) = unbounded_channel();
            shared.spawn(post_in_order(shared.clone(), to, track, receiver));
            sender
        });
        // It fails only when the shell is closing.
        let _ = lane.send(outgoing);
    }
}

async fn post_in_order(
    shared: Arc<Shared>,
    to: NodeId,
    track: Track,
    mut posted: UnboundedReceiver<Outgoing>,
) {
    let mut flying = FuturesUnordered::new();
    let priority = if track == Track::Control { Priority::Control } else { Priority::Data };
    loop {
        tokio::select! {
            biased;
            Some(Outgoing { ticket, request }) = posted.recv() => {
                let shared = shared.clone();
                flying.push(async move { (ticket, shared.call(to, priority, request, ATTEMPT).await) });
            }
            Some((ticket, answer)) = flying.next() => {
                shared.answered(to, track, ticket, answer.ok().map(|answer| answer.errno));
            }
            else => return,
        }
    }
}

impl Shared {
    /// One request to the `ssid` of `node`.
    pub(crate) async fn call(
        &self,
        node: NodeId,
        priority: Priority,
        request: Request,
        longest: Duration,
    ) -> Result<Answer, fabric::Error> {
        let peer = Peer { node, role: Role::Control };
        let message = Message { head: request.encode_to_vec().into(), ..Message::default() };
        let reply = self.endpoint.call(peer, service::PROCESSES, priority, message, longest).await?;
        // A peer that answers nonsense is treated like one that refused.
        Ok(Answer::decode(reply.head).unwrap_or_else(|_| answer_of(Errno::PROTO)))
    }

    /// One question that stands for itself.
    pub(crate) async fn ask(
        &self,
        node: NodeId,
        body: Body,
        longest: Duration,
    ) -> Result<Answer, fabric::Error> {
        let request = Request { body: Some(body), lane: 0, sequence: 0 };
        self.call(node, Priority::Control, request, longest).await
    }

    /// kill(2) by a process of this node.
    pub(crate) async fn kill(&self, signal: Signal) -> u32 {
        let route = self.routes().from_here(signal.target);
        self.follow(route, signal).await
    }

    async fn kill_from_peer(&self, signal: Signal) -> u32 {
        if matches!(signal.target, -1 | 0) {
            return raw(Errno::INVAL);
        }
        let route = self.routes().from_peer(signal.target);
        let group = signal.target.unsigned_abs();
        let errno = self.follow(route, signal.clone()).await;
        // The members of a group may all have been started elsewhere, in the shadow's session there.
        match self.routes().away.get(&group) {
            Some(node) if signal.target < -1 && errno == raw(Errno::SRCH) => {
                self.kill_at(*node, signal).await
            }
            _ => errno,
        }
    }

    async fn follow(&self, route: Route, signal: Signal) -> u32 {
        match route {
            Route::Here => self.ask_init(signal).await,
            Route::Node(node) => self.kill_at(node, signal).await,
            Route::Errno(errno) => raw(errno),
        }
    }

    /// Repeats over restarts of the other daemon: a signal may arrive twice then, it is never lost while the node lives.
    async fn kill_at(&self, node: NodeId, signal: Signal) -> u32 {
        let (begun, mut pause) = (Instant::now(), RETRY_SHORTEST);
        loop {
            let left = KILL_LONGEST.saturating_sub(begun.elapsed());
            match self.ask(node, Body::Kill(signal.clone()), left).await {
                Ok(answer) => return answer.errno,
                Err(_) if left.is_zero() || !self.routes().nodes().is_alive(node) => return raw(Errno::SRCH),
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(RETRY_LONGEST);
        }
    }

    /// Where a process runs, asking its origin if need be.
    pub(super) async fn where_pid(&self, pid: u32) -> Option<NodeId> {
        let node = self.routes().whereabouts(pid)?;
        if node == self.node {
            return self.exists(pid).then_some(node);
        }
        let answer = self.ask(node, Body::Where(pid), TABLE_LONGEST).await.ok()?;
        (answer.node != 0).then_some(NodeId(answer.node))
    }

    /// The answer to a peer that asks because this node is the origin, or runs it.
    async fn where_from_peer(&self, pid: u32) -> NodeId {
        let routes = self.routes();
        match routes.whereabouts(pid) {
            Some(node) if node == self.node && self.exists(pid) => node,
            Some(node) if node != self.node && origin(routes.regions(), pid) == Some(self.node) => node,
            _ => NodeId(0),
        }
    }

    fn exists(&self, pid: u32) -> bool {
        let Some(procfs) = &self.procfs else { return false };
        rustix::fs::accessat(
            procfs,
            pid.to_string(),
            rustix::fs::Access::EXISTS,
            rustix::fs::AtFlags::empty(),
        )
        .is_ok()
    }

    async fn answer_question(self: Arc<Self>, body: Option<Body>) -> Answer {
        match body {
            Some(Body::Kill(signal)) => {
                Answer { errno: self.kill_from_peer(signal).await, ..Answer::default() }
            }
            Some(Body::Where(pid)) => Answer { node: self.where_from_peer(pid).await.0, ..Answer::default() },
            Some(Body::Table(())) => crate::table::local_rows(&self).await,
            Some(Body::File(file)) => crate::table::local_file(&self, file).await,
            _ => answer_of(Errno::INVAL),
        }
    }
}

/// The service that other nodes call.
pub(super) struct Processes(pub(super) Arc<Shared>);

impl Service for Processes {
    fn handle(self: Arc<Self>, from: Peer, request: Message) -> Reply {
        let shared = self.0.clone();
        let request = match Request::decode(request.head) {
            Ok(request) if from.role == Role::Control && from.node != NodeId(0) => request,
            _ => return ready(answer_of(Errno::INVAL)),
        };
        if request.sequence == 0 {
            return Reply::later(async move { message(&shared.answer_question(request.body).await) });
        }
        // At once: the order of arrival is the order in the lane.
        let answer = shared.drive(Event::Peer { from: from.node, request });
        ready(answer.unwrap_or_else(|| answer_of(Errno::INVAL)))
    }
}

fn message(answer: &Answer) -> Message {
    Message { head: answer.encode_to_vec().into(), ..Message::default() }
}

fn ready(answer: Answer) -> Reply {
    Reply::Now(message(&answer))
}
