//! What a task inherits from the command that starts it.

use super::Error;
use super::terminal::window_size;
use crate::wire::{Limit, Stdio, TaskSpec};
use rustix::fs::{Mode, Stat, fstat};
use rustix::process::{Resource, getrlimit, umask};
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::isatty;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Every limit with its number in Linux's generic ABI.
const LIMITS: [(Resource, u32); 15] = [
    (Resource::Cpu, 0),
    (Resource::Fsize, 1),
    (Resource::Data, 2),
    (Resource::Stack, 3),
    (Resource::Core, 4),
    (Resource::Rss, 5),
    (Resource::Nproc, 6),
    (Resource::Nofile, 7),
    (Resource::Memlock, 8),
    (Resource::As, 9),
    (Resource::Locks, 10),
    (Resource::Sigpending, 11),
    (Resource::Msgqueue, 12),
    (Resource::Nice, 13),
    (Resource::Rtprio, 14),
];

/// The view's real procfs first: reading our own status there costs no round trip through the cluster's /proc.
const OWN_STATUS: [&str; 2] = ["/run/ssi/localproc/self/status", "/proc/self/status"];

impl TaskSpec {
    /// `argv` with everything that a child of this process would inherit: environment, working directory, umask,
    /// limits, ignored signals, and the kind of its standard streams (see [`stdio_here`]).
    ///
    /// # Errors
    /// The working directory is gone.
    pub fn from_here(argv: Vec<Vec<u8>>) -> Result<TaskSpec, Error> {
        let cwd = std::env::current_dir().map_err(Error::system("working directory"))?;
        let stdio = stdio_here();
        let size = window_size(stdout()).unwrap_or_default();
        Ok(TaskSpec {
            argv,
            env: environment(),
            cwd: cwd.into_os_string().into_vec(),
            umask: umask_here(),
            limits: limits(),
            credentials: None,
            stdio: stdio.into(),
            rows: size.rows,
            columns: size.columns,
            channel_env: String::new(),
            local_view: false,
            keep_pid: 0,
            ignored_signals: ignored_signals(),
        })
    }
}

/// How the standard streams of a task must be made to look like ours: a pty if all three are terminals, one pipe for
/// output if stdout and stderr are the same file, three pipes otherwise.
pub(crate) fn stdio_here() -> Stdio {
    if isatty(stdin()) && isatty(stdout()) && isatty(stderr()) {
        return Stdio::Pty;
    }
    match (fstat(stdout()), fstat(stderr())) {
        (Ok(out), Ok(err)) if same_file(&out, &err) => Stdio::Merged,
        _ => Stdio::Pipes,
    }
}

fn same_file(a: &Stat, b: &Stat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

fn environment() -> Vec<Vec<u8>> {
    std::env::vars_os().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()).collect()
}

fn umask_here() -> u32 {
    // There is no way to only read it. Commands are single-threaded: nobody creates a file in between.
    let mask = umask(Mode::empty());
    umask(mask);
    mask.bits()
}

fn limits() -> Vec<Limit> {
    let infinite = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    LIMITS
        .iter()
        .map(|&(resource, number)| {
            let limit = getrlimit(resource);
            Limit { resource: number, soft: infinite(limit.current), hard: infinite(limit.maximum) }
        })
        .collect()
}

/// What this process was started to ignore. SIGPIPE is left out: the Rust runtime ignores it on its own account.
fn ignored_signals() -> u64 {
    let status = OWN_STATUS.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    parse_ignored(&status) & !(1 << (libc::SIGPIPE - 1))
}

fn parse_ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_would_inherit_the_same() {
        let spec = TaskSpec::from_here(vec![b"true".to_vec()]).unwrap();
        assert_eq!(spec.cwd, std::env::current_dir().unwrap().into_os_string().into_vec());
        assert!(spec.env.iter().any(|pair| pair.starts_with(b"PATH=")));
        let files = spec.limits.iter().find(|limit| limit.resource == 7).unwrap();
        assert!(files.soft > 0 && files.soft <= files.hard);
        assert!(spec.umask <= 0o777);
    }

    #[test]
    fn ignored_signals_are_read_from_status() {
        assert_eq!(parse_ignored("Name:\tx\nSigIgn:\t0000000000000001\n"), 1);
        assert_eq!(parse_ignored("nonsense"), 0);
    }
}
