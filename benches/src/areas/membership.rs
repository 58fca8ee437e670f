//! Who is in the cluster: how soon every node knows that a daemon, a node or the master is gone; beside corosync.
//!
//! Every node that is asked is followed over one connection that tells each view as the node learns it; a run is timed from
//! just before the signal (or `ip link set down`) to the moment at which the last of them told it. Nothing is polled.

mod field;
mod ring;

use crate::Error;
use field::Field;
use ring::Ring;
use ssi_benches::blocks::quantile;
use ssi_benches::{Blocks, Figure, Spread, Target, Unit, alternate};
use ssi_tests::faults::Load;
use std::time::Duration;

/// Turns of ours and the peer's.
const TURNS: usize = 6;
/// Runs of ours in one turn; the peer, which takes ten times as long, has one.
const RUNS: usize = 4;
/// Runs where there is no peer.
const RUNS_ALONE: usize = 24;
/// Runs with many nodes.
const RUNS_MANY: usize = 8;
/// How long the cores are kept busy.
const BUSY: Duration = Duration::from_secs(60);
/// How long the idle cluster is looked at.
const IDLE: Duration = Duration::from_secs(10);

const SECOND: f64 = 1e6;
const PEER: &str = "corosync";

/// Measures and prints all figures whose names contain `part`.
pub fn run(part: &str) -> Result<(), Error> {
    println!(
        "# p99 of all runs (of fewer than 100 that is nearly the greatest), with the least and the greatest; every third victim is \
         the master; the link is cut with `ip link set down`"
    );
    beside_corosync(part)?;
    for (nodes, runs) in [(3, RUNS_ALONE), (32, RUNS_MANY)] {
        alone(part, nodes, runs)?;
    }
    Ok(())
}

/// Ends of nodes in a cluster of three, ours and the peer's by turns.
fn beside_corosync(part: &str) -> Result<(), Error> {
    let kinds: Vec<End> =
        [End::Killed, End::Cut].into_iter().filter(|end| end.figure(3).contains(part)).collect();
    if kinds.is_empty() {
        return Ok(());
    }
    let mut field = Field::start(3)?;
    let mut ring = Ring::start(3)?;
    println!(
        "# peer: {}, 3 nodes in namespaces, the Debian package's default configuration:\n{}",
        ring.shown(),
        ring.config()
    );
    for end in kinds {
        let (mut victims, mut theirs) = ((1..=3).cycle(), (1..=3).cycle());
        let ours = || victims.by_ref().take(RUNS).map(|victim| end.ours(&mut field, victim)).collect();
        let peer = || theirs.by_ref().take(1).map(|victim| end.peer(&mut ring, victim)).collect();
        let blocks: Blocks<Vec<f64>> = alternate(TURNS, ours, peer)?;
        let ours = tail(&blocks.ours.concat())?;
        let name = end.figure(3);
        print(&Figure {
            name: name.clone(),
            ours,
            peer: Some((PEER.into(), tail(&blocks.peer.concat())?)),
            unit: Unit::Micros,
            target: Target::AtMost(0.3),
        });
        print(&limited(&format!("{name}.itself"), ours, Target::Limit(SECOND)));
    }
    Ok(())
}

/// What has no peer.
fn alone(part: &str, nodes: u32, runs: usize) -> Result<(), Error> {
    let stalled = format!("membership.daemon_killed.{nodes}.p99");
    let serves = format!("membership.master_killed.{nodes}.p99");
    let alarms = format!("membership.busy.{nodes}.false_alarms");
    let idle = ["cores", "memory"].map(|what| format!("membership.idle.{nodes}.{what}"));
    // With three nodes these stand beside the peer.
    let ends: Vec<End> = [End::Killed, End::Cut].into_iter().filter(|_| nodes > 3).collect();
    let names = [&stalled, &serves, &alarms].into_iter().chain(&idle).cloned();
    if !names.chain(ends.iter().map(|end| end.figure(nodes))).any(|name| name.contains(part)) {
        return Ok(());
    }
    let mut field = Field::start(nodes)?;
    if idle.iter().any(|name| name.contains(part)) {
        idle_costs(&field, &idle)?;
    }
    let victims = || (1..=nodes).step_by((nodes as usize / runs).max(1)).cycle().take(runs);
    if stalled.contains(part) {
        daemons_killed(&mut field, &stalled, victims())?;
    }
    for end in ends.into_iter().filter(|end| end.figure(nodes).contains(part)) {
        let values: Result<Vec<f64>, Error> = victims().map(|victim| end.ours(&mut field, victim)).collect();
        print(&limited(&end.figure(nodes), tail(&values?)?, Target::Limit(SECOND)));
    }
    if serves.contains(part) {
        let values: Result<Vec<f64>, Error> =
            (0..runs.min(RUNS_MANY)).map(|_| field.master_killed()).collect();
        print(&limited(&serves, tail(&values?)?, Target::Limit(SECOND)));
    }
    if alarms.contains(part) {
        println!(
            "# two spinning processes a core for {} s; every state but UP that any node tells is an alarm",
            BUSY.as_secs()
        );
        let load = Load::of(2);
        let count = field.alarms(BUSY);
        drop(load);
        let figure = Figure::alone(&alarms, &[count as f64], Unit::Count);
        print(&figure.ok_or("no value")?.with_target(Target::Limit(0.0)));
    }
    Ok(())
}

/// All runs together, and those apart whose victim was the master and the others have to elect another one.
fn daemons_killed(field: &mut Field, name: &str, victims: impl Iterator<Item = u32>) -> Result<(), Error> {
    let runs: Vec<(f64, bool)> = victims.map(|victim| field.daemon_killed(victim)).collect();
    let of = |wanted: &[bool]| -> Vec<f64> {
        runs.iter().filter(|(_, master)| wanted.contains(master)).map(|(took, _)| *took).collect()
    };
    print(&limited(name, tail(&of(&[true, false]))?, Target::Limit(SECOND / 10.0)));
    for (who, values) in [("of_the_master", of(&[true])), ("of_others", of(&[false]))] {
        if let Ok(tail) = tail(&values) {
            print(&limited(&format!("{name}.{who}"), tail, Target::None));
        }
    }
    Ok(())
}

/// What a node takes that does nothing: cores and memory.
fn idle_costs(field: &Field, [cores, memory]: &[String; 2]) -> Result<(), Error> {
    println!(
        "# of one node that does nothing, on average: share of a core over {} s, memory (PSS)",
        IDLE.as_secs()
    );
    for (name, value, unit) in
        [(cores, field.idle_cores(IDLE), Unit::Count), (memory, field.memory_kib(), Unit::Kib)]
    {
        print(&Figure::alone(name, &[value], unit).ok_or("no value")?);
    }
    Ok(())
}

/// How a node ends.
#[derive(Clone, Copy)]
enum End {
    /// All its processes at once.
    Killed,
    /// Its link.
    Cut,
}

impl End {
    fn figure(self, nodes: u32) -> String {
        let end = match self {
            End::Killed => "node_killed",
            End::Cut => "link_cut",
        };
        format!("membership.{end}.{nodes}.p99")
    }

    fn ours(self, field: &mut Field, victim: u32) -> Result<f64, Error> {
        Ok(match self {
            End::Killed => field.node_killed(victim),
            End::Cut => field.link_cut(victim),
        })
    }

    fn peer(self, ring: &mut Ring, victim: usize) -> Result<f64, Error> {
        match self {
            End::Killed => ring.node_killed(victim),
            End::Cut => ring.link_cut(victim),
        }
    }
}

/// The 99th percentile of all runs, between the least and the greatest.
fn tail(values: &[f64]) -> Result<Spread, Error> {
    let spread = Spread::of(values).ok_or("no runs")?;
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Ok(Spread { median: quantile(&sorted, 0.99), ..spread })
}

fn limited(name: &str, ours: Spread, target: Target) -> Figure {
    Figure { name: name.to_owned(), ours, peer: None, unit: Unit::Micros, target }
}

fn print(figure: &Figure) {
    println!("{figure}   {}", figure.spread());
}
