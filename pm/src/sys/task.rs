//! The first moments of a task: from clone3 to exec, in the child.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// What the child was doing when it failed. Travels as one byte through the error pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Putting its descriptors in place.
    Streams = 1,
    /// Taking the pty as its controlling terminal.
    Terminal = 2,
    /// Mounting the node's own /proc.
    LocalView = 3,
    /// Taking the caller's groups.
    Groups = 4,
    /// Taking the caller's user and group id.
    User = 5,
    /// Going to the working directory.
    Chdir = 6,
    /// Becoming the program.
    Exec = 7,
}

impl Step {
    /// Reads what [`start`]'s child wrote: the step and its errno.
    pub fn decode(report: &[u8]) -> Option<(Step, i32)> {
        const STEPS: [Step; 7] = [
            Step::Streams,
            Step::Terminal,
            Step::LocalView,
            Step::Groups,
            Step::User,
            Step::Chdir,
            Step::Exec,
        ];
        let (step, errno) = report.split_first()?;
        let step = STEPS.into_iter().find(|s| *s as u8 == *step)?;
        Some((step, i32::from_le_bytes(*errno.first_chunk()?)))
    }
}

/// Everything the child needs, made before it is born.
#[derive(Debug)]
pub struct Plan {
    /// Paths to try, in this order, as execvp(3) does.
    pub candidates: Vec<CString>,
    /// Arguments, the program's name first.
    pub argv: Vec<CString>,
    /// Environment.
    pub env: Vec<CString>,
    /// Working directory; empty: as it is.
    pub cwd: CString,
    /// umask(2).
    pub umask: u32,
    /// (resource, soft, hard).
    pub limits: Vec<(u32, u64, u64)>,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Descriptors 0, 1, 2, ... of the task.
    pub streams: Vec<OwnedFd>,
    /// Descriptor 0 is a terminal that becomes the controlling one.
    pub terminal: bool,
    /// Mount the node's own procfs at /proc first.
    pub local_view: bool,
    /// Signals to ignore, bit n-1 for signal n.
    pub ignored_signals: u64,
    /// Where a failure is told: [`Step`] and errno. Closes by exec.
    pub error_pipe: OwnedFd,
}

const LOCAL_PROC: &CStr = c"/run/ssi/localproc";
const SHELL: &CStr = c"/bin/sh";
/// Descriptors of the child are first moved up here, out of the way of 0, 1, 2, 3.
const FD_PARKED_MIN: RawFd = 64;

/// The null-terminated arrays that execve takes, pointing into the plan.
struct Vectors {
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    /// `sh PATH args...`; place 1 is filled in with the candidate.
    script: Vec<*const c_char>,
}

impl Vectors {
    fn new(plan: &Plan) -> Vectors {
        let pointers = |list: &[CString]| list.iter().map(|s| s.as_ptr()).collect::<Vec<_>>();
        let end = std::iter::once(std::ptr::null());
        let script = [SHELL.as_ptr(), std::ptr::null()];
        let rest = pointers(plan.argv.get(1..).unwrap_or_default());
        Vectors {
            argv: pointers(&plan.argv).into_iter().chain(end.clone()).collect(),
            env: pointers(&plan.env).into_iter().chain(end.clone()).collect(),
            script: script.into_iter().chain(rest).chain(end).collect(),
        }
    }
}

/// Starts the task that `plan` describes and gives back its pid at once; whether it became the program is told
/// by the error pipe's other end (end of file: yes). `keep_pid` asks for that very pid.
///
/// Must be called from a single-threaded process.
///
/// # Errors
/// clone3(2): EEXIST if the pid is taken, EINVAL if it lies beyond pid_max, EAGAIN if there are too many processes.
pub fn start(plan: &Plan, keep_pid: Option<u32>) -> io::Result<u32> {
    let mut vectors = Vectors::new(plan);
    let pid = super::clone::fork(0, keep_pid)?;
    if pid != 0 {
        return Ok(pid);
    }
    let error_pipe = park(&plan.error_pipe).unwrap_or(plan.error_pipe.as_raw_fd());
    let (step, errno) = become_task(plan, &mut vectors, error_pipe);
    let mut report = [step as u8, 0, 0, 0, 0];
    report[1..].copy_from_slice(&errno.to_le_bytes());
    // SAFETY: this is the child; `report` is live, and _exit ends it without running anything of the parent's.
    unsafe {
        libc::write(error_pipe, report.as_ptr().cast(), report.len());
        libc::_exit(127)
    }
}

type Failure = (Step, i32);

fn checked(step: Step, result: libc::c_long) -> Result<RawFd, Failure> {
    let errno = || io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    if result < 0 { Err((step, errno())) } else { Ok(result as RawFd) }
}

fn become_task(plan: &Plan, vectors: &mut Vectors, error_pipe: RawFd) -> Failure {
    let prepared = place_streams(plan, error_pipe)
        .and_then(|()| take_session(plan))
        .and_then(|()| if plan.local_view { mount_local_view() } else { Ok(()) })
        .and_then(|()| {
            set_limits(plan);
            take_user(plan)
        })
        .and_then(|()| enter_directory(plan));
    if let Err(failure) = prepared {
        return failure;
    }
    reset_signals(plan.ignored_signals);
    (Step::Exec, exec(plan, vectors))
}

fn park(fd: &OwnedFd) -> Result<RawFd, Failure> {
    // SAFETY: fcntl on a number; the copy is never closed before the child execs or exits.
    let parked = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, FD_PARKED_MIN) };
    checked(Step::Streams, parked.into())
}

fn place_streams(plan: &Plan, error_pipe: RawFd) -> Result<(), Failure> {
    let mut parked = Vec::with_capacity(plan.streams.len());
    for fd in &plan.streams {
        parked.push(park(fd)?);
    }
    for (place, fd) in (0..).zip(&parked) {
        // SAFETY: dup2 takes numbers. What it closes is a copy of a descriptor of the parent's that this child
        // never touches again: it runs no destructor.
        checked(Step::Streams, unsafe { libc::dup2(*fd, place) }.into())?;
    }
    // Closed now, not only by exec: the way there may wait for a filesystem, and no other task's pipe may stay open
    // for so long.
    let close = |first: libc::c_uint, last: libc::c_uint| {
        // SAFETY: close_range takes numbers; the child uses none of these descriptors and runs no destructor of theirs.
        checked(Step::Streams, unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
    };
    close(parked.len() as libc::c_uint, error_pipe as libc::c_uint - 1)?;
    close(error_pipe as libc::c_uint + 1, libc::c_uint::MAX)?;
    Ok(())
}

/// With a pty: a session of its own, as a terminal wants it. Without: a process group of its own in the
/// supervisor's session, so that the group is not orphaned and SIGTSTP stops it as it would under a shell.
fn take_session(plan: &Plan) -> Result<(), Failure> {
    // SAFETY: all three take plain numbers.
    unsafe {
        if !plan.terminal {
            checked(Step::Streams, libc::setpgid(0, 0).into())?;
            return Ok(());
        }
        checked(Step::Terminal, libc::setsid().into())?;
        checked(Step::Terminal, libc::ioctl(0, libc::TIOCSCTTY, 0).into())?;
    }
    Ok(())
}

fn mount_local_view() -> Result<(), Failure> {
    // SAFETY: unshare takes flags; mount takes three live strings.
    unsafe {
        checked(Step::LocalView, libc::unshare(libc::CLONE_NEWNS).into())?;
        let (from, to) = (LOCAL_PROC.as_ptr(), c"/proc".as_ptr());
        let bound = libc::mount(from, to, std::ptr::null(), libc::MS_BIND, std::ptr::null());
        checked(Step::LocalView, bound.into())?;
    }
    Ok(())
}

/// Takes over the caller's limits. One that lies above what this node allows is cut to that.
fn set_limits(plan: &Plan) {
    for (resource, soft, hard) in &plan.limits {
        let wanted = libc::rlimit { rlim_cur: *soft, rlim_max: *hard };
        let mut here = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: both structs are live; a resource the kernel does not know is refused with EINVAL.
        unsafe {
            if libc::setrlimit(*resource as _, &raw const wanted) == 0
                || libc::getrlimit(*resource as _, &raw mut here) != 0
            {
                continue;
            }
            let rlim_max = wanted.rlim_max.min(here.rlim_max);
            let cut = libc::rlimit { rlim_cur: wanted.rlim_cur.min(rlim_max), rlim_max };
            libc::setrlimit(*resource as _, &raw const cut);
        }
    }
}

/// Group ids, then the user id. Plain system calls: glibc's wrappers would look for other threads.
fn take_user(plan: &Plan) -> Result<(), Failure> {
    let (uid, gid, groups) = (plan.uid, plan.gid, &plan.groups);
    // SAFETY: setgroups reads `len` ids from a live slice; the others take plain numbers.
    unsafe {
        let set = libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr());
        let denied = checked(Step::Groups, set);
        // A user namespace of one id forbids setgroups (EPERM) or knows none of the groups (EINVAL). There is
        // nothing to drop there: everybody in it is the same user.
        if let Err(failure) = denied
            && libc::geteuid() != uid
        {
            return Err(failure);
        }
        checked(Step::User, libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        checked(Step::User, libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    Ok(())
}

fn enter_directory(plan: &Plan) -> Result<(), Failure> {
    // SAFETY: umask takes a number, chdir a live string.
    unsafe {
        libc::umask(plan.umask as libc::mode_t);
        if !plan.cwd.is_empty() {
            checked(Step::Chdir, libc::chdir(plan.cwd.as_ptr()).into())?;
        }
    }
    Ok(())
}

fn reset_signals(ignored: u64) {
    for signal in 1..=64 {
        let ignore = ignored >> (signal - 1) & 1 == 1;
        // SAFETY: sets no handler, only the two predefined dispositions; for SIGKILL, SIGSTOP and glibc's own
        // two signals it is refused, which is what we want.
        unsafe {
            libc::signal(signal, if ignore { libc::SIG_IGN } else { libc::SIG_DFL });
        }
    }
    // SAFETY: an empty mask, made by sigemptyset.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Tries the candidates as execvp(3) does; comes back only with the errno to tell.
fn exec(plan: &Plan, vectors: &mut Vectors) -> i32 {
    let mut told = libc::ENOENT;
    for candidate in &plan.candidates {
        // SAFETY: both vectors end with a null pointer and point to strings of the plan, which is alive.
        unsafe { libc::execve(candidate.as_ptr(), vectors.argv.as_ptr(), vectors.env.as_ptr()) };
        let mut errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        if errno == libc::ENOEXEC {
            vectors.script[1] = candidate.as_ptr();
            // SAFETY: as above.
            unsafe { libc::execve(SHELL.as_ptr(), vectors.script.as_ptr(), vectors.env.as_ptr()) };
            errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        }
        match errno {
            libc::EACCES => told = libc::EACCES,
            libc::ENOENT | libc::ENOTDIR => {}
            errno => return errno,
        }
    }
    told
}
