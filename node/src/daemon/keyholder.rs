//! A daemon's endpoint, and the keys that it uses: as the key file says, also when that changes while the daemon runs.

use crate::config::{KeyRing, NodeConfig, StateDir};
use crate::error::Error;
use fabric::{Endpoint, Keys, Role};
use membership::token::Tickets;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How long links may take until they are made anew. One that takes longer is left to itself.
const RENEWED_WITHIN: Duration = Duration::from_secs(3);
/// Between two looks whether they are.
const LOOK: Duration = Duration::from_millis(2);

/// The wall clock, seconds since 1970.
pub fn wall_seconds() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}

/// An endpoint and its keys.
pub struct Keyholder {
    state: StateDir,
    endpoint: Endpoint,
    ring: Mutex<KeyRing>,
    /// Tickets of machines that may join.
    tickets: Mutex<Tickets>,
    /// The keys as the endpoint has them.
    taken: Mutex<Keys>,
}

impl Keyholder {
    /// Sets up the endpoint of one of the node's daemons, as configuration and key file say.
    ///
    /// # Errors
    /// No key, or the endpoint cannot listen.
    pub async fn start(state: &StateDir, config: &NodeConfig, role: Role) -> Result<Keyholder, Error> {
        let ring = state.key_ring()?;
        let keys = ring.keys();
        let endpoint =
            Endpoint::bind(config.daemon_endpoint(state, role, &keys)).await.map_err(Error::said)?;
        endpoint.set_keys(keys.clone());
        let tickets = Mutex::default();
        Ok(Keyholder {
            state: state.clone(),
            endpoint,
            ring: Mutex::new(ring),
            tickets,
            taken: Mutex::new(keys),
        })
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Takes the joining keys of these tickets from now on, while they are good. Answers when the next of them expires, seconds since 1970;
    /// this is to be called again then.
    pub fn admit(&self, tickets: &Tickets) -> Option<u64> {
        *self.tickets.lock().unwrap_or_else(PoisonError::into_inner) = tickets.clone();
        self.take_keys()
    }

    /// Tells the endpoint which keys are good now. While the cluster's key changes no joining key is: who came in by one would be given a key
    /// that is about to end.
    fn take_keys(&self) -> Option<u64> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (ring, now) = (self.ring(), wall_seconds());
        let tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        let joining = if ring.target().is_none() { tickets.keys(&ring.current, now) } else { Vec::new() };
        let keys = Keys { joining, ..ring.keys() };
        if *taken != keys {
            self.endpoint.set_keys(keys.clone());
            *taken = keys;
        }
        tickets.next_expiry(now)
    }

    /// What the key file said last.
    pub fn ring(&self) -> KeyRing {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the key file again and goes by it. If this node proves another key now, its links are made anew before this returns.
    ///
    /// # Errors
    /// The file cannot be read; nothing has changed then.
    pub async fn read_again(&self) -> Result<(), Error> {
        let ring = self.state.key_ring()?;
        let former =
            std::mem::replace(&mut *self.ring.lock().unwrap_or_else(PoisonError::into_inner), ring.clone());
        self.take_keys();
        if former.current != ring.current {
            self.endpoint.renew_links();
            let until = Instant::now() + RENEWED_WITHIN;
            while self.endpoint.is_renewing() && Instant::now() < until {
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }
}
