//! clone3(2): the supervisor's birth in its own namespaces, and the birth of a task.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The descriptor that a supervisor finds its configuration on.
pub const CONFIG_FD: i32 = 3;

/// struct clone_args up to `set_tid_size` (linux/sched.h, CLONE_ARGS_SIZE_VER1).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
}

/// Forks. The child gets 0 and must call nothing but async-signal-safe functions until it execs or exits:
/// that is why this is not public.
pub(super) fn fork(flags: u64, keep_pid: Option<u32>) -> io::Result<u32> {
    let tid = keep_pid.unwrap_or(0) as libc::pid_t;
    let mut args = CloneArgs { flags, exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
    if keep_pid.is_some() {
        args.set_tid = &raw const tid as u64;
        args.set_tid_size = 1;
    }
    // SAFETY: `args` and `tid` live on this stack, the size is that of `args`. Without CLONE_VM the child has its
    // own copy of everything, so nothing of the parent's can be touched from it.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as u32) }
}

/// Starts `program` as pid 1 of a new pid, mount, IPC and UTS namespace, with `config` as its descriptor
/// [`CONFIG_FD`], standard streams as ours and every other descriptor closed. Gives back its pid as we see it.
/// It does not die with us: it is our child, no more.
///
/// # Errors
/// clone3(2) refused (EPERM without CAP_SYS_ADMIN). A failed exec shows as exit status 127 of the child.
pub fn spawn_in_namespaces(program: &CStr, name: &CStr, config: BorrowedFd<'_>) -> io::Result<u32> {
    let argv = [name.as_ptr(), std::ptr::null()];
    let flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let pid = fork(flags as u64, None)?;
    if pid != 0 {
        return Ok(pid);
    }
    // SAFETY: this is the child, where only system calls are made on values that were made before the fork;
    // argv ends with a null pointer, and `environ` is what our own process was given.
    unsafe {
        let from = config.as_raw_fd();
        let moved =
            if from == CONFIG_FD { libc::fcntl(from, libc::F_SETFD, 0) } else { libc::dup2(from, CONFIG_FD) };
        if moved >= 0 {
            libc::syscall(libc::SYS_close_range, CONFIG_FD + 1, u32::MAX, 0);
            libc::execv(program.as_ptr(), argv.as_ptr());
        }
        libc::_exit(127)
    }
}

/// Takes the configuration that [`spawn_in_namespaces`] left on [`CONFIG_FD`]. `None` if there is no such descriptor,
/// or it was taken before.
pub fn inherited_config() -> Option<std::fs::File> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    // SAFETY: F_GETFD only asks whether the number is a descriptor.
    let open = unsafe { libc::fcntl(CONFIG_FD, libc::F_GETFD) } >= 0;
    if !open || TAKEN.swap(true, Ordering::Relaxed) {
        return None;
    }
    // SAFETY: the descriptor is open and, by the contract of spawn_in_namespaces, was passed to this program for
    // this purpose; the flag sees to it that it is owned once.
    Some(unsafe { std::fs::File::from_raw_fd(CONFIG_FD) })
}
