//! What a call, or setting up an endpoint, can fail with.

use crate::{Peer, ServiceId};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Whom a call was meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A peer by name.
    Peer(Peer),
    /// Whoever listens at an address.
    Address(SocketAddr),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Peer(peer) => peer.fmt(f),
            Target::Address(address) => address.fmt(f),
        }
    }
}

/// What a call was waiting for when its time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A connection. The request has not been sent.
    Connecting,
    /// The reply. The request may have been carried out.
    Reply,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Connecting => "no connection",
            Stage::Reply => "no reply",
        })
    }
}

/// Why one end will not talk to the other, or a request is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// What came first is not this protocol.
    Stranger,
    /// The other end does not hold this cluster's key.
    WrongKey,
    /// The other end belongs to a cluster of another name.
    WrongCluster,
    /// No version of the protocol is spoken by both.
    Version,
    /// It began like this protocol and went on as something else.
    Garbage,
    /// It did not prove in time that it holds the key.
    TooSlow,
    /// Too many others were waiting to prove that they hold the key.
    Crowded,
    /// Somebody of this cluster answers at the peer's address, but not the peer.
    WrongPeer,
    /// The peer does not offer the service (not yet, when it is starting).
    NoService,
    /// The peer's service failed on this request by a fault of its own.
    Crashed,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Stranger => "it does not speak the cluster's protocol",
            Refusal::WrongKey => "the cluster keys differ",
            Refusal::WrongCluster => "the cluster names differ",
            Refusal::Version => "no version of the protocol is spoken by both",
            Refusal::Garbage => "it broke the protocol",
            Refusal::TooSlow => "it did not prove in time that it holds the cluster key",
            Refusal::Crowded => "too many others were connecting",
            Refusal::WrongPeer => "another member of the cluster answers there",
            Refusal::NoService => "it does not offer that service",
            Refusal::Crashed => "its service failed on this request; see its log",
        })
    }
}

/// What a call, or setting up an endpoint, can fail with.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The peer was declared down: do not try again until it is back.
    #[error("{0} is down")]
    NodeDown(Peer),
    /// There is no connection, or it broke under the call. A request may or may not have been carried out;
    /// whoever knows that it can be repeated tries again.
    #[error("{target} cannot be reached: {source}")]
    Unreachable {
        /// Whom the call was meant for.
        target: Target,
        /// What the operating system, or the connection, said.
        source: Arc<io::Error>,
    },
    /// The time that the caller gave is over.
    #[error("{stage} from {target} for service {} within {after:?}", service.0)]
    Deadline {
        /// Whom the call was meant for.
        target: Target,
        /// The service that was called.
        service: ServiceId,
        /// What was missing.
        stage: Stage,
        /// The time that the caller gave.
        after: Duration,
    },
    /// The other end, or this one, will not talk, or the request was not carried out.
    #[error("{target} is refused or refuses: {why}")]
    Refused {
        /// Whom the call was meant for.
        target: Target,
        /// The reason.
        why: Refusal,
    },
    /// The request is larger than any may be; it was not sent.
    #[error("a request has {part} of {bytes} bytes; the maximum is {max}")]
    TooLong {
        /// `head` or `bulk`.
        part: &'static str,
        /// Its length.
        bytes: usize,
        /// The most it may be.
        max: usize,
    },
    /// Too many calls to this peer, or bytes for it, were waiting until the deadline; this one was not sent.
    #[error("{0} is busy: the limit of calls in flight was reached until the deadline")]
    Busy(Target),
    /// The region's keys were revoked, or the region is no more.
    #[error("{target} has revoked the key of its region")]
    Revoked {
        /// Whose region it is.
        target: Target,
    },
    /// The key is none of that region for this endpoint, or does not allow this.
    #[error("{target} does not allow this with its region: the key is another's, or lacks the right")]
    Denied {
        /// Whose region it is.
        target: Target,
    },
    /// The region is shorter than that.
    #[error("the region of {target} is shorter than that")]
    OutOfBounds {
        /// Whose region it is.
        target: Target,
    },
    /// There is no memory for a region, or there are too many of them.
    #[error("no memory can be registered: {0}")]
    NoMemory(Arc<io::Error>),
    /// This endpoint was closed.
    #[error("the endpoint is closed")]
    Closed,
    /// The endpoint cannot listen where it was told to.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
}
