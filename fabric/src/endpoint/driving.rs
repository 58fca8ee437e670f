//! The task that drives an endpoint on a runtime.

use super::shared::Shared;
use crate::engine::Errands;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Turns that follow each other before other tasks of the runtime have their turn.
const TURNS_MAX: usize = 16;

/// Drives until the endpoint closes.
pub async fn drive(shared: Arc<Shared>) {
    // Held to the end: `Endpoint::close` waits until nobody listens any more.
    let closing = shared.closing();
    #[expect(
        deprecated,
        reason = "the other one is unsafe, for descriptors that may be closed; an OwnedFd is not"
    )]
    let descriptor = shared.descriptor().and_then(|set| AsyncFd::with_interest(set, Interest::READABLE));
    let descriptor = match descriptor {
        Ok(descriptor) => descriptor,
        Err(error) => {
            tracing::error!(%error, "the endpoint cannot be driven; it closes");
            return shared.shut();
        }
    };
    let mut errands = Errands::default();
    while !shared.is_closed() {
        let mut turns = 0;
        while shared.turn(&mut errands, false) && turns < TURNS_MAX {
            turns += 1;
        }
        match shared.rest() {
            Some(Duration::ZERO) => tokio::task::yield_now().await,
            rest => sleep(&shared, &descriptor, rest).await,
        }
    }
    drop(closing);
}

async fn sleep(shared: &Shared, descriptor: &AsyncFd<std::os::fd::OwnedFd>, rest: Option<Duration>) {
    let alarm = async {
        match rest {
            Some(rest) => tokio::time::sleep(rest).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ready = descriptor.readable() => {
            // What becomes ready from here on makes it ready again; what is ready now is seen by the next turn.
            if let Ok(mut ready) = ready {
                ready.clear_ready();
            }
        }
        () = shared.nudge.notified() => {}
        () = alarm => {}
    }
}
