//! The service MEMBERSHIP: takes requests of peers to the core, and passes on to the master what only it can decide.

use crate::core::Event;
use crate::shell::{Input, Shared};
use crate::table::Feed;
use crate::talk::{Answer, Ask, Change, Request, Say};
use base::NodeId;
use bytes::Bytes;
use fabric::{Message, NEWCOMER, Peer, Priority, Reply, Role, Service, service};
use prost::Message as _;
use replog::Envelope;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a request for a newer view waits for one before it is answered with the present one.
pub const NEWER_WAIT: Duration = Duration::from_secs(1);
/// The deadline of a change that is passed on to the master.
const FORWARD_DEADLINE: Duration = Duration::from_secs(2);

/// A message of the log that could not be sent for so long is worth nothing any more.
const SEND_DEADLINE: Duration = Duration::from_millis(500);
/// The number of the table's log among a node's logs.
const LOG: u64 = 0;

/// Answers requests.
pub(crate) struct Desk {
    shared: Arc<Shared>,
}

impl Desk {
    pub(crate) fn new(shared: Arc<Shared>) -> Desk {
        Desk { shared }
    }

    async fn answer(&self, from: NodeId, request: Request) -> Answer {
        if from == NEWCOMER {
            return crate::admission::answer(&self.shared, request).await;
        }
        if let Some(Ask::Newer(newer)) = &request.ask {
            return Say::News(self.news(newer.than).await).answer();
        }
        let change = match &request.ask {
            Some(Ask::Change(change)) if !change.forwarded => Some(change.clone()),
            _ => None,
        };
        let answer = self.shared.ask_core(from, request).await;
        match (change, &answer.say) {
            // Only a machine that is no node yet cannot ask the master itself.
            (Some(change), Some(Say::NotMaster(master))) if *master != 0 && from.0 == 0 => {
                let ask = Ask::Change(Change { forwarded: true, ..change });
                self.shared.ask_peer(NodeId(*master), ask).await.unwrap_or(answer)
            }
            _ => answer,
        }
    }

    /// What is new since `epoch`; nothing, if that does not happen for a while.
    async fn news(&self, epoch: u64) -> Feed {
        let mut views = self.shared.history.watch();
        // Running out of time is an answer too.
        let _ = tokio::time::timeout(NEWER_WAIT, views.wait_for(|view| view.epoch > epoch)).await;
        self.shared.history.feed(epoch)
    }

    /// A message of another voter's log.
    fn take_log(&self, from: Peer, bytes: Bytes) {
        match replog::wire::decode(bytes) {
            Ok((LOG, envelope)) if envelope.from.node == from.node && from.role == Role::Control => {
                // A full inbox loses it as a cut link would.
                let _ = self.shared.inbox.try_send(Input::Event(Event::Log(envelope)));
            }
            Ok((_, envelope)) => tracing::warn!("{from} speaks in the name of {}", envelope.from),
            Err(error) => tracing::warn!("a message of {from}: {error}"),
        }
    }
}

impl Service for Desk {
    fn handle(self: Arc<Self>, from: Peer, message: Message) -> Reply {
        let mut decoded = Request::decode(message.head);
        if let Ok(Request { ask: Some(Ask::Log(bytes)), .. }) = &mut decoded
            && from.node != NEWCOMER
        {
            // Taken in here, so that they stay in their order.
            self.take_log(from, std::mem::take(bytes));
            return Reply::Now(Message {
                head: Say::Nothing(()).answer().encode_to_vec().into(),
                bulk: Bytes::new(),
            });
        }
        Reply::later(async move {
            let answer = match decoded {
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
        let epoch = self.history.view().epoch;
        Request { sender: self.local.id, incarnation: self.local.incarnation, epoch, ask: Some(ask) }
    }

    /// Says something to another voter's log. It may be lost; logs repeat what matters.
    pub(crate) fn send_log(&self, envelope: &Envelope) {
        let request = self.request(Ask::Log(replog::wire::encode(LOG, envelope).into()));
        let message = Message { head: Bytes::from(request.encode_to_vec()), bulk: Bytes::new() };
        let peer = Peer { node: envelope.to.node, role: Role::Control };
        // All of them in one order: a sign of life that overtakes entries would look like a gap.
        let sent = self.endpoint.send(peer, service::MEMBERSHIP, Priority::Control, message, SEND_DEADLINE);
        if let Err(error) = sent {
            tracing::trace!("a message of the log to {peer} is lost: {error}");
        }
    }
}
