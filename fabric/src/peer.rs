//! The words of the contract: who speaks, how urgent it is, what is said, who answers.

use base::NodeId;
use bytes::Bytes;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// The number of a machine that has proved a joining key and nothing else (a machine that has the cluster key joins as 0). It may call
/// the service [`MEMBERSHIP`](service::MEMBERSHIP) only.
pub const NEWCOMER: NodeId = NodeId(u32::MAX);

/// Which daemon of a node an endpoint belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `ssid`: membership, processes, jobs.
    Control,
    /// `ssid --data`: filesystem servers and client.
    Data,
}

/// An endpoint's name: the node and which of its daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// The node. 0 is a machine that is joining.
    pub node: NodeId,
    /// The daemon.
    pub role: Role,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.node, self.role) {
            (NEWCOMER, _) => f.write_str("a machine with a join token"),
            (NodeId(0), Role::Control) => write!(f, "a joining node"),
            (NodeId(0), Role::Data) => write!(f, "a joining node (data)"),
            (node, Role::Control) => write!(f, "node {node}"),
            (node, Role::Data) => write!(f, "node {node} (data)"),
        }
    }
}

/// The order in which waiting messages are sent: a heartbeat is never behind bulk data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Membership, signals, spawns.
    Control,
    /// Lock requests and revokes.
    Lock,
    /// Metadata.
    Meta,
    /// File data, the output of processes.
    Data,
}

/// The number of a service that an endpoint offers. Each crate that serves owns one (see [`service`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceId(pub u16);

/// Who owns which service number.
pub mod service {
    use super::ServiceId;
    /// The fabric itself: broadcasts on their way down.
    pub const TREE: ServiceId = ServiceId(0);
    /// membership.
    pub const MEMBERSHIP: ServiceId = ServiceId(1);
    /// pm.
    pub const PROCESSES: ServiceId = ServiceId(2);
    /// loadlevel.
    pub const LOAD: ServiceId = ServiceId(3);
    /// The filesystem's metadata server.
    pub const METADATA: ServiceId = ServiceId(4);
    /// The filesystem's object server.
    pub const OBJECTS: ServiceId = ServiceId(5);
    /// node: what the daemons of an operator's command tell each other.
    pub const ADMIN: ServiceId = ServiceId(6);
    /// replog: what members of replicated logs say to one another.
    pub const REPLOG: ServiceId = ServiceId(7);
    /// dlm: what the lock managers of the nodes say to one another.
    pub const LOCKS: ServiceId = ServiceId(8);
}

/// A request or a reply: a tagged message, and bulk bytes that no one need copy into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The encoded message, at most `limits::HEAD_BYTES_MAX`.
    pub head: Bytes,
    /// Bulk that rides along, at most `limits::BULK_BYTES_MAX`; often empty.
    pub bulk: Bytes,
}

/// What a service answers with.
pub enum Reply {
    /// The answer, at once.
    Now(Message),
    /// The answer, when this is through.
    Later(Pin<Box<dyn Future<Output = Message> + Send>>),
}

impl Reply {
    /// An answer that comes when `work` is through.
    pub fn later(work: impl Future<Output = Message> + Send + 'static) -> Reply {
        Reply::Later(Box::pin(work))
    }
}

/// Something that answers requests. It may be called from several threads at once; requests of one peer and
/// priority are started in the order in which they were sent.
///
/// "Started" means: `handle` is called and its future polled once, on the connection's own task, before the next
/// request is looked at. From then on it runs beside the others. So nothing up to its first wait may block.
pub trait Service: Send + Sync + 'static {
    /// Answers one request of an authenticated peer. What a service has to say about failure is in its own message.
    /// It is run to its end also when the caller has given up or is gone, so that end must come by itself.
    fn handle(self: Arc<Self>, from: Peer, request: Message) -> Reply;
}

/// What happens to the link to a peer, seen from this end. A link is up while this endpoint has an authenticated
/// connection for [`Priority::Control`] to the peer; events of one peer alternate, `Connected` first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkEvent {
    /// The peer answers and holds the key.
    Connected(Peer),
    /// The connection is gone: the other process ended or closed it, or the network did.
    Lost(Peer),
}
