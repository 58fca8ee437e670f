//! From a task's description to a process: the descriptors, the plan for the child, and what became of it.

use super::endpoint::{Endpoint, Kind};
use super::poller::Poller;
use super::stream::{Input, Output};
use crate::sys::task::{Plan, Step};
use crate::wire::{self, CHANNEL, STDERR, STDIN, STDOUT, Stdio, TaskSpec};
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use std::ffi::CString;
use std::os::fd::OwnedFd;

/// Groups that a task may be in; the kernel's own maximum.
const GROUPS_MAX: usize = 65_536;

/// What could not be done, before there was a process.
#[derive(Debug)]
pub struct Refused {
    /// errno.
    pub errno: i32,
    /// What failed, for the user.
    pub what: String,
}

impl Refused {
    fn new(errno: i32, what: impl Into<String>) -> Refused {
        Refused { errno, what: what.into() }
    }
}

fn making<T>(what: &str, result: Result<T, Errno>) -> Result<T, Refused> {
    result.map_err(|errno| Refused::new(errno.raw_os_error(), what))
}

/// A task about to be started.
#[derive(Debug)]
pub struct Launch {
    /// For the child.
    pub plan: Plan,
    /// Our ends, not watched yet.
    ends: Vec<End>,
    /// Where the child tells a failure.
    pub error_pipe: OwnedFd,
}

#[derive(Debug)]
struct End {
    kind: Kind,
    fd: OwnedFd,
    input: Option<u32>,
    output: Option<u32>,
}

impl Launch {
    /// Makes everything that can be made before the process exists. `limits` are those that the specification does
    /// not name, as (resource, soft, hard).
    ///
    /// # Errors
    /// [`Refused`]: no descriptors left, no terminal, or a specification that makes no sense.
    pub fn prepare(spec: &TaskSpec, limits: &[(u32, u64, u64)]) -> Result<Launch, Refused> {
        let argv = strings(&spec.argv, "an argument")?;
        let Some(program) = spec.argv.first().filter(|program| !program.is_empty()) else {
            return Err(Refused::new(libc::ENOENT, "exec: no program is named"));
        };
        let credentials = spec.credentials.clone().unwrap_or_default();
        if spec.credentials.is_none() || credentials.groups.len() > GROUPS_MAX {
            return Err(Refused::new(libc::EINVAL, "start a process without credentials"));
        }
        let (mut streams, mut ends) = standard_streams(spec)?;
        let mut env = spec.env.clone();
        if !spec.channel_env.is_empty() {
            let (ours, theirs) = channel()?;
            let name = spec.channel_env.as_bytes();
            env.retain(|entry| entry.split(|b| *b == b'=').next() != Some(name));
            env.push(format!("{}={}", spec.channel_env, streams.len()).into_bytes());
            streams.push(theirs);
            ends.push(End { kind: Kind::Channel, fd: ours, input: Some(CHANNEL), output: Some(CHANNEL) });
        }
        give_to_user(&streams, &credentials)?;
        let (error_pipe, child_error_pipe) = pipe()?;
        making("make a pipe", rustix::io::ioctl_fionbio(&error_pipe, true))?;
        let named = spec.limits.iter().map(|limit| (limit.resource, limit.soft, limit.hard));
        let others = limits.iter().filter(|(r, ..)| spec.limits.iter().all(|limit| limit.resource != *r));
        let plan = Plan {
            candidates: candidates(program, &env)?,
            argv,
            env: strings(&env, "the environment")?,
            cwd: string(&spec.cwd, "the working directory")?,
            umask: spec.umask & 0o777,
            limits: named.chain(others.copied()).collect(),
            uid: credentials.uid,
            gid: credentials.gid,
            groups: credentials.groups,
            streams,
            terminal: spec.stdio() == Stdio::Pty,
            local_view: spec.local_view,
            ignored_signals: spec.ignored_signals,
            error_pipe: child_error_pipe,
        };
        Ok(Launch { plan, ends, error_pipe })
    }

    /// The process exists: drops what was the child's and gives back our ends, watched, and the error pipe.
    ///
    /// # Errors
    /// A descriptor cannot be watched.
    pub fn attach(self, poller: &mut Poller) -> std::io::Result<(Vec<Endpoint>, OwnedFd)> {
        let attach = |end: End| {
            let (input, output) = (end.input.map(Input::new), end.output.map(Output::new));
            Endpoint::new(poller, end.kind, end.fd, input, output)
        };
        let endpoints = self.ends.into_iter().map(attach).collect::<Result<_, _>>()?;
        Ok((endpoints, self.error_pipe))
    }
}

fn string(bytes: &[u8], what: &str) -> Result<CString, Refused> {
    CString::new(bytes).map_err(|_| Refused::new(libc::EINVAL, format!("exec: {what} holds a zero byte")))
}

fn strings(list: &[Vec<u8>], what: &str) -> Result<Vec<CString>, Refused> {
    list.iter().map(|bytes| string(bytes, what)).collect()
}

/// The paths that execvp(3) would try.
fn candidates(program: &[u8], env: &[Vec<u8>]) -> Result<Vec<CString>, Refused> {
    if program.contains(&b'/') {
        return Ok(vec![string(program, "the program")?]);
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix(b"PATH=")).unwrap_or(b"/bin:/usr/bin");
    let join = |directory: &[u8]| {
        let separator: &[u8] = if directory.is_empty() { b"" } else { b"/" };
        string(&[directory, separator, program].concat(), "PATH")
    };
    path.split(|byte| *byte == b':').map(join).collect()
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Refused> {
    making("make a pipe", rustix::pipe::pipe_with(PipeFlags::CLOEXEC))
}

fn channel() -> Result<(OwnedFd, OwnedFd), Refused> {
    let flags = SocketFlags::CLOEXEC;
    let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    making("make a channel", pair)
}

/// The child's descriptors 0, 1, 2 and our ends of them.
fn standard_streams(spec: &TaskSpec) -> Result<(Vec<OwnedFd>, Vec<End>), Refused> {
    if spec.stdio() == Stdio::Pty {
        return terminal(spec);
    }
    let output = |fd, stream| End { kind: Kind::Pipe, fd, input: None, output: Some(stream) };
    let (stdin, our_stdin) = pipe()?;
    let (our_stdout, stdout) = pipe()?;
    let input = End { kind: Kind::Pipe, fd: our_stdin, input: Some(STDIN), output: None };
    let mut ends = vec![input, output(our_stdout, STDOUT)];
    let stderr = if spec.stdio() == Stdio::Merged {
        making("make a pipe", rustix::io::fcntl_dupfd_cloexec(&stdout, 0))?
    } else {
        let (our_stderr, stderr) = pipe()?;
        ends.push(output(our_stderr, STDERR));
        stderr
    };
    Ok((vec![stdin, stdout, stderr], ends))
}

fn terminal(spec: &TaskSpec) -> Result<(Vec<OwnedFd>, Vec<End>), Refused> {
    const WHAT: &str = "make a terminal";
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = making(WHAT, rustix::pty::openpt(flags))?;
    making(WHAT, rustix::pty::unlockpt(&master))?;
    let slave = making(WHAT, rustix::pty::ioctl_tiocgptpeer(&master, flags))?;
    making(WHAT, rustix::termios::tcsetwinsize(&master, window_size(spec.rows, spec.columns)))?;
    let mode = rustix::fs::Mode::from_raw_mode(0o620);
    // In a user namespace the terminal belongs to the one user there is already.
    let _ = rustix::fs::fchmod(&slave, mode);
    let copy = |fd| making(WHAT, rustix::io::fcntl_dupfd_cloexec(fd, 0));
    let streams = vec![copy(&slave)?, copy(&slave)?, slave];
    Ok((streams, vec![End { kind: Kind::Terminal, fd: master, input: Some(STDIN), output: Some(STDOUT) }]))
}

/// A terminal's size as the kernel takes it.
pub fn window_size(rows: u32, columns: u32) -> Winsize {
    let cut = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    Winsize { ws_row: cut(rows), ws_col: cut(columns), ws_xpixel: 0, ws_ypixel: 0 }
}

/// The task may open its own streams by name (/dev/stdout), whoever it runs as.
fn give_to_user(streams: &[OwnedFd], credentials: &wire::Credentials) -> Result<(), Refused> {
    if credentials.uid == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    if credentials.uid == u32::MAX || credentials.gid == u32::MAX {
        return Err(Refused::new(libc::EINVAL, "become a user that does not exist"));
    }
    let owner = Some(Uid::from_raw(credentials.uid));
    for fd in streams {
        making("give the streams to the user", rustix::fs::fchown(fd, owner, None::<Gid>))?;
    }
    Ok(())
}

/// What the user is told of a failure in the child.
pub fn describe(step: Step, spec: &TaskSpec) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match step {
        Step::Exec => format!("exec {}", text(spec.argv.first().map_or(b"", |program| program))),
        Step::Chdir => format!("chdir {}", text(&spec.cwd)),
        Step::User => {
            format!("become user {}", spec.credentials.as_ref().map_or(0, |credentials| credentials.uid))
        }
        Step::Groups => "take the user's groups".into(),
        Step::LocalView => "mount the node's own /proc".into(),
        Step::Terminal => "take the terminal".into(),
        Step::Streams => "take the streams".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_as_execvp_does() {
        let found = |program: &[u8], path: &[u8]| -> Vec<String> {
            let env = [b"A=1".to_vec(), [b"PATH=", path].concat()];
            let list = candidates(program, &env).unwrap();
            list.into_iter().map(|c| c.into_string().unwrap()).collect()
        };
        assert_eq!(found(b"ls", b"/bin::/opt/x"), ["/bin/ls", "ls", "/opt/x/ls"]);
        assert_eq!(found(b"./ls", b"/bin"), ["./ls"]);
        assert_eq!(candidates(b"ls", &[]).unwrap().len(), 2);
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        let spec = TaskSpec { credentials: Some(wire::Credentials::default()), ..TaskSpec::default() };
        assert_eq!(Launch::prepare(&spec, &[]).unwrap_err().errno, libc::ENOENT);
        let spec = TaskSpec { argv: vec![b"a\0b".to_vec()], ..spec };
        assert_eq!(Launch::prepare(&spec, &[]).unwrap_err().errno, libc::EINVAL);
    }
}
