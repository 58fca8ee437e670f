//! What links receive: urgent ones whenever they are looked at, bulk ones a bounded amount in one turn.
//!
//! Invariant: a link whose descriptor was reported as ready is either received from until it has no more, or stands in the list of those
//! to be looked at again.

use super::inlet::{Replies, Requests};
use super::links::{Linked, Side};
use super::recents::Recents;
use super::{Arrived, Engine};
use crate::provider::LinkError;
use crate::session::{Lane, LinkId, Start};
use base::time::Time;

impl Engine {
    /// Takes in what a link has received.
    pub(super) fn receive(&mut self, id: LinkId, now: Time) -> bool {
        let Some((mut link, side, lane)) = self.links.take(id) else { return false };
        let full = link.room() == 0;
        let most = if lane == Lane::Bulk { self.links.quantum() as usize } else { usize::MAX };
        let (mut spoke, mut goodbye) = (false, false);
        let outcome = match side {
            Side::Out(at) => {
                let remote = &mut self.remotes[at];
                let mut inlet = Replies {
                    link: id,
                    caller: &mut remote.caller,
                    initiator: &mut remote.initiator,
                    completed: &mut self.completed,
                    spoke: &mut spoke,
                    goodbye: &mut goodbye,
                };
                link.receive(&mut self.reactor, &mut inlet, most)
            }
            Side::In(at) => match self.guests.at(at) {
                Some(guest) => {
                    let mut inlet = Requests {
                        link: id,
                        callee: &mut guest.callee,
                        target: &mut guest.target,
                        regions: &mut self.regions,
                        starts: &mut self.starts,
                        spoke: &mut spoke,
                        goodbye: &mut goodbye,
                    };
                    link.receive(&mut self.reactor, &mut inlet, most)
                }
                None => Ok(false),
            },
        };
        if spoke {
            self.links.moved(id, &*link);
        }
        let drained = full && link.room() > 0;
        self.links.give_back(id, link);
        if drained {
            self.links.mark(id);
        }
        if spoke {
            self.links.recent.remember(id);
            self.heard(id, side, lane);
        }
        self.links.disarm(id);
        match outcome {
            _ if goodbye => {
                self.link_lost(id, &LinkError::from(std::io::Error::other("the other end closed")), now)
            }
            Ok(true) => self.links.look_again(id),
            Ok(false) => {}
            Err(error) => self.link_lost(id, &error, now),
        }
        spoke
    }

    /// Carries out what the cores made of it.
    fn heard(&mut self, id: LinkId, side: Side, lane: Lane) {
        match side {
            Side::Out(at) => {
                self.settle_replies(at);
                // What a reply made room for goes on the home link, or on any that carries, not on the one the reply came by.
                let remote = &self.remotes[at];
                if let Some(home) = remote.home[lane as usize].filter(|home| *home != id) {
                    self.links.mark(home);
                }
                if lane == Lane::Bulk && remote.initiator.has_next() {
                    self.mark_carrying(at, lane);
                }
            }
            Side::In(at) => {
                let Some(guest) = self.guests.at(at) else { return };
                let (life, from) = (guest.life, guest.peer);
                while let Some(stuck) = guest.target.given_up() {
                    self.links.lose(stuck);
                }
                for Start { turn, service, message, .. } in self.starts.drain(..) {
                    self.errands.inbox.push(Arrived { guest: at, life, turn, from, service, message });
                }
                self.share_reads(at);
            }
        }
        self.links.mark(id);
    }

    /// Receives from the links that are ready or had more than one receive takes: once from every urgent one, then from bulk ones while
    /// the turn's amount lasts. True if some still have more.
    pub(super) fn receive_ready(&mut self, now: Time) -> bool {
        for _ in 0..self.links.count_again(Lane::Urgent) {
            let Some(id) = self.links.next_again(Lane::Urgent) else { break };
            self.receive(id, now);
        }
        for _ in 0..self.links.count_again(Lane::Bulk) {
            if self.links.may_receive() == 0 {
                break;
            }
            let Some(id) = self.links.next_again(Lane::Bulk) else { break };
            self.receive(id, now);
        }
        self.links.are_busy()
    }

    /// Looks at the links that spoke last, urgent ones first. True if one of them speaks again.
    pub(super) fn receive_recent(&mut self, now: Time) -> bool {
        let mut spoke = false;
        for lane in [Lane::Urgent, Lane::Bulk] {
            for at in 0..Recents::MAX {
                let Some(id) = self.links.recent.at(at) else { break };
                if lane == Lane::Bulk && self.links.may_receive() == 0 {
                    // A full turn comes next; it looks at all.
                    return true;
                }
                let worth = |linked: &Linked| linked.lane == lane && linked.may_have_spoken();
                spoke |= self.links.at(id).is_some_and(worth) && self.receive(id, now);
            }
        }
        self.links.recent.looked();
        spoke
    }

    /// Has the links that spoke last looked at again in this turn, if what comes on them makes no descriptor ready.
    pub(super) fn note_silent(&mut self) {
        for at in 0..Recents::MAX {
            let Some(id) = self.links.recent.at(at) else { break };
            if self.links.at(id).is_some_and(|linked| linked.is_silent() && linked.may_have_spoken()) {
                self.links.look_again(id);
            }
        }
        self.links.recent.looked();
    }
}
