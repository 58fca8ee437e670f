//! A client and the `ssid` of its node: frames on the admin socket, after the service hello `tasks`.
//!
//! The client chooses a random session number and names its tasks by index. When the connection breaks it connects
//! again, says the same session, and tells how much it has ([`Request::Acknowledge`]); `ssid` sends the rest again.
//! A session whose client stays away longer than the grace time has its tasks killed: no orphan is left.

use super::{Change, Failed, Mark, Piece, Started, TaskSpec, WindowSize};

/// How long a session outlives its connection, milliseconds.
pub const GRACE_MS: u64 = 5_000;

/// First on the connection.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    /// The session's number: random, not 0.
    #[prost(fixed64, tag = "1")]
    pub session: u64,
    /// The session existed before (the client connects again). If `ssid` was restarted it learns it from this.
    #[prost(bool, tag = "2")]
    pub again: bool,
}

/// Start one task on one node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Spawn {
    /// Where.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// What.
    #[prost(message, optional, tag = "2")]
    pub spec: Option<TaskSpec>,
}

/// Connected again: where this task is, for an `ssid` that has forgotten.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resume {
    /// The node that the task was started on.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// Its pid if known.
    #[prost(uint32, tag = "2")]
    pub pid: u32,
    /// What the client has of each output stream.
    #[prost(message, repeated, tag = "3")]
    pub received: Vec<Mark>,
    /// True if this client process is the task's shadow.
    #[prost(bool, tag = "4")]
    pub shadow: bool,
}

/// From the client.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ToDaemon {
    /// The task's index.
    #[prost(uint32, tag = "1")]
    pub index: u32,
    /// What is asked.
    #[prost(oneof = "Request", tags = "2, 3, 4, 5, 6, 7, 8, 9")]
    pub request: Option<Request>,
}

/// What a client asks.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Request {
    /// First.
    #[prost(message, tag = "2")]
    Hello(Hello),
    /// Start this task. Spawns that are sent together travel together, one message a node.
    #[prost(message, tag = "3")]
    Spawn(Spawn),
    /// Input.
    #[prost(message, tag = "4")]
    Input(Piece),
    /// Output received and written.
    #[prost(message, tag = "5")]
    Acknowledge(Mark),
    /// Send the task this signal.
    #[prost(uint32, tag = "6")]
    Signal(u32),
    /// The terminal's new size.
    #[prost(message, tag = "7")]
    Resize(WindowSize),
    /// After connecting again.
    #[prost(message, tag = "8")]
    Resume(Resume),
    /// The end of the task was received; forget it.
    #[prost(message, tag = "9")]
    Forget(()),
}

/// To the client.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ToClient {
    /// The task's index.
    #[prost(uint32, tag = "1")]
    pub index: u32,
    /// What is told.
    #[prost(oneof = "Event", tags = "2, 3, 4, 5, 6, 7")]
    pub event: Option<Event>,
}

/// What a client is told.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Event {
    /// It runs.
    #[prost(message, tag = "2")]
    Started(Started),
    /// It could not be started.
    #[prost(message, tag = "3")]
    Failed(Failed),
    /// Output.
    #[prost(message, tag = "4")]
    Output(Piece),
    /// Input accepted up to here.
    #[prost(message, tag = "5")]
    Accepted(Mark),
    /// It stopped, went on or ended.
    #[prost(message, tag = "6")]
    Changed(Change),
    /// Its node is DOWN: it has ended for everybody else, its status is not known.
    #[prost(message, tag = "7")]
    Lost(Failed),
}
