//! What a view means to an endpoint: where its peers are, and which of them fail at once.

use crate::wire::{Node, View};
use base::NodeId;
use fabric::{Endpoint, Peer, Role};
use std::net::SocketAddr;

/// Tells `endpoint`, which belongs to node `me`, the addresses that `view` has and `before` has not, and forgets nodes that only
/// `before` has. An address that did not change is not told again: a node that is back may be elsewhere ([`reach`]), and no view
/// shows that yet.
pub(crate) fn apply(endpoint: &Endpoint, me: NodeId, before: Option<&View>, view: &View) {
    for row in &view.nodes {
        let known = before.and_then(|before| before.node(row.node_id()));
        let same = |known: &Node| {
            known.control_address == row.control_address && known.data_address == row.data_address
        };
        if !known.is_some_and(same) {
            set_addresses(endpoint, row);
        }
        if row.node_id() != me && endpoint.local().role == Role::Control {
            endpoint.keep_connected(control(row.node_id()));
        }
    }
    let gone = before.map(|before| before.nodes.as_slice()).unwrap_or_default();
    for row in gone.iter().filter(|row| view.node(row.node_id()).is_none()) {
        endpoint.forget(control(row.node_id()));
        endpoint.forget(data(row.node_id()));
    }
}

/// Tells `endpoint` where a node is that no view shows there yet.
pub(crate) fn reach(endpoint: &Endpoint, row: &Node) {
    set_addresses(endpoint, row);
    endpoint.keep_connected(control(row.node_id()));
}

/// Makes calls to both daemons of a node fail at once, or succeed again.
pub(crate) fn set_down(endpoint: &Endpoint, node: NodeId, down: bool) {
    endpoint.set_down(control(node), down);
    endpoint.set_down(data(node), down);
}

fn set_addresses(endpoint: &Endpoint, row: &Node) {
    let set = |peer: Peer, address: Option<SocketAddr>| {
        if let Some(address) = address.filter(|_| peer != endpoint.local()) {
            endpoint.set_address(peer, address);
        }
    };
    set(control(row.node_id()), row.control_addr());
    set(data(row.node_id()), row.data_addr());
}

fn control(node: NodeId) -> Peer {
    Peer { node, role: Role::Control }
}

fn data(node: NodeId) -> Peer {
    Peer { node, role: Role::Data }
}
