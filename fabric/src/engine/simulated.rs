//! An engine on a simulated network: it dials and is dialled there instead of over sockets. All else is as on a real one.

use super::links::Side;
use super::remote::Place;
use super::setups::{Phase, Proved, Setup, SetupError, Whose};
use super::{Alarm, Engine, Entry};
use crate::provider::Provider;
use crate::session::Lane;
use crate::setup::{Dialled, Open, RecordKeys, VERSION_MAX, Welcome};
use crate::sim::{Arrival, End, SimLink, Wire};
use crate::{Config, Error, Peer};
use base::time::Time;
use parking_lot::Mutex;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// Where an engine is in a simulated network.
pub struct Simulated {
    /// The network.
    pub wire: Arc<Mutex<Wire>>,
    /// Its address there.
    pub address: SocketAddr,
}

impl Engine {
    /// An engine in a simulated network, at the address where it is told to listen.
    ///
    /// # Errors
    /// The system gives no descriptors.
    pub fn simulated(config: Config, wire: Arc<Mutex<Wire>>) -> Result<Engine, Error> {
        let address = config.listen;
        let config = Config { providers: vec![Provider::Sim], ..config };
        let mut engine = Engine::unheard(config)?;
        engine.simulated = Some(Simulated { wire, address });
        Ok(engine)
    }

    /// What carries a link to an address.
    pub(super) fn inet_provider(&self) -> Provider {
        if self.simulated.is_some() { Provider::Sim } else { Provider::Tcp }
    }

    /// Dials in the simulated network. False if it is not there.
    pub(super) fn dial_simulated(&mut self, at: usize, number: u64, now: Time) -> bool {
        let Ok(terms) = self.terms(at, number) else { return false };
        let Some(Simulated { wire, address }) = &self.simulated else { return false };
        let Some((way, _)) = self.remotes[at].way_of_setup(number) else { return false };
        if let Place::Inet(to) = self.remotes[at].ways[way].place {
            wire.lock().dial(*address, self.identity.local, to, number, terms);
            self.timers.set(now + self.limits.connect, Alarm::Setup(number));
        }
        true
    }

    /// A dialled setup of the simulated network has had its time.
    pub(super) fn simulated_is_late(&mut self, number: u64, now: Time) {
        if let Some(at) = self.remote_of_setup(number) {
            self.dial_failed(at, number, SetupError::Io(io::Error::from(io::ErrorKind::TimedOut)), now);
        }
    }

    fn remote_of_setup(&mut self, number: u64) -> Option<usize> {
        self.remotes.iter_mut().find_map(|(at, remote)| remote.way_of_setup(number).map(|_| at))
    }

    /// Something arrives from the simulated network.
    pub fn arrive(&mut self, arrival: Arrival, now: Time) {
        match arrival {
            Arrival::Dialled { from, peer, setup, open } => self.dialled_by(from, peer, setup, &open),
            Arrival::Welcomed { setup, peer, welcome, end } => {
                self.welcomed_by(setup, peer, welcome, end, now)
            }
            Arrival::Refused { setup } => {
                if let Some(at) = self.remote_of_setup(setup) {
                    let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
                    self.dial_failed(at, setup, SetupError::Io(refused), now);
                }
            }
            Arrival::Frames { .. } => self.links.all_again(),
        }
    }

    fn dialled_by(&mut self, from: SocketAddr, peer: Peer, setup: u64, open: &Open) {
        let welcome = self.granted(peer, open);
        let Some(Simulated { wire, address }) = &self.simulated else { return };
        let (wire, address) = (wire.clone(), *address);
        let end = wire.lock().welcome(from, address, setup, self.identity.local, welcome);
        let Some(guest) = self.guests.known(peer, open.session) else { return };
        let lane = if open.lane == 0 { Lane::Urgent } else { Lane::Bulk };
        let token = self.token(Entry::Setup(0));
        let id = self.links.insert(Box::new(SimLink::new(wire, end)), Side::In(guest), lane, token);
        self.entries[token.0 as usize] = Entry::Link(id);
        self.guest_linked(guest, id);
    }

    fn welcomed_by(&mut self, number: u64, peer: Peer, welcome: Welcome, end: End, now: Time) {
        let Some(wire) = self.simulated.as_ref().map(|simulated| simulated.wire.clone()) else { return };
        let link = SimLink::new(wire, end);
        // Otherwise it was late, and given up: the link is dropped.
        let Some(at) = self.remote_of_setup(number) else { return };
        let Some((_, lane)) = self.remotes[at].way_of_setup(number) else { return };
        let token = self.token(Entry::Setup(number));
        let setup = Setup {
            number,
            token,
            stream: None,
            late: now,
            phase: Phase::Connecting,
            whose: Whose::Ours { remote: at },
            input: Vec::new(),
            output: Vec::new(),
            ended: false,
        };
        let keys = RecordKeys { send: [0; 32], receive: [0; 32] };
        let proved = Proved::Dialled(Dialled { peer, version: VERSION_MAX, welcome, keys });
        match self.check(&setup, &proved) {
            Ok(()) => self.linked(setup, Box::new(link), proved, lane, now),
            Err(error) => {
                drop(link);
                self.setup_failed(setup, error, now);
            }
        }
    }
}
