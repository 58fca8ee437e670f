//! The newest sample of every node, and what one more process would cost where: pure.
//!
//! Invariant: an old sample never replaces a newer one of the same node; a sample older than [`STALE_AFTER`], and a node
//! that is not UP or drained, is the worst choice there is.

use crate::placement::takes_work;
use crate::wire::Sample;
use base::limits::TASKS_PER_CLIENT_MAX;
use base::{NodeId, Time};
use membership::View;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A sample older than this says nothing.
pub const STALE_AFTER: Duration = Duration::from_secs(3);
/// A process placed by this node counts as load until samples must show it.
pub const PLACED_FOR: Duration = Duration::from_millis(1_500);
/// Above this much of its memory in use a node becomes dearer, thousandths.
const MEMORY_EASY_PERMILLE: u64 = 800;

/// One node's load, as this node knows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodeLoad {
    /// What the node told; only its size if it has told nothing yet.
    pub sample: Sample,
    /// How long ago that was; [`Duration::MAX`] if never.
    pub age: Duration,
    /// What one more process would cost there; `u64::MAX`: nothing should go there.
    pub cost: u64,
}

impl NodeLoad {
    /// True if the sample is too old to say anything.
    pub fn is_stale(&self) -> bool {
        self.age > STALE_AFTER
    }
}

/// What one more process would cost on the node of `sample`: the cores wanted over the cores given (by their speed), in
/// thousandths; up to eleven times that when its memory is full.
pub fn cost(sample: &Sample) -> u64 {
    cost_with(sample, 0)
}

/// [`cost`] when `placed_milli` thousandths of a process are on their way there.
fn cost_with(sample: &Sample, placed_milli: u64) -> u64 {
    let wanted = sample.busy_millicores().saturating_add(placed_milli).saturating_add(1_000);
    let power = u64::from(sample.cpus.max(1)) * u64::from(sample.speed.max(1));
    let time = wanted.saturating_mul(100) / power;
    let total = u128::from(sample.memory_total.max(1));
    let full = (u128::from(sample.memory_used) * 1_000 / total).min(1_000) as u64;
    let pressure = full.saturating_sub(MEMORY_EASY_PERMILLE);
    time.saturating_add(time.saturating_mul(pressure * 10) / (1_000 - MEMORY_EASY_PERMILLE))
}

/// The newest samples, and what was placed lately by this node.
#[derive(Clone, Debug, Default)]
pub struct Table {
    samples: BTreeMap<NodeId, (Sample, Time)>,
    placed: VecDeque<(NodeId, Time)>,
}

impl Table {
    /// Takes a sample that was `age` old when it came.
    pub fn take(&mut self, now: Time, sample: Sample, age: Duration) {
        let taken = Time(now.0.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)));
        let known = self.samples.get(&sample.node_id());
        // A node whose clock was set back, or that was rebooted, is believed again when its last word is stale.
        if known.is_none_or(|(old, at)| sample.at_ms > old.at_ms || now.since(*at) > STALE_AFTER) {
            self.samples.insert(sample.node_id(), (sample, taken));
        }
    }

    /// Forgets nodes that are not in the view.
    pub fn keep(&mut self, view: &View) {
        self.samples.retain(|&id, _| view.node(id).is_some());
    }

    /// Processes have just been placed on these nodes, one for each entry: until samples show them they count here.
    pub fn placed(&mut self, now: Time, nodes: &[NodeId]) {
        self.placed.retain(|(_, at)| now.since(*at) < PLACED_FOR);
        self.placed.extend(nodes.iter().map(|&node| (node, now)));
        let excess = self.placed.len().saturating_sub(TASKS_PER_CLIENT_MAX);
        self.placed.drain(..excess);
    }

    /// The load of every node of the view that is alive, by id.
    pub fn rows(&self, now: Time, view: &View) -> Vec<NodeLoad> {
        let alive = view.nodes.iter().filter(|node| node.is_alive());
        alive
            .map(|node| {
                let unknown = Sample {
                    node: node.id,
                    cpus: node.cpus,
                    memory_total: node.memory_bytes,
                    speed: node.speed,
                    ..Sample::default()
                };
                let known = self.samples.get(&node.node_id());
                let (sample, age) = known.map_or((unknown, Duration::MAX), |(s, at)| (*s, now.since(*at)));
                let usable = takes_work(node) && age <= STALE_AFTER;
                let cost = if usable {
                    cost_with(&sample, self.placed_milli(now, node.node_id()))
                } else {
                    u64::MAX
                };
                NodeLoad { sample, age, cost }
            })
            .collect()
    }

    /// The samples that a relay passes on: fresh, newest first, with their ages.
    pub fn newest(&self, now: Time, most: usize) -> Vec<(Sample, Duration)> {
        let mut samples: Vec<(Sample, Duration)> =
            self.samples.values().map(|(sample, at)| (*sample, now.since(*at))).collect();
        samples.retain(|(_, age)| *age <= STALE_AFTER);
        samples.sort_by_key(|(sample, age)| (*age, sample.node));
        samples.truncate(most);
        samples
    }

    /// Processes on their way to `node`, in thousandths: each fades as samples come to show it.
    fn placed_milli(&self, now: Time, node: NodeId) -> u64 {
        let whole = PLACED_FOR.as_millis();
        let fading = |at: &Time| {
            let left = whole.saturating_sub(now.since(*at).as_millis());
            u64::try_from(left * 1_000 / whole).unwrap_or(0)
        };
        self.placed.iter().filter(|(to, _)| *to == node).map(|(_, at)| fading(at)).sum()
    }
}

/// The node where one more process costs least; of equals the one with the lowest number. If nothing is known of any
/// node: the first that gets work.
pub fn fastest(rows: &[NodeLoad], view: &View) -> Option<NodeId> {
    let usable = |load: &&NodeLoad| view.node(load.sample.node_id()).is_some_and(takes_work);
    rows.iter()
        .filter(usable)
        .min_by_key(|load| (load.cost, load.sample.node))
        .map(|load| load.sample.node_id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use membership::{Node, NodeState};

    const SECOND: u64 = 1_000_000_000;

    fn view() -> View {
        let node = |id| Node { id, name: format!("node{id}"), cpus: 2, speed: 100, ..Node::default() };
        View { epoch: 1, nodes: (1..=3).map(node).collect(), ..View::default() }
    }

    fn sample(node: u32, busy_permille: u32, at_ms: u64) -> Sample {
        Sample { node, cpus: 2, busy_permille, memory_total: 1_000, speed: 100, at_ms, ..Sample::default() }
    }

    fn table(busy: [u32; 3]) -> Table {
        let mut table = Table::default();
        for (id, busy) in (1..).zip(busy) {
            table.take(Time(SECOND), sample(id, busy, 1), Duration::ZERO);
        }
        table
    }

    fn fastest_at(table: &Table, now: u64) -> Option<NodeId> {
        fastest(&table.rows(Time(now), &view()), &view())
    }

    #[test]
    fn a_spinner_on_the_fastest_node_makes_another_the_fastest() {
        assert_eq!(fastest_at(&table([0, 0, 0]), SECOND), Some(NodeId(1)));
        assert_eq!(fastest_at(&table([437, 0, 0]), SECOND), Some(NodeId(2)));
        assert_eq!(fastest_at(&table([437, 437, 0]), SECOND), Some(NodeId(3)));
        assert_eq!(fastest_at(&Table::default(), SECOND), Some(NodeId(1)), "nothing known");
    }

    #[test]
    fn placements_in_quick_succession_go_to_different_nodes_and_fade() {
        let mut table = table([0, 0, 0]);
        for wanted in 1..=3 {
            let node = fastest_at(&table, SECOND).unwrap();
            assert_eq!(node, NodeId(wanted));
            table.placed(Time(SECOND), &[node]);
        }
        table.placed(Time(SECOND), &[NodeId(1)]);
        assert_eq!(fastest_at(&table, SECOND), Some(NodeId(2)));
        assert_eq!(fastest_at(&table, SECOND * 5 / 2), Some(NodeId(1)), "faded after 1.5 s");
    }

    #[test]
    fn stale_and_stalled_nodes_are_never_the_fastest() {
        let mut table = table([900, 900, 900]);
        table.take(Time(3 * SECOND), sample(3, 900, 2), Duration::ZERO);
        table.take(Time(3 * SECOND), sample(1, 0, 3), Duration::from_millis(3_500));
        assert_eq!(fastest_at(&table, SECOND * 9 / 2), Some(NodeId(3)));
        let mut view = view();
        view.nodes[2].state = NodeState::Stalled as i32;
        let rows = table.rows(Time(3 * SECOND), &view);
        assert_eq!(rows[2].cost, u64::MAX);
        assert_ne!(fastest(&rows, &view), Some(NodeId(3)));
        view.nodes[0].drained = true;
        assert_eq!(fastest(&table.rows(Time(3 * SECOND), &view), &view), Some(NodeId(2)));
        view.nodes.clear();
        assert_eq!(fastest(&table.rows(Time(3 * SECOND), &view), &view), None);
    }

    #[test]
    fn an_older_sample_does_not_replace_a_newer_one_unless_that_is_stale() {
        let mut table = Table::default();
        table.take(Time(SECOND), sample(1, 500, 9), Duration::ZERO);
        table.take(Time(2 * SECOND), sample(1, 100, 8), Duration::ZERO);
        assert_eq!(table.rows(Time(2 * SECOND), &view())[0].sample.busy_permille, 500);
        table.take(Time(5 * SECOND), sample(1, 100, 8), Duration::ZERO);
        assert_eq!(table.rows(Time(5 * SECOND), &view())[0].sample.busy_permille, 100);
    }

    #[test]
    fn cost_knows_cores_speed_and_memory() {
        let idle = sample(1, 0, 0);
        assert!(cost(&Sample { cpus: 8, ..idle }) < cost(&idle));
        assert!(cost(&Sample { speed: 200, ..idle }) < cost(&idle));
        assert_eq!(cost(&Sample { memory_used: 800, ..idle }), cost(&idle));
        assert_eq!(cost(&Sample { memory_used: 1_000, ..idle }), cost(&idle) * 11);
        assert!(cost(&Sample { memory_used: u64::MAX, busy_permille: u32::MAX, ..idle }) > cost(&idle));
    }
}
