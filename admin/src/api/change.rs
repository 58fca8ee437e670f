//! Transitions as the cluster API tells them: one change of one node at a time.
//!
//! A transition of the table may change several nodes at once. Each of its changes has an id of its own: the number of the transition and
//! the place in it. The last one's id is also that of the transition as a whole, which is what the membership is labelled with.
//!
//! ```text
//!  63                        16 15          0
//!  | number of the transition | place, from 1; 0xffff: the last, and the whole |
//! ```

use crate::wire::{Cause, Node, NodeState, State, Transition};
use std::fmt;
use std::str::FromStr;

const PLACE_BITS: u32 = 16;
const LAST: u64 = 0xffff;

/// The id of a change; later ones are larger. 0: before the oldest that is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransId(pub u64);

impl TransId {
    /// Before everything.
    pub const BEGINNING: TransId = TransId(0);

    /// The last change of transition `number`.
    pub fn whole(number: u64) -> TransId {
        TransId(number << PLACE_BITS | LAST)
    }

    /// The change in the place `index` (from 0) of `count` in transition `number`.
    fn place(number: u64, index: usize, count: usize) -> TransId {
        match u64::try_from(index + 1) {
            Ok(place) if index + 1 < count && place < LAST => TransId(number << PLACE_BITS | place),
            _ => TransId::whole(number),
        }
    }

    /// The number of the transition.
    pub fn number(self) -> u64 {
        self.0 >> PLACE_BITS
    }

    /// After which transition one must read to see what comes after this.
    pub(super) fn read_after(self) -> u64 {
        let whole = self.0 & LAST == LAST;
        if whole { self.number() } else { self.number().saturating_sub(1) }
    }
}

/// `42`, or `42.1` for the first of several changes.
impl fmt::Display for TransId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 & LAST {
            0 | LAST => write!(f, "{}", self.number()),
            place => write!(f, "{}.{place}", self.number()),
        }
    }
}

impl FromStr for TransId {
    type Err = String;

    fn from_str(text: &str) -> Result<TransId, String> {
        let wrong = || format!("{text:?} is no transition: 42, or 42.1");
        let (number, place) =
            text.split_once('.').map_or((text, None), |(number, place)| (number, Some(place)));
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let place: Option<u64> = place.map(str::parse).transpose().map_err(|_| wrong())?;
        match place {
            _ if number >= 1 << (u64::BITS - PLACE_BITS) => Err(wrong()),
            None if number == 0 => Ok(TransId::BEGINNING),
            None => Ok(TransId::whole(number)),
            Some(place) if (1..LAST).contains(&place) => Ok(TransId(number << PLACE_BITS | place)),
            Some(_) => Err(wrong()),
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its id.
    pub id: TransId,
    /// When the master proposed it, milliseconds since 1970.
    pub at_ms: u64,
    /// The node; 0: the cluster as a whole.
    pub node: u32,
    /// The node's state before.
    pub from: State,
    /// The node's state after.
    pub to: State,
    /// Why.
    pub cause: Cause,
    /// For people: the new name, the voters, ...
    pub text: String,
}

impl Change {
    /// True if the node became UP, or is no longer.
    pub fn is_simple(&self) -> bool {
        (self.from == State::Up) != (self.to == State::Up)
    }
}

/// The changes of a transition, in their order.
pub fn changes(transition: &Transition) -> impl Iterator<Item = Change> + '_ {
    let count = transition.changes.len();
    transition.changes.iter().enumerate().map(move |(index, change)| Change {
        id: TransId::place(transition.number, index, count),
        at_ms: transition.at_ms,
        node: change.node,
        from: change.from(),
        to: change.to(),
        cause: change.cause(),
        text: change.text.clone(),
    })
}

/// The state that a row of the table tells.
pub fn state_of(row: &Node) -> State {
    state(row.state(), row.incarnation, row.draining)
}

/// What a node's state is for the API.
pub fn state(state: NodeState, incarnation: u64, draining: bool) -> State {
    match state {
        NodeState::Up if draining => State::Shutdown,
        NodeState::Up => State::Up,
        NodeState::Stalled => State::Stalled,
        NodeState::Down if incarnation == 0 => State::NeverUp,
        NodeState::Down => State::Down,
        NodeState::Fenced => State::Fenced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;
    use proptest::prelude::*;

    fn transition(number: u64, changes: usize) -> Transition {
        let change =
            wire::Change { node: 1, from: State::Up as i32, to: State::Down as i32, ..Default::default() };
        Transition { number, at_ms: 5, changes: vec![change; changes] }
    }

    proptest! {
        #[test]
        fn ids_grow_within_a_transition_and_from_one_to_the_next(number in 1u64..1 << 40, count in 1usize..2_000) {
            let ids: Vec<TransId> = changes(&transition(number, count)).map(|change| change.id).collect();
            prop_assert!(ids.is_sorted_by(|one, other| one < other));
            prop_assert!(ids.iter().all(|id| id.number() == number));
            prop_assert_eq!(*ids.last().unwrap(), TransId::whole(number));
            prop_assert!(TransId::whole(number) < changes(&transition(number + 1, count)).next().unwrap().id);
        }

        #[test]
        fn an_id_is_read_back_as_it_is_written(number in 1u64..1 << 47, place in 1u64..=LAST) {
            let id = TransId(number << PLACE_BITS | place);
            prop_assert_eq!(id.to_string().parse::<TransId>(), Ok(id));
        }

        #[test]
        fn what_is_no_id_is_refused(text in "\\PC*") {
            let _ = text.parse::<TransId>();
        }
    }

    #[test]
    fn zero_is_the_beginning() {
        assert_eq!("0".parse(), Ok(TransId::BEGINNING));
        for wrong in ["", "-1", "1.0", "1.65535", "1.", "x", "300000000000000"] {
            assert!(wrong.parse::<TransId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_change_is_simple_if_it_leads_to_up_or_from_it() {
        let all = |from, to| {
            let change = wire::Change { from: from as i32, to: to as i32, ..Default::default() };
            changes(&Transition { changes: vec![change], ..Default::default() }).next().unwrap().is_simple()
        };
        assert!(
            all(State::Down, State::Up) && all(State::Up, State::Stalled) && all(State::Up, State::Shutdown)
        );
        assert!(!all(State::Stalled, State::Down) && !all(State::Up, State::Up));
    }
}
