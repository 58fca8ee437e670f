//! The thread that tells the core the time: deadlines of requests, confirmations, messages that are late.
//!
//! Invariant: it sleeps while nothing is due, and ends with the last handle.

use super::Shared;
use crate::error::Error;
use parking_lot::{Condvar, Mutex};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// It looks whether there is anybody left so often.
const REST_MAX: Duration = Duration::from_secs(1);

/// Where the thread sleeps.
#[derive(Default)]
pub struct Timer {
    is_woken: Mutex<bool>,
    bell: Condvar,
}

impl Timer {
    /// It must look now.
    pub fn wake(&self) {
        *self.is_woken.lock() = true;
        self.bell.notify_one();
    }

    fn sleep(&self, rest: Duration) {
        let mut is_woken = self.is_woken.lock();
        if !*is_woken {
            self.bell.wait_for(&mut is_woken, rest);
        }
        *is_woken = false;
    }
}

/// Starts the thread.
///
/// # Errors
/// [`Error::Thread`].
pub fn start(shared: &Arc<Shared>) -> Result<(), Error> {
    let weak = Arc::downgrade(shared);
    let run = move || {
        while let Some(shared) = Weak::upgrade(&weak) {
            let next = shared.tick();
            let rest = next.map_or(REST_MAX, |next| next.since(shared.now()).min(REST_MAX));
            shared.timer.sleep(rest);
        }
    };
    std::thread::Builder::new().name("ssi-locks".into()).spawn(run).map(drop).map_err(Error::Thread)
}
