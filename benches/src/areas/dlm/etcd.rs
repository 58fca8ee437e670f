//! The peer that cluster software uses for locks: etcd's lock service, three members.
//!
//! Invariant: the members end with this process, and leave nothing outside its directory.

use crate::Error;
use crate::areas::fabric::sample::Laps;
use crate::areas::fabric::side::{finished, rest, serving, warm};
use futures_util::future::try_join_all;
use std::cell::RefCell;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tonic::Request;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

const MEMBERS: usize = 3;
const WARM_UP: usize = 128;
const UP_WITHIN: Duration = Duration::from_secs(30);
const LEASE_SECONDS: i64 = 60;

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseGrant {
    #[prost(int64, tag = "1")]
    ttl: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseGranted {
    #[prost(int64, tag = "2")]
    id: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Lock {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(int64, tag = "2")]
    lease: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Locked {
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Unlock {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Unlocked {}

/// Ports that are free now.
fn ports() -> Result<Vec<u16>, Error> {
    let listeners: Vec<TcpListener> =
        (0..2 * MEMBERS).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    Ok(listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<std::io::Result<_>>()?)
}

/// Starts the members, in this directory; they are killed with this thread.
pub fn serve() -> Result<(), Error> {
    let ports = ports()?;
    let (clients, peers) = ports.split_at(MEMBERS);
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let all: Vec<String> = peers.iter().enumerate().map(|(k, port)| format!("m{k}={}", url(*port))).collect();
    let start = |k: usize| -> Result<Child, Error> {
        let mut etcd = Command::new("setpriv");
        etcd.args(["--pdeathsig", "KILL", "etcd", "--log-level", "error", "--logger", "zap"]);
        etcd.args(["--name", &format!("m{k}"), "--data-dir", &format!("m{k}")]);
        etcd.args(["--listen-client-urls", &url(clients[k]), "--advertise-client-urls", &url(clients[k])]);
        etcd.args(["--listen-peer-urls", &url(peers[k]), "--initial-advertise-peer-urls", &url(peers[k])]);
        etcd.args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"]);
        let quiet = etcd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        quiet.spawn().map_err(|error| format!("etcd (package etcd-server): {error}").into())
    };
    let _members: Vec<Child> = (0..MEMBERS).map(start).collect::<Result<_, _>>()?;
    serving(&format!("127.0.0.1:{}", clients[0]))?;
    rest()
}

/// Locks and unlocks `count` times, `outstanding` at once.
pub fn drive(count: usize, outstanding: usize, at: &str) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let channel = connect(at).await?;
        locks(&channel, "warm", WARM_UP, outstanding).await?;
        let before = warm()?;
        let laps = locks(&channel, "timed", count, outstanding).await?;
        finished(laps.sample()?, &before)
    })
}

/// A channel to a member that has found the others.
async fn connect(at: &str) -> Result<Channel, Error> {
    let endpoint = Channel::from_shared(format!("http://{at}"))?.tcp_nodelay(true);
    let begun = Instant::now();
    loop {
        let why = match endpoint.connect().await {
            Ok(channel) => match lease(&channel).await {
                Ok(_) => return Ok(channel),
                Err(error) => error,
            },
            Err(error) => error.into(),
        };
        if begun.elapsed() > UP_WITHIN {
            return Err(format!("etcd does not come up: {why}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn unary<A, B>(channel: &Channel, path: &'static str, ask: A) -> Result<B, Error>
where
    A: prost::Message + Default + 'static,
    B: prost::Message + Default + 'static,
{
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await?;
    let codec = ProstCodec::<A, B>::default();
    Ok(client.unary(Request::new(ask), PathAndQuery::from_static(path), codec).await?.into_inner())
}

async fn lease(channel: &Channel) -> Result<i64, Error> {
    let granted: LeaseGranted =
        unary(channel, "/etcdserverpb.Lease/LeaseGrant", LeaseGrant { ttl: LEASE_SECONDS }).await?;
    Ok(granted.id)
}

async fn locks(channel: &Channel, figure: &str, count: usize, outstanding: usize) -> Result<Laps, Error> {
    let laps = Rc::new(RefCell::new(Laps::start(count, 1)));
    let loops = (0..outstanding).map(|k| {
        let laps = laps.clone();
        async move {
            let lease = lease(channel).await?;
            for round in 0..count / outstanding {
                let name = format!("{figure} {}", round * outstanding + k).into_bytes();
                let locked: Locked = unary(channel, "/v3lockpb.Lock/Lock", Lock { name, lease }).await?;
                let _: Unlocked = unary(channel, "/v3lockpb.Lock/Unlock", Unlock { key: locked.key }).await?;
                laps.borrow_mut().lap();
            }
            Ok::<(), Error>(())
        }
    });
    try_join_all(loops).await?;
    Ok(Rc::into_inner(laps).ok_or("a loop still runs")?.into_inner())
}
