//! Links are made anew, one for each that is up: so that after a change of the key none stands that the old one opened.
//!
//! ```text
//!  lane up over the old link --renew--> setup beside it --linked--> lane up over the new link; what was under way on the old one goes again
//!                                            \--failed--> the old link stays
//! ```
//!
//! Invariant: a lane that is up stays up; no call is lost, for its session goes on.

use super::Engine;
use super::remote::{LaneState, Remote};
use super::setups::{Phase, Whose};
use crate::session::{Lane, LinkId};
use crate::setup::Keys;
use base::time::Time;

impl Engine {
    /// Changes the keys: links that are up stay, new ones use them. What is being dialled begins again, so that the former key is proved
    /// to nobody after this.
    pub fn set_keys(&mut self, keys: Keys, now: Time) {
        let changed = keys.current != self.identity.keys.current;
        self.identity.keys = keys;
        if !changed {
            return;
        }
        for number in self.setups.numbers() {
            let Some(setup) = self.setups.take(number) else { continue };
            match (&setup.phase, &setup.whose) {
                (Phase::Dialling(_), Whose::Ours { remote }) => {
                    let at = *remote;
                    self.close_setup(setup);
                    self.connect_setup(at, number, now);
                }
                _ => self.setups.insert(setup),
            }
        }
    }

    /// Begins to make every link of this end anew.
    pub fn renew_links(&mut self, now: Time) {
        let remotes: Vec<usize> = self.remotes.iter().map(|(at, _)| at).collect();
        for at in remotes {
            for way in 0..self.remotes.get(at).map_or(0, |remote| remote.ways.len()) {
                for lane in [Lane::Urgent, Lane::Bulk] {
                    self.renew(at, way, lane, now);
                }
            }
        }
    }

    fn renew(&mut self, at: usize, way: usize, lane: Lane, now: Time) {
        let number = self.setups.number();
        let Some(way) = self.remotes.get_mut(at).and_then(|remote| remote.ways.get_mut(way)) else { return };
        if matches!(way.lanes[lane as usize], LaneState::Up(_)) && way.renewals[lane as usize].is_none() {
            way.renewals[lane as usize] = Some(number);
            self.connect_setup(at, number, now);
        }
    }

    /// True if links are being made anew.
    pub fn is_renewing(&self) -> bool {
        self.remotes
            .iter()
            .any(|(_, remote)| remote.ways.iter().any(|way| way.renewals.iter().any(Option::is_some)))
    }

    /// A lane's new link is up: its old one has done its work.
    pub(super) fn retire(&mut self, at: usize, old: LinkId) {
        let remote = &mut self.remotes[at];
        remote.caller.link_lost(old);
        remote.initiator.link_lost(old);
        remote.links.retain(|link| *link != old);
        remote.settle_homes();
        self.drop_link(old, true);
    }
}

impl Remote {
    /// A setup that was to renew a lane has failed: true if it was one, and the lane is as it was.
    pub(super) fn renewal_failed(&mut self, setup: u64) -> bool {
        let renewals = self.ways.iter_mut().flat_map(|way| &mut way.renewals);
        let mut found = false;
        for renewal in renewals.filter(|renewal| **renewal == Some(setup)) {
            (*renewal, found) = (None, true);
        }
        found
    }

    /// The setups under way to it.
    pub(super) fn setups(&self) -> Vec<u64> {
        let lanes = self.ways.iter().flat_map(|way| way.lanes).filter_map(|lane| match lane {
            LaneState::Setup(number) => Some(number),
            _ => None,
        });
        lanes.chain(self.ways.iter().flat_map(|way| way.renewals).flatten()).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        ClusterKey, Config, Endpoint, Keys, LinkEvent, Message, Peer, Priority, Reply, Rights, Role, Service,
        ServiceId,
    };
    use base::NodeId;
    use bytes::Bytes;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    const SERVICE: ServiceId = ServiceId(77);
    const DEADLINE: Duration = Duration::from_secs(20);

    /// Counts what it is asked, and answers after a while.
    #[derive(Default)]
    struct Counting(AtomicU64);

    impl Service for Counting {
        fn handle(self: Arc<Self>, _: Peer, request: Message) -> Reply {
            self.0.fetch_add(1, Ordering::Relaxed);
            Reply::later(async move {
                tokio::task::yield_now().await;
                request
            })
        }
    }

    fn key(byte: u8) -> ClusterKey {
        ClusterKey::from_bytes([byte; 32])
    }

    async fn endpoint(node: u32, byte: u8) -> Endpoint {
        let local = Peer { node: NodeId(node), role: Role::Control };
        Endpoint::bind(Config::new(local, "127.0.0.1:0".parse().unwrap(), key(byte), "blue")).await.unwrap()
    }

    async fn settled(endpoint: &Endpoint) {
        while endpoint.is_renewing() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn links_are_made_anew_under_calls_and_transfers_and_none_is_lost_or_doubled() {
        let (caller, server) = (endpoint(1, 1).await, endpoint(2, 1).await);
        let counting = Arc::new(Counting::default());
        server.serve(SERVICE, counting.clone());
        caller.set_address(server.local(), server.address());
        let mut events = caller.links();
        let work = async {
            let region = server.register(1 << 20).unwrap();
            let from = caller.register(1 << 20).unwrap();
            let key = region.grant(caller.local(), Rights::ALL).unwrap();
            for n in 0..200u64 {
                let bulk = Bytes::from(vec![n as u8; 100_000]);
                let request = Message { head: Bytes::copy_from_slice(&n.to_le_bytes()), bulk };
                for priority in [Priority::Control, Priority::Data] {
                    let reply =
                        caller.call(server.local(), SERVICE, priority, request.clone(), DEADLINE).await;
                    assert_eq!(reply.unwrap(), request);
                }
                caller.write(&key, 0, &[from.span()], DEADLINE).await.unwrap();
            }
        };
        let renewing = async {
            for round in 2..u8::MAX {
                let former = key(round - 1);
                server.set_keys(Keys {
                    current: former.clone(),
                    also: vec![key(round)],
                    joining: Vec::new(),
                });
                caller.set_keys(Keys { current: key(round), also: vec![former], joining: Vec::new() });
                caller.renew_links();
                settled(&caller).await;
                server.set_keys(Keys::one(key(round)));
                tokio::task::yield_now().await;
            }
            // The work has to end before this does.
            std::future::pending::<()>().await
        };
        tokio::select! {
            () = work => {}
            () = renewing => {}
        }
        settled(&caller).await;
        assert_eq!(counting.0.load(Ordering::Relaxed), 400);
        let mut told = Vec::new();
        while let Ok(event) = events.try_recv() {
            told.push(event);
        }
        assert_eq!(told, [LinkEvent::Connected(server.local())], "the link was never down");
    }

    #[tokio::test]
    async fn a_link_that_cannot_be_made_anew_stays() {
        let (caller, server) = (endpoint(1, 1).await, endpoint(2, 1).await);
        server.serve(SERVICE, Arc::new(Counting::default()));
        caller.set_address(server.local(), server.address());
        let ask = || caller.call(server.local(), SERVICE, Priority::Lock, Message::default(), DEADLINE);
        ask().await.unwrap();
        caller.set_keys(Keys::one(key(9)));
        caller.renew_links();
        settled(&caller).await;
        assert_eq!(server.status().refused.wrong_key, 1);
        ask().await.unwrap();
    }
}
