//! `ssi-init`: pid 1 of the view and the node's supervisor.
//!
//! It starts and reaps, and it holds what must outlive a daemon: the listener of the filter, the FUSE descriptors,
//! the in-flight ledger, every task's streams and terminals, the shadows. It heartbeats for the node.
//!
//! Invariants: one thread, one loop, no waiting except in that loop; no file below /proc or /ssi of the view is ever
//! named by it; what a client has not acknowledged is kept; an end that was not forgotten is told to each new daemon.
//!
//! ```text
//!  keeper --spawn--> [new namespaces] main: bind the socket, enter the view, install the filter, serve
//! ```

mod children;
pub mod config;
mod connection;
mod cursor;
mod endpoint;
pub mod error;
mod heartbeat;
mod kill;
mod launch;
mod poller;
mod process;
mod requests;
mod server;
pub mod shadow;
mod stream;
mod suspend;
mod task;
mod tracer;

pub use children::TASKS_MAX;
pub use config::InitConfig;
pub use error::Error;

use crate::sys::ledger::Ledger;
use crate::view::{self, View, ViewConfig};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Resource;
use server::{Heirlooms, Server};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;

/// The name that `ssi-init` is executed by.
pub const NAME: &str = "ssi-init";
/// Exit status when the view could not be made.
pub const EXIT_FAILED: i32 = 1;
/// Exit status when the view stood, but could not be served any longer.
const EXIT_BROKEN: i32 = 2;
/// Connections that may wait to be accepted.
const DAEMONS_WAITING_MAX: i32 = 16;

/// Starts `ssi-init` as pid 1 of new namespaces and gives back its pid as the caller sees it: executes
/// `config.binary` under the name [`NAME`], whose verb is to call [`main`]. The child lives on if the caller dies.
/// When `config.init_socket` can be connected to, all stands. It ends by exit status 0 when it was told to shut down, [`EXIT_FAILED`] (told on stderr) when it could not start.
///
/// # Errors
/// The configuration cannot be handed over, or clone3(2) refused: EPERM without CAP_SYS_ADMIN.
pub fn spawn(config: &InitConfig) -> io::Result<u32> {
    let memory = config.to_memory()?;
    let binary = CString::new(config.binary.as_os_str().as_bytes())?;
    crate::sys::clone::spawn_in_namespaces(&binary, &CString::new(NAME)?, memory.as_fd())
}

/// The verb `ssi-init`: takes over the configuration that [`spawn`] handed down, and serves.
pub fn main() -> ! {
    let inherited =
        crate::sys::clone::inherited_config().ok_or_else(|| Error::Config("none was handed down".into()));
    match inherited.and_then(InitConfig::from_file) {
        Ok(config) => run(config),
        Err(error) => fail(&error, EXIT_FAILED),
    }
}

/// Makes the view and serves until told to end; then exits, and with it every process of the view.
/// The caller is alone in new namespaces and single-threaded.
pub fn run(config: InitConfig) -> ! {
    match start(config) {
        Ok(mut server) => {
            let result = server.serve();
            server.tear_down();
            match result {
                Ok(()) => std::process::exit(0),
                Err(error) => fail(&error, EXIT_BROKEN),
            }
        }
        Err(error) => fail(&error, EXIT_FAILED),
    }
}

fn fail(error: &Error, code: i32) -> ! {
    eprintln!("{error}");
    std::process::exit(code)
}

fn start(config: InitConfig) -> Result<Server, Error> {
    let starting = |what: &str| {
        let what = what.to_owned();
        move |source: io::Error| Error::Start { what, source }
    };
    let _ = rustix::thread::set_name(c"ssi-init");
    // Tasks join this session, each with a group of its own: so SIGTSTP finds no orphaned group.
    let _ = rustix::process::setsid();
    let signals = crate::sys::signal::listen().map_err(starting("listen for signals"))?;
    let socket = bind(&config).map_err(starting(&format!("bind {}", config.init_socket.display())))?;
    let View { procfs, proc_fuse, fs_fuse } = view::enter(&ViewConfig {
        scaffold: config.state_dir.join("view"),
        hostname: config.hostname.clone(),
        admin_socket: config.admin_socket.clone(),
        binary: config.binary.clone(),
        commands: config.commands.clone(),
        fs_mount: config.fs_mount.clone(),
        cluster_proc: config.cluster_proc,
    })?;
    let limits = raise_own_limits();
    crate::sys::signal::run_first();
    let ledger = Ledger::create().map_err(starting("make the in-flight ledger"))?;
    let program = crate::filter::program(config.regions, config.node);
    let listener = crate::sys::seccomp::install(&program).map_err(Error::Filter)?;
    let heirlooms = Heirlooms { listener, ledger, proc_fuse, fs_fuse, fuse_states: Default::default() };
    let server = Server::new(config, process::Procfs::new(procfs), heirlooms, socket, signals, limits)?;
    server.listen(DAEMONS_WAITING_MAX)?;
    Ok(server)
}

/// Binds the socket without listening yet: nobody can connect before everything stands. What stood there is of a
/// former life: the keeper starts one supervisor at a time.
fn bind(config: &InitConfig) -> io::Result<UnixListener> {
    match fs::remove_file(&config.init_socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let address = SocketAddrUnix::new(&config.init_socket)?;
    let old = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&socket, &address);
    rustix::process::umask(old);
    bound?;
    Ok(socket.into())
}

/// Each task costs descriptors here; tasks themselves keep the limit that we were given.
fn raise_own_limits() -> Vec<(u32, u64, u64)> {
    let given = rustix::process::getrlimit(Resource::Nofile);
    let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    let _ = rustix::process::setrlimit(
        Resource::Nofile,
        rustix::process::Rlimit { current: given.maximum, maximum: given.maximum },
    );
    vec![(libc::RLIMIT_NOFILE, number(given.current), number(given.maximum))]
}
