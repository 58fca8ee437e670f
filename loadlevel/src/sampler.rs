//! From rows of /proc to a sample: pure.
//!
//! A process's time is in its own row while it lives, and in its parent's row (`cutime`) once it was waited for. So
//! between two looks the view has used
//!
//! ```text
//!   growth of own times  +  max(0, growth of children's times - all time of rows that are gone)
//! ```
//!
//! Short-lived children are counted through their parents, nobody is counted twice, and a child that nobody waits for
//! (SIGCHLD ignored) takes nothing away from what the others used.

use crate::wire::Sample;
use base::{NodeId, Time};
use std::collections::BTreeMap;

/// One process, as /proc/PID/stat tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Process id inside the view.
    pub pid: u32,
    /// Start time in clock ticks since boot: tells two processes with one pid apart.
    pub start: u64,
    /// True if it runs or wants to (state R).
    pub runnable: bool,
    /// User and system time of its own, clock ticks.
    pub own_ticks: u64,
    /// User and system time of the children that it has waited for, clock ticks.
    pub children_ticks: u64,
    /// Resident set, bytes.
    pub rss_bytes: u64,
}

/// What the node gives, against which its use is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The node.
    pub node: NodeId,
    /// Cores.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Relative speed of a core; 100 is the reference.
    pub speed: u32,
}

/// Rows by pid and start time.
type Rows = BTreeMap<(u32, u64), Row>;

/// Makes samples from rows.
#[derive(Clone, Debug)]
pub struct Sampler {
    share: Share,
    ticks_per_second: u64,
    last: Option<(Time, Rows)>,
    /// Smoothed: half of it is what was before, half what was just seen.
    busy_millicores: u64,
}

impl Sampler {
    /// A sampler for a node that gives `share`, on a kernel with `ticks_per_second` (sysconf `_SC_CLK_TCK`).
    pub fn new(node: NodeId, cpus: u32, memory_bytes: u64, speed: u32, ticks_per_second: u64) -> Sampler {
        let share = Share { node, cpus: cpus.max(1), memory_bytes, speed: speed.max(1) };
        Sampler { share, ticks_per_second: ticks_per_second.max(1), last: None, busy_millicores: 0 }
    }

    /// Takes the rows of all processes of the view as they are at `now`. The first look only remembers them.
    pub fn sample(&mut self, now: Time, rows: &[Row]) -> Sample {
        let present: Rows = rows.iter().map(|row| ((row.pid, row.start), *row)).collect();
        if let Some((then, past)) = &self.last {
            let elapsed_ms = u64::try_from(now.since(*then).as_millis()).unwrap_or(u64::MAX).max(1);
            let used_ms = used_ticks(past, &present).saturating_mul(1_000) / self.ticks_per_second;
            let seen = used_ms.saturating_mul(1_000) / elapsed_ms;
            self.busy_millicores = self.busy_millicores.midpoint(seen);
        }
        self.last = Some((now, present));
        let permille = self.busy_millicores / u64::from(self.share.cpus);
        Sample {
            node: self.share.node.0,
            cpus: self.share.cpus,
            busy_permille: u32::try_from(permille).unwrap_or(u32::MAX),
            runnable: u32::try_from(rows.iter().filter(|row| row.runnable).count()).unwrap_or(u32::MAX),
            memory_used: rows.iter().fold(0, |sum, row| row.rss_bytes.saturating_add(sum)),
            memory_total: self.share.memory_bytes,
            speed: self.share.speed,
            at_ms: now.0 / 1_000_000,
        }
    }
}

/// Clock ticks that were used between two looks.
fn used_ticks(past: &Rows, present: &Rows) -> u64 {
    let (mut own, mut children) = (0u64, 0u64);
    for (id, row) in present {
        let before = past.get(id).copied().unwrap_or_default();
        own = own.saturating_add(row.own_ticks.saturating_sub(before.own_ticks));
        children = children.saturating_add(row.children_ticks.saturating_sub(before.children_ticks));
    }
    let gone = past.iter().filter(|(id, _)| !present.contains_key(id));
    let gone = gone.fold(0u64, |sum, (_, row)| sum.saturating_add(row.own_ticks + row.children_ticks));
    own.saturating_add(children.saturating_sub(gone))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const HALF_SECOND: u64 = 50; // ticks

    fn sampler() -> Sampler {
        Sampler::new(NodeId(2), 2, 1 << 30, 100, 100)
    }

    fn row(pid: u32, own_ticks: u64, children_ticks: u64) -> Row {
        Row { pid, start: u64::from(pid), own_ticks, children_ticks, rss_bytes: 1 << 20, runnable: pid > 1 }
    }

    /// The samples of looks half a second apart.
    fn looks(rows: &[Vec<Row>]) -> Vec<Sample> {
        let mut sampler = sampler();
        let times = (0..).map(|n: u32| Time(1) + Duration::from_millis(500) * n);
        rows.iter().zip(times).map(|(rows, now)| sampler.sample(now, rows)).collect()
    }

    #[test]
    fn a_new_spinner_is_seen_within_one_and_a_half_seconds() {
        let rows: Vec<Vec<Row>> =
            (0..4).map(|n| vec![row(1, 500, 900), row(7, HALF_SECOND * n, 0)]).collect();
        let busy: Vec<u32> = looks(&rows).iter().map(|sample| sample.busy_permille).collect();
        assert_eq!(busy, [0, 250, 375, 437], "one of two cores, smoothed");
        assert_eq!(looks(&rows)[3].memory_used, 2 << 20);
        assert_eq!(looks(&rows)[3].runnable, 1);
    }

    #[test]
    fn short_lived_children_count_through_their_parent() {
        let rows: Vec<Vec<Row>> =
            (0..4).map(|n| vec![row(1, 0, 0), row(7, 0, HALF_SECOND * 2 * n)]).collect();
        assert_eq!(looks(&rows)[3].busy_permille, 875, "two cores");
    }

    #[test]
    fn time_that_moves_from_child_to_parent_counts_once() {
        let rows = vec![
            vec![row(1, 0, 0), row(7, 0, 0), row(8, 400, 50)],
            vec![row(1, 0, 0), row(7, 0, 460)], // 8 ended after 10 more ticks and was waited for
        ];
        assert_eq!(looks(&rows)[1].busy_permille, 50, "10 ticks in half a second, on two cores, smoothed");
    }

    #[test]
    fn a_child_that_nobody_waits_for_takes_nothing_from_the_others() {
        let rows = vec![vec![row(7, 0, 0), row(8, 100_000, 0)], vec![row(7, HALF_SECOND, 0)]];
        assert_eq!(looks(&rows)[1].busy_permille, 250);
    }

    #[test]
    fn a_reused_pid_is_a_new_process_and_clocks_that_jump_are_clamped() {
        let later = Row { start: 99, ..row(7, 20, 0) };
        let rows = vec![vec![row(7, 1_000, 0)], vec![later], vec![row(7, 5, 0)]];
        let samples = looks(&rows);
        assert_eq!(samples[1].busy_permille, 100, "20 ticks");
        assert!(samples[2].busy_permille < 100);
        let mut sampler = sampler();
        sampler.sample(Time(10), &[row(7, 10, 0)]);
        assert_eq!(sampler.sample(Time(5), &[row(7, 10, 0)]).busy_permille, 0);
    }
}
