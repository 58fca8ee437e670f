//! Load levelling on real endpoints: two nodes on the loopback address, this test's own processes as the load.

use base::NodeId;
use fabric::{ClusterKey, Endpoint, Peer, Role};
use loadlevel::{Config, Handle, LoadLevel};
use membership::{Node, View};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(15);

/// A child that spins, ended with the test.
struct Spinner(Child);

impl Drop for Spinner {
    fn drop(&mut self) {
        // It is ours and was not waited for yet, so the pid is still its own.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn endpoint(node: u32) -> Endpoint {
    let local = Peer { node: NodeId(node), role: Role::Control };
    let key = ClusterKey::from_bytes([5; 32]);
    let listen = "127.0.0.1:0".parse().unwrap();
    Endpoint::bind(fabric::Config::new(local, listen, key, "blue")).await.unwrap()
}

fn view() -> Arc<View> {
    let node = |id| Node { id, name: format!("node{id}"), cpus: 1, speed: 100, ..Node::default() };
    Arc::new(View { epoch: 1, nodes: vec![node(1), node(2)], ..View::default() })
}

fn start(node: u32, endpoint: &Endpoint, procfs: OwnedFd, views: &watch::Receiver<Arc<View>>) -> Handle {
    let config = Config { node: NodeId(node), cpus: 1, memory_bytes: 1 << 40, speed: 100 };
    LoadLevel::start(config, endpoint.clone(), procfs, views.clone())
}

/// A directory that looks like a procfs with only these processes in it.
fn procfs_of(pids: &[u32]) -> (TempDir, OwnedFd) {
    let dir = tempfile::tempdir().unwrap();
    for pid in pids {
        std::os::unix::fs::symlink(format!("/proc/{pid}"), dir.path().join(pid.to_string())).unwrap();
    }
    let root = File::open(dir.path()).unwrap().into();
    (dir, root)
}

async fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let waited = tokio::time::timeout(PATIENCE, async {
        while !done() {
            pace.tick().await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spinning_command_makes_the_other_node_the_fastest_everywhere() {
    let (one, two) = (endpoint(1).await, endpoint(2).await);
    one.set_address(two.local(), two.address());
    two.set_address(one.local(), one.address());
    let (_views_out, views) = watch::channel(view());
    let spinner =
        Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap();
    let spinner = Spinner(spinner);
    let (_dir1, busy) = procfs_of(&[spinner.0.id()]);
    let (_dir2, idle) = procfs_of(&[]);
    let handles = [start(1, &one, busy, &views), start(2, &two, idle, &views)];
    for handle in &handles {
        wait_until("heard of both", || handle.table().iter().all(|load| !load.is_stale())).await;
        wait_until("seen the spinner", || handle.fastnode() == Some(NodeId(2))).await;
        let table = handle.table();
        assert!(table[0].sample.busy_permille > 50 && table[1].sample.busy_permille == 0, "{table:?}");
    }
    drop(spinner);
    wait_until("idle again", || handles[1].fastnode() == Some(NodeId(1))).await;
    handles[0].placed(&[NodeId(1)]);
    assert_eq!(handles[0].fastnode(), Some(NodeId(2)), "what was just placed counts at once");
    drop(handles);
    one.close().await;
    two.close().await;
}
