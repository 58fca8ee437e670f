//! Transitions: the numbered steps of the cluster table. The number of a transition is the epoch of the view after it.
//!
//! Invariants: numbers have no holes; a transition holds what it changed before and after, so a view can be taken one step
//! on or one step back, and whoever starts from the same view and takes the same transitions has the same view.

use crate::token::TicketChange;
use crate::wire::{Node, NodeState, View};
use base::{Epoch, NodeId};

/// Bytes of the reason in a change.
pub const WHY_BYTES_MAX: usize = 200;

/// One step of the cluster table.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Transition {
    /// Its number, from 1: the epoch of the view after it.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// When the master proposed it: milliseconds since 1970, never less than the one before.
    #[prost(uint64, tag = "2")]
    pub at_ms: u64,
    /// What changed, by node.
    #[prost(message, repeated, tag = "3")]
    pub changes: Vec<Change>,
    /// What stood beside the rows before; `None` if that did not change.
    #[prost(message, optional, tag = "4")]
    pub charter_before: Option<Charter>,
    /// What stands beside them after.
    #[prost(message, optional, tag = "5")]
    pub charter_after: Option<Charter>,
    /// What happened to tickets, by their names.
    #[prost(message, repeated, tag = "6")]
    pub tickets: Vec<TicketChange>,
}

/// What happened to one node (or through it, to the cluster).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Change {
    /// The node; 0 if it is about none.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// The life of it that this is about.
    #[prost(uint64, tag = "2")]
    pub life: u64,
    /// What happened.
    #[prost(enumeration = "ChangeKind", tag = "3")]
    pub kind: i32,
    /// Why, as a sentence for operators; empty if the kind says it all.
    #[prost(string, tag = "4")]
    pub why: String,
    /// The row before; `None`: there was none, or no row changed.
    #[prost(message, optional, tag = "5")]
    pub before: Option<Node>,
    /// The row after; `None`: there is none, or no row changed.
    #[prost(message, optional, tag = "6")]
    pub after: Option<Node>,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum ChangeKind {
    /// The cluster was founded.
    Founded = 0,
    /// A machine became a node.
    Joined = 1,
    /// A life began.
    Up = 2,
    /// A daemon is away: grants are frozen.
    Stalled = 3,
    /// The daemons are there again.
    Recovered = 4,
    /// A life is over.
    Down = 5,
    /// A life that was over cannot touch anything shared any more.
    Fenced = 6,
    /// A life ended at its own wish.
    Left = 8,
    /// A node was taken out of the table.
    Removed = 9,
    /// It has another name.
    Renamed = 10,
    /// Nothing new is placed on it.
    Drained = 11,
    /// Something may be placed on it again.
    Undrained = 12,
    /// Something was written down about it.
    Described = 13,
    /// It is the CLMS master now.
    Master = 14,
    /// Others keep the log of the table.
    Voters = 15,
    /// A setting of the cluster changed.
    Setting = 16,
    /// Its `ssid` was started again: what the one before knew alone is gone.
    Restarted = 17,
    /// A token was made, with which machines may join.
    Invited = 18,
}

/// Everything of a view but its rows and its number.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Charter {
    /// The cluster's name.
    #[prost(string, tag = "1")]
    pub cluster: String,
    /// See [`View::master`].
    #[prost(uint32, tag = "2")]
    pub master: u32,
    /// See [`View::pid_region`].
    #[prost(uint32, tag = "3")]
    pub pid_region: u32,
    /// See [`View::mds`].
    #[prost(uint32, tag = "4")]
    pub mds: u32,
    /// See [`View::last_id`].
    #[prost(uint32, tag = "5")]
    pub last_id: u32,
    /// See [`View::voters`].
    #[prost(uint32, repeated, tag = "6")]
    pub voters: Vec<u32>,
    /// See [`View::voters_wanted`].
    #[prost(uint32, tag = "7")]
    pub voters_wanted: u32,
    /// See [`View::era`].
    #[prost(uint64, tag = "8")]
    pub era: u64,
}

impl Transition {
    /// The epoch of the view after it.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.number)
    }

    /// The step from `old` to `new`, whose epochs are neighbours. `subject` is the node that it is about where no row changed.
    pub fn between(
        old: &View,
        new: &View,
        kind: ChangeKind,
        why: &str,
        subject: u32,
        at_ms: u64,
    ) -> Transition {
        let why = shortened(why);
        let row_change = |before: Option<&Node>, after: Option<&Node>| {
            let row = after.or(before).cloned().unwrap_or_default();
            Change {
                node: row.id,
                life: row.incarnation,
                kind: kind as i32,
                why: why.clone(),
                before: before.cloned(),
                after: after.cloned(),
            }
        };
        let mut changes: Vec<Change> = Vec::new();
        for row in &new.nodes {
            let before = old.node(row.node_id());
            if before != Some(row) {
                changes.push(row_change(before, Some(row)));
            }
        }
        let gone = old.nodes.iter().filter(|row| new.node(row.node_id()).is_none());
        changes.extend(gone.map(|row| row_change(Some(row), None)));
        changes.sort_by_key(|change| change.node);
        if changes.is_empty() {
            let life = new.node(NodeId(subject)).map_or(0, |row| row.incarnation);
            changes.push(Change { node: subject, life, kind: kind as i32, why, before: None, after: None });
        }
        let (before, after) = (old.charter(), new.charter());
        let differs = before != after;
        Transition {
            number: new.epoch,
            at_ms,
            changes,
            charter_before: differs.then_some(before),
            charter_after: differs.then_some(after),
            tickets: old.tickets.changes_to(&new.tickets),
        }
    }
}

/// At most [`WHY_BYTES_MAX`] bytes of a reason, cut between letters.
fn shortened(why: &str) -> String {
    let at = (0..=WHY_BYTES_MAX.min(why.len())).rev().find(|&at| why.is_char_boundary(at));
    why[..at.unwrap_or(0)].to_owned()
}

impl Change {
    /// The node that it is about.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.node)
    }

    /// The node's state before; `None`: there was no such row.
    pub fn from(&self) -> Option<NodeState> {
        self.before.as_ref().map(Node::state)
    }

    /// The node's state after; `None`: there is no such row any more.
    pub fn to(&self) -> Option<NodeState> {
        self.after.as_ref().map(Node::state)
    }
}

impl ChangeKind {
    /// The word for it in tables and logs.
    pub fn word(self) -> &'static str {
        match self {
            ChangeKind::Founded => "founded",
            ChangeKind::Joined => "joined",
            ChangeKind::Up => "up",
            ChangeKind::Stalled => "stalled",
            ChangeKind::Recovered => "recovered",
            ChangeKind::Down => "down",
            ChangeKind::Fenced => "fenced",
            ChangeKind::Left => "left",
            ChangeKind::Removed => "removed",
            ChangeKind::Renamed => "renamed",
            ChangeKind::Drained => "drained",
            ChangeKind::Undrained => "undrained",
            ChangeKind::Described => "described",
            ChangeKind::Master => "master",
            ChangeKind::Voters => "voters",
            ChangeKind::Setting => "setting",
            ChangeKind::Restarted => "restarted",
            ChangeKind::Invited => "join token made",
        }
    }
}

impl View {
    /// Everything but rows and number.
    pub fn charter(&self) -> Charter {
        Charter {
            cluster: self.cluster.clone(),
            master: self.master,
            pid_region: self.pid_region,
            mds: self.mds,
            last_id: self.last_id,
            voters: self.voters.clone(),
            voters_wanted: self.voters_wanted,
            era: self.era,
        }
    }

    fn set_charter(&mut self, charter: &Charter) {
        let Charter { cluster, master, pid_region, mds, last_id, voters, voters_wanted, era } =
            charter.clone();
        (self.cluster, self.master, self.pid_region, self.mds) = (cluster, master, pid_region, mds);
        (self.last_id, self.voters, self.voters_wanted, self.era) = (last_id, voters, voters_wanted, era);
    }

    /// Takes one step on; false, and nothing is changed, if it is not the next one.
    #[must_use]
    pub fn advance(&mut self, step: &Transition) -> bool {
        if self.epoch.checked_add(1) != Some(step.number) {
            return false;
        }
        self.epoch = step.number;
        step.charter_after.iter().for_each(|charter| self.set_charter(charter));
        step.tickets
            .iter()
            .for_each(|change| self.tickets.set(change.before.as_ref(), change.after.as_ref()));
        step.changes.iter().for_each(|change| self.set_row(change.before.as_ref(), change.after.as_ref()));
        true
    }

    /// Takes the last step back; false, and nothing is changed, if it was another.
    #[must_use]
    pub fn retreat(&mut self, step: &Transition) -> bool {
        if self.epoch != step.number || step.number == 0 {
            return false;
        }
        self.epoch -= 1;
        step.charter_before.iter().for_each(|charter| self.set_charter(charter));
        step.tickets
            .iter()
            .for_each(|change| self.tickets.set(change.after.as_ref(), change.before.as_ref()));
        step.changes.iter().for_each(|change| self.set_row(change.after.as_ref(), change.before.as_ref()));
        true
    }

    fn set_row(&mut self, old: Option<&Node>, new: Option<&Node>) {
        let Some(id) = old.or(new).map(|row| row.id) else { return };
        match (self.nodes.binary_search_by_key(&id, |row| row.id), new) {
            (Ok(at), Some(row)) => self.nodes[at] = row.clone(),
            (Err(at), Some(row)) => self.nodes.insert(at, row.clone()),
            (Ok(at), None) => drop(self.nodes.remove(at)),
            (Err(_), None) => {}
        }
    }
}
