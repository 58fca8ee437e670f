//! The cluster table and its transitions in the words of the admin protocol.

use admin::api::state_of;
use admin::wire::{Cause, Change, Node, NodeState, Property, State, Transition, View};
use membership::ChangeKind;

/// A view as commands and programs are told it.
pub fn view(view: &membership::View) -> View {
    let mut nodes: Vec<Node> = view.nodes.iter().map(node).collect();
    nodes.iter_mut().for_each(|node| node.voter = view.voters.contains(&node.id));
    View {
        epoch: view.epoch,
        cluster: view.cluster.clone(),
        master: view.master,
        nodes,
        pid_region: view.pid_region,
        voters_wanted: view.voters_wanted,
        mds: view.mds,
    }
}

/// A row; whether it votes is not said in it.
fn node(row: &membership::Node) -> Node {
    let property = |p: &membership::Property| Property { key: p.key.clone(), value: p.value.clone() };
    Node {
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
        draining: row.drained,
        voter: false,
        info: row.info.iter().map(property).collect(),
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

/// A transition as commands and programs are told it.
pub fn transition(step: &membership::Transition) -> Transition {
    let changes = step.changes.iter().map(|change| {
        let state =
            |row: &Option<membership::Node>| row.as_ref().map_or(State::None, |row| state_of(&node(row)));
        Change {
            node: change.node,
            from: state(&change.before) as i32,
            to: state(&change.after) as i32,
            cause: cause(change.kind()) as i32,
            text: text(step, change),
        }
    });
    Transition { number: step.number, at_ms: step.at_ms, changes: changes.collect() }
}

fn cause(kind: ChangeKind) -> Cause {
    match kind {
        ChangeKind::Founded | ChangeKind::Joined => Cause::Joined,
        ChangeKind::Up | ChangeKind::Recovered | ChangeKind::Restarted => Cause::Started,
        ChangeKind::Stalled => Cause::Stalled,
        ChangeKind::Down => Cause::Failed,
        ChangeKind::Fenced => Cause::Fenced,
        ChangeKind::Left => Cause::Left,
        ChangeKind::Removed => Cause::Removed,
        ChangeKind::Renamed => Cause::Renamed,
        ChangeKind::Drained | ChangeKind::Undrained => Cause::Drained,
        ChangeKind::Described => Cause::Described,
        ChangeKind::Voters => Cause::Voters,
        ChangeKind::Master => Cause::Master,
        ChangeKind::Setting | ChangeKind::Invited => Cause::Setting,
    }
}

/// What the cause alone does not say.
fn text(step: &membership::Transition, change: &membership::Change) -> String {
    let said = |word: &str| match change.why.as_str() {
        "" => word.to_owned(),
        why => format!("{word}: {why}"),
    };
    match (change.kind(), &change.before, &change.after, &step.charter_after) {
        (ChangeKind::Renamed, Some(before), Some(after), _) => {
            format!("{} is now {}", before.name, after.name)
        }
        (ChangeKind::Voters, _, _, Some(charter)) => {
            let voters: Vec<String> = charter.voters.iter().map(u32::to_string).collect();
            format!("voters {}", voters.join(", "))
        }
        (ChangeKind::Setting, _, _, Some(charter)) => {
            format!("voters wanted: {}", charter.voters_wanted)
        }
        (ChangeKind::Undrained | ChangeKind::Founded | ChangeKind::Restarted | ChangeKind::Invited, ..) => {
            said(change.kind().word())
        }
        _ => change.why.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use membership::Command;

    fn row(id: u32, name: &str, state: membership::NodeState) -> membership::Node {
        let name = name.into();
        membership::Node { id, name, state: state as i32, incarnation: 4, ..Default::default() }
    }

    fn step(before: &membership::View, after: &membership::View, kind: ChangeKind) -> Transition {
        transition(&membership::Transition::between(before, after, kind, "because", 1, 7))
    }

    fn views() -> (membership::View, membership::View) {
        let nodes = vec![row(1, "one", membership::NodeState::Up), row(2, "two", membership::NodeState::Up)];
        let before = membership::View { epoch: 4, nodes, voters: vec![1], ..Default::default() };
        let after = membership::View { epoch: 5, ..before.clone() };
        (before, after)
    }

    #[test]
    fn a_dead_node_is_told_with_its_states_and_why() {
        let (before, mut after) = views();
        after.nodes[1].state = membership::NodeState::Down as i32;
        let told = step(&before, &after, ChangeKind::Down);
        assert_eq!((told.number, told.at_ms, told.changes.len()), (5, 7, 1));
        let change = &told.changes[0];
        assert_eq!((change.node, change.from(), change.to()), (2, State::Up, State::Down));
        assert_eq!((change.cause(), change.text.as_str()), (Cause::Failed, "because"));
    }

    #[test]
    fn a_drained_node_goes_from_up_to_shutdown_and_back() {
        let (before, mut after) = views();
        after.nodes[0].drained = true;
        let told = step(&before, &after, ChangeKind::Drained);
        assert_eq!((told.changes[0].from(), told.changes[0].to()), (State::Up, State::Shutdown));
        let told = step(&after, &membership::View { epoch: 5, ..before }, ChangeKind::Undrained);
        assert_eq!((told.changes[0].from(), told.changes[0].to()), (State::Shutdown, State::Up));
    }

    #[test]
    fn names_and_voters_are_told_for_people() {
        let (before, mut after) = views();
        after.nodes[0].name = "first".into();
        assert_eq!(step(&before, &after, ChangeKind::Renamed).changes[0].text, "one is now first");
        let (before, mut after) = views();
        after.voters = vec![1, 2];
        let told = step(&before, &after, ChangeKind::Voters);
        assert_eq!(told.changes[0].text, "voters 1, 2");
        assert_eq!((told.changes[0].from(), told.changes[0].to()), (State::None, State::None));
        assert_eq!(view(&after).nodes.iter().filter(|node| node.voter).count(), 2);
    }

    #[test]
    fn what_a_command_does_is_told() {
        let mut table = membership::Table::from_view(views().0);
        let drain = membership::command::Drain { node: 2, drained: true };
        let outcome = table.apply(&Command { at_ms: 9, act: Some(membership::Act::Drain(drain)) });
        assert_eq!(outcome.refused, "");
        let told = transition(table.transition(5).unwrap());
        assert_eq!((told.changes[0].node, told.changes[0].to()), (2, State::Shutdown));
    }
}
