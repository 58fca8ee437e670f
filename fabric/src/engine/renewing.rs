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
