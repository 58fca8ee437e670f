//! What the home node keeps of a client: its session and its tasks.
//!
//! ```text
//!  session:  CONNECTED --connection ends--> AWAY --GRACE_MS--> gone, its tasks are killed
//!                ^------- Hello, same number --'
//!
//!  task:     SPAWNING (spec kept) --Started--> RUNNING --Changed(ended)--> ENDED --Forget--> gone
//!                |  '--Failed, no answer-----> FAILED ----------------------------Forget--^
//!                '----------------node DOWN--> FAILED (Lost)
//! ```
//!
//! Invariant: a task is here until its client has said Forget, or the session is over.

use super::ClientId;
use super::streams::{Input, Output};
use crate::wire::client::Event;
use crate::wire::{CHANNEL, Change, Credentials, Failed, Mark, Piece, STDOUT, Started, TaskId, TaskSpec};
use base::{NodeId, Time};
use std::collections::BTreeMap;

/// Names a session: the number is its client's choice, so it counts only together with the user that the kernel names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SessionId {
    /// The user.
    pub uid: u32,
    /// What the client said.
    pub number: u64,
}

impl From<TaskId> for SessionId {
    fn from(id: TaskId) -> SessionId {
        SessionId { uid: id.uid, number: id.session }
    }
}

/// One client's session.
#[derive(Debug)]
pub(super) struct Session {
    /// What the kernel said of the client at its newest connection: the rights of what it starts.
    pub credentials: Credentials,
    /// The client's pid in the view; 0 if it lives outside.
    pub client_pid: u32,
    /// The connection, while there is one.
    pub client: Option<ClientId>,
    /// When the session is over unless the client comes back.
    pub away_until: Option<Time>,
    /// The client was connected to this daemon or its predecessor before.
    pub again: bool,
    /// Bytes on their way into the client's socket.
    pub queued: usize,
    /// The tasks by the client's index.
    pub tasks: BTreeMap<u32, Task>,
}

impl Session {
    /// A session without a connection.
    pub fn new(credentials: Credentials) -> Session {
        Session {
            credentials,
            client_pid: 0,
            client: None,
            away_until: None,
            again: false,
            queued: 0,
            tasks: BTreeMap::new(),
        }
    }
}

/// One task of a session.
#[derive(Debug)]
pub(super) struct Task {
    /// Where it runs.
    pub node: NodeId,
    /// What it was started from, until its node has answered.
    pub spec: Option<TaskSpec>,
    /// When a start that was not answered has failed.
    pub spawn_until: Time,
    /// Its process, once known.
    pub started: Option<Started>,
    /// Its last change.
    pub change: Option<Change>,
    /// Why there is nothing more to come from it.
    pub over: Option<Event>,
    /// Input by stream.
    pub input: BTreeMap<u32, Input>,
    /// Output by stream.
    pub output: BTreeMap<u32, Output>,
    /// Output that overtook the news of the start; the windows of the streams bound it.
    pub early: Vec<Piece>,
    /// Output was left out because the client reads too slowly.
    pub lagging: bool,
    /// The pid of its shadow on this node.
    pub shadow: Option<u32>,
}

impl Task {
    /// A task that is being started.
    pub fn spawning(node: NodeId, spec: TaskSpec, spawn_until: Time) -> Task {
        Task { spec: Some(spec), spawn_until, ..Task::resumed(node) }
    }

    /// A task that a client of an earlier life of this daemon had started.
    pub fn resumed(node: NodeId) -> Task {
        Task {
            node,
            spec: None,
            spawn_until: Time(0),
            started: None,
            change: None,
            over: None,
            input: BTreeMap::new(),
            output: BTreeMap::new(),
            early: Vec::new(),
            lagging: false,
            shadow: None,
        }
    }

    /// True once its process has ended.
    pub fn has_ended(&self) -> bool {
        self.change.as_ref().is_some_and(|change| change.ended)
    }

    /// The client is connected again and has `received`: gives back from where each output stream goes on.
    pub fn take_marks(&mut self, received: &[Mark]) -> Vec<Mark> {
        for stream in STDOUT..=CHANNEL {
            let told = received.iter().find(|mark| mark.stream == stream).map_or(0, |mark| mark.offset);
            let output = self.output.entry(stream).or_default();
            output.resume(told.max(output.mark()));
        }
        self.sent_marks()
    }

    /// How far the client was sent each output stream.
    pub fn sent_marks(&self) -> Vec<Mark> {
        self.output.iter().map(|(stream, output)| Mark { stream: *stream, offset: output.sent() }).collect()
    }

    /// What became of a task that can send nothing more: it never ran, or its node is gone.
    pub fn end_without_status(&mut self, failed: Failed) {
        let known = self.spec.take().is_none();
        self.over = Some(if known { Event::Lost(failed) } else { Event::Failed(failed) });
    }
}
