//! The system calls that have no safe wrapper: fork and namespaces of the local cluster, signals as descriptors.
#![allow(unsafe_code)]

use rustix::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Which side of [`fork`] we are on.
pub enum Fork {
    /// The new process.
    Child,
    /// The old one, with the child's pid.
    Parent(i32),
}

/// fork(2).
///
/// # Errors
/// As fork(2); also if the process has more than one thread, because the child could not go on safely.
pub fn fork() -> io::Result<Fork> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(io::Error::other("fork with several threads"));
    }
    // SAFETY: the process is single-threaded (checked above), so the child owns a consistent copy of everything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// unshare(2) with `CLONE_*` flags.
///
/// # Errors
/// As unshare(2).
pub fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: no pointers are passed.
    if unsafe { libc::unshare(flags) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the command leave its parent's network namespace (and session) just before it runs.
pub fn in_new_network(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec only two async-signal-safe system calls are made.
    unsafe {
        command.pre_exec(|| {
            unshare(libc::CLONE_NEWNET)?;
            libc::setsid();
            Ok(())
        })
    }
}

/// Has the command start in a session of its own, so that a terminal's ^C does not reach it.
pub fn in_new_session(command: &mut Command) -> &mut Command {
    // SAFETY: setsid(2) is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            // The keeper blocks signals that it reads from a descriptor; a child must not inherit that.
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
            Ok(())
        })
    }
}

/// Kills every other process of a pid namespace; for its pid 1 only, from anybody else it does nothing.
pub fn kill_namespace() {
    if std::process::id() == 1 {
        // SAFETY: no pointers are passed; pid 1 of a namespace reaches that namespace only.
        unsafe { libc::kill(-1, libc::SIGKILL) };
    }
}

/// Leaves the session and group of whoever started us.
pub fn new_session() {
    // SAFETY: no pointers are passed; failure (already a leader) changes nothing.
    unsafe { libc::setsid() };
}

/// Has a closed pipe end us quietly, as it ends every tool that prints tables; Rust's runtime ignores SIGPIPE.
pub fn end_on_closed_pipe() {
    // SAFETY: SIG_DFL is a valid disposition and the process has one thread yet.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Has the kernel send `signal` to this process when its parent dies.
pub fn die_with_parent(signal: i32) {
    // SAFETY: PR_SET_PDEATHSIG takes a number.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong) };
}

/// The name that ps shows for this process in its comm field.
pub fn set_name(name: &std::ffi::CStr) {
    // SAFETY: PR_SET_NAME reads a terminated string, which `CStr` is.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Signals as events on a descriptor (signalfd(2)); they are blocked for their usual delivery.
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks `signals` and opens the descriptor that delivers them.
    ///
    /// # Errors
    /// As sigprocmask(2) and signalfd(2).
    pub fn block(signals: &[i32]) -> io::Result<Signals> {
        // SAFETY: the set is initialised by sigemptyset before use; signalfd gets a valid pointer to it and its
        // descriptor is owned by nobody else.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            for signal in signals {
                libc::sigaddset(&mut set, *signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            match libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
                -1 => Err(io::Error::last_os_error()),
                fd => Ok(Signals { fd: OwnedFd::from_raw_fd(fd) }),
            }
        }
    }

    /// The next signal that has arrived; `None` if none is waiting.
    pub fn take(&self) -> Option<i32> {
        let mut info = [0u8; 128];
        let length = rustix::io::read(&self.fd, &mut info).ok()?;
        (length == info.len()).then(|| i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> rustix::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

/// Asks a watchdog device (Linux's watchdog interface, WDIOC_SETTIMEOUT) to reset the machine after `seconds` without food; what it
/// grants.
///
/// # Errors
/// As ioctl(2): the device has a fixed timeout, or is none.
pub fn set_watchdog_timeout(device: impl AsFd, seconds: i32) -> io::Result<i32> {
    const SET_TIMEOUT: rustix::ioctl::Opcode = rustix::ioctl::opcode::read_write::<i32>(b'W', 6);
    let mut granted = seconds;
    // SAFETY: the request reads and writes one int, which `granted` is and which outlives the call.
    unsafe { rustix::ioctl::ioctl(device, rustix::ioctl::Updater::<SET_TIMEOUT, i32>::new(&mut granted))? };
    Ok(granted)
}

/// How long a watchdog device waits for food (WDIOC_GETTIMEOUT), seconds.
///
/// # Errors
/// As ioctl(2): the device does not say, or is none.
pub fn watchdog_timeout(device: impl AsFd) -> io::Result<i32> {
    const TIMEOUT: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<i32>(b'W', 7);
    // SAFETY: the request writes one int, which the getter's memory is.
    Ok(unsafe { rustix::ioctl::ioctl(device, rustix::ioctl::Getter::<TIMEOUT, i32>::new())? })
}
