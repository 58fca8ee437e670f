//! The service MEMBERSHIP: takes requests of peers to the core, and passes on to the master what only it can decide.

use crate::shell::{Input, Shared};
use crate::talk::{Answer, Ask, Join, Request, Say};
use crate::wire::View;
use base::NodeId;
use bytes::Bytes;
use fabric::{Message, Peer, Priority, Reply, Role, Service, service};
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a request for a newer view waits for one before it is answered with the present one.
pub const NEWER_WAIT: Duration = Duration::from_secs(1);
/// The deadline of a change that is passed on to the master.
const FORWARD_DEADLINE: Duration = Duration::from_secs(2);

/// Answers requests.
pub(crate) struct Desk {
    shared: Arc<Shared>,
}

impl Desk {
    pub(crate) fn new(shared: Arc<Shared>) -> Desk {
        Desk { shared }
    }

    async fn answer(&self, from: NodeId, request: Request) -> Answer {
        if let Some(Ask::Newer(newer)) = &request.ask {
            return Say::Current(self.newer(newer.than).await).answer();
        }
        let join = match &request.ask {
            Some(Ask::Join(join)) if !join.forwarded => Some(join.clone()),
            _ => None,
        };
        let answer = self.shared.ask_core(from, request).await;
        match (join, &answer.say) {
            (Some(join), Some(Say::NotMaster(master))) if *master != 0 => {
                let ask = Ask::Join(Join { forwarded: true, ..join });
                self.shared.ask_peer(NodeId(*master), ask).await.unwrap_or(answer)
            }
            _ => answer,
        }
    }

    /// The first view newer than `epoch`, or the present one after a while.
    async fn newer(&self, epoch: u64) -> View {
        let mut views = self.shared.views.clone();
        // Running out of time is an answer too.
        let _ = tokio::time::timeout(NEWER_WAIT, views.wait_for(|view| view.epoch > epoch)).await;
        View::clone(&self.shared.views.borrow())
    }
}

impl Service for Desk {
    fn handle(self: Arc<Self>, from: Peer, message: Message) -> Reply {
        Reply::later(async move {
            let answer = match Request::decode(message.head) {
                Ok(request) => self.answer(from.node, request).await,
                Err(error) => Say::Refused(format!("a request of {from} does not decode: {error}")).answer(),
            };
            Message { head: Bytes::from(answer.encode_to_vec()), bulk: Bytes::new() }
        })
    }
}

impl Shared {
    /// Asks this node's core.
    pub(crate) async fn ask_core(&self, from: NodeId, request: Request) -> Answer {
        let (reply, answer) = oneshot::channel();
        if self.inbox.try_send(Input::Request { from, request, reply }).is_err() {
            return Say::Refused("this node's membership is overloaded or has ended".into()).answer();
        }
        answer.await.unwrap_or_else(|_| Say::Refused("this node's membership has ended".into()).answer())
    }

    /// Asks another node's core; `None` if it cannot be reached.
    pub(crate) async fn ask_peer(&self, node: NodeId, ask: Ask) -> Option<Answer> {
        let request = self.request(ask);
        let message = Message { head: Bytes::from(request.encode_to_vec()), bulk: Bytes::new() };
        let peer = Peer { node, role: Role::Control };
        let call =
            self.endpoint.call(peer, service::MEMBERSHIP, Priority::Control, message, FORWARD_DEADLINE);
        Answer::decode(call.await.ok()?.head).ok()
    }

    /// A request in this node's name.
    pub(crate) fn request(&self, ask: Ask) -> Request {
        let epoch = self.views.borrow().epoch;
        Request { sender: self.local.id, incarnation: self.local.incarnation, epoch, ask: Some(ask) }
    }
}
