//! What must be true of every run, whatever is done to it. It looks after every step.

use crate::{Feed, Table, Transition, View};
use std::collections::{BTreeMap, BTreeSet};

/// The oracle.
#[derive(Default)]
pub struct Oracle {
    masters: BTreeMap<u64, u32>,
    /// What happened, by number, as the first said who knew.
    steps: BTreeMap<u64, Transition>,
    views: BTreeMap<u64, View>,
    dead: BTreeSet<(u32, u64)>,
    /// Lives that were UP and then DOWN, in the order of their ends.
    pub ends: Vec<(u32, u64)>,
    /// What was violated; a run is good while this is empty.
    pub faults: Vec<String>,
    pub looks: u64,
}

impl Oracle {
    /// One master a term, and one at a time that is sure of it.
    pub fn master(&mut self, node: u32, term: u64, sure: &[u32]) {
        self.looks += 1;
        let master = *self.masters.entry(term).or_insert(node);
        if master != node {
            self.faults.push(format!("term {term} has the masters {master} and {node}"));
        }
        if sure.len() > 1 {
            self.faults.push(format!("node {node} is master of term {term}, and sure of it are {sure:?}"));
        }
    }

    /// A node publishes: the same steps as everybody, in order, without holes. Gives the lives that ended just now.
    pub fn published(&mut self, node: u32, before: &Table, feed: &Feed) -> Vec<(u32, u64)> {
        self.looks += 1;
        let mut table = before.clone();
        let mut ended = Vec::new();
        for step in &feed.steps {
            let known = self.steps.entry(step.number).or_insert_with(|| step.clone());
            if known != step {
                self.faults.push(format!("node {node}: transition {known:?} is also {step:?}"));
            }
        }
        let epoch = table.view().epoch;
        if !table.take(feed) {
            self.faults.push(format!("node {node} publishes nothing new at {epoch}: {feed:?}"));
        }
        if feed.view.is_none() && table.view().epoch != feed.steps.last().map_or(0, |step| step.number) {
            self.faults.push(format!("node {node} has a hole behind {epoch}: {feed:?}"));
        }
        let first = if feed.view.is_some() { table.view().epoch } else { epoch + 1 };
        for number in first..=table.view().epoch {
            let Some(view) = table.view_at(number) else { continue };
            ended.extend(self.learn(node, &view));
        }
        ended
    }

    /// A view is seen; gives the lives that were alive before and are not any more.
    fn learn(&mut self, node: u32, view: &View) -> Vec<(u32, u64)> {
        if let Some(known) = self.views.get(&view.epoch) {
            if known != view {
                self.faults.push(format!("node {node}: view {known:?} is also {view:?}"));
            }
            return Vec::new();
        }
        let newest = self.views.last_key_value().map(|(_, view)| view);
        let mut ended = Vec::new();
        for row in &view.nodes {
            let life = (row.id, row.incarnation);
            let before = newest.and_then(|view| view.node(row.node_id()));
            let lived = before.is_some_and(|before| before.is_alive() && before.incarnation == life.1);
            if lived && !row.is_alive() {
                ended.push(life);
            }
            if row.is_alive() && self.dead.contains(&life) {
                self.faults.push(format!("epoch {}: life {} of node {} is back", view.epoch, life.1, row.id));
            }
        }
        self.views.insert(view.epoch, view.clone());
        self.dead.extend(&ended);
        self.ends.extend(&ended);
        ended
    }

    /// A node holds a lease.
    pub fn leased(&mut self, node: u32, life: u64) {
        self.looks += 1;
        if self.dead.contains(&(node, life)) {
            self.faults.push(format!("node {node} has a lease in life {life}, which is DOWN"));
        }
    }

    /// The newest epoch that anybody has published.
    pub fn epoch(&self) -> u64 {
        self.views.last_key_value().map_or(0, |(&epoch, _)| epoch)
    }

    /// How many transitions of this kind made `lives` DOWN.
    pub fn steps_that_end(&self, nodes: &[u32]) -> usize {
        let ends = |step: &&Transition| {
            step.changes.iter().any(|change| {
                nodes.contains(&change.node)
                    && change.before.as_ref().is_some_and(crate::Node::is_alive)
                    && change.after.as_ref().is_some_and(|row| !row.is_alive())
            })
        };
        self.steps.values().filter(ends).count()
    }
}
