//! An endpoint of a simulated network, as the network drives it.

use super::shared::{Clock, Driven, Shared};
use super::{Endpoint, Parts};
use crate::engine::{Engine, Errands};
use crate::sim::{Arrival, Wire};
use crate::{Config, Error};
use base::time::Time;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::task::Context;

/// What the network holds of an endpoint.
pub struct Simulated {
    shared: Weak<Shared>,
    address: SocketAddr,
    errands: Errands,
}

impl Endpoint {
    /// An endpoint in a simulated network, and the network's hold on it.
    pub(crate) fn simulated(config: Config, wire: Arc<Mutex<Wire>>) -> Result<(Endpoint, Simulated), Error> {
        let engine = Engine::simulated(config, wire.clone())?;
        let shared = Shared::around(engine, Driven::ByCaller, Clock::Virtual(wire))?;
        let simulated = Simulated {
            shared: Arc::downgrade(&shared),
            address: shared.address,
            errands: Errands::default(),
        };
        Ok((Endpoint { parts: Arc::new(Parts { shared }) }, simulated))
    }
}

impl Simulated {
    fn shared(&self) -> Option<Arc<Shared>> {
        self.shared.upgrade().filter(|shared| !shared.is_closed())
    }

    /// True if it listens there.
    pub fn is_at(&self, address: SocketAddr) -> bool {
        self.address == address && self.shared().is_some()
    }

    /// When its time has come for something.
    pub fn earliest(&self) -> Option<Time> {
        self.shared()?.with(|engine, _| engine.earliest())
    }

    /// Something arrives.
    pub fn arrive(&self, arrival: Arrival) {
        if let Some(shared) = self.shared() {
            shared.with(|engine, now| engine.arrive(arrival, now));
        }
    }

    /// Does what can be done now. True if there is more.
    pub fn turn(&mut self, context: &mut Context<'_>) -> bool {
        let Some(shared) = self.shared() else { return false };
        let more = shared.turn(&mut self.errands, false);
        shared.seat.work(context);
        more
    }
}
