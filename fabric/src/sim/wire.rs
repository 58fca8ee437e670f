//! What is under way in a simulated network, and when it arrives.

use crate::Peer;
use crate::provider::Frame;
use crate::setup::{Open, Welcome};
use base::prng::Prng;
use base::time::Time;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// How a simulated network misbehaves.
#[derive(Clone, Debug)]
pub struct Faults {
    /// The least time that a frame takes.
    pub latency_min: Duration,
    /// The most time that a frame takes, besides its length. Frames of one link keep their order all the same.
    pub latency_max: Duration,
    /// Bytes per second and link.
    pub bytes_per_second: u64,
    /// A link breaks at one in so many frames, and what is under way on it is lost; 0: never.
    pub cut_one_in: u64,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults {
            latency_min: Duration::from_micros(5),
            latency_max: Duration::from_micros(20),
            bytes_per_second: 10_000_000_000,
            cut_one_in: 0,
        }
    }
}

/// What happens at an endpoint, by its address.
#[derive(Debug)]
pub enum Arrival {
    /// Somebody dials it.
    Dialled {
        /// The dialling endpoint.
        from: SocketAddr,
        /// Its name.
        peer: Peer,
        /// Its setup.
        setup: u64,
        /// What it wants.
        open: Open,
    },
    /// It is welcomed where it dialled, on this cable.
    Welcomed {
        /// Its setup.
        setup: u64,
        /// By whom.
        peer: Peer,
        /// What he grants.
        welcome: Welcome,
        /// Its end of the cable.
        end: End,
    },
    /// Nobody is where it dialled.
    Refused {
        /// Its setup.
        setup: u64,
    },
    /// Something has come on a cable.
    Frames {
        /// Its end.
        end: End,
    },
}

/// Bytes that are under way to one end of a cable at most, but for the last frame.
const ROOM_BYTES: usize = 256 << 10;

/// One end of a cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// Which cable.
    pub cable: u64,
    /// True for the end that dialled.
    pub dialled: bool,
}

impl End {
    fn other(self) -> End {
        End { dialled: !self.dialled, ..self }
    }
}

/// What has been sent to one end of a cable.
struct Lane {
    /// Whose end it is.
    owner: SocketAddr,
    /// Frames and when they arrive.
    frames: VecDeque<(Time, Frame, usize)>,
    /// Their bytes.
    bytes: usize,
    /// Its sender waits for room.
    full: bool,
    /// When the last of them arrives: none overtakes another.
    last: Time,
    /// The link is over.
    cut: bool,
}

/// All that is under way.
pub struct Wire {
    now: Time,
    prng: Prng,
    faults: Faults,
    arrivals: BTreeMap<(Time, u64), (SocketAddr, Arrival)>,
    number: u64,
    cables: u64,
    lanes: BTreeMap<End, Lane>,
    apart: BTreeSet<(SocketAddr, SocketAddr)>,
}

impl Wire {
    /// Nothing under way.
    pub fn new(seed: u64, faults: Faults) -> Wire {
        Wire {
            now: Time(0),
            prng: Prng::new(seed),
            faults,
            arrivals: BTreeMap::new(),
            number: 0,
            cables: 0,
            lanes: BTreeMap::new(),
            apart: BTreeSet::new(),
        }
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Changes how it misbehaves.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// A number for an endpoint's own use.
    pub fn random(&mut self) -> u64 {
        self.prng.next_u64()
    }

    /// When something happens next.
    pub fn next(&self) -> Option<Time> {
        self.arrivals.keys().next().map(|(at, _)| *at)
    }

    /// Moves the clock.
    pub fn advance(&mut self, to: Time) {
        self.now = self.now.max(to);
    }

    /// What happens next, if it is due.
    pub fn due(&mut self) -> Option<(SocketAddr, Arrival)> {
        let entry = self.arrivals.first_entry()?;
        (entry.key().0 <= self.now).then(|| entry.remove())
    }

    /// Dials. While the two are apart nothing comes of it.
    pub fn dial(&mut self, from: SocketAddr, peer: Peer, to: SocketAddr, setup: u64, open: Open) {
        if !self.are_apart(from, to) {
            self.later(to, Arrival::Dialled { from, peer, setup, open });
        }
    }

    /// Nobody is there.
    pub fn refuse(&mut self, from: SocketAddr, setup: u64) {
        self.later(from, Arrival::Refused { setup });
    }

    /// Welcomes who dialled: a cable between the two; the accepting end's own is given back.
    pub fn welcome(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        setup: u64,
        peer: Peer,
        welcome: Welcome,
    ) -> End {
        self.cables += 1;
        let end = End { cable: self.cables, dialled: false };
        for (end, owner) in [(end, to), (end.other(), from)] {
            self.lanes.insert(
                end,
                Lane { owner, frames: VecDeque::new(), bytes: 0, full: false, last: self.now, cut: false },
            );
        }
        self.later(from, Arrival::Welcomed { setup, peer, welcome, end: end.other() });
        end
    }

    /// Sends a frame from one end of a cable to the other.
    pub fn send(&mut self, end: End, frame: Frame, bytes: usize) {
        let cut = self.faults.cut_one_in > 0 && self.prng.one_in(self.faults.cut_one_in);
        if cut {
            return self.cut_cable(end.cable);
        }
        let delay = self.delay(bytes);
        let Some(lane) = self.lanes.get_mut(&end.other()) else { return };
        let at = (self.now + delay).max(lane.last);
        lane.last = at;
        lane.frames.push_back((at, frame, bytes));
        lane.bytes += bytes;
        let owner = lane.owner;
        self.arrive(at, owner, Arrival::Frames { end: end.other() });
    }

    /// The next frame that has arrived at this end.
    ///
    /// # Errors
    /// The cable is cut.
    pub fn receive(&mut self, end: End) -> Result<Option<Frame>, ()> {
        let Some(lane) = self.lanes.get_mut(&end) else { return Err(()) };
        if lane.cut {
            return Err(());
        }
        if lane.frames.front().is_none_or(|(at, ..)| *at > self.now) {
            return Ok(None);
        }
        let Some((_, frame, bytes)) = lane.frames.pop_front() else { return Ok(None) };
        lane.bytes -= bytes;
        if lane.bytes < ROOM_BYTES / 2 && std::mem::take(&mut lane.full) {
            let sender = self.lanes.get(&end.other()).map(|lane| lane.owner);
            if let Some(sender) = sender {
                self.later(sender, Arrival::Frames { end: end.other() });
            }
        }
        Ok(Some(frame))
    }

    /// Bytes that may still be sent from this end; when there are none, the end is told as soon as there are some.
    pub fn room(&mut self, end: End) -> usize {
        let Some(lane) = self.lanes.get_mut(&end.other()) else { return ROOM_BYTES };
        let room = ROOM_BYTES.saturating_sub(lane.bytes);
        lane.full |= room == 0;
        room
    }

    /// This end has no link any more: the other end is told.
    pub fn close(&mut self, end: End) {
        self.lanes.remove(&end);
        if let Some(lane) = self.lanes.get_mut(&end.other()) {
            // What was under way still arrives; then the end.
            let (owner, at) = (lane.owner, (self.now + self.faults.latency_min).max(lane.last));
            lane.cut |= lane.frames.is_empty();
            self.arrive(at, owner, Arrival::Frames { end: end.other() });
        }
    }

    /// True if the other end is gone and nothing is left to receive.
    pub fn is_over(&self, end: End) -> bool {
        !self.lanes.contains_key(&end.other())
    }

    /// Cuts all cables between two endpoints, and keeps them apart until [`Wire::join`].
    pub fn part(&mut self, one: SocketAddr, other: SocketAddr) {
        self.apart.insert((one.min(other), one.max(other)));
        let between = |lane: &Lane| lane.owner == one || lane.owner == other;
        let cables: Vec<u64> = self
            .lanes
            .iter()
            .filter(|(end, lane)| between(lane) && self.lanes.get(&end.other()).is_some_and(between))
            .map(|(end, _)| end.cable)
            .collect();
        cables.into_iter().for_each(|cable| self.cut_cable(cable));
    }

    /// They can reach each other again.
    pub fn join(&mut self, one: SocketAddr, other: SocketAddr) {
        self.apart.remove(&(one.min(other), one.max(other)));
    }

    fn are_apart(&self, one: SocketAddr, other: SocketAddr) -> bool {
        self.apart.contains(&(one.min(other), one.max(other)))
    }

    fn cut_cable(&mut self, cable: u64) {
        for dialled in [false, true] {
            let end = End { cable, dialled };
            let delay = self.delay(0);
            let Some(lane) = self.lanes.get_mut(&end) else { continue };
            (lane.cut, lane.frames) = (true, VecDeque::new());
            let owner = lane.owner;
            self.arrive(self.now + delay, owner, Arrival::Frames { end });
        }
    }

    fn delay(&mut self, bytes: usize) -> Duration {
        let Faults { latency_min, latency_max, bytes_per_second, .. } = self.faults;
        let spread = latency_max.saturating_sub(latency_min).as_nanos() as u64;
        let jitter = self.prng.below(spread + 1);
        let length = (bytes as u64).saturating_mul(1_000_000_000) / bytes_per_second.max(1);
        latency_min + Duration::from_nanos(jitter + length)
    }

    fn later(&mut self, to: SocketAddr, arrival: Arrival) {
        let delay = self.delay(0);
        self.arrive(self.now + delay, to, arrival);
    }

    fn arrive(&mut self, at: Time, to: SocketAddr, arrival: Arrival) {
        self.number += 1;
        self.arrivals.insert((at, self.number), (to, arrival));
    }
}
