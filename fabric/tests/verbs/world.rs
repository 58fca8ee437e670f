//! Two ends that are connected by a pair of queue pairs, on two devices where there are two.

use fabric::verbs::{
    Access, Atomics, Completion, CompletionQueue, Completions, Device, Failure, MemoryRegion, PortAddress,
    ProtectionDomain, QueuePair, QueuePairConfig, Received, Request, SharedReceiveQueue, Work,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

/// Seconds that anything may take, on an emulated processor among others.
const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };
/// Seconds after which a device that does not answer is not waited for any more.
const SILENCE: Timespec = Timespec { tv_sec: 4, tv_nsec: 0 };
/// Receive buffers of an end.
pub const SLOTS: u32 = 64;
/// Bytes of one.
pub const SLOT: u32 = 4096;
/// Bytes of an end's region.
pub const REGION: usize = 1 << 20;

/// A device and the address by which it is used.
#[derive(Clone)]
pub struct Rail {
    pub device: Arc<Device>,
    pub address: PortAddress,
}

/// Two rails that reach each other; None, and a word about it, where there is no device.
pub fn rails() -> Option<(Rail, Rail)> {
    let names = Device::names().unwrap_or_default();
    let rails: Vec<Rail> = names.iter().filter_map(|name| rail(name)).collect();
    let Some(near) = rails.first() else {
        assert!(std::env::var_os("SSI_VERBS_VM").is_none(), "SSI_VERBS_VM is set, and no device is usable");
        println!("skipped: no RDMA device");
        return None;
    };
    let beside = |rail: &&Rail| {
        rail.device.name() != near.device.name() && network(&rail.address) == network(&near.address)
    };
    let far = rails.iter().find(beside).unwrap_or(near);
    Some((near.clone(), far.clone()))
}

/// A device by name, at its first IPv4 address.
pub fn rail(name: &str) -> Option<Rail> {
    let device = Device::open(name).ok()?;
    let all = device.addresses().expect("an open device tells its addresses");
    let address = all.into_iter().find(|address| matches!(address.ip(), Some(IpAddr::V4(_))))?;
    let active = device.port(address.port).expect("a port with an address").active;
    active.then_some(Rail { device, address })
}

fn network(address: &PortAddress) -> Option<[u8; 3]> {
    match address.ip()? {
        IpAddr::V4(ip) => Some([ip.octets()[0], ip.octets()[1], ip.octets()[2]]),
        IpAddr::V6(_) => None,
    }
}

/// One end of a connection.
pub struct End {
    pub pair: QueuePair,
    pub region: MemoryRegion,
    pub receives: Arc<SharedReceiveQueue>,
    pub completions: Arc<CompletionQueue>,
    pub domain: Arc<ProtectionDomain>,
    pub news: Completions,
}

/// What an end is told.
#[derive(Debug)]
pub enum News {
    Sent(u64),
    Received(Received),
    Failed(Work, Failure),
}

impl End {
    pub fn new(rail: &Rail, config: QueuePairConfig) -> Self {
        Self::with_slots(rail, config, SLOTS)
    }

    pub fn with_slots(rail: &Rail, config: QueuePairConfig, slots: u32) -> Self {
        let domain = ProtectionDomain::create(&rail.device).unwrap();
        let completions = CompletionQueue::create(&rail.device, config.depth + slots, 0).unwrap();
        let receives = SharedReceiveQueue::create(&domain, slots, SLOT).unwrap();
        let pair = QueuePair::create(&domain, &completions, &receives, rail.address, config).unwrap();
        let atomic = rail.device.limits().atomics != Atomics::None;
        let access = Access { atomic, ..Access::READ_WRITE };
        let region = MemoryRegion::allocate(&domain, REGION, access).unwrap();
        Self { pair, region, receives, completions, domain, news: Completions::new() }
    }

    /// Posts requests; gives the number of the last.
    pub fn post(&mut self, requests: &[Request<'_>]) -> u64 {
        self.pair.post(requests).unwrap() + requests.len() as u64 - 1
    }

    /// As `wait`, for a request whose target was taken away under it: Soft-RoCE on a busy machine may then never answer,
    /// neither well nor ill. As any user must, this ends the connection after a while.
    pub fn wait_for_answer_or_end(&mut self) -> Vec<News> {
        self.completions.arm().unwrap();
        if self.completions.poll(&mut self.news).unwrap() == 0 && !sleep_for(&self.completions, SILENCE) {
            assert_eq!(self.completions.poll(&mut self.news).unwrap(), 0, "a completion without a wake-up");
            println!("no answer within {} s in state {:?}", SILENCE.tv_sec, self.pair.state());
            self.pair.fail().unwrap();
        }
        self.wait()
    }

    /// Waits for at least one completion, asleep, and gives all that are there.
    pub fn wait(&mut self) -> Vec<News> {
        loop {
            self.completions.arm().unwrap();
            self.completions.poll(&mut self.news).unwrap();
            let all: Vec<Completion> = self.news.drain().collect();
            if !all.is_empty() {
                return all.into_iter().map(|completion| self.news_of(completion)).collect();
            }
            assert!(sleep(&self.completions), "no completion within {} s", PATIENCE.tv_sec);
            self.completions.acknowledge().unwrap();
        }
    }

    fn news_of(&mut self, completion: Completion) -> News {
        assert_eq!(completion.queue_pair(), self.pair.number());
        let (work, outcome) = (completion.work(), completion.outcome());
        match (work, outcome) {
            (Work::Send { sequence }, outcome) => {
                self.pair.completed(sequence);
                outcome.map_or_else(|failure| News::Failed(work, failure), |()| News::Sent(sequence))
            }
            (Work::Receive { .. }, _) => match self.receives.take(completion) {
                Ok(received) => News::Received(received),
                Err(failure) => News::Failed(work, failure),
            },
        }
    }

    /// Waits until the request of this number is done, and gives what arrived meanwhile.
    pub fn wait_sent(&mut self, sequence: u64) -> Vec<Received> {
        let mut arrived = Vec::new();
        loop {
            let mut done = false;
            for news in self.wait() {
                match news {
                    News::Sent(number) => done |= number >= sequence,
                    News::Received(received) => arrived.push(received),
                    News::Failed(work, failure) => panic!("{work:?}: {failure}"),
                }
            }
            if done {
                return arrived;
            }
        }
    }

    /// Waits for a message or a write with an immediate number.
    pub fn wait_received(&mut self, count: usize) -> Vec<Received> {
        let mut arrived = Vec::new();
        while arrived.len() < count {
            for news in self.wait() {
                match news {
                    News::Sent(_) => {}
                    News::Received(received) => arrived.push(received),
                    News::Failed(work, failure) => panic!("{work:?}: {failure}"),
                }
            }
        }
        arrived
    }

    /// Waits until so many send requests have failed; gives their numbers and why.
    pub fn wait_failed(&mut self, count: usize) -> Vec<(u64, Failure)> {
        let mut failed = Vec::new();
        while failed.len() < count {
            for news in self.wait() {
                if let News::Failed(Work::Send { sequence }, failure) = news {
                    failed.push((sequence, failure));
                }
            }
        }
        failed
    }

    /// Another region like the end's own.
    pub fn region_beside(&self) -> MemoryRegion {
        MemoryRegion::allocate(&self.domain, REGION, Access::READ_WRITE).unwrap()
    }

    /// Puts bytes into the region.
    pub fn fill(&self, offset: usize, bytes: &[u8]) {
        fabric::region::Span::of(self.region.memory(), offset, bytes.len()).unwrap().fill(bytes);
    }

    /// Bytes of the region.
    pub fn bytes(&self, offset: usize, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        fabric::region::Span::of(self.region.memory(), offset, length).unwrap().copy_to(&mut bytes);
        bytes
    }
}

/// Sleeps until something has a wake-up; false if nothing came.
pub fn sleep(on: &impl AsFd) -> bool {
    sleep_for(on, PATIENCE)
}

fn sleep_for(on: &impl AsFd, time: Timespec) -> bool {
    let mut waiting = [PollFd::from_borrowed_fd(on.as_fd(), PollFlags::IN)];
    rustix::event::poll(&mut waiting, Some(&time)).unwrap() > 0
}

/// True if it has a wake-up now.
pub fn is_ready(on: &impl AsFd) -> bool {
    sleep_for(on, Timespec { tv_sec: 0, tv_nsec: 0 })
}

/// Two ends, connected.
pub fn connected() -> Option<(End, End)> {
    connected_with(QueuePairConfig::default(), SLOTS)
}

pub fn connected_with(config: QueuePairConfig, slots: u32) -> Option<(End, End)> {
    let (near, far) = rails()?;
    let near = End::new(&near, QueuePairConfig { first_packet: 0xff_fff0, ..config });
    let far = End::with_slots(&far, QueuePairConfig { first_packet: 77, ..config }, slots);
    near.pair.connect(&far.pair.coordinates()).unwrap();
    far.pair.connect(&near.pair.coordinates()).unwrap();
    Some((near, far))
}

/// Bytes that differ from place to place and from seed to seed.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut prng = base::Prng::new(seed);
    (0..length).map(|_| prng.next_u64() as u8).collect()
}
