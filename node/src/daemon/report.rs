//! What a daemon tells operators about its endpoint: the fabric's snapshot in the words of the admin protocol.

use admin::wire::{Fabric, FabricChannel, FabricPeer, FabricRail, Refused};
use fabric::session::Lane;
use fabric::{ChannelStatus, Endpoint, LinkStatus, PeerStatus, Priority, RailState, Refusals, Role};
use std::time::Instant;

/// A snapshot of `endpoint`, whose daemon began at `began`.
pub fn fabric(endpoint: &Endpoint, began: Instant) -> Fabric {
    let status = endpoint.status();
    let daemon = match status.local.role {
        Role::Control => "ssid",
        Role::Data => "ssid-data",
    };
    Fabric {
        node: status.local.node.0,
        daemon: daemon.into(),
        address: status.address.to_string(),
        age_us: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
        peers: status.peers.iter().map(peer).collect(),
        accepted: status.accepted as u64,
        half_open: status.half_open as u64,
        refused: refused(status.refused),
    }
}

fn peer(peer: &PeerStatus) -> FabricPeer {
    FabricPeer {
        peer: peer.peer.to_string(),
        address: peer.address.map(|address| address.to_string()).unwrap_or_default(),
        state: state(peer).into(),
        in_flight: peer.in_flight as u64,
        calls: peer.calls,
        sent: peer.bytes_sent,
        received: peer.bytes_received,
        rails: peer.links.iter().map(rail).collect(),
        channels: peer.channels.iter().map(channel).collect(),
    }
}

/// The best that can be said of a peer's lanes.
fn state(peer: &PeerStatus) -> &'static str {
    let any = |states: &[RailState]| peer.links.iter().any(|link| states.contains(&link.state));
    if peer.down {
        "declared down"
    } else if any(&[RailState::Calls, RailState::Bulk, RailState::Standby]) {
        "up"
    } else if any(&[RailState::Connecting]) {
        "connecting"
    } else if any(&[RailState::Failed]) {
        "not reached"
    } else {
        "idle"
    }
}

fn rail(link: &LinkStatus) -> FabricRail {
    let lane = match link.lane {
        Lane::Urgent => "urgent",
        Lane::Bulk => "bulk",
    };
    let state = match link.state {
        RailState::Idle => "idle",
        RailState::Connecting => "connecting",
        RailState::Failed => "failed",
        RailState::Standby => "standby",
        RailState::Bulk => "bulk",
        RailState::Calls => "calls",
    };
    FabricRail {
        provider: link.provider.to_string(),
        place: link.place.clone(),
        lane: lane.into(),
        state: state.into(),
        sent: link.traffic.bytes_sent,
        received: link.traffic.bytes_received,
        frames_sent: link.traffic.frames_sent,
        frames_received: link.traffic.frames_received,
    }
}

fn channel(status: &ChannelStatus) -> FabricChannel {
    let channel = match status.channel {
        Priority::Control => "control",
        Priority::Lock => "lock",
        Priority::Meta => "meta",
        Priority::Data => "data",
    };
    FabricChannel { channel: channel.into(), slots: status.slots.into(), credit_kib: status.credit_kib }
}

fn refused(refusals: Refusals) -> Vec<Refused> {
    let Refusals { stranger, wrong_key, wrong_cluster, version, garbage, too_slow, crowded } = refusals;
    let causes = [
        ("stranger", stranger),
        ("wrong key", wrong_key),
        ("wrong cluster", wrong_cluster),
        ("version", version),
        ("garbage", garbage),
        ("too slow", too_slow),
        ("crowded", crowded),
    ];
    causes.into_iter().map(|(cause, count)| Refused { cause: cause.into(), count }).collect()
}
