//! What a core is told, and what it wants done.

use super::lane::{Ticket, Track};
use crate::wire::Credentials;
use crate::wire::client::{Hello, ToClient, ToDaemon};
use crate::wire::init::{FromInit, ToInit};
use crate::wire::peer::{Answer, Request};
use base::{NodeId, PidRegions};
use membership::View;
use std::sync::Arc;

/// What a core is told about itself.
#[derive(Clone, Copy, Debug)]
pub struct CoreConfig {
    /// The node.
    pub node: NodeId,
    /// How pids are cut into home regions.
    pub regions: PidRegions,
    /// Larger in each life of this daemon: nanoseconds since the epoch at its start.
    pub life: u64,
}

/// One connection of a client, numbered by the shell; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// What happens to a core.
#[derive(Clone, Debug)]
pub enum Event {
    /// A view was agreed.
    View(Arc<View>),
    /// A client connected and said hello.
    ClientOpened {
        /// The connection.
        client: ClientId,
        /// Its first message.
        hello: Hello,
        /// Who it is, by the kernel.
        credentials: Credentials,
        /// Its pid in the view; 0 if it lives outside of it.
        pid: u32,
    },
    /// Everything that one read of the client's socket brought.
    ClientSaid {
        /// The connection.
        client: ClientId,
        /// The messages in order.
        batch: Vec<ToDaemon>,
    },
    /// That many bytes went into the client's socket.
    ClientWritten {
        /// The connection.
        client: ClientId,
        /// Encoded bytes.
        bytes: usize,
    },
    /// The connection is gone.
    ClientClosed(ClientId),
    /// `ssi-init` reported.
    Init(FromInit),
    /// Another node's numbered request; exactly one [`Effect::Answer`] follows.
    Peer {
        /// Who asks.
        from: NodeId,
        /// What.
        request: Request,
    },
    /// A peer answered a numbered request.
    Answered {
        /// Who.
        from: NodeId,
        /// In which lane.
        track: Track,
        /// Which attempt.
        ticket: Ticket,
        /// 0 or why not.
        errno: u32,
    },
    /// A numbered request got no answer.
    CallFailed {
        /// From whom.
        from: NodeId,
        /// In which lane.
        track: Track,
        /// Which attempt.
        ticket: Ticket,
    },
    /// The time that [`Core::deadline`] named has come.
    Tick,
}

/// What the shell does for a core, in the order given.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send this to a client; tell [`Event::ClientWritten`] with its encoded length when it went out.
    Client {
        /// The connection.
        client: ClientId,
        /// The message.
        message: ToClient,
    },
    /// Close a client's connection; `why` is for the log, empty if a newer connection replaces it.
    CloseClient {
        /// The connection.
        client: ClientId,
        /// The reason.
        why: String,
    },
    /// Send this to `ssi-init`.
    Init(ToInit),
    /// Send this to a peer, in the order of its track; tell the outcome.
    Call {
        /// To whom.
        to: NodeId,
        /// The lane.
        track: Track,
        /// To be returned with the outcome.
        ticket: Ticket,
        /// The message.
        request: Request,
    },
    /// Answer the request that is being handled.
    Answer(Answer),
}
