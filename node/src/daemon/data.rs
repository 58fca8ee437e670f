//! `ssid --data`: the filesystem's servers and client of one node.

use super::desk::DataDesk;
use super::keyholder::Keyholder;
use crate::admin::server;
use crate::config::{NodeConfig, StateDir};
use crate::error::Error;
use base::codec::ServiceHello;
use base::{Incarnation, NodeId, encode_frame};
use fabric::{Peer, Role};
use membership::View;
use pm::wire::init::Request;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Threads that read requests for /ssi.
const FUSE_THREADS: usize = 2;
/// The pause between two tries to reach `ssid`.
const RETRY: Duration = Duration::from_millis(20);

/// Runs until killed.
///
/// # Errors
/// What could not be started.
pub fn run(state: StateDir) -> Result<(), Error> {
    super::run(state, c"ssid-data", serve)
}

async fn serve(state: StateDir, config: NodeConfig) -> Result<(), Error> {
    let began = Instant::now();
    let (link, welcome, fds) = super::connect_init(&state, true).await?;
    let keyholder = Keyholder::start(&state, &config, Role::Data).await?;
    let endpoint = keyholder.endpoint().clone();
    tokio::spawn(be_present(state.admin_socket()));
    let view = membership::saved_view(&state.0).map_err(Error::said)?;
    let control = Peer { node: config.node_id(), role: Role::Control };
    endpoint.set_address(control, config.control_address());
    let views = membership::follow(endpoint.clone(), control, view.clone());
    let servers = server_config(&state, &config, &view);
    let _servers = lustre_like_fs::Servers::start(servers, endpoint.clone(), views.clone())
        .await
        .map_err(Error::said)?;
    let client = lustre_like_fs::Client::new(endpoint, Incarnation(welcome.incarnation), views.clone());
    if let Some(device) = fds.into_iter().next() {
        serve_mount(device, &welcome.fuse_state, &client, link)?;
    }
    let listener = server::listen(&state.data_socket()).map_err(Error::step("open the data socket"))?;
    server::run(listener, Arc::new(DataDesk { client, views, keyholder, began })).await;
    Ok(())
}

fn server_config(state: &StateDir, config: &NodeConfig, view: &View) -> lustre_like_fs::Config {
    lustre_like_fs::Config {
        node: config.node_id(),
        mds: NodeId(view.mds),
        mdt_dir: state.mdt_dir(config),
        ost_dir: state.ost_dir(config),
    }
}

/// Takes the mount at /ssi over, from the kernel or from this daemon's last life.
fn serve_mount(
    device: OwnedFd,
    agreed: &[u8],
    client: &lustre_like_fs::Client,
    link: pm::link::Link,
) -> Result<(), Error> {
    let link = Mutex::new(link);
    let store = move |state| {
        let sent = link.lock().expect("nobody panics with it").send(Request::FuseState(state));
        if let Err(error) = sent {
            tracing::error!(%error, "ssi-init did not take what was agreed for /ssi: a restart will not find it");
        }
    };
    super::serve_fuse(
        device,
        agreed,
        client.filesystem(),
        (lustre_like_fs::fuse_config(), FUSE_THREADS),
        store,
    )
}

/// Holds a connection to the local `ssid`, over its restarts: its end tells `ssid` that this daemon is gone.
async fn be_present(socket: PathBuf) {
    loop {
        if let Ok(mut stream) = UnixStream::connect(&socket).await {
            let hello = ServiceHello { service: "data".into(), version: admin::wire::VERSION };
            if stream.write_all(&encode_frame(&hello)).await.is_ok() {
                let _ = stream.read(&mut [0]).await;
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}
