//! A daemon's endpoint, and the keys that it uses: as the key file says, also when that changes while the daemon runs.

use crate::config::{KeyRing, NodeConfig, StateDir};
use crate::error::Error;
use fabric::{Endpoint, Role};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long links may take until they are made anew. One that takes longer is left to itself.
const RENEWED_WITHIN: Duration = Duration::from_secs(3);
/// Between two looks whether they are.
const LOOK: Duration = Duration::from_millis(2);

/// An endpoint and its keys.
pub struct Keyholder {
    state: StateDir,
    endpoint: Endpoint,
    ring: Mutex<KeyRing>,
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
        endpoint.set_keys(keys);
        Ok(Keyholder { state: state.clone(), endpoint, ring: Mutex::new(ring) })
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
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
        let keys = ring.keys();
        let former =
            std::mem::replace(&mut *self.ring.lock().unwrap_or_else(PoisonError::into_inner), ring.clone());
        self.endpoint.set_keys(keys);
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
