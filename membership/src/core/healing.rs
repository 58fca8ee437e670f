//! Who keeps the log: the first nodes that can, an odd number of them, and another for one that is lost.
//!
//! Invariant: a voter that is only DOWN is replaced by one that is UP, never by nobody; the number of voters is odd except
//! while a node that was put out is the only reason that it is not.

use super::Core;
use super::event::RequestId;
use super::leading::Purpose;
use crate::table::rules;
use crate::talk::Say;
use crate::wire::NodeState;
use base::{NodeId, Time};
use replog::Member;
use std::collections::BTreeSet;

impl Core {
    /// The voters as the log has them now.
    pub(super) fn log_voters(&self) -> BTreeSet<Member> {
        let voters = self.log.voters();
        if voters.is_joint() { BTreeSet::new() } else { voters.voters.clone() }
    }

    /// True if the log counts on this node.
    pub(super) fn keeps_log(&self, node: NodeId) -> bool {
        let is_member = self.log.voters().members().iter().any(|member| member.node == node);
        is_member || self.known.view().voters.contains(&node.0)
    }

    /// A node that votes shall be removed: it is, when another votes in its place or the rest is enough.
    pub(super) fn remove_voter(&mut self, id: RequestId, session: u64, node: NodeId) -> Option<Say> {
        let mut draft = self.known.view().clone();
        draft.voters.clear();
        if let Err(why) = rules::remove(&mut draft, node) {
            return Some(Say::Refused(why));
        }
        let reign = self.reign.as_mut()?;
        reign.removals.push((id, session, node));
        None
    }

    /// Changes the voters where they are not as they should be.
    pub(super) fn heal(&mut self, now: Time) {
        self.finish_removals(now);
        self.note_losses(now);
        let changing = self.proposed.values().any(|purpose| matches!(purpose, Purpose::Voters(_)));
        let due = self.reign.as_ref().is_some_and(|reign| now >= reign.heal_at);
        if changing || !due || self.log.voters().is_joint() {
            return;
        }
        let wanted = self.wanted_voters(now);
        if wanted != self.log.voters().voters && !wanted.is_empty() {
            self.change_voters(now, wanted, None);
        }
    }

    /// Has the log be kept by others.
    pub(super) fn change_voters(&mut self, now: Time, voters: BTreeSet<Member>, asked: Option<RequestId>) {
        let request = self.expect(Purpose::Voters(asked));
        let learners = BTreeSet::new();
        self.drive(now, replog::Event::ChangeVoters { request, voters, learners });
    }

    fn finish_removals(&mut self, now: Time) {
        let Some(reign) = &mut self.reign else { return };
        let waiting = std::mem::take(&mut reign.removals);
        for (id, session, node) in waiting {
            if self.keeps_log(node) {
                self.reign.iter_mut().for_each(|reign| reign.removals.push((id, session, node)));
            } else {
                let act = crate::Act::Remove(node.0);
                self.propose(now, act, Some(session), Purpose::Asked(id));
            }
        }
    }

    fn note_losses(&mut self, now: Time) {
        let voters = self.log.voters().voters.iter().map(|member| member.node);
        let lost: Vec<NodeId> = voters.filter(|&node| !self.is_alive(node)).collect();
        let Some(reign) = &mut self.reign else { return };
        reign.lost.retain(|node, _| lost.contains(node));
        for node in lost {
            reign.lost.entry(node).or_insert(now);
        }
    }

    /// The member that a node would be, as it says itself.
    fn member(&self, node: NodeId) -> Option<Member> {
        if node == self.me() {
            return Some(self.config.member);
        }
        let follower = self.reign.as_ref()?.followers.get(&node)?;
        (follower.disk.0 != 0).then_some(Member { node, disk: follower.disk })
    }

    fn is_leaving(&self, node: NodeId) -> bool {
        let removed = self.known.view().node(node).is_none();
        removed || self.reign.iter().any(|reign| reign.removals.iter().any(|(_, _, id)| *id == node))
    }

    fn wanted_voters(&self, now: Time) -> BTreeSet<Member> {
        let Some(reign) = &self.reign else { return BTreeSet::new() };
        let present = &self.log.voters().voters;
        let is_up = |node| self.view().node(node).is_some_and(|row| row.state() == NodeState::Up);
        let wiped = |member: &Member| {
            is_up(member.node) && self.member(member.node).is_some_and(|known| known != *member)
        };
        let stays = present.iter().filter(|member| !self.is_leaving(member.node) && !wiped(member));
        let mut voters: BTreeSet<Member> = stays.copied().collect();
        let rows = self.known.view().nodes.iter().filter(|row| row.state() == NodeState::Up && !row.drained);
        let able = rows.map(crate::Node::node_id).filter(|&node| !self.is_leaving(node));
        let able = able.filter_map(|node| self.member(node)).filter(|member| !present.contains(member));
        let mut spare: Vec<Member> = able.collect();
        spare.reverse();
        let heal_after = self.config.timings.heal_after;
        let lost = |node: &NodeId| reign.lost.get(node).is_some_and(|&at| now.since(at) >= heal_after);
        let gone: Vec<Member> = voters.iter().filter(|member| lost(&member.node)).copied().collect();
        for member in gone {
            let Some(other) = spare.pop() else { break };
            voters.remove(&member);
            voters.insert(other);
        }
        let most = usize::try_from(self.known.view().voters_wanted).unwrap_or(1).clamp(1, replog::VOTERS_MAX);
        let size = most.min(voters.len() + spare.len());
        let size = if size.is_multiple_of(2) { size.saturating_sub(1).max(1) } else { size };
        while voters.len() < size {
            let Some(other) = spare.pop() else { break };
            voters.insert(other);
        }
        while voters.len() > size {
            let me = self.config.member;
            let dead = voters.iter().rev().find(|member| !self.is_alive(member.node));
            let last = dead.or_else(|| voters.iter().rev().find(|&&member| member != me));
            let Some(last) = last.copied() else { break };
            voters.remove(&last);
        }
        voters
    }

    /// The voters with `new` in the place of `old`, or why not.
    pub(super) fn replacement(&self, old: NodeId, new: NodeId) -> Result<BTreeSet<Member>, String> {
        let mut voters = self.log.voters().voters.clone();
        let place = voters.iter().find(|member| member.node == old).copied();
        let place = place.ok_or_else(|| format!("node {old} does not keep the table's log"))?;
        if voters.iter().any(|member| member.node == new) {
            return Err(format!("node {new} keeps the table's log already"));
        }
        let member = self.member(new).filter(|_| self.is_alive(new));
        let member = member.ok_or_else(|| format!("node {new} is not UP"))?;
        voters.remove(&place);
        voters.insert(member);
        Ok(voters)
    }
}
