//! A peer that this endpoint calls: its session there, and the ways to it.
//!
//! ```text
//!  way, for each lane:  idle -> setting up -> up
//!                        ^         |          |
//!                        +- rest <-+----------+      rest: 20, 40, .. 250 ms, while somebody wants the lane
//! ```
//!
//! Invariant: calls of a lane go over one link at a time (its home), the best that is up; transfers over all links as good as it.

use crate::provider::{Provider, Traffic};
use crate::session::{Caller, Lane, LinkId, Outgoing, Ticket};
use crate::transfer::Initiator;
use crate::{Limits, Peer};
use base::time::Time;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where a way leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// To an address, over the network.
    Inet(SocketAddr),
    /// To a socket of this host.
    Unix(PathBuf),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Inet(address) => address.fmt(f),
            Place::Unix(path) => path.display().fmt(f),
        }
    }
}

/// How far one lane of a way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneState {
    /// Nobody wanted it yet.
    Idle,
    /// It is being set up, by the setup of this number.
    Setup(u64),
    /// It carries.
    Up(LinkId),
    /// It failed: not again before this time.
    Rest(Time),
}

/// One way to a peer: a rail and a provider.
#[derive(Debug)]
pub struct Way {
    /// What carries it.
    pub provider: Provider,
    /// Where it leads.
    pub place: Place,
    /// Its two lanes.
    pub lanes: [LaneState; 2],
    /// For each lane that is up: the setup of the link that is to take its link's place.
    pub renewals: [Option<u64>; 2],
    /// The next rest after a failure.
    pub rest: Duration,
    /// The other end cannot or will not: not again until it is another life.
    pub useless: bool,
    /// When it was tried last, nobody listened there.
    pub deserted: bool,
}

impl Way {
    /// A way that nobody has tried.
    pub fn new(provider: Provider, place: Place, limits: &Limits) -> Way {
        let (lanes, renewals) = ([LaneState::Idle; 2], [None; 2]);
        Way { provider, place, lanes, renewals, rest: limits.reconnect_min, useless: false, deserted: false }
    }
}

/// A peer that this endpoint calls.
pub struct Remote {
    /// Its name; of one that is known by its address only, once it has told it.
    pub peer: Option<Peer>,
    /// The number of this end's session with it.
    pub session: u64,
    /// Calls.
    pub caller: Caller,
    /// One-sided transfers.
    pub initiator: Initiator,
    /// Requests that wait for a place among its calls.
    pub queue: VecDeque<Outgoing>,
    /// The addresses that were given for it.
    pub given: Vec<SocketAddr>,
    /// The ways to it, the given addresses first.
    pub ways: Vec<Way>,
    /// The link that carries the calls of each lane.
    pub home: [Option<LinkId>; 2],
    /// All its links.
    pub links: Vec<LinkId>,
    /// Declared down.
    pub down: bool,
    /// Its links are held up.
    pub kept: bool,
    /// `Connected` was told last.
    pub told_connected: bool,
    /// Calls so far.
    pub calls: u64,
    /// What its links that are over have carried.
    pub carried: Traffic,
    /// Which life of the session it told last.
    pub life: u64,
    /// The version that it speaks.
    pub version: u16,
    /// When a way that rests is dialled again.
    pub redial: Option<Time>,
}

impl Remote {
    /// One that nothing is known of yet.
    pub fn new(peer: Option<Peer>, session: u64, limits: &Limits) -> Remote {
        Remote {
            peer,
            session,
            caller: Caller::new(limits.calls_waiting),
            initiator: Initiator::new(),
            queue: VecDeque::new(),
            given: Vec::new(),
            ways: Vec::new(),
            home: [None; 2],
            links: Vec::new(),
            down: false,
            kept: false,
            told_connected: false,
            calls: 0,
            carried: Traffic::default(),
            life: 0,
            version: 0,
            redial: None,
        }
    }

    /// Submits a request, or lets it wait until others are answered.
    pub fn submit(&mut self, request: Outgoing) {
        if self.queue.is_empty() {
            if let Err(request) = self.caller.submit(request) {
                self.queue.push_back(request);
            }
        } else {
            self.queue.push_back(request);
        }
    }

    /// True if more wait than have a place already.
    pub fn is_full(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Submits what waits, as far as there is place.
    pub fn refill(&mut self) {
        while let Some(request) = self.queue.pop_front() {
            if let Err(request) = self.caller.submit(request) {
                self.queue.push_front(request);
                return;
            }
        }
    }

    /// Nobody waits for this call any more.
    pub fn withdraw(&mut self, ticket: Ticket) {
        if self.queue.is_empty() {
            self.caller.cancel(ticket);
            return;
        }
        let waiting = self.queue.len();
        self.queue.retain(|request| request.ticket != ticket);
        if self.queue.len() == waiting {
            self.caller.cancel(ticket);
        }
    }

    /// The best provider that has a link up in this lane.
    pub fn best_up(&self, lane: Lane) -> Option<Provider> {
        let up = |way: &&Way| matches!(way.lanes[lane as usize], LaneState::Up(_));
        self.ways.iter().filter(up).map(|way| way.provider).min()
    }

    /// The links of a lane that carry now: those of the best provider.
    pub fn carrying(&self, lane: Lane) -> impl Iterator<Item = LinkId> + '_ {
        let best = self.best_up(lane);
        self.ways.iter().filter(move |way| Some(way.provider) == best).filter_map(move |way| {
            match way.lanes[lane as usize] {
                LaneState::Up(link) => Some(link),
                _ => None,
            }
        })
    }

    /// True if nobody listens where any of its ways leads.
    pub fn is_deserted(&self) -> bool {
        self.ways.iter().any(|way| way.deserted) && self.ways.iter().all(|way| way.useless || way.deserted)
    }

    /// True if some way's lane is being set up.
    pub fn is_dialling(&self, lane: Lane) -> bool {
        self.ways.iter().any(|way| matches!(way.lanes[lane as usize], LaneState::Setup(_)))
    }

    /// Chooses the lanes' homes anew. Rails share the work: the session's number says which of equally good ones it is.
    pub fn settle_homes(&mut self) {
        for lane in [Lane::Urgent, Lane::Bulk] {
            let carrying: Vec<LinkId> = self.carrying(lane).collect();
            let keep = self.home[lane as usize].filter(|home| carrying.contains(home));
            let pick = (self.session as usize).checked_rem(carrying.len()).map(|at| carrying[at]);
            self.home[lane as usize] = keep.or(pick);
        }
    }

    /// The way and lane that this setup serves.
    pub fn way_of_setup(&mut self, setup: u64) -> Option<(usize, Lane)> {
        self.find(LaneState::Setup(setup)).or_else(|| {
            self.ways.iter().enumerate().find_map(|(at, way)| {
                let lane = [Lane::Urgent, Lane::Bulk]
                    .into_iter()
                    .find(|lane| way.renewals[*lane as usize] == Some(setup))?;
                Some((at, lane))
            })
        })
    }

    /// The way and lane that this link carries.
    pub fn way_of_link(&mut self, link: LinkId) -> Option<(usize, Lane)> {
        self.find(LaneState::Up(link))
    }

    fn find(&self, state: LaneState) -> Option<(usize, Lane)> {
        self.ways.iter().enumerate().find_map(|(at, way)| {
            let lane =
                [Lane::Urgent, Lane::Bulk].into_iter().find(|lane| way.lanes[*lane as usize] == state)?;
            Some((at, lane))
        })
    }
}
