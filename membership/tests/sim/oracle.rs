//! What must be true of every run, whatever is done to it.

use base::NodeId;
use membership::View;
use membership::saved::Register;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct Oracle {
    masters: BTreeMap<u64, u32>,
    views: BTreeMap<u64, View>,
    epochs: BTreeMap<u32, u64>,
    dead: BTreeSet<(NodeId, u64)>,
    /// Lives that were UP in some view and DOWN in a later one, in the order of their ends.
    pub ends: Vec<(u32, u64)>,
    /// What was violated; a run is good while this is empty.
    pub faults: Vec<String>,
}

impl Oracle {
    /// One master a term.
    pub fn master(&mut self, node: u32, term: Option<u64>) {
        let Some(term) = term else { return };
        let master = *self.masters.entry(term).or_insert(node);
        if master != node {
            self.faults.push(format!("term {term} has the masters {master} and {node}"));
        }
    }

    /// Same epoch, same view; epochs grow; the dead stay dead.
    pub fn published(&mut self, node: u32, view: &View) {
        let epoch = self.epochs.entry(node).or_insert(0);
        if view.epoch <= *epoch {
            self.faults.push(format!("node {node} goes from epoch {epoch} to {}", view.epoch));
        }
        *epoch = view.epoch;
        let known = self.views.entry(view.epoch).or_insert_with(|| view.clone());
        if known != view {
            self.faults.push(format!("epoch {} is {known:?} and {view:?}", view.epoch));
        }
        for row in &view.nodes {
            let life = (row.node_id(), row.incarnation);
            if !row.is_alive() && self.dead.insert(life) && row.incarnation > 10 {
                self.ends.push((row.id, row.incarnation));
            }
        }
        self.check_dead(view);
    }

    fn check_dead(&mut self, view: &View) {
        // A node may publish late what others have long left behind: only the newest view can raise the dead.
        let newest = self.views.keys().next_back() == Some(&view.epoch);
        let risen = view
            .nodes
            .iter()
            .find(|row| row.is_alive() && self.dead.contains(&(row.node_id(), row.incarnation)));
        if let Some(row) = risen.filter(|_| newest) {
            self.faults
                .push(format!("epoch {}: life {} of node {} is back", view.epoch, row.incarnation, row.id));
        }
    }

    /// A disk never forgets a term, a vote or an agreed view.
    pub fn persisted(&mut self, node: u32, old: &Register, new: &Register) {
        let backwards = new.term < old.term || new.committed.epoch < old.committed.epoch;
        if backwards || (new.term == old.term && old.vote.is_some() && new.vote != old.vote) {
            self.faults.push(format!("node {node} takes back what it said: {old:?} to {new:?}"));
        }
    }
}
