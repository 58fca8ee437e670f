//! What operators are told.

use super::Engine;
use super::remote::{LaneState, Remote};
use crate::session::{Lane, LinkId};
use crate::status::{ChannelStatus, LinkStatus, PeerStatus, RailState};
use crate::{Priority, Status};

const CHANNELS: [Priority; 4] = [Priority::Control, Priority::Lock, Priority::Meta, Priority::Data];

impl Engine {
    /// A snapshot.
    pub fn status(&self) -> Status {
        let mut peers: Vec<PeerStatus> =
            self.remotes.iter().filter_map(|(at, remote)| self.peer(at, remote)).collect();
        peers.sort_by_key(|peer| peer.peer);
        Status {
            local: self.identity.local,
            address: self.address(),
            peers,
            accepted: self.guests.iter().map(|guest| guest.links.len()).sum(),
            half_open: self.setups.half_open(),
            refused: self.gate.refused(),
        }
    }

    fn peer(&self, at: usize, remote: &Remote) -> Option<PeerStatus> {
        let links: Vec<LinkStatus> = remote
            .ways
            .iter()
            .flat_map(|way| [(way, Lane::Urgent), (way, Lane::Bulk)])
            .map(|(way, lane)| {
                let (state, link) = match way.lanes[lane as usize] {
                    LaneState::Idle => (RailState::Idle, None),
                    LaneState::Setup(_) => (RailState::Connecting, None),
                    LaneState::Rest(_) => (RailState::Failed, None),
                    LaneState::Up(link) if remote.home[lane as usize] == Some(link) => {
                        (RailState::Calls, Some(link))
                    }
                    LaneState::Up(link) if remote.best_up(lane) == Some(way.provider) => {
                        (RailState::Bulk, Some(link))
                    }
                    LaneState::Up(link) => (RailState::Standby, Some(link)),
                };
                LinkStatus {
                    provider: way.provider,
                    place: way.place.to_string(),
                    lane,
                    state,
                    traffic: link.map(|link| self.traffic(link)).unwrap_or_default(),
                }
            })
            .collect();
        let (sent, received) = links.iter().fold((0, 0), |(sent, received), link| {
            (sent + link.traffic.bytes_sent, received + link.traffic.bytes_received)
        });
        Some(PeerStatus {
            peer: remote.peer?,
            address: remote.given.first().copied(),
            connected: remote.home[Lane::Urgent as usize].is_some(),
            down: remote.down,
            in_flight: self.calls.count(at),
            calls: remote.calls,
            bytes_sent: remote.carried.bytes_sent + sent,
            bytes_received: remote.carried.bytes_received + received,
            links,
            channels: CHANNELS
                .map(|channel| ChannelStatus {
                    channel,
                    slots: remote.caller.slots_left(channel),
                    credit_kib: remote.caller.credit_left(channel),
                })
                .to_vec(),
        })
    }

    fn traffic(&self, link: LinkId) -> crate::provider::Traffic {
        self.links.at(link).and_then(|linked| linked.link()).map(|link| link.traffic()).unwrap_or_default()
    }
}
