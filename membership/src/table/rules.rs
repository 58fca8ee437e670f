//! What may happen to the cluster table: one function for each, on the draft of the next view.
//!
//! Invariants: ids are given out upwards and never twice; a name is borne by one row; a life that is DOWN never
//! comes back, only a later life of the same node does. What is refused leaves the draft as it was or useless.

use crate::command::{Enter, Life, Run};
use crate::token::{MachineNumber, Ticket, TicketId, Tickets};
use crate::wire::{Node, NodeState, Property, View};
use base::NodeId;
use base::limits::NODES_MAX;
use prost::Message as _;

/// How many voters a new cluster wants.
pub const VOTERS_WANTED: u32 = 3;
/// Things that may be written down about one node.
pub const INFO_MAX: usize = 32;
/// Bytes of one of them.
pub const INFO_BYTES_MAX: usize = 256;
/// Bytes of a node's name.
pub const NAME_BYTES_MAX: usize = 63;

/// The first view of a new cluster: `first` is node 1, and DOWN until its `ssid` says hello.
pub fn founded(cluster: &str, first: &Node, pid_region: u32) -> View {
    // Life 1 ended before it began: the node may vote, and its first real life is a later one.
    let row = Node { id: 1, state: NodeState::Down as i32, incarnation: 1, ..first.clone() };
    View {
        epoch: 1,
        cluster: cluster.into(),
        master: 1,
        nodes: vec![row],
        pid_region,
        mds: 1,
        last_id: 1,
        voters: vec![1],
        voters_wanted: VOTERS_WANTED,
        era: 1,
        tickets: Tickets::default(),
    }
}

/// Puts a machine into the table, DOWN until it says hello. A known name keeps its id.
///
/// # Errors
/// Why the machine cannot have what it asks for, as a sentence for its user.
pub fn join(view: &mut View, wanted: &Node) -> Result<NodeId, String> {
    check_row(wanted)?;
    if let Some(other) =
        view.nodes.iter().find(|n| n.name != wanted.name && n.is_alive() && clashes(n, wanted))
    {
        return Err(format!(
            "node {} ({}) already has the address {}",
            other.id, other.name, other.control_address
        ));
    }
    if let Some(known) = view.nodes.iter_mut().find(|node| node.name == wanted.name) {
        if known.is_alive() {
            return Err(format!("the name {} is in use by node {}, which is alive", known.name, known.id));
        }
        let life = known.incarnation;
        *known = Node {
            id: known.id,
            state: NodeState::Down as i32,
            incarnation: life,
            drained: known.drained,
            info: known.info.clone(),
            ..wanted.clone()
        };
        return Ok(known.node_id());
    }
    let highest = view.nodes.iter().map(|node| node.id).max().unwrap_or(0).max(view.last_id);
    let id = NodeId(highest + 1);
    if id > view.regions().node_max() || view.nodes.len() >= NODES_MAX {
        let most = view.regions().node_max().0.min(NODES_MAX as u32);
        return Err(format!(
            "the cluster is full: with home regions of {} pids it has at most {most} nodes",
            view.pid_region
        ));
    }
    view.last_id = id.0;
    view.nodes.push(Node { id: id.0, state: NodeState::Down as i32, incarnation: 0, ..wanted.clone() });
    Ok(id)
}

/// Makes a ticket, at `now` (seconds since 1970).
///
/// # Errors
/// Why not, as a sentence.
pub fn invite(view: &mut View, ticket: &Ticket, now: u64) -> Result<TicketId, String> {
    let ticket = Ticket { used: Vec::new(), ..ticket.clone() };
    let id = ticket.ticket_id().ok_or("the name of a ticket has 16 bytes")?;
    view.tickets.add(ticket, now).map_err(|error| error.to_string())?;
    Ok(id)
}

/// Puts a machine into the table that has a ticket for it, and takes one use from the ticket. A machine that came in with it already
/// is the node that it is.
///
/// # Errors
/// Why not, as a sentence for the machine's user.
pub fn enter(view: &mut View, enter: &Enter, now: u64) -> Result<NodeId, String> {
    let id = TicketId::read(&enter.ticket).ok_or("the name of a ticket has 16 bytes")?;
    let machine: MachineNumber =
        enter.machine.as_slice().try_into().map_err(|_| "the number of a machine has 16 bytes")?;
    let wanted = Node::decode(enter.row.as_slice()).map_err(|error| format!("its row: {error}"))?;
    match view.tickets.admits(id, &machine, now).map_err(|error| error.to_string())? {
        Some(node) if view.node(NodeId(node)).is_some() => Ok(NodeId(node)),
        Some(node) => Err(format!("this machine came in as node {node}, which was removed since")),
        None => {
            let node = join(view, &wanted)?;
            view.tickets.spend(id, &machine, node.0).map_err(|error| error.to_string())?;
            view.tickets.forget_expired(now);
            Ok(node)
        }
    }
}

/// Takes a node out of the table for good.
///
/// # Errors
/// Why not, as a sentence.
pub fn remove(view: &mut View, id: NodeId) -> Result<(), String> {
    let node = view.node(id).ok_or_else(|| format!("there is no node {id}"))?;
    if node.is_alive() {
        return Err(format!(
            "node {id} ({}) is {:?}: only a node that is DOWN can be removed",
            node.name,
            node.state()
        ));
    }
    if id.0 == view.mds {
        return Err(format!("node {id} ({}) holds the filesystem's metadata", node.name));
    }
    if view.voters.contains(&id.0) {
        return Err(format!(
            "node {id} ({}) keeps the table's log: another must take its place first",
            node.name
        ));
    }
    view.nodes.retain(|node| node.id != id.0);
    Ok(())
}

/// Ends a life at its own wish. A life that is over already stays over.
pub fn leave(view: &mut View, id: NodeId, incarnation: u64) {
    let row = view.nodes.iter_mut().find(|row| row.id == id.0 && row.incarnation == incarnation);
    if let Some(row) = row {
        row.state = NodeState::Down as i32;
    }
}

/// The row of a node whose new life has said hello: UP, described as the node itself does.
pub fn reborn(row: &Node, hello: &Node) -> Node {
    Node {
        id: row.id,
        name: row.name.clone(),
        state: NodeState::Up as i32,
        drained: row.drained,
        info: row.info.clone(),
        ..hello.clone()
    }
}

/// A later life of a node whose earlier one is over begins.
///
/// # Errors
/// Why not, as a sentence.
pub fn rise(view: &mut View, hello: &Node) -> Result<(), String> {
    check_row(hello)?;
    let row = view.nodes.iter_mut().find(|row| row.id == hello.id);
    let row = row.ok_or_else(|| format!("there is no node {}", hello.id))?;
    if !row.is_alive() && hello.incarnation > row.incarnation {
        *row = reborn(row, hello);
    }
    Ok(())
}

/// Changes the state of those of `lives` that are in one of the states `from`.
pub fn set_states(view: &mut View, lives: &[Life], from: &[NodeState], to: NodeState) {
    for row in &mut view.nodes {
        let named = lives.iter().any(|life| life.node == row.id && life.life == row.incarnation);
        if named && from.contains(&row.state()) {
            row.state = to as i32;
        }
    }
}

/// Notes which `ssid` runs in those of these lives that are not over.
pub fn set_runs(view: &mut View, runs: &[Run]) {
    for row in view.nodes.iter_mut().filter(|row| row.is_alive()) {
        let is_its = |run: &&Run| run.life.node == row.id && run.life.life == row.incarnation;
        if let Some(run) = runs.iter().find(is_its) {
            row.daemon = run.daemon;
        }
    }
}

/// Gives a node another name.
///
/// # Errors
/// Why not, as a sentence.
pub fn rename(view: &mut View, id: NodeId, name: &str) -> Result<(), String> {
    check_name(name)?;
    if let Some(other) = view.nodes.iter().find(|row| row.name == name && row.id != id.0) {
        return Err(format!("the name {name} is in use by node {}", other.id));
    }
    row(view, id)?.name = name.to_owned();
    Ok(())
}

/// Says whether something new is placed on a node.
///
/// # Errors
/// Why not, as a sentence.
pub fn drain(view: &mut View, id: NodeId, drained: bool) -> Result<(), String> {
    row(view, id)?.drained = drained;
    Ok(())
}

/// Writes something down about a node; an empty value takes the key away.
///
/// # Errors
/// Why not, as a sentence.
pub fn describe(view: &mut View, id: NodeId, property: &Property) -> Result<(), String> {
    let Property { key, value } = property;
    if key.is_empty() || key.len() > NAME_BYTES_MAX || value.len() > INFO_BYTES_MAX {
        return Err(format!(
            "what is written down has a key of 1 to {NAME_BYTES_MAX} bytes and a value of at most {INFO_BYTES_MAX}"
        ));
    }
    let info = &mut row(view, id)?.info;
    info.retain(|known| known.key != *key);
    if !value.is_empty() {
        if info.len() >= INFO_MAX {
            return Err(format!("{INFO_MAX} things are written down about node {id} already"));
        }
        info.push(property.clone());
        info.sort_by(|one, other| one.key.cmp(&other.key));
    }
    Ok(())
}

/// So many voters there shall be.
///
/// # Errors
/// Why not, as a sentence.
pub fn want_voters(view: &mut View, wanted: u32) -> Result<(), String> {
    if ![1, 3, 5, 7].contains(&wanted) {
        return Err(format!("{wanted} voters: there are 1, 3, 5 or 7"));
    }
    view.voters_wanted = wanted;
    Ok(())
}

fn row(view: &mut View, id: NodeId) -> Result<&mut Node, String> {
    view.nodes.iter_mut().find(|row| row.id == id.0).ok_or_else(|| format!("there is no node {id}"))
}

fn clashes(one: &Node, other: &Node) -> bool {
    one.control_address == other.control_address || one.data_address == other.data_address
}

/// Checks a row that a machine wants to have.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub fn check_row(row: &Node) -> Result<(), String> {
    check_name(&row.name)?;
    if row.control_addr().is_none() || row.data_addr().is_none() {
        return Err(format!("{:?} or {:?} is no ip:port", row.control_address, row.data_address));
    }
    if row.cpus == 0 {
        return Err("a node gives at least one core".into());
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), String> {
    let letters = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !letters || name.starts_with('-') {
        return Err(format!(
            "{name:?} is no name for a node: letters, digits, '.', '_', '-', at most {NAME_BYTES_MAX}"
        ));
    }
    if name.chars().all(|c| c.is_ascii_digit()) {
        return Err(format!("{name:?} is no name for a node: it would be taken for a node's number"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(name: &str, port: u16) -> Node {
        Node {
            name: name.into(),
            control_address: format!("127.0.0.1:{port}"),
            data_address: format!("127.0.0.1:{}", port + 1),
            cpus: 2,
            ..Node::default()
        }
    }

    #[test]
    fn ids_go_up_and_are_not_used_twice() {
        let mut view = founded("blue", &machine("one", 10), 16_384);
        assert_eq!(join(&mut view, &machine("two", 20)), Ok(NodeId(2)));
        assert_eq!(join(&mut view, &machine("three", 30)), Ok(NodeId(3)));
        remove(&mut view, NodeId(3)).unwrap();
        assert_eq!(join(&mut view, &machine("four", 30)), Ok(NodeId(4)));
    }

    #[test]
    fn a_name_keeps_its_id_and_cannot_be_taken_from_a_live_node() {
        let mut view = founded("blue", &machine("one", 10), 16_384);
        join(&mut view, &machine("two", 20)).unwrap();
        assert_eq!(join(&mut view, &machine("two", 40)), Ok(NodeId(2)));
        view.nodes[1].state = NodeState::Up as i32;
        assert!(join(&mut view, &machine("two", 50)).unwrap_err().contains("in use by node 2"));
        assert!(join(&mut view, &machine("other", 40)).unwrap_err().contains("already has the address"));
        assert!(remove(&mut view, NodeId(2)).unwrap_err().contains("only a node that is DOWN"));
    }

    #[test]
    fn a_full_cluster_says_so() {
        let mut view = founded("blue", &machine("one", 10), 1 << 20);
        join(&mut view, &machine("two", 20)).unwrap();
        join(&mut view, &machine("three", 30)).unwrap();
        assert!(join(&mut view, &machine("four", 40)).unwrap_err().contains("at most 3 nodes"));
    }

    #[test]
    fn bad_rows_are_named() {
        for (name, why) in [("", "no name"), ("12", "number"), ("a b", "no name"), ("-x", "no name")] {
            assert!(check_row(&machine(name, 10)).unwrap_err().contains(why), "{name}");
        }
        assert!(check_row(&Node { control_address: "x".into(), ..machine("a", 1) }).is_err());
        assert!(check_row(&Node { cpus: 0, ..machine("a", 1) }).is_err());
    }
}
