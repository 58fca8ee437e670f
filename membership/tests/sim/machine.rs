//! One machine: its clock, its supervisor's life, its daemon's run with the core in it, and its disk.

use super::disk::SimDisk;
use crate::core::{Config, OnDisk, Order};
use crate::talk::Answer;
use crate::{Core, Heartbeat, Node, RequestId, Table, Timings};
use base::{NodeId, Prng, Time};
use replog::{DiskId, Member, Recovered, Store, Voters};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The log behind a snapshot weighs no more than this: so there are some.
const SNAPSHOT_AFTER_BYTES: usize = 3_000;

/// A clock that goes wrong.
#[derive(Clone, Copy, Debug)]
pub struct Drift {
    offset: u64,
    ppm: i64,
}

impl Drift {
    pub fn new(prng: &mut Prng) -> Drift {
        Drift { offset: 1 + prng.below(1 << 40), ppm: prng.below(40_001) as i64 - 20_000 }
    }

    /// What the clock shows at a true time.
    pub fn show(self, at: Time) -> Time {
        let drifted = i128::from(at.0) * i128::from(1_000_000 + self.ppm) / 1_000_000;
        Time(self.offset + drifted as u64)
    }

    /// The true time at which the clock shows this, or a little later.
    pub fn truly(self, shown: Time) -> Time {
        let passed = i128::from(shown.0.saturating_sub(self.offset));
        Time((passed * 1_000_000 / i128::from(1_000_000 + self.ppm)) as u64 + 1_000)
    }
}

/// What the daemon has while it runs.
pub struct Daemon {
    pub core: Core,
    pub store: Store<SimDisk>,
    pub orders: VecDeque<Order>,
    /// What the file `table` will hold when the disk has come to it.
    pub saving: Option<Table>,
    pub table: Table,
    pub wake: Time,
}

/// One machine.
pub struct Machine {
    pub clock: Drift,
    pub daemon: Option<Daemon>,
    pub disk: Option<SimDisk>,
    pub disk_id: DiskId,
    pub saved: Table,
    pub life: u64,
    /// The supervisor lives.
    pub alive: bool,
    pub run: u64,
    pub paused_until: Time,
    pub sequence: u64,
    pub inbox: Vec<Heartbeat>,
    pub waiting: BTreeMap<RequestId, (u32, u64)>,
    pub downs: BTreeSet<NodeId>,
    /// The end of this life is known here; the node starts a new one.
    pub evictions: u32,
    /// It ended its life itself.
    pub left: bool,
    /// Answers to requests made by the test itself.
    pub answers: Vec<Answer>,
}

impl Machine {
    /// A machine that is off and has `table` on its disk; `founds`: and a log of which it is the only voter.
    pub fn new(id: u32, table: &Table, founds: bool, prng: &mut Prng) -> Machine {
        let mut machine = Machine {
            clock: Drift::new(prng),
            daemon: None,
            disk: None,
            disk_id: DiskId(0),
            saved: table.clone(),
            life: 0,
            alive: false,
            run: 0,
            paused_until: Time(0),
            sequence: 0,
            inbox: Vec::new(),
            waiting: BTreeMap::new(),
            downs: BTreeSet::new(),
            evictions: 0,
            left: false,
            answers: Vec::new(),
        };
        machine.make_disk(id, founds, prng);
        machine
    }

    /// A new disk.
    pub fn make_disk(&mut self, id: u32, founds: bool, prng: &mut Prng) {
        let (mut disk, disk_id) = (SimDisk::default(), DiskId(u128::from(prng.next_u64()) | 1));
        let me = Member { node: NodeId(id), disk: disk_id };
        Store::create(&mut disk, disk_id, founds.then(|| Voters::of([me]))).unwrap();
        self.disk = Some(disk);
        self.disk_id = disk_id;
    }

    /// The table as this machine shows it.
    pub fn table(&self) -> &Table {
        self.daemon.as_ref().map_or(&self.saved, |daemon| &daemon.table)
    }

    /// Starts `ssid`.
    pub fn start(&mut self, id: u32, now: Time, fencing: bool, prng: &mut Prng) {
        let Some(disk) = self.disk.take() else { return };
        let (store, log): (_, Recovered) = Store::open(disk).unwrap();
        let config = Config {
            row: Node { incarnation: self.life, ..row(id) },
            daemon: prng.next_u64(),
            timings: Timings::default(),
            member: Member { node: NodeId(id), disk: self.disk_id },
            fencing,
            snapshot_after_bytes: SNAPSHOT_AFTER_BYTES,
        };
        let on_disk = OnDisk { log, table: self.saved.clone() };
        let core = Core::new(self.clock.show(now), config, on_disk, prng.next_u64());
        let table = self.saved.clone();
        self.daemon =
            Some(Daemon { core, store, orders: VecDeque::new(), saving: None, table, wake: Time(0) });
    }

    /// Ends `ssid`; with the `power`, what was not synced is lost or torn.
    pub fn stop(&mut self, power: bool, prng: &mut Prng) {
        let Some(Daemon { mut store, mut orders, .. }) = self.daemon.take() else { return };
        // Some of what was ordered may have been written, and not made safe.
        let begun = if orders.is_empty() { 0 } else { prng.below(orders.len() as u64 + 1) as usize };
        for order in orders.drain(..begun) {
            if let Order::Write(write) = order {
                store.write(&write);
            } else {
                break;
            }
        }
        store.flush().unwrap();
        let mut disk = store.into_disk();
        if power {
            disk.crash(prng);
        }
        self.disk = Some(disk);
    }
}

/// The row of machine `id` in the cluster table.
pub fn row(id: u32) -> Node {
    Node {
        id,
        name: format!("node{id}"),
        control_address: format!("10.0.0.{id}:7100"),
        data_address: format!("10.0.0.{id}:7101"),
        cpus: 2,
        ..Node::default()
    }
}
