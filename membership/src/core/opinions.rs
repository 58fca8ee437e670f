//! From what the master hears to what it proposes.
//!
//! Invariants: the master proposes what it hears once at a time; all lives that are found dead together are one command.

use super::Core;
use super::leading::Purpose;
use crate::command::{Act, Life, Lives, Run, Runs};
use crate::talk::Condition;
use crate::wire::{Node, NodeState};
use base::{NodeId, Time};

const SILENT: &str = "neither its supervisor nor its daemon is heard";
const OUTLIVED: &str = "a later life of it has begun";
const STALLED: &str = "a daemon of it is away or does not answer";

/// What the rows should become.
#[derive(Default)]
struct Opinions {
    silent: Vec<Life>,
    outlived: Vec<Life>,
    stalled: Vec<Life>,
    recovered: Vec<Life>,
    runs: Vec<Run>,
    risen: Vec<Node>,
}

fn life(row: &Node) -> Life {
    Life { node: row.id, life: row.incarnation }
}

impl Core {
    /// Proposes that the table shall say what is heard.
    pub(super) fn form_opinions(&mut self, now: Time) {
        if !self.is_quiet() {
            return;
        }
        if self.known.view().master != self.me().0 {
            self.propose(now, Act::Reign(self.me().0), None, Purpose::Opinion);
        }
        let voters: Vec<u32> = self.log_voters().iter().map(|member| member.node.0).collect();
        if !voters.is_empty() && voters != self.known.view().voters {
            let voters = crate::command::Voters { nodes: voters };
            self.propose(now, Act::Voters(voters), None, Purpose::Opinion);
        }
        let mut opinions = Opinions::default();
        for row in &self.known.view().nodes {
            self.judge(row, now, &mut opinions);
        }
        self.wait_for_fading(now, &mut opinions.silent);
        let Opinions { silent, outlived, stalled, recovered, runs, risen } = opinions;
        self.doom(now, silent, SILENT);
        self.doom(now, outlived, OUTLIVED);
        if !stalled.is_empty() {
            let lives = Lives { lives: stalled, why: STALLED.into() };
            self.propose(now, Act::Stall(lives), None, Purpose::Opinion);
        }
        if !runs.is_empty() {
            self.propose(now, Act::Run(Runs { runs }), None, Purpose::Opinion);
        }
        if !recovered.is_empty() {
            let lives = Lives { lives: recovered, why: String::new() };
            self.propose(now, Act::Recover(lives), None, Purpose::Opinion);
        }
        for row in risen {
            self.propose(now, Act::Rise(row), None, Purpose::Opinion);
        }
    }

    fn doom(&mut self, now: Time, lives: Vec<Life>, why: &str) {
        if lives.is_empty() {
            return;
        }
        let doomed: Vec<(NodeId, u64)> = lives.iter().map(|life| (NodeId(life.node), life.life)).collect();
        let act = Act::Down(Lives { lives, why: why.into() });
        if self.canary.decides_alone() {
            let command = crate::Command { at_ms: 0, act: Some(act) };
            self.machine.table.apply(&command);
            return;
        }
        if let Some(reign) = &mut self.reign {
            reign.doomed.extend(&doomed);
        }
        self.propose(now, act, None, Purpose::Doom(doomed));
    }

    fn judge(&self, row: &Node, now: Time, opinions: &mut Opinions) {
        let itself = row.node_id() == self.me();
        let mine = (itself && row.incarnation < self.config.row.incarnation).then_some(&self.config.row);
        if let Some(hello) = mine.or_else(|| self.detector.returning(row)) {
            if row.is_alive() {
                opinions.outlived.push(life(row));
            } else if itself || self.detector.is_present(hello) {
                opinions.risen.push(hello.clone());
            }
            return;
        }
        if !row.is_alive() {
            return;
        }
        let condition = if itself { Some(self.condition) } else { self.detector.condition(row) };
        if let Some(Condition { daemon, .. }) = condition.filter(|condition| condition.daemon != row.daemon) {
            opinions.runs.push(Run { life: life(row), daemon });
        }
        let opinion = match itself {
            true if self.condition.data_up => NodeState::Up,
            true => NodeState::Stalled,
            false => self.detector.opinion(row, now),
        };
        match opinion {
            NodeState::Down if self.detector.is_outlived(row) => opinions.outlived.push(life(row)),
            NodeState::Down => opinions.silent.push(life(row)),
            NodeState::Stalled if row.state() == NodeState::Up => opinions.stalled.push(life(row)),
            NodeState::Up if row.state() == NodeState::Stalled => opinions.recovered.push(life(row)),
            _ => {}
        }
    }

    /// Those who will be found dead in a moment are waited for, so that one cut is one transition.
    fn wait_for_fading(&mut self, now: Time, silent: &mut Vec<Life>) {
        let dead: Vec<u32> = silent.iter().map(|life| life.node).collect();
        let rows = self.known.view().nodes.iter();
        let mut others = rows.filter(|row| row.is_alive() && row.node_id() != self.me());
        let fading = others.any(|row| !dead.contains(&row.id) && self.detector.is_fading(row, now));
        let settle = self.config.timings.settle;
        let Some(reign) = &mut self.reign else { return };
        if silent.is_empty() {
            reign.fading_since = None;
            return;
        }
        let since = *reign.fading_since.get_or_insert(now);
        if now < reign.judges_from || (fading && now.since(since) < settle) {
            silent.clear();
        }
    }
}
