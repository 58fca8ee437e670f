//! `ssi fabric status`: the endpoints of a node's two daemons.
//!
//! Counters come from the daemons; rates are made here, from one answer (since the daemon's start) or from two.

use crate::Error;
use crate::verb::{Outcome, human, print_json, print_table};
use admin::Place;
use admin::wire::{Answer, Ask, Fabric, FabricPeer, FabricRail};
use clap::Args;
use rustix::event::{Timespec, poll};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Show the links of this node's daemons.
#[derive(Debug, Args)]
pub struct Status {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Measure the rates over so many seconds [default: since each daemon's start].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..))]
    interval: Option<u16>,
}

/// One daemon: now, and when the rates' time began.
struct Sample {
    now: Fabric,
    before: Fabric,
}

impl Status {
    /// Asks and prints.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let place = Place::find(dir)?;
        let former = match self.interval {
            None => Vec::new(),
            Some(seconds) => {
                let former = ask(&place)?.0;
                let pause = Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
                poll(&mut [], Some(&pause)).map_err(Error::step("wait between two samples"))?;
                former
            }
        };
        let (daemons, silent) = ask(&place)?;
        let samples: Vec<Sample> = daemons.into_iter().map(|now| Sample::new(now, &former)).collect();
        if self.json {
            print_json(&as_json(&samples, &silent))?;
        } else {
            for (at, sample) in samples.iter().enumerate() {
                if at > 0 {
                    println!();
                }
                sample.print();
            }
        }
        silent.iter().for_each(|why| eprintln!("ssi: {why}"));
        Ok(u8::from(!silent.is_empty()))
    }
}

/// What the two daemons answer; and why one does not.
fn ask(place: &Place) -> Result<(Vec<Fabric>, Vec<String>), Error> {
    let (mut daemons, mut silent) = (Vec::new(), Vec::new());
    let answers = [place.ask(Ask::Fabric(())), place.ask_data(Ask::Fabric(()))];
    let mut first = None;
    for answer in answers {
        match answer {
            Ok(Answer { fabric, .. }) => daemons.extend(fabric),
            Err(error) => {
                silent.push(error.to_string());
                first = first.or(Some(error));
            }
        }
    }
    match first {
        Some(error) if daemons.is_empty() => Err(error.into()),
        _ => Ok((daemons, silent)),
    }
}

/// Bytes a second.
fn rate(now: u64, before: u64, us: u64) -> u64 {
    let bytes = u128::from(now.saturating_sub(before));
    u64::try_from(bytes * 1_000_000 / u128::from(us.max(1))).unwrap_or(u64::MAX)
}

impl Sample {
    /// A daemon and its former answer; one that has begun anew since, or of which there is none, is measured from its start on.
    fn new(now: Fabric, former: &[Fabric]) -> Sample {
        let same = |before: &&Fabric| before.daemon == now.daemon && before.age_us <= now.age_us;
        let before = former.iter().find(same).cloned().unwrap_or_default();
        Sample { now, before }
    }

    fn us(&self) -> u64 {
        self.now.age_us - self.before.age_us
    }

    /// Bytes a second to and from a peer.
    fn rates(&self, peer: &FabricPeer) -> (u64, u64) {
        let before =
            self.before.peers.iter().find(|before| before.peer == peer.peer).cloned().unwrap_or_default();
        (rate(peer.sent, before.sent, self.us()), rate(peer.received, before.received, self.us()))
    }

    fn rail_rates(&self, peer: &FabricPeer, rail: &FabricRail) -> (u64, u64) {
        let same = |before: &&FabricRail| {
            (&before.place, &before.lane) == (&rail.place, &rail.lane)
                && before.frames_sent <= rail.frames_sent
        };
        let peer = self.before.peers.iter().find(|before| before.peer == peer.peer);
        let before = peer.and_then(|peer| peer.rails.iter().find(same)).cloned().unwrap_or_default();
        (rate(rail.sent, before.sent, self.us()), rate(rail.received, before.received, self.us()))
    }

    fn print(&self) {
        let Fabric { node, daemon, address, accepted, half_open, .. } = &self.now;
        println!(
            "node {node} {daemon} at {address}: {accepted} links of others, {half_open} more not proved yet; rates over {:.1} s",
            self.us() as f64 / 1e6
        );
        let peers: Vec<Vec<String>> = self.now.peers.iter().map(|peer| self.peer_row(peer)).collect();
        let head = ["PEER", "ADDRESS", "STATE", "IN FLIGHT", "CALLS", "SENT", "RECEIVED", "OUT/S", "IN/S"];
        print_table(&[&head[..], &["CONTROL", "LOCK", "META", "DATA"]].concat(), &peers);
        let rails = self
            .now
            .peers
            .iter()
            .flat_map(|peer| peer.rails.iter().map(move |rail| self.rail_row(peer, rail)));
        let rails: Vec<Vec<String>> = rails.collect();
        if !rails.is_empty() {
            print_table(
                &[
                    "RAIL TO",
                    "PROVIDER",
                    "LANE",
                    "STATE",
                    "FRAMES OUT",
                    "FRAMES IN",
                    "OUT/S",
                    "IN/S",
                    "PLACE",
                ],
                &rails,
            );
        }
        for refused in self.now.refused.iter().filter(|refused| refused.count > 0) {
            println!("refused: {} ({})", refused.count, refused.cause);
        }
    }

    fn peer_row(&self, peer: &FabricPeer) -> Vec<String> {
        let (out, into) = self.rates(peer);
        let mut row = vec![
            peer.peer.clone(),
            peer.address.clone(),
            peer.state.clone(),
            peer.in_flight.to_string(),
            peer.calls.to_string(),
            human(peer.sent),
            human(peer.received),
            human(out),
            human(into),
        ];
        row.extend(
            peer.channels
                .iter()
                .map(|channel| format!("{} + {}", channel.slots, human(u64::from(channel.credit_kib) << 10))),
        );
        // Of each of the four channels there is a column, whatever an older daemon knows.
        row.resize(13, String::new());
        row
    }

    fn rail_row(&self, peer: &FabricPeer, rail: &FabricRail) -> Vec<String> {
        let (out, into) = self.rail_rates(peer, rail);
        vec![
            peer.peer.clone(),
            rail.provider.clone(),
            rail.lane.clone(),
            rail.state.clone(),
            rail.frames_sent.to_string(),
            rail.frames_received.to_string(),
            human(out),
            human(into),
            rail.place.clone(),
        ]
    }

    fn as_json(&self) -> Value {
        let refused: Map<String, Value> =
            self.now.refused.iter().map(|refused| (refused.cause.clone(), refused.count.into())).collect();
        json!({
            "node": self.now.node, "daemon": self.now.daemon, "address": self.now.address, "age_us": self.now.age_us,
            "rates_over_us": self.us(), "accepted": self.now.accepted, "half_open": self.now.half_open, "refused": refused,
            "peers": self.now.peers.iter().map(|peer| self.peer_json(peer)).collect::<Vec<_>>(),
        })
    }

    fn peer_json(&self, peer: &FabricPeer) -> Value {
        let (out, into) = self.rates(peer);
        let rails = peer.rails.iter().map(|rail| {
            let (out, into) = self.rail_rates(peer, rail);
            json!({"provider": rail.provider, "place": rail.place, "lane": rail.lane, "state": rail.state,
                "sent": rail.sent, "received": rail.received, "frames_sent": rail.frames_sent,
                "frames_received": rail.frames_received, "out_per_s": out, "in_per_s": into})
        });
        let credits = peer.channels.iter().map(|channel| {
            (channel.channel.clone(), json!({"slots": channel.slots, "kib": channel.credit_kib}))
        });
        json!({
            "peer": peer.peer, "address": peer.address, "state": peer.state, "in_flight": peer.in_flight, "calls": peer.calls,
            "sent": peer.sent, "received": peer.received, "out_per_s": out, "in_per_s": into,
            "rails": rails.collect::<Vec<_>>(), "credits": credits.collect::<Map<_, _>>(),
        })
    }
}

fn as_json(samples: &[Sample], silent: &[String]) -> Value {
    let mut refused = Map::new();
    for one in samples.iter().flat_map(|sample| &sample.now.refused) {
        let before = refused.get(&one.cause).and_then(Value::as_u64).unwrap_or(0);
        refused.insert(one.cause.clone(), (before + one.count).into());
    }
    let daemons: Vec<Value> = samples.iter().map(Sample::as_json).collect();
    json!({"daemons": daemons, "refused": refused, "silent": silent})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon(age_us: u64, sent: u64) -> Fabric {
        let peer = FabricPeer { peer: "node 2".into(), sent, ..FabricPeer::default() };
        Fabric { daemon: "ssid".into(), age_us, peers: vec![peer], ..Fabric::default() }
    }

    #[test]
    fn a_rate_is_the_growth_of_a_counter_over_the_time_between_two_answers() {
        let sample = Sample::new(daemon(3_000_000, 5_000), &[daemon(1_000_000, 1_000)]);
        assert_eq!(sample.rates(&sample.now.peers[0]), (2_000, 0));
    }

    #[test]
    fn a_daemon_that_began_anew_is_measured_from_its_start() {
        let sample = Sample::new(daemon(500_000, 5_000), &[daemon(1_000_000, 9_000)]);
        assert_eq!(sample.rates(&sample.now.peers[0]), (10_000, 0));
    }
}
