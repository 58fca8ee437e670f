//! One machine: its supervisor's life, its daemon's run with the core in it, and its disk.

use base::NodeId;
use membership::saved::Register;
use membership::talk::Answer;
use membership::{Core, Heartbeat, Node, RequestId, View};
use std::collections::{BTreeMap, BTreeSet};

/// One machine.
pub struct Machine {
    pub core: Option<Core>,
    pub disk: Register,
    pub life: u64,
    /// The supervisor lives.
    pub alive: bool,
    pub run: u64,
    pub sequence: u64,
    pub inbox: Vec<Heartbeat>,
    pub waiting: BTreeMap<RequestId, (u32, u64)>,
    pub downs: BTreeSet<NodeId>,
    /// The end of this life is known here; the node starts a new one.
    pub evictions: u32,
    /// Answers to requests made by the test itself.
    pub answers: Vec<Answer>,
}

impl Machine {
    /// A machine that is off and has `view` on its disk.
    pub fn new(view: &View) -> Machine {
        Machine {
            core: None,
            disk: Register::agreed(view.clone()),
            life: 0,
            alive: false,
            run: 0,
            sequence: 0,
            inbox: Vec::new(),
            waiting: BTreeMap::new(),
            downs: BTreeSet::new(),
            evictions: 0,
            answers: Vec::new(),
        }
    }
}

/// The row of machine `id` in the cluster table.
pub fn row(id: u32) -> Node {
    Node {
        id,
        name: format!("node{id}"),
        control_address: format!("10.0.0.{id}:7100"),
        data_address: format!("10.0.0.{id}:7101"),
        cpus: 2,
        ..Node::default()
    }
}
