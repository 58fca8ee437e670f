//! The daemons of a node: `ssid` ([`control`]) and `ssid --data` ([`data`]), and how ssi-init is set up for them.

mod changes;
pub mod control;
pub mod data;
mod desk;
mod history;
mod keyholder;
mod locks;
pub mod membership;
mod rekeying;
mod report;
mod table;
mod views;

use crate::config::{NodeConfig, StateDir};
use crate::error::Error;
use base::Incarnation;
use std::ffi::CStr;
use std::fs::File;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a daemon waits for ssi-init to open its socket.
const INIT_WITHIN: Duration = Duration::from_secs(10);

/// Worker threads of a daemon's runtime: the control plane is many short messages, disk work has the blocking pool.
const WORKERS: usize = 2;

/// Runs a daemon until it is killed: its name, its log, its configuration, a runtime.
///
/// # Errors
/// What could not be started.
fn run<F>(state: StateDir, name: &CStr, serve: impl FnOnce(StateDir, NodeConfig) -> F) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>>,
{
    crate::sys::set_name(name);
    start_logging();
    let config = state.load()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    runtime.map_err(Error::step("start a runtime"))?.block_on(serve(state, config))
}

/// Logs to standard error, which the keeper has turned into the daemon's log file; `RUST_LOG` chooses how much.
pub fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}

/// Takes the state directory for the daemon called `name`, for as long as the file is held: a second one would take the
/// sockets and the mounts away from the first before it met an error.
///
/// # Errors
/// Another one runs.
pub fn claim(state: &StateDir, name: &str) -> Result<File, Error> {
    let path = state.0.join(format!("{name}.lock"));
    let lock = File::create(&path).map_err(|source| Error::File { path: path.clone(), source })?;
    match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(Error::Said(format!("another {name} runs already on {}", state.0.display())))
        }
        Err(errno) => Err(Error::File { path, source: errno.into() }),
    }
}

/// What ssi-init is told when the view is made.
pub fn init_config(
    state: &StateDir,
    config: &NodeConfig,
    binary: &Path,
    key: &fabric::ClusterKey,
    incarnation: u64,
) -> pm::init::InitConfig {
    let commands = crate::cli::COMMANDS.iter().map(|command| command.to_string()).collect();
    pm::init::InitConfig {
        node: config.node_id(),
        hostname: config.name.clone(),
        state_dir: state.0.clone(),
        init_socket: state.init_socket(),
        admin_socket: state.admin_socket(),
        binary: binary.into(),
        commands,
        regions: config.regions(),
        fs_mount: Some(config.mount.clone()),
        cluster_proc: true,
        cluster: config.cluster.clone(),
        key: *key.as_bytes(),
        incarnation: Incarnation(incarnation),
    }
}

/// Serves a mount whose descriptor ssi-init holds, on threads of its own, until the mount is gone. What is agreed
/// with the kernel goes to `store`, for this daemon's next life.
///
/// # Errors
/// The descriptor cannot be served.
fn serve_fuse(
    device: OwnedFd,
    agreed: &[u8],
    filesystem: Arc<dyn fuse::Filesystem>,
    (config, threads): (fuse::Config, usize),
    store: impl Fn(Vec<u8>) + Send + Sync + 'static,
) -> Result<(), Error> {
    let agreed = match agreed {
        [] => None,
        bytes => Some(fuse::Agreed::from_bytes(bytes).map_err(Error::said)?),
    };
    let on_agreed: Arc<dyn Fn(&fuse::Agreed) + Send + Sync> =
        Arc::new(move |agreed: &fuse::Agreed| store(agreed.to_bytes()));
    let config = fuse::Config { on_agreed: Some(on_agreed), ..config };
    let session = fuse::Session::adopt(device, agreed, filesystem, config).map_err(Error::said)?;
    // Without its mount the daemon is for nothing: the keeper, if one is there, decides how to go on.
    let serve = move || {
        match session.run(threads) {
            Ok(()) => tracing::info!("the mount is gone"),
            Err(error) => tracing::error!(%error, "the mount is served no more"),
        }
        std::process::exit(1)
    };
    std::thread::Builder::new()
        .name("fuse".into())
        .spawn(serve)
        .map(drop)
        .map_err(Error::step("start a thread"))
}

/// A connection to ssi-init, what it said, and the descriptors that it holds for this daemon.
type Connected = (pm::link::Link, pm::wire::init::Welcome, Vec<OwnedFd>);

/// Connects to ssi-init, which may be starting just now.
///
/// # Errors
/// It does not answer in time.
async fn connect_init(state: &StateDir, data: bool) -> Result<Connected, Error> {
    let path = state.init_socket();
    let until = Instant::now() + INIT_WITHIN;
    loop {
        match pm::link::Link::connect(&path, data) {
            Ok(connected) => return Ok(connected),
            Err(error) if Instant::now() > until => {
                return Err(Error::Said(format!("ssi-init does not answer at {}: {error}", path.display())));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
