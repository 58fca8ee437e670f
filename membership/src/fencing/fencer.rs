//! The fencer: which agent runs for which node, and what next.
//!
//! ```text
//!              a place free               all devices of the level ok
//!   WAITING ------------------> RUNNING --------------------------------> FENCED (told once, then forgotten)
//!      ^                         | ^  |
//!      |                         | +--+ failed, tries left; or the next device of the level
//!      |                         |
//!      +--- all levels failed ---+ level failed: the next level, first device
//!           (told; again after a pause that doubles)
//! ```
//!
//! Invariant: one agent at a time for a node, at most [`RUNNING_MAX`] in all; an answer to a run that is not the node's present one
//! changes nothing; a life is told FENCED at most once.

use super::device::{self, Device, Plan};
use base::{Incarnation, NodeId, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// Agents that run at a time.
pub const RUNNING_MAX: usize = 16;
/// An agent that did not answer so long after its own time limit is given up.
pub const SLACK: Duration = Duration::from_secs(5);
/// The pause after all levels have failed; it doubles up to [`PAUSE_MAX`].
pub const PAUSE_MIN: Duration = Duration::from_secs(2);
/// The longest pause.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Names one run of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The clock was looked at.
    Tick,
    /// This life of a node is DOWN and must be fenced.
    Fence {
        /// The node.
        node: NodeId,
        /// Its name, by which the configuration knows it.
        name: String,
        /// Which life.
        life: Incarnation,
    },
    /// An agent has ended.
    Ended {
        /// Which run.
        run: RunId,
        /// `Err` says why it failed.
        result: Result<(), String>,
    },
    /// An operator says that the node is off, or it was removed, or a later life of it has come.
    Settled {
        /// The node.
        node: NodeId,
        /// An operator vouches that it is off: it counts as FENCED.
        confirmed: bool,
    },
}

/// What must be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Run this device's agent.
    Run {
        /// To answer with.
        run: RunId,
        /// The node's name.
        name: String,
        /// Which.
        device: Device,
    },
    /// Give this run up.
    Kill(RunId),
    /// This life can touch nothing any more.
    Fenced {
        /// The node.
        node: NodeId,
        /// Which life.
        life: Incarnation,
        /// What did it: the agents of the level, or `operator`.
        by: String,
    },
    /// Nothing has worked so far. It is tried again later (if there is a device at all).
    Failed {
        /// The node.
        node: NodeId,
        /// Which life.
        life: Incarnation,
        /// Each device's last words, or that there is none.
        why: String,
    },
}

#[derive(Clone, Debug)]
struct Running {
    run: RunId,
    deadline: Time,
}

#[derive(Clone, Debug)]
struct Job {
    name: String,
    life: Incarnation,
    level: usize,
    device: usize,
    tries: u32,
    running: Option<Running>,
    not_before: Time,
    pause: Duration,
    words: Vec<String>,
}

/// All nodes that are being fenced.
#[derive(Clone, Debug)]
pub struct Fencer {
    plan: Plan,
    jobs: BTreeMap<NodeId, Job>,
    runs: u64,
}

impl Fencer {
    /// A fencer that goes by `plan`, whose devices were checked.
    pub fn new(plan: Plan) -> Fencer {
        Fencer { plan, jobs: BTreeMap::new(), runs: 0 }
    }

    /// True if any device is configured for the node called `name`.
    pub fn can_fence(&self, name: &str) -> bool {
        device::levels(&self.plan, name).iter().any(|level| !level.is_empty())
    }

    /// Nodes that are being fenced.
    pub fn pending(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.jobs.keys().copied()
    }

    /// Something has happened.
    pub fn handle(&mut self, now: Time, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Tick => self.expire(now, effects),
            Event::Fence { node, name, life } => self.take(now, node, name, life, effects),
            Event::Ended { run, result } => self.ended(now, run, result, effects),
            Event::Settled { node, confirmed } => self.settle(node, confirmed, effects),
        }
        self.start(now, effects);
    }

    fn take(&mut self, now: Time, node: NodeId, name: String, life: Incarnation, effects: &mut Vec<Effect>) {
        if self.jobs.get(&node).is_some_and(|job| job.life >= life) {
            return;
        }
        self.settle(node, false, effects);
        if !self.can_fence(&name) {
            let why = format!("no fence device is configured for {name}");
            return effects.push(Effect::Failed { node, life, why });
        }
        let job = Job {
            level: first_level(device::levels(&self.plan, &name)),
            name,
            life,
            device: 0,
            tries: 0,
            running: None,
            not_before: now,
            pause: PAUSE_MIN,
            words: Vec::new(),
        };
        self.jobs.insert(node, job);
    }

    fn settle(&mut self, node: NodeId, confirmed: bool, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.remove(&node) else { return };
        effects.extend(job.running.map(|running| Effect::Kill(running.run)));
        if confirmed {
            effects.push(Effect::Fenced { node, life: job.life, by: "operator".into() });
        }
    }

    fn expire(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let late = self.jobs.values().filter_map(|job| job.running.as_ref());
        let late: Vec<_> =
            late.filter(|running| now >= running.deadline).map(|running| running.run).collect();
        for run in late {
            effects.push(Effect::Kill(run));
            self.ended(now, run, Err("it did not end, and could not be ended".into()), effects);
        }
    }

    /// Starts what waits, as far as there is room.
    fn start(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let mut free = RUNNING_MAX - self.jobs.values().filter(|job| job.running.is_some()).count();
        for job in self.jobs.values_mut() {
            if free == 0 {
                return;
            }
            if job.running.is_some() || now < job.not_before {
                continue;
            }
            let device = device::levels(&self.plan, &job.name)[job.level][job.device].clone();
            self.runs += 1;
            let run = RunId(self.runs);
            job.running = Some(Running { run, deadline: now + device.timeout + SLACK });
            effects.push(Effect::Run { run, name: job.name.clone(), device });
            free -= 1;
        }
    }

    fn ended(&mut self, now: Time, run: RunId, result: Result<(), String>, effects: &mut Vec<Effect>) {
        let mine = |job: &Job| job.running.as_ref().is_some_and(|running| running.run == run);
        let Some((&node, job)) = self.jobs.iter_mut().find(|(_, job)| mine(job)) else { return };
        job.running = None;
        let levels = device::levels(&self.plan, &job.name);
        let level = &levels[job.level];
        match result {
            Ok(()) if job.device + 1 < level.len() => (job.device, job.tries) = (job.device + 1, 0),
            Ok(()) => {
                let agents: Vec<_> = level.iter().map(|device| device.agent.display().to_string()).collect();
                let (life, by) = (job.life, agents.join(", "));
                self.jobs.remove(&node);
                effects.push(Effect::Fenced { node, life, by });
            }
            Err(_) if job.tries < level[job.device].retries => job.tries += 1,
            Err(why) => {
                job.words.push(format!("{}: {why}", level[job.device].agent.display()));
                (job.device, job.tries) = (0, 0);
                let next = (job.level + 1..levels.len()).find(|at| !levels[*at].is_empty());
                match next {
                    Some(next) => job.level = next,
                    None => effects.push(job.give_up(node, now, levels)),
                }
            }
        }
    }
}

impl Job {
    /// All levels have failed: they are tried again after a pause.
    fn give_up(&mut self, node: NodeId, now: Time, levels: &[Vec<Device>]) -> Effect {
        self.level = first_level(levels);
        self.not_before = now + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        let why = std::mem::take(&mut self.words).join("; ");
        Effect::Failed { node, life: self.life, why }
    }
}

fn first_level(levels: &[Vec<Device>]) -> usize {
    levels.iter().position(|level| !level.is_empty()).unwrap_or(0)
}

#[cfg(test)]
#[path = "fencer_tests.rs"]
mod tests;
