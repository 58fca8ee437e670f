//! Broadcast: a request goes down a tree of peers, their replies come up it.
//!
//! ```text
//!   root --call--> first of a part (with the names of the rest) --call--> first of a part of the rest ..
//!        <-replies of the whole part--                          <-replies--
//! ```
//!
//! Each inner peer asks its own service and, beside it, up to [`FAN_OUT`] others for their parts. Where one fails, whoever asked it asks the rest
//! of its part anew; so after a failure some of them may be asked twice, each time by a request of its own.
//! Invariant: every peer that was named has exactly one outcome.

use super::calling;
use super::shared::Shared;
use crate::{
    Error, Message, Peer, Priority, Refusal, Reply, Role, Service, ServiceId, Stage, Target, service,
};
use base::NodeId;
use base::limits::{BULK_BYTES_MAX, HEAD_BYTES_MAX};
use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use prost::Message as _;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Peers that one peer asks at once.
pub const FAN_OUT: usize = 8;
/// Bytes that a peer's reply takes besides its head and bulk.
const ENTRY_BYTES: usize = 64;

/// What the peers of a broadcast answered.
pub type Outcomes = Vec<(Peer, Result<Message, Error>)>;

#[derive(Clone, PartialEq, prost::Message)]
struct Name {
    #[prost(uint32, tag = "1")]
    node: u32,
    #[prost(bool, tag = "2")]
    data: bool,
}

/// A part of a tree, for its first peer.
#[derive(Clone, PartialEq, prost::Message)]
struct Down {
    #[prost(message, optional, tag = "1")]
    from: Option<Name>,
    #[prost(uint32, tag = "2")]
    service: u32,
    #[prost(uint32, tag = "3")]
    priority: u32,
    #[prost(uint64, tag = "4")]
    within_us: u64,
    #[prost(bytes = "bytes", tag = "5")]
    head: Bytes,
    #[prost(message, repeated, tag = "6")]
    rest: Vec<Name>,
}

/// One peer's outcome on its way up.
#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(message, optional, tag = "1")]
    peer: Option<Name>,
    /// 0: answered; else the number of an error.
    #[prost(uint32, tag = "2")]
    error: u32,
    #[prost(string, tag = "3")]
    said: String,
    #[prost(bytes = "bytes", tag = "4")]
    head: Bytes,
    #[prost(uint64, tag = "5")]
    bulk: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Up {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<Entry>,
}

impl From<Peer> for Name {
    fn from(peer: Peer) -> Name {
        Name { node: peer.node.0, data: peer.role == Role::Data }
    }
}

impl From<&Name> for Peer {
    fn from(name: &Name) -> Peer {
        Peer { node: NodeId(name.node), role: if name.data { Role::Data } else { Role::Control } }
    }
}

/// What is asked of everybody.
#[derive(Clone)]
pub struct Ask {
    /// Who asked first.
    pub from: Peer,
    /// Whom: the service of each peer.
    pub service: ServiceId,
    /// How urgent it is.
    pub priority: Priority,
    /// What.
    pub request: Message,
}

/// Asks all of `peers`.
pub fn broadcast(
    shared: Arc<Shared>,
    peers: Vec<Peer>,
    ask: Ask,
    within: Duration,
) -> Pin<Box<dyn Future<Output = Outcomes> + Send>> {
    Box::pin(async move {
        let part = peers.len().div_ceil(FAN_OUT).max(1);
        let parts =
            peers.chunks(part).map(|part| ask_part(shared.clone(), part.to_vec(), ask.clone(), within));
        join_all(parts).await.into_iter().flatten().collect()
    })
}

/// Asks the first of a part for all of it; what it does not answer for is asked anew.
async fn ask_part(shared: Arc<Shared>, part: Vec<Peer>, ask: Ask, within: Duration) -> Outcomes {
    let Some((first, rest)) = part.split_first() else { return Vec::new() };
    let begun = shared.now();
    // Time is left for going on without it.
    let trust = if rest.is_empty() { within } else { within * 3 / 4 };
    let mut outcomes = match ask_first(&shared, *first, rest, &ask, trust).await {
        Ok(outcomes) => outcomes,
        Err(error) => BTreeMap::from([(*first, Err(error))]),
    };
    let missing: Vec<Peer> = rest.iter().filter(|peer| !outcomes.contains_key(peer)).copied().collect();
    if !missing.is_empty() {
        let left = within.saturating_sub(shared.now().since(begun));
        outcomes.extend(broadcast(shared, missing, ask, left).await);
    }
    part.iter().filter_map(|peer| Some((*peer, outcomes.remove(peer)?))).collect()
}

async fn ask_first(
    shared: &Arc<Shared>,
    first: Peer,
    rest: &[Peer],
    ask: &Ask,
    within: Duration,
) -> Result<BTreeMap<Peer, Result<Message, Error>>, Error> {
    if rest.is_empty() && ask.from == shared.local {
        // A leaf next to the root is simply called.
        let answer =
            calling::call(shared, first, ask.service, ask.priority, ask.request.clone(), within).await;
        return Ok(BTreeMap::from([(first, answer)]));
    }
    let down = Down {
        from: Some(ask.from.into()),
        service: u32::from(ask.service.0),
        priority: ask.priority as u32,
        within_us: u64::try_from(within.as_micros()).unwrap_or(u64::MAX),
        head: ask.request.head.clone(),
        rest: rest.iter().map(|peer| Name::from(*peer)).collect(),
    };
    let message = Message { head: down.encode_to_vec().into(), bulk: ask.request.bulk.clone() };
    let reply = calling::call(shared, first, service::TREE, ask.priority, message, within).await?;
    let broken = || Error::Unreachable {
        target: Target::Peer(first),
        source: Arc::new(io::Error::new(
            io::ErrorKind::InvalidData,
            "its replies to a broadcast do not decode",
        )),
    };
    let up = Up::decode(reply.head).map_err(|_| broken())?;
    let mut bulk = reply.bulk;
    let mut outcomes = BTreeMap::new();
    for entry in up.entries {
        let peer: Peer = entry.peer.as_ref().ok_or_else(broken)?.into();
        let length =
            usize::try_from(entry.bulk).ok().filter(|length| *length <= bulk.len()).ok_or_else(broken)?;
        let message = Message { head: entry.head, bulk: bulk.split_to(length) };
        outcomes.insert(peer, decode_outcome(peer, entry.error, entry.said, message));
    }
    Ok(outcomes)
}

/// The service that carries a broadcast on.
pub struct Tree(pub Weak<Shared>);

impl Service for Tree {
    fn handle(self: Arc<Self>, _from: Peer, request: Message) -> Reply {
        let (Some(shared), Ok(down)) = (self.0.upgrade(), Down::decode(request.head)) else {
            return Reply::Now(Message::default());
        };
        Reply::later(carry_on(shared, down, request.bulk))
    }
}

const PRIORITIES: [Priority; 4] = [Priority::Control, Priority::Lock, Priority::Meta, Priority::Data];

async fn carry_on(shared: Arc<Shared>, down: Down, bulk: Bytes) -> Message {
    let ask = Ask {
        from: down.from.as_ref().map_or(shared.local, Peer::from),
        service: ServiceId(down.service as u16),
        priority: PRIORITIES[down.priority as usize % PRIORITIES.len()],
        request: Message { head: down.head, bulk },
    };
    let within = Duration::from_micros(down.within_us);
    let rest = down.rest.iter().map(Peer::from).collect();
    let own = calling::call_as(&shared, ask.from, ask.service, ask.request.clone(), within);
    let others = broadcast(shared.clone(), rest, ask.clone(), within * 7 / 8);
    let (own, others) = futures_util::future::join(own, others).await;
    collect(std::iter::once((shared.local, own)).chain(others))
}

/// All outcomes in one message; who does not fit any more is left to whoever asked.
fn collect(outcomes: impl Iterator<Item = (Peer, Result<Message, Error>)>) -> Message {
    let (mut up, mut bulk, mut bytes) = (Up::default(), BytesMut::new(), 0);
    for (peer, outcome) in outcomes {
        let (error, said, message) = encode_outcome(outcome);
        bytes += ENTRY_BYTES + said.len() + message.head.len();
        if bytes > HEAD_BYTES_MAX || bulk.len() + message.bulk.len() > BULK_BYTES_MAX {
            break;
        }
        bulk.extend_from_slice(&message.bulk);
        let entry = Entry {
            peer: Some(peer.into()),
            error,
            said,
            head: message.head,
            bulk: message.bulk.len() as u64,
        };
        up.entries.push(entry);
    }
    Message { head: up.encode_to_vec().into(), bulk: bulk.freeze() }
}

fn encode_outcome(outcome: Result<Message, Error>) -> (u32, String, Message) {
    let error = match outcome {
        Ok(message) => return (0, String::new(), message),
        Err(error) => error,
    };
    let number = match &error {
        Error::NodeDown(_) => 1,
        Error::Deadline { .. } | Error::Busy(_) => 3,
        Error::Refused { why: Refusal::NoService, .. } => 4,
        Error::Refused { why: Refusal::Crashed, .. } => 5,
        _ => 2,
    };
    (number, error.to_string(), Message::default())
}

fn decode_outcome(peer: Peer, number: u32, said: String, message: Message) -> Result<Message, Error> {
    let target = Target::Peer(peer);
    match number {
        0 => Ok(message),
        1 => Err(Error::NodeDown(peer)),
        3 => Err(Error::Deadline {
            target,
            service: service::TREE,
            stage: Stage::Reply,
            after: Duration::ZERO,
        }),
        4 => Err(Error::Refused { target, why: Refusal::NoService }),
        5 => Err(Error::Refused { target, why: Refusal::Crashed }),
        _ => Err(Error::Unreachable { target, source: Arc::new(io::Error::other(said)) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn outcomes_come_up_as_they_were() {
        let peer = |node| Peer { node: NodeId(node), role: Role::Data };
        let answer = Message { head: Bytes::from_static(b"h"), bulk: Bytes::from_static(b"bulk") };
        let message =
            collect([(peer(1), Ok(answer.clone())), (peer(2), Err(Error::NodeDown(peer(2))))].into_iter());
        let up = Up::decode(message.head).unwrap();
        assert_eq!((up.entries.len(), up.entries[0].bulk, up.entries[1].error), (2, 4, 1));
        assert_eq!(message.bulk, answer.bulk);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_part_of_a_tree_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Down::decode(&bytes[..]);
            let _ = Up::decode(&bytes[..]);
        }
    }
}
