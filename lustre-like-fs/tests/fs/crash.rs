//! Servers in a process of their own, killed by SIGKILL: what was synced is whole after the restart.

use crate::common::*;
use lustre_like_fs::Client;
use lustre_like_fs::wire::{MetaVerb, Place};
use membership::{Node, View};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tokio::sync::watch;

const DIRECTORY_VARIABLE: &str = "SSI_TEST_SERVERS_DIRECTORY";
const NODES: u32 = 3;
const FILES: u64 = 8;

/// The servers' process: says its addresses on stdout and serves until it is killed or its stdin ends with the test.
#[test]
fn servers_process() {
    let Some(directory) = std::env::var_os(DIRECTORY_VARIABLE) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = runtime.block_on(Cluster::start_in(NODES, Path::new(&directory)));
    let addresses: Vec<String> = cluster.endpoints.iter().map(|end| end.address().to_string()).collect();
    println!("\naddresses {}", addresses.join(" "));
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

struct ServersProcess {
    child: Child,
    addresses: Vec<SocketAddr>,
}

impl ServersProcess {
    fn start(directory: &Path) -> ServersProcess {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::servers_process", "--nocapture"])
            .env(DIRECTORY_VARIABLE, directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let told = lines.map_while(Result::ok).find_map(|line| {
            let addresses =
                line.strip_prefix("addresses ")?.split(' ').map(|address| address.parse().unwrap());
            Some(addresses.collect())
        });
        ServersProcess { child, addresses: told.expect("the servers start") }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A client on a node of its own, without servers.
async fn client(servers: &ServersProcess) -> Client {
    let endpoint = bind(NODES + 1).await;
    let own = Node { id: NODES + 1, incarnation: INCARNATION.0, ..Node::default() };
    let view = view(&servers.addresses);
    let nodes = view.nodes.iter().cloned().chain([own]).collect();
    let view = watch::Sender::new(Arc::new(View { nodes, ..view }));
    Client::new(endpoint, INCARNATION, view.subscribe())
}

fn content(number: u64) -> Vec<u8> {
    (0..number * 700_000 + 10).map(|at| (at * 31 + number) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_synced_file_is_whole_after_sigkill_of_all_servers() {
    let directory = tempfile::tempdir().unwrap();
    let servers = ServersProcess::start(directory.path());
    let writer = client(&servers).await;
    for number in 0..FILES {
        // Three objects, so that the fourth "node", which has no object server, gets none.
        let pattern = lustre_like_fs::Pattern { stripe_count: 3, start: 1, ..Default::default() };
        let name = format!("file{number}");
        writer.setstripe(&name, pattern, 0, 0).await.unwrap();
        let ino = writer.resolve(&name, 0, 0).await.unwrap().attr.unwrap().ino;
        writer.write(ino, 0, content(number).into()).await.unwrap();
        writer.sync(ino).await.unwrap();
    }
    let busy = writer.clone();
    let under_way = tokio::spawn(async move {
        for number in 0.. {
            if create(&busy, &format!("more{number}"), DIRECTORY).await.is_err() {
                return;
            }
        }
    });
    servers.kill();
    under_way.abort();

    let servers = ServersProcess::start(directory.path());
    let reader = client(&servers).await;
    for number in 0..FILES {
        let name = format!("file{number}");
        let ino = reader.resolve(&name, 0, 0).await.unwrap().attr.unwrap().ino;
        let expected = content(number);
        assert_eq!(reader.getattr(ino).await.unwrap().size, expected.len() as u64, "{name}");
        for (index, chunk) in expected.chunks(1 << 20).enumerate() {
            let read = read(&reader, ino, (index as u64) << 20, chunk.len() as u32).await.unwrap();
            assert!(read == chunk, "{name} differs in its MiB {index}");
        }
    }
    let gone = Place { parent: 1, name: "file0".into() };
    reader.change(reader.caller(0, 0), MetaVerb::Unlink(gone)).await.unwrap();
    create(&reader, "after", REGULAR).await.unwrap();
    servers.kill();
}
