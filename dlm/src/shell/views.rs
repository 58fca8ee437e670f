//! What the lock manager makes of a view of the cluster.
//!
//! For locks a life is a run of `ssid` in a life of its node: what a daemon knew of locks goes with it. Membership numbers both; a view says since
//! when those who live do ([`View::era`]), so one who misses views between two others still agrees with everybody about the era.
//!
//! Invariant: a node is shown no view before the first in which it lives itself, as the run that it is.

use crate::node::{Member, MemberState};
use base::{Epoch, Incarnation, NodeId, Prng};
use membership::{Node, NodeState, View};

/// The life of a node, for locks.
pub fn life(row: &Node) -> Incarnation {
    // Two runs have different numbers, and so have two lives; both are in the one number that is compared.
    Incarnation(Prng::new(row.incarnation ^ row.daemon.rotate_left(32)).next_u64())
}

/// Era and members of a view; `None` if this run of `me` does not live in it.
pub fn members(view: &View, me: NodeId, own: Incarnation) -> Option<(Epoch, Vec<Member>)> {
    let state = |row: &Node| match row.state() {
        NodeState::Up | NodeState::Stalled => MemberState::Alive,
        NodeState::Down => MemberState::Down,
        NodeState::Fenced => MemberState::Fenced,
    };
    let member = |row: &Node| Member { node: row.node_id(), life: life(row), state: state(row) };
    // Who has never lived has no locks.
    let members: Vec<Member> = view.nodes.iter().filter(|row| row.incarnation > 0).map(member).collect();
    let lives =
        |member: &Member| (member.node, member.life) == (me, own) && member.state == MemberState::Alive;
    members.iter().any(lives).then(|| (view.era(), members))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u32, daemon: u64, state: NodeState) -> Node {
        Node { id, incarnation: 5, daemon, state: state as i32, ..Node::default() }
    }

    #[test]
    fn each_run_of_a_daemon_is_a_life() {
        let mut view = View {
            era: 7,
            nodes: vec![row(1, 1, NodeState::Up), row(2, 2, NodeState::Stalled)],
            ..View::default()
        };
        let own = life(&view.nodes[0]);
        let (era, seen) = members(&view, NodeId(1), own).unwrap();
        assert_eq!((era, seen.len()), (Epoch(7), 2));
        assert!(seen.iter().all(|member| member.state == MemberState::Alive));
        view.nodes[0].daemon = 3;
        assert!(members(&view, NodeId(1), own).is_none(), "it speaks of another run");
        view.nodes[0] = row(1, 1, NodeState::Down);
        assert!(members(&view, NodeId(1), own).is_none(), "it is over");
    }
}
