//! What travels between the parts of process management. Three conversations, one file each:
//!
//! - [`init`]: `ssid` (or `ssid --data`) and the `ssi-init` of the same node, over a Unix stream socket.
//! - [`client`]: a command (`onnode`, `ssirun`, ...) and the `ssid` of its node, over the admin socket.
//! - [`peer`]: `ssid` and `ssid`, over the fabric.
//!
//! A task is one process that a client had started somewhere. Its streams (stdin, stdout, stderr, a pty, a
//! wire-up channel) are numbered byte sequences with offsets from end to end: `ssi-init` holds what the client
//! has not acknowledged, the client holds what `ssi-init` has not accepted, and the daemons between them may die
//! and come back without a byte lost or doubled.

pub mod client;
pub mod init;
pub mod peer;

/// Stream 0: standard input (or what is typed into the pty).
pub const STDIN: u32 = 0;
/// Stream 1: standard output (or what the pty shows).
pub const STDOUT: u32 = 1;
/// Stream 2: standard error; absent with a pty or when merged into stdout.
pub const STDERR: u32 = 2;
/// Stream 3: a wire-up channel, both ways; see [`TaskSpec::channel_env`].
pub const CHANNEL: u32 = 3;

/// Who a task is, everywhere: the client that asked for it and its place among that client's tasks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Message)]
pub struct TaskId {
    /// The node of the client.
    #[prost(uint32, tag = "1")]
    pub home: u32,
    /// The client's session: random, chosen by the client, the same after it connects again.
    #[prost(fixed64, tag = "2")]
    pub session: u64,
    /// The task's place among the session's tasks, chosen by the client.
    #[prost(uint32, tag = "3")]
    pub index: u32,
    /// The user whose task it is, filled in by `ssid` from the peer credentials of the client's socket. It is a part of
    /// the name: a session number that another user has learnt names nothing of theirs, on no node and in no later life
    /// of a daemon.
    #[prost(uint32, tag = "4")]
    pub uid: u32,
}

/// A resource limit, as setrlimit(2) takes it. `u64::MAX` is infinity.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Limit {
    /// `RLIMIT_*` (the numbers of Linux's generic ABI).
    #[prost(uint32, tag = "1")]
    pub resource: u32,
    /// The soft limit.
    #[prost(uint64, tag = "2")]
    pub soft: u64,
    /// The hard limit.
    #[prost(uint64, tag = "3")]
    pub hard: u64,
}

/// How a task's standard streams are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Stdio {
    /// Three pipes.
    Pipes = 0,
    /// A pseudo-terminal that is the task's controlling terminal.
    Pty = 1,
    /// stdin from a pipe, stdout and stderr in one pipe (the client's own two were the same file).
    Merged = 2,
}

/// Whose rights a task runs with. Filled in by `ssid` from the peer credentials of the client's socket:
/// what a client writes here is overwritten.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Credentials {
    /// User id.
    #[prost(uint32, tag = "1")]
    pub uid: u32,
    /// Group id.
    #[prost(uint32, tag = "2")]
    pub gid: u32,
    /// Supplementary groups.
    #[prost(uint32, repeated, tag = "3")]
    pub groups: Vec<u32>,
}

/// Everything that a process inherits from the one that starts it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TaskSpec {
    /// The program and its arguments. The program is looked up in the `PATH` of `env` if it holds no slash.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub argv: Vec<Vec<u8>>,
    /// `NAME=value`, all of it.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub env: Vec<Vec<u8>>,
    /// Working directory.
    #[prost(bytes = "vec", tag = "3")]
    pub cwd: Vec<u8>,
    /// umask(2).
    #[prost(uint32, tag = "4")]
    pub umask: u32,
    /// Limits to set; others stay as the view has them.
    #[prost(message, repeated, tag = "5")]
    pub limits: Vec<Limit>,
    /// See [`Credentials`].
    #[prost(message, optional, tag = "6")]
    pub credentials: Option<Credentials>,
    /// See [`Stdio`].
    #[prost(enumeration = "Stdio", tag = "7")]
    pub stdio: i32,
    /// Terminal rows, with a pty.
    #[prost(uint32, tag = "8")]
    pub rows: u32,
    /// Terminal columns, with a pty.
    #[prost(uint32, tag = "9")]
    pub columns: u32,
    /// If not empty: the task gets one end of a stream socket, its descriptor number in this variable (`PMI_FD`);
    /// the other end is stream 3.
    #[prost(string, tag = "10")]
    pub channel_env: String,
    /// Run it with the node's own procfs at /proc instead of the cluster's (`localview`).
    #[prost(bool, tag = "11")]
    pub local_view: bool,
    /// The pid that the task must have (a shadow with that pid stands on the home node); 0: a fresh one.
    #[prost(uint32, tag = "12")]
    pub keep_pid: u32,
    /// Signals ignored at the start, bit n-1 for signal n (nohup, `trap ''`).
    #[prost(fixed64, tag = "13")]
    pub ignored_signals: u64,
}

/// What changed about a task, as wait4(2) tells it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Change {
    /// The status word: exit code, death by signal with the core-dump bit, stop with its signal, 0xffff for continue.
    #[prost(uint32, tag = "1")]
    pub wait_status: u32,
    /// User time consumed, microseconds; set at the end.
    #[prost(uint64, tag = "2")]
    pub user_us: u64,
    /// System time consumed, microseconds; set at the end.
    #[prost(uint64, tag = "3")]
    pub system_us: u64,
    /// Peak resident set, KiB; set at the end.
    #[prost(uint64, tag = "4")]
    pub rss_peak_kib: u64,
    /// True if the task has ended.
    #[prost(bool, tag = "5")]
    pub ended: bool,
}

/// A piece of a stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Piece {
    /// Which stream; see [`STDIN`] and its siblings.
    #[prost(uint32, tag = "1")]
    pub stream: u32,
    /// Where in the stream the first byte of `data` stands.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// The bytes, at most `limits::STREAM_CHUNK_BYTES`.
    #[prost(bytes = "vec", tag = "3")]
    pub data: Vec<u8>,
    /// The stream ends behind `data`.
    #[prost(bool, tag = "4")]
    pub end: bool,
}

/// "I have everything of this stream up to here."
#[derive(Clone, PartialEq, prost::Message)]
pub struct Mark {
    /// Which stream.
    #[prost(uint32, tag = "1")]
    pub stream: u32,
    /// Bytes since the start of the stream. The end counts as one more.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
}

/// A terminal's size.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WindowSize {
    /// Rows of characters.
    #[prost(uint32, tag = "1")]
    pub rows: u32,
    /// Columns of characters.
    #[prost(uint32, tag = "2")]
    pub columns: u32,
}

/// A signal on its way, with what the receiver's siginfo_t shall say.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Signal {
    /// The target as kill(2) takes it: > 0 a process, < -1 a process group.
    #[prost(sint32, tag = "1")]
    pub target: i32,
    /// The target's start time (clock ticks since boot, /proc/PID/stat field 22); 0: whoever has the id.
    #[prost(uint64, tag = "2")]
    pub start_time: u64,
    /// Signal number; 0 only checks.
    #[prost(uint32, tag = "3")]
    pub number: u32,
    /// Pid of the sender.
    #[prost(uint32, tag = "4")]
    pub sender: u32,
    /// Credentials that the check is made with: real uid, effective uid of the sender.
    #[prost(uint32, tag = "5")]
    pub sender_uid: u32,
    /// Effective user id of the sender.
    #[prost(uint32, tag = "6")]
    pub sender_euid: u32,
    /// True: the sender is the cluster itself or holds CAP_KILL; no check.
    #[prost(bool, tag = "7")]
    pub privileged: bool,
    /// What sigqueue(3) sends along.
    #[prost(fixed64, tag = "8")]
    pub value: u64,
}

/// A process started: who it is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Started {
    /// Its pid.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    /// Its start time, see [`Signal::start_time`].
    #[prost(uint64, tag = "2")]
    pub start_time: u64,
    /// Where it runs.
    #[prost(uint32, tag = "3")]
    pub node: u32,
}

/// A process that could not be started, or was lost.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Failed {
    /// errno of the step that failed; ENOENT and EACCES of exec mean what a shell makes 127 and 126 of.
    #[prost(uint32, tag = "1")]
    pub errno: u32,
    /// What failed, for the user: `exec /ssi/a.out`, `chdir /nowhere`, `node3 is DOWN`.
    #[prost(string, tag = "2")]
    pub what: String,
    /// The node it failed on.
    #[prost(uint32, tag = "3")]
    pub node: u32,
}
