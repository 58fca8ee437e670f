//! `ssid` and `ssid`, as heads of fabric requests to `fabric::service::PROCESSES`. Every request is answered.

use super::{Change, Failed, Mark, Piece, Signal, Started, TaskId, TaskSpec, WindowSize};

/// One task of a batch.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SpawnOne {
    /// Who it is.
    #[prost(message, optional, tag = "1")]
    pub task: Option<TaskId>,
    /// What to start.
    #[prost(message, optional, tag = "2")]
    pub spec: Option<TaskSpec>,
}

/// All tasks of one client's request that belong on the receiving node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SpawnMany {
    /// The tasks.
    #[prost(message, repeated, tag = "1")]
    pub tasks: Vec<SpawnOne>,
}

/// About one task, from its home to where it runs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Command {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub task: Option<TaskId>,
    /// What.
    #[prost(oneof = "Order", tags = "2, 3, 4, 5, 6, 7")]
    pub order: Option<Order>,
}

/// What a home node tells the node that runs a task.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Order {
    /// Input.
    #[prost(message, tag = "2")]
    Input(Piece),
    /// The client has this much.
    #[prost(message, tag = "3")]
    Acknowledge(Mark),
    /// The terminal's size.
    #[prost(message, tag = "4")]
    Resize(WindowSize),
    /// A signal for it.
    #[prost(message, tag = "5")]
    Signal(Signal),
    /// The client is connected again and has this much; send the rest again, and the task's state.
    #[prost(message, tag = "6")]
    Resume(super::client::Resume),
    /// Drop it, and kill it if it still runs.
    #[prost(message, tag = "7")]
    Forget(()),
}

/// About one task, from where it runs to its home.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Notice {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub task: Option<TaskId>,
    /// What.
    #[prost(oneof = "News", tags = "2, 3, 4, 5, 6")]
    pub news: Option<News>,
}

/// What the node that runs a task tells its home.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum News {
    /// It runs.
    #[prost(message, tag = "2")]
    Started(Started),
    /// It could not be started.
    #[prost(message, tag = "3")]
    Failed(Failed),
    /// Output.
    #[prost(message, tag = "4")]
    Output(Piece),
    /// Input accepted.
    #[prost(message, tag = "5")]
    Accepted(Mark),
    /// It stopped, went on or ended.
    #[prost(message, tag = "6")]
    Changed(Change),
}

/// One process as /proc shows it, in a node's table.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProcessRow {
    /// Its pid.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    /// Effective owner, as the directory's owner.
    #[prost(uint32, tag = "2")]
    pub uid: u32,
    /// Group of the directory.
    #[prost(uint32, tag = "3")]
    pub gid: u32,
    /// /proc/PID/stat, whole.
    #[prost(bytes = "vec", tag = "4")]
    pub stat: Vec<u8>,
    /// /proc/PID/statm.
    #[prost(bytes = "vec", tag = "5")]
    pub statm: Vec<u8>,
    /// /proc/PID/status.
    #[prost(bytes = "vec", tag = "6")]
    pub status: Vec<u8>,
    /// /proc/PID/cmdline.
    #[prost(bytes = "vec", tag = "7")]
    pub cmdline: Vec<u8>,
    /// Start time, clock ticks since boot.
    #[prost(uint64, tag = "8")]
    pub start_time: u64,
}

/// Between two `ssid`s.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// What is asked.
    #[prost(oneof = "Body", tags = "1, 2, 3, 4, 5, 6, 7, 10")]
    pub body: Option<Body>,
    /// Which run of numbered requests this belongs to (`control::lane`); larger than any that this sender used before.
    #[prost(uint64, tag = "8")]
    pub lane: u64,
    /// The request's number in its lane, from 1; 0: it stands for itself (`Kill`, `Table`, `File`, `Where`).
    #[prost(uint64, tag = "9")]
    pub sequence: u64,
}

/// The requests.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Body {
    /// Start these.
    #[prost(message, tag = "1")]
    Spawn(SpawnMany),
    /// To a task.
    #[prost(message, tag = "2")]
    Command(Command),
    /// From a task.
    #[prost(message, tag = "3")]
    Notice(Notice),
    /// kill(2) of a process whose origin the receiver is, or that runs there.
    #[prost(message, tag = "4")]
    Kill(Signal),
    /// All processes of the receiver's view that have cluster pids.
    #[prost(message, tag = "5")]
    Table(()),
    /// A file of one process: `environ`, `task/N/stat`, ...
    #[prost(message, tag = "6")]
    File(FileOf),
    /// Where does this process (whose origin the receiver is) run?
    #[prost(uint32, tag = "7")]
    Where(u32),
    /// First in the sender's lane after its start: it has forgotten what it was told; tell it again.
    #[prost(message, tag = "10")]
    Greet(()),
}

/// A file below /proc/PID of a process of the receiver's view.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FileOf {
    /// The process.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    /// The file's name below /proc/PID.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The reader's uid and gid: the receiver applies the permission check of the real file.
    #[prost(uint32, tag = "3")]
    pub uid: u32,
    /// The reader's gid.
    #[prost(uint32, tag = "4")]
    pub gid: u32,
}

/// The answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Answer {
    /// 0 or an errno.
    #[prost(uint32, tag = "1")]
    pub errno: u32,
    /// `Table`: the rows.
    #[prost(message, repeated, tag = "2")]
    pub rows: Vec<ProcessRow>,
    /// `File`: the content.
    #[prost(bytes = "vec", tag = "3")]
    pub content: Vec<u8>,
    /// `Where`: the node; 0 if there is no such process.
    #[prost(uint32, tag = "4")]
    pub node: u32,
}
