//! The master's part of the core: from what is heard and wished to the next view.
//!
//! Invariant: a wish is answered when the view that grants it is agreed, or when this node is no longer master.

use super::Core;
use super::event::RequestId;
use crate::agreement::voters;
use crate::table;
use crate::talk::{Ask, Joined, Say};
use crate::wire::{Node, NodeState, View};
use base::{NodeId, Time};

/// Changes asked of the master that wait for their turn.
pub const ASKS_MAX: usize = 64;

/// A change asked of the master.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) id: RequestId,
    ask: Ask,
}

/// A change in a proposal that is not agreed yet.
#[derive(Clone, Debug)]
pub(super) struct Deciding {
    pub(super) id: RequestId,
    epoch: u64,
    joined: Option<NodeId>,
}

impl Core {
    pub(super) fn wish(&mut self, now: Time, id: RequestId, ask: Ask) -> Option<Say> {
        if !self.agreement.is_master() {
            return Some(Say::NotMaster(self.agreement.master(now).map_or(0, |id| id.0)));
        }
        if self.wishes.len() >= ASKS_MAX {
            return Some(Say::Refused("too many changes of the cluster are under way; try again".into()));
        }
        self.wishes.push_back(Wish { id, ask });
        None
    }

    pub(super) fn give_up_wishes(&mut self, now: Time) {
        let master = self.agreement.master(now).map_or(0, |id| id.0);
        let waiting = self.wishes.drain(..).map(|wish| wish.id);
        let ids = waiting.chain(self.deciding.drain(..).map(|deciding| deciding.id));
        self.answers.extend(ids.map(|id| (id, Say::NotMaster(master))));
    }

    /// Master only: proposes a view in which everything is as it is heard and wished.
    pub(super) fn propose(&mut self, now: Time) {
        let Some(present) = self.agreement.draft() else { return };
        let mut view = present.clone();
        let mut voters_may_change = self.agreement.is_settled();
        for at in 0..view.nodes.len() {
            let Some(row) = self.next_row(&view.nodes[at], now) else { continue };
            let new_voter = view.nodes[at].incarnation == 0;
            if new_voter && !voters_may_change {
                continue;
            }
            voters_may_change &= !new_voter;
            view.nodes[at] = row;
        }
        let epoch = view.epoch + 1;
        let decided = self.deciding.len();
        self.grant_wishes(&mut view, voters_may_change, epoch);
        if view != present || self.agreement.owes_proposal() {
            self.agreement.propose(now, view);
        } else {
            self.deciding[decided..].iter_mut().for_each(|deciding| deciding.epoch = 0);
        }
    }

    /// The row that `row` must become, `None` if it is right.
    fn next_row(&self, row: &Node, now: Time) -> Option<Node> {
        let with =
            |state: NodeState| (row.state() != state).then(|| Node { state: state as i32, ..row.clone() });
        let itself = row.node_id() == self.me();
        let mine = (itself && row.incarnation < self.row.incarnation).then_some(&self.row);
        if let Some(hello) = mine.or_else(|| self.detector.returning(row)) {
            if row.is_alive() {
                return with(NodeState::Down);
            }
            return (itself || self.detector.is_present(hello)).then(|| table::reborn(row, hello));
        }
        if !row.is_alive() {
            return None;
        }
        if itself {
            return with(if self.condition.data_up { NodeState::Up } else { NodeState::Stalled });
        }
        with(self.detector.opinion(row, now))
    }

    fn grant_wishes(&mut self, view: &mut View, mut voters_may_change: bool, epoch: u64) {
        for Wish { id, ask } in std::mem::take(&mut self.wishes) {
            let granted = match &ask {
                Ask::Join(join) => table::join(view, &join.row.clone().unwrap_or_default()).map(Some),
                Ask::Leave(leave) => {
                    table::leave(view, NodeId(leave.node), leave.incarnation);
                    Ok(None)
                }
                Ask::Remove(remove) => {
                    let mut without = view.clone();
                    let removed = table::remove(&mut without, NodeId(remove.node));
                    let same_voters = voters(&without) == voters(view);
                    if removed.is_ok() && !same_voters && !voters_may_change {
                        self.wishes.push_back(Wish { id, ask });
                        continue;
                    }
                    voters_may_change &= same_voters;
                    *view = without;
                    removed.map(|()| None)
                }
                _ => Ok(None),
            };
            match granted {
                Ok(joined) => self.deciding.push(Deciding { id, epoch, joined }),
                Err(why) => self.answers.push((id, Say::Refused(why))),
            }
        }
    }

    pub(super) fn answer_decided(&mut self) {
        let view = self.agreement.committed();
        let answers = &mut self.answers;
        self.deciding.retain(|deciding| {
            let agreed = deciding.epoch <= view.epoch;
            if agreed {
                answers.push((
                    deciding.id,
                    match deciding.joined {
                        Some(node) => Say::Joined(Joined { node: node.0, view: Some(view.clone()) }),
                        None => Say::Done(()),
                    },
                ));
            }
            !agreed
        });
    }
}
