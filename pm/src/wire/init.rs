//! `ssid` and the node's `ssi-init`: frames (`base::codec`) on a Unix stream socket.
//!
//! A daemon connects and says [`Hello`]; `ssi-init` answers [`Welcome`] with the descriptors that outlive daemons
//! attached (SCM_RIGHTS, on the first byte of that frame), in this order:
//!
//! - control: user-notification listener, /dev/fuse of /proc, procfs root directory (O_PATH), in-flight ledger (memfd);
//! - data: /dev/fuse of /ssi.
//!
//! To a control daemon it then tells every task it still has ([`TaskState`]) and sends all unacknowledged output again.
//! A new control connection replaces the old one. `ssi-init` believes its daemons; the socket is mode 0600.

use super::{Change, Failed, Mark, Piece, Signal, Started, TaskId, TaskSpec, WindowSize};

/// The version of this conversation; a filter and its listener may outlive an upgrade, so both ends say theirs.
pub const VERSION: u32 = 1;

/// Which daemon speaks.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    /// [`VERSION`] of the speaker.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// True: `ssid --data`.
    #[prost(bool, tag = "2")]
    pub data: bool,
}

/// The answer to [`Hello`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Welcome {
    /// [`VERSION`] of `ssi-init`.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// How many descriptors ride along.
    #[prost(uint32, tag = "2")]
    pub descriptors: u32,
    /// This life of the node.
    #[prost(uint64, tag = "3")]
    pub incarnation: u64,
    /// The FUSE protocol minor version and flags agreed at INIT are kept by the daemon in this opaque blob
    /// (empty: INIT has not happened yet). See [`Request::FuseState`].
    #[prost(bytes = "vec", tag = "4")]
    pub fuse_state: Vec<u8>,
}

/// A task as `ssi-init` has it, told to a new control daemon.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TaskState {
    /// Its process.
    #[prost(message, optional, tag = "1")]
    pub started: Option<Started>,
    /// The last change, if any (an end that was not forgotten yet, a stop).
    #[prost(message, optional, tag = "2")]
    pub change: Option<Change>,
    /// Input accepted so far, per stream.
    #[prost(message, repeated, tag = "3")]
    pub accepted: Vec<Mark>,
}

/// A shadow on this node: the process with a task's pid on the home node, while the task runs elsewhere.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Shadow {
    /// The pid.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    /// What the task did, for the shadow to mirror: a stop, a continue, an end.
    #[prost(message, optional, tag = "2")]
    pub change: Option<Change>,
    /// True: there is no task (it could not be started, or its node is DOWN): let the process go on as an ordinary one.
    #[prost(bool, tag = "3")]
    pub release: bool,
}

/// Where the supervisor sends its heartbeats.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Heartbeat {
    /// `ip:port` of every node that watches this one.
    #[prost(string, repeated, tag = "1")]
    pub watchers: Vec<String>,
    /// Milliseconds between two.
    #[prost(uint32, tag = "2")]
    pub interval_ms: u32,
    /// Bytes of one heartbeat except its sequence number and tag, see `membership::heartbeat`.
    #[prost(uint32, tag = "3")]
    pub node: u32,
}

/// From a daemon to `ssi-init`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ToInit {
    /// Which task it is about, where it is about one.
    #[prost(message, optional, tag = "1")]
    pub task: Option<TaskId>,
    /// Returned with the answer, for requests that have one (`Signal`).
    #[prost(uint64, tag = "2")]
    pub request_id: u64,
    /// What is asked.
    #[prost(oneof = "Request", tags = "3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15")]
    pub request: Option<Request>,
}

/// What a daemon asks of `ssi-init`.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Request {
    /// First on every connection.
    #[prost(message, tag = "3")]
    Hello(Hello),
    /// Start `task`. A repeated one answers with what is known of it.
    #[prost(message, tag = "4")]
    Spawn(TaskSpec),
    /// Deliver a signal; answered with [`Report::Errno`].
    #[prost(message, tag = "5")]
    Signal(Signal),
    /// Input for the task; what lies below the accepted mark is dropped. Answered with [`Report::Accepted`].
    #[prost(message, tag = "6")]
    Input(Piece),
    /// The client has this much output; it need not be kept.
    #[prost(message, tag = "7")]
    Acknowledge(Mark),
    /// The pty's new size.
    #[prost(message, tag = "8")]
    Resize(WindowSize),
    /// The end of the task was received by its client, or nobody wants it: drop its record. Kills it if it still runs.
    #[prost(message, tag = "9")]
    Forget(()),
    /// Send all unacknowledged output of the task again, from this mark.
    #[prost(message, tag = "10")]
    Rewind(Mark),
    /// Seize the process `pid` as the shadow of `task` (no `change`), or let it mirror `change`.
    #[prost(message, tag = "11")]
    Shadow(Shadow),
    /// Heartbeats: where and how often, from now on.
    #[prost(message, tag = "12")]
    Heartbeat(Heartbeat),
    /// Keep this for the daemon's next life: what was agreed with the kernel on its FUSE descriptor.
    #[prost(bytes = "vec", tag = "13")]
    FuseState(Vec<u8>),
    /// End every process of the view, then yourself.
    #[prost(message, tag = "14")]
    Shutdown(()),
    /// Sign heartbeats with this cluster key (32 bytes) from now on.
    #[prost(bytes = "vec", tag = "15")]
    Key(Vec<u8>),
}

/// From `ssi-init` to a daemon.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FromInit {
    /// Which task it is about, where it is about one.
    #[prost(message, optional, tag = "1")]
    pub task: Option<TaskId>,
    /// The `request_id` that this answers; 0 if it answers none.
    #[prost(uint64, tag = "2")]
    pub request_id: u64,
    /// What is told.
    #[prost(oneof = "Report", tags = "3, 4, 5, 6, 7, 8, 9, 10, 11, 12")]
    pub report: Option<Report>,
}

/// What `ssi-init` tells.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Report {
    /// The answer to Hello.
    #[prost(message, tag = "3")]
    Welcome(Welcome),
    /// A task that was already here when the daemon connected.
    #[prost(message, tag = "4")]
    Task(TaskState),
    /// The task runs.
    #[prost(message, tag = "5")]
    Started(Started),
    /// The task could not be started; it has no record.
    #[prost(message, tag = "6")]
    Failed(Failed),
    /// Output of the task.
    #[prost(message, tag = "7")]
    Output(Piece),
    /// Input accepted up to here.
    #[prost(message, tag = "8")]
    Accepted(Mark),
    /// The task stopped, went on or ended. An end is told again to each new daemon until it is forgotten.
    /// Output that was in the pipes when the process ended still follows; `Output.end` closes each stream.
    #[prost(message, tag = "9")]
    Changed(Change),
    /// The answer to Signal: 0 or an errno.
    #[prost(uint32, tag = "10")]
    Errno(u32),
    /// The shadow of `task` was sent this signal: deliver it to the task where it runs.
    #[prost(message, tag = "11")]
    ShadowSignal(Signal),
    /// The shadow of `task` is gone (killed by SIGKILL, or it ended): `wait_status` of the shadow.
    #[prost(uint32, tag = "12")]
    ShadowGone(u32),
}
