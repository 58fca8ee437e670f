//! /proc of the view: one FUSE filesystem that shows the processes of every node.
//!
//! ```text
//!   /proc/meminfo, self, sys, ...   symlink -> /run/ssi/localproc/meminfo, ...   (the view's real procfs)
//!   /proc/<local pid>/              directory: stat, maps, fd, task, ... symlinks -> /run/ssi/localproc/<pid>/stat, ...
//!                                              exe, cwd, root as the process has them
//!   /proc/<foreign pid>/            directory: stat, statm, status, cmdline, comm, environ, ..., task/<tid>/...
//! ```
//!
//! A local process is a directory because tools exist (htop) that take nothing else for a process; opening a file in it
//! ends in the kernel's own. `self` and `thread-self` end in the real procfs, so they resolve for the process that reads them. A *foreign* process runs
//! on another node; a pid whose process here is only the shadow of a task elsewhere is foreign as well.
//!
//! Invariants:
//! - A request that needs another node ends within [`REQUEST_DEADLINE`]: with what that node said, with what it said last,
//!   or with an error. Nobody hangs in /proc because a node is gone.
//! - Node ids say all by themselves what they stand for ([`node::Node`]), so a daemon that takes the mount over needs no
//!   memory of the one before.
//! - Nothing here opens a path of the view: everything local goes through the descriptor of the real procfs root.
//!
//! [`ProcessTable`] is what the daemon implements; [`read_rows`] and [`read_file`] are what it answers its peers with.

mod foreign;
mod listing;
mod local;
mod node;
mod opened;
mod serve;
mod snapshot;
mod table;

pub use serve::ProcFs;
pub use snapshot::{read_file, read_row, read_rows};
pub use table::{ProcessTable, Table};

use std::time::Duration;

/// The longest that a request waits for another node.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(2);
/// Bytes of the longest file of a foreign process that is carried over; longer ones are EFBIG.
pub const FILE_BYTES_MAX: usize = 2 << 20;
/// Where the view has its real procfs.
pub const LOCAL_PROC: &str = "/run/ssi/localproc";

/// What a session that serves [`ProcFs`] asks the kernel for: links are remembered, listings carry attributes.
pub fn session_config() -> fuse::Config {
    use fuse::init_flags::{CACHE_SYMLINKS, DO_READDIRPLUS, READDIRPLUS_AUTO};
    let flags = fuse::Config::FLAGS | CACHE_SYMLINKS | DO_READDIRPLUS | READDIRPLUS_AUTO;
    fuse::Config { max_write: 4_096, flags, ..fuse::Config::default() }
}
