//! The cluster table in the words of the admin protocol.

use admin::wire::{Node, NodeState, View};

/// A view as commands and programs are told it.
pub fn view(view: &membership::View) -> View {
    let voters = membership::table::voters(view);
    let node = |row: &membership::Node| Node {
        id: row.id,
        name: row.name.clone(),
        control_address: row.control_address.clone(),
        data_address: row.data_address.clone(),
        arch: row.arch.clone(),
        cpus: row.cpus,
        memory_bytes: row.memory_bytes,
        speed: row.speed,
        state: state(row.state()) as i32,
        incarnation: row.incarnation,
        draining: false,
        voter: voters.contains(&row.node_id()),
    };
    View {
        epoch: view.epoch,
        cluster: view.cluster.clone(),
        master: view.master,
        nodes: view.nodes.iter().map(node).collect(),
        pid_region: view.pid_region,
    }
}

fn state(state: membership::NodeState) -> NodeState {
    match state {
        membership::NodeState::Up => NodeState::Up,
        membership::NodeState::Stalled => NodeState::Stalled,
        membership::NodeState::Down => NodeState::Down,
        membership::NodeState::Fenced => NodeState::Fenced,
    }
}
