//! `ssid`: membership, processes, load and the admin socket of one node.

use super::desk::ControlDesk;
use super::keyholder::Keyholder;
use super::membership::row;
use super::rekeying::Rekeying;
use crate::admin::server;
use crate::config::{NodeConfig, StateDir};
use crate::error::Error;
use base::Incarnation;
use fabric::Role;
use loadlevel::LoadLevel;
use membership::{Ended, Membership, Timings};
use pm::procfs::ProcFs;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

/// Exit code that tells the keeper: this life of the node was declared DOWN, begin another.
pub const EVICTED: i32 = 86;
/// Threads that read requests for /proc.
const PROC_THREADS: usize = 2;

/// What ssi-init hands to the control daemon, in the order of `pm::wire::init`.
struct Held {
    listener: OwnedFd,
    fuse: OwnedFd,
    procfs: OwnedFd,
    ledger: OwnedFd,
}

/// Runs until killed.
///
/// # Errors
/// What could not be started.
pub fn run(state: StateDir) -> Result<(), Error> {
    super::run(state, c"ssid", serve)
}

async fn serve(state: StateDir, config: NodeConfig) -> Result<(), Error> {
    let began = Instant::now();
    let (link, welcome, fds) = super::connect_init(&state, false).await?;
    let held = hold(fds)?;
    let keyholder = Keyholder::start(&state, &config, Role::Control).await?;
    let endpoint = keyholder.endpoint().clone();
    let heartbeats =
        UdpSocket::bind(config.control_address()).map_err(Error::step("listen for heartbeats"))?;
    let membership = Membership::start(
        membership::Config {
            local: row(&config, Incarnation(welcome.incarnation)),
            state_dir: state.0.clone(),
            key: *keyholder.ring().current.as_bytes(),
            cluster: config.cluster.clone(),
            timings: Default::default(),
            fencing: crate::config::fence_plan(&config.fence),
            on_thread_start: pm::sys::signal::run_first,
        },
        endpoint.clone(),
        heartbeats,
    );
    let membership = membership.map_err(Error::said)?;
    tokio::spawn(leave_when_evicted(membership.clone()));
    let copy = |fd: &OwnedFd| fd.try_clone().map_err(Error::step("duplicate a descriptor"));
    let (for_load, for_proc) = (copy(&held.procfs)?, copy(&held.procfs)?);
    let load = LoadLevel::start(given(&config), endpoint.clone(), for_load, membership.watch());
    let processes = pm::Config {
        node: config.node_id(),
        regions: config.regions(),
        procfs: Some(held.procfs),
        listener: Some(held.listener),
        ledger: Some(held.ledger),
    };
    let pm = pm::Pm::start(processes, endpoint.clone(), link, membership.watch()).map_err(Error::said)?;
    serve_proc(held.fuse, for_proc, &welcome.fuse_state, &pm)?;
    tokio::spawn(aim_heartbeats(pm.clone(), membership.clone()));
    super::locks::start(&state, &endpoint, &membership)?;
    let listener = server::listen(&state.admin_socket()).map_err(Error::step("open the admin socket"))?;
    let rekeying = Rekeying::start(keyholder, &state, membership.clone(), pm.clone());
    let desk =
        ControlDesk { membership, pm: pm.clone(), load, endpoint, node: config.node_id(), began, rekeying };
    tokio::select! {
        () = server::run(listener, Arc::new(desk)) => Ok(()),
        // The view has ended, and with it what this daemon is for: nobody may take the node for alive any more.
        () = pm.closed() => Err(Error::Said("ssi-init has ended, or serves another ssid".into())),
    }
}

/// Sorts what ssi-init handed over.
fn hold(fds: Vec<OwnedFd>) -> Result<Held, Error> {
    match <[OwnedFd; 4]>::try_from(fds) {
        Ok([listener, fuse, procfs, ledger]) => Ok(Held { listener, fuse, procfs, ledger }),
        Err(fds) => Err(Error::Said(format!("ssi-init handed over {} descriptors, not 4", fds.len()))),
    }
}

/// Serves the view's /proc, from the kernel's first request or from where this daemon's last life left it.
fn serve_proc(device: OwnedFd, procfs: OwnedFd, agreed: &[u8], pm: &pm::Handle) -> Result<(), Error> {
    let filesystem = ProcFs::new(procfs, pm.process_table(), tokio::runtime::Handle::current());
    let keep = pm.clone();
    let store = move |state| keep.keep_fuse_state(state);
    super::serve_fuse(device, agreed, filesystem, (pm::procfs::session_config(), PROC_THREADS), store)
}

/// Has the supervisor heartbeat to every other node, as the views say where they are.
async fn aim_heartbeats(pm: pm::Handle, membership: membership::Handle) {
    let mut views = membership.watch();
    loop {
        let view = views.borrow_and_update().clone();
        let watchers: Vec<SocketAddr> =
            view.nodes.iter().filter_map(membership::Node::control_addr).collect();
        pm.watch_heartbeats(&watchers, Timings::default().interval);
        if views.changed().await.is_err() {
            return;
        }
    }
}

/// A life that the cluster has given up ends at once: the keeper begins another.
async fn leave_when_evicted(membership: membership::Handle) {
    let code = match membership.ended().await {
        Ended::Evicted(view) => {
            tracing::warn!(epoch = view.epoch, "this node was declared DOWN; it begins a new life");
            EVICTED
        }
        Ended::Left => return,
        Ended::Failed(why) => {
            tracing::error!(%why, "membership cannot go on");
            1
        }
    };
    std::process::exit(code);
}

/// What this node gives to the cluster.
fn given(config: &NodeConfig) -> loadlevel::Config {
    let NodeConfig { cpus, memory_mib, speed, .. } = *config;
    loadlevel::Config { node: config.node_id(), cpus, memory_bytes: memory_mib << 20, speed }
}
