//! How many commands a log agrees on a second: `cargo run --release -p replog --example throughput [DIR]`.
//!
//! Core and store of one voter alone, then three members over the loopback address, each in memory (/dev/shm) and in DIR
//! (default: the temporary directory); 64 commands of 100 bytes outstanding.

use base::{NodeId, Time};
use bytes::Bytes;
use fabric::{ClusterKey, Endpoint, Peer, Role};
use replog::{
    Config, Core, Directory, Effect, Event, Exchange, Handle, Index, Member, Proposal, RequestId, Start,
    StateMachine, Store, Ticket, Voters,
};
use std::collections::BTreeSet;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const OUTSTANDING: usize = 64;
const COMMAND_BYTES: usize = 100;
const LENGTH: Duration = Duration::from_secs(2);

struct Counter(u64);

impl StateMachine for Counter {
    fn apply(&mut self, _index: Index, _command: &[u8]) -> Bytes {
        self.0 += 1;
        Bytes::new()
    }
    fn snapshot(&mut self) -> Bytes {
        Bytes::copy_from_slice(&self.0.to_le_bytes())
    }
    fn restore(&mut self, snapshot: Bytes) -> Result<(), String> {
        let bytes: [u8; 8] = snapshot[..].try_into().map_err(|_| "not a number".to_owned())?;
        self.0 = u64::from_le_bytes(bytes);
        Ok(())
    }
}

/// One core and its store, driven by hand: what the log itself costs.
fn alone(dir: &Path) -> Result<f64, Box<dyn Error>> {
    let me = replog::create(dir, NodeId(1), |me| Some(Voters::of([me])))?;
    let (mut store, recovered) = Store::open(Directory::at(dir)?)?;
    let mut core = Core::new(Time(1), Config::new(me, 1), recovered);
    let begin = Instant::now();
    let mut now = Time(1);
    let (mut done, mut asked, mut events) = (0u64, 0u64, vec![Event::Tick]);
    while begin.elapsed() < LENGTH {
        now = now + Duration::from_micros(10);
        let mut effects = Vec::new();
        events.drain(..).for_each(|event| core.handle(now, event, &mut effects));
        let mut ticket: Option<Ticket> = None;
        for effect in effects {
            match effect {
                Effect::Persist(write) => {
                    ticket = Some(write.ticket);
                    store.write(&write);
                }
                Effect::Commit(entries) => {
                    done += entries.iter().filter(|one| one.request.is_some()).count() as u64
                }
                Effect::MakeSnapshot(meta) => {
                    store.save_snapshot(&meta, b"")?;
                    events.push(Event::SnapshotMade(meta));
                }
                Effect::Trim(upto) => store.trim(upto)?,
                _ => {}
            }
        }
        if let Some(ticket) = ticket {
            store.commit()?;
            events.push(Event::Persisted(ticket));
        }
        if core.is_leader() {
            let free = OUTSTANDING - (asked - done) as usize;
            let more = (0..free as u64).map(|more| Proposal {
                request: RequestId(asked + more),
                origin: None,
                bytes: Bytes::from_static(&[7; COMMAND_BYTES]),
            });
            events.push(Event::Propose(more.collect()));
            asked += free as u64;
        }
    }
    Ok(done as f64 / begin.elapsed().as_secs_f64())
}

async fn member(id: u32, dir: &Path) -> Result<(Endpoint, Handle<Counter>), Box<dyn Error>> {
    let dir = dir.join(format!("member{id}"));
    let local = Peer { node: NodeId(id), role: Role::Control };
    let listen = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let key = ClusterKey::from_bytes([3; 32]);
    let endpoint = Endpoint::bind(fabric::Config::new(local, listen, key, "bench")).await?;
    replog::create(&dir, NodeId(id), |me| (id == 1).then(|| Voters::of([me])))?;
    let start = Start { log: 1, node: NodeId(id), dir, tune: |_| {}, on_thread_start: || {} };
    let handle = replog::start(start, Exchange::new(endpoint.clone()), Counter(0))?;
    Ok((endpoint, handle))
}

/// Three members with everything that belongs to them; commands a second, and the median of how long one takes.
async fn three(dir: &Path) -> Result<(f64, Duration), Box<dyn Error>> {
    let mut members = Vec::new();
    for id in 1..=3 {
        members.push(member(id, dir).await?);
    }
    for (one, _) in &members {
        for (other, _) in members.iter().filter(|(other, _)| other.local() != one.local()) {
            one.set_address(other.local(), other.address());
            one.keep_connected(other.local());
        }
    }
    let leader = members[0].1.clone();
    leader.leadership().wait_for(|now| now.leader.is_some()).await?;
    leader.propose(None, Bytes::new()).await?;
    let voters: BTreeSet<Member> = members.iter().map(|(_, handle)| handle.member()).collect();
    leader.change_voters(voters, BTreeSet::new()).await?;
    let begin = Instant::now();
    let clients = (0..OUTSTANDING).map(|_| {
        let leader = leader.clone();
        tokio::spawn(async move {
            let mut times = Vec::new();
            while begin.elapsed() < LENGTH {
                let asked = Instant::now();
                if leader.propose(None, Bytes::from_static(&[7; COMMAND_BYTES])).await.is_ok() {
                    times.push(asked.elapsed());
                }
            }
            times
        })
    });
    let mut times = Vec::new();
    for client in clients.collect::<Vec<_>>() {
        times.extend(client.await?);
    }
    let rate = times.len() as f64 / begin.elapsed().as_secs_f64();
    times.sort_unstable();
    for (endpoint, handle) in &members {
        handle.stop();
        handle.ended().wait_for(Option::is_some).await?;
        endpoint.close().await;
    }
    Ok((rate, times.get(times.len() / 2).copied().unwrap_or_default()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let disk = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let runtime = tokio::runtime::Runtime::new()?;
    for (name, place) in [("memory", PathBuf::from("/dev/shm")), ("disk", disk)] {
        let dir = tempfile::tempdir_in(place)?;
        println!("core and store, 1 voter, {name}: {:.0} commands/s", alone(&dir.path().join("alone"))?);
        let (rate, median) = runtime.block_on(three(dir.path()))?;
        println!("3 members, {name}: {rate:.0} commands/s, median {} us", median.as_micros());
    }
    Ok(())
}
