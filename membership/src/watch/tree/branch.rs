//! A branch: one node's part of one round, the children that it hands parts of it on to, and what they have answered.
//!
//! A part is a span of the tree's line; who stands first in it is its leader, and cuts the rest into `fan_out` spans. So parent and
//! child need not know the same view: the child answers for whoever stands in its span in the view that it has.
//!
//! Invariant: every member of the span (in the beat's view) is a child's, or was passed over, or is this node, or stands in
//! `uncovered`: nobody is taken for one that has answered who has not. Children are never more than [`CHILDREN_MAX`].

use crate::watch::roster::{Roster, spot};
use crate::watch::wire::{Beat, SPANS_MAX, Span};
use base::{NodeId, Time};
use std::time::Duration;

/// How often a child is asked before its part is taken over.
const ASKED_ALONE: u32 = 2;
/// How often a child that does not answer is asked in a round, all in all.
const ASKED_MAX: u32 = 5;
/// Children of one branch, those included that it took over from silent ones.
pub const CHILDREN_MAX: usize = 256;

/// What a child has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing yet.
    Waiting,
    /// It lives; of its part this is missing yet, and the oldest view is this.
    Partial(Vec<Span>, u64),
    /// It waits for nothing more.
    Complete(Vec<Span>, u64),
    /// It was silent, and its part was taken over.
    PassedOver,
}

/// One child.
#[derive(Clone, Debug)]
pub struct Child {
    /// The node.
    pub node: NodeId,
    /// Its part.
    pub span: Span,
    /// When it was last asked, or answered.
    pub touched: Time,
    /// How often it was asked.
    pub asked: u32,
    /// It was sent the transitions that it lacked.
    pub helped: bool,
    /// What it has answered.
    pub answer: Answer,
}

/// One node's part of a round.
#[derive(Clone, Debug)]
pub struct Branch {
    /// The round's beat as this node got it, but for its transitions.
    pub beat: Beat,
    /// What was taken on. More than one where a leader was passed over that lives: then two ask.
    pub spans: Vec<Span>,
    /// Who wants the answer.
    pub parents: Vec<NodeId>,
    /// To whom parts were handed on.
    pub children: Vec<Child>,
    /// Parts of it that nobody answers for: missing, whatever comes.
    pub uncovered: Vec<Span>,
    /// When it was begun.
    pub opened: Time,
    /// When the last answer went up.
    pub reported: Option<Time>,
    /// Something is known that was not reported.
    pub news: bool,
}

/// All of the line.
pub const WHOLE: Span = Span { low: 0, high: None };

/// The one place of `node`.
fn point(place: u64) -> Span {
    Span { low: place, high: place.checked_add(1) }
}

/// Cuts `span` but for `leader` into parts, each with its own leader, at most `fan_out`.
pub fn parts(roster: &Roster, span: Span, leader: Option<NodeId>, fan_out: u64) -> Vec<(NodeId, Span)> {
    let low = leader.map_or(span.low, |leader| spot(leader).saturating_add(1).max(span.low));
    let inside = roster.between(low, span.high);
    if inside.len() as u64 <= fan_out {
        return inside.iter().map(|(place, node)| (*node, point(*place))).collect();
    }
    let end = span.high.map_or(1 << 64, u128::from);
    let length = end - u128::from(low);
    let edge = |at: u64| u128::from(low) + length * u128::from(at) / u128::from(fan_out);
    let cut = (0..fan_out).map(|at| Span { low: edge(at) as u64, high: u64::try_from(edge(at + 1)).ok() });
    cut.filter_map(|part| roster.between(part.low, part.high).first().map(|(_, node)| (*node, part)))
        .collect()
}

/// What to do about a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// Nothing.
    Leave,
    /// Ask it again.
    AskAgain,
    /// Ask it again, and take its part over.
    TakeOver,
}

impl Child {
    /// What to do about it, if it should answer within `hop`.
    pub fn care(&self, now: Time, hop: Duration) -> Care {
        let quiet = now.since(self.touched);
        match self.answer {
            Answer::Waiting if quiet < hop => Care::Leave,
            Answer::Waiting if self.asked < ASKED_ALONE => Care::AskAgain,
            Answer::Waiting => Care::TakeOver,
            // Its beat, or its answer, was lost twice; or what it said next was lost.
            Answer::PassedOver if self.asked < ASKED_MAX && quiet >= hop * self.asked => Care::AskAgain,
            Answer::Partial(..) if quiet >= hop * 3 => Care::AskAgain,
            _ => Care::Leave,
        }
    }
}

/// Who gets `span` when its leader `node` is passed over: who stands next in it.
pub fn rest(roster: &Roster, node: NodeId, span: Span) -> Option<(NodeId, Span)> {
    let rest = Span { low: spot(node).checked_add(1)?, high: span.high };
    roster.between(rest.low, rest.high).first().map(|(_, next)| (*next, rest))
}

impl Branch {
    /// A part of a round that nobody shares yet.
    pub fn new(beat: Beat, parents: Vec<NodeId>, now: Time) -> Branch {
        let spans = beat.span.into_iter().collect();
        Branch {
            beat,
            spans,
            parents,
            children: Vec::new(),
            uncovered: Vec::new(),
            opened: now,
            reported: None,
            news: false,
        }
    }

    /// Takes `span` on: the leaders of its parts become children. Says who is to be asked for what. Those in `silent` are passed over
    /// at once: they are asked like the others, but who stands next in their part gets it too.
    pub fn hand_on(
        &mut self,
        roster: &Roster,
        parts: Vec<(NodeId, Span)>,
        silent: impl Fn(NodeId) -> bool,
        now: Time,
    ) -> Vec<(NodeId, Span)> {
        let mut asked = Vec::new();
        let mut open = parts;
        while let Some((node, span)) = open.pop() {
            if self.children.len() == CHILDREN_MAX {
                self.uncovered.push(span);
                continue;
            }
            let passed = silent(node);
            if passed {
                open.extend(rest(roster, node, span));
            }
            // Who was silent in the last round is asked once in this one.
            let (answer, asks) = if passed { (Answer::PassedOver, ASKED_MAX) } else { (Answer::Waiting, 1) };
            // One that has a part already gets a larger one: when the leader before it is passed over.
            self.children.retain(|child| child.node != node);
            self.children.push(Child { node, span, touched: now, asked: asks, helped: false, answer });
            asked.push((node, span));
        }
        asked
    }

    /// True if `span` lies within what was taken on.
    pub fn covers(&self, span: Span) -> bool {
        let end = |span: &Span| span.high.unwrap_or(u64::MAX);
        self.spans.iter().any(|own| own.low <= span.low && end(&span) <= end(own))
    }

    /// Its leader does not know the view that the beat speaks of: it cannot say that it has reached everybody.
    pub fn cover_only(&mut self, leader: NodeId, span: Span) {
        let place = spot(leader);
        self.uncovered.push(Span { low: span.low, high: Some(place) });
        self.uncovered.extend(place.checked_add(1).map(|low| Span { low, high: span.high }));
    }

    /// True if nobody is waited for.
    pub fn is_complete(&self) -> bool {
        let waited = |child: &Child| matches!(child.answer, Answer::Waiting | Answer::Partial(..));
        !self.children.iter().any(waited)
    }

    /// Who of the span has not answered, as far as it is known.
    pub fn missing(&self) -> Vec<Span> {
        let mut missing = self.uncovered.clone();
        for child in &self.children {
            match &child.answer {
                Answer::Waiting => missing.push(child.span),
                Answer::PassedOver => missing.push(point(spot(child.node))),
                Answer::Partial(spans, _) | Answer::Complete(spans, _) => missing.extend(spans),
            }
        }
        // Too many to tell: then all are missing, which errs on the safe side.
        if missing.len() > SPANS_MAX { self.spans.clone() } else { missing }
    }

    /// The oldest view of those that have answered, or `own`.
    pub fn oldest(&self, own: u64) -> u64 {
        let views = self.children.iter().filter_map(|child| match child.answer {
            Answer::Partial(_, oldest) | Answer::Complete(_, oldest) => Some(oldest),
            Answer::Waiting | Answer::PassedOver => None,
        });
        views.min().unwrap_or(own).min(own)
    }
}

/// The members of `spans`, ascending.
pub fn members(roster: &Roster, spans: &[Span]) -> Vec<NodeId> {
    let all = spans.iter().flat_map(|span| roster.between(span.low, span.high));
    let mut nodes: Vec<_> = all.map(|(_, node)| *node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Pace;
    use base::{Epoch, Incarnation};
    use proptest::prelude::*;

    fn roster(ids: impl IntoIterator<Item = u32>) -> Roster {
        let alive = ids.into_iter().map(|id| (NodeId(id), Incarnation(1)));
        Roster::new(Epoch(1), NodeId(100_000), alive, &Pace::default())
    }

    /// All that a tree from here reaches, and how deep it is.
    fn reached(roster: &Roster, span: Span, leader: Option<NodeId>, depth: u32) -> (Vec<NodeId>, u32) {
        let (mut all, mut deepest): (Vec<_>, _) = (leader.into_iter().collect(), depth);
        for (node, part) in parts(roster, span, leader, 8) {
            let (below, deep) = reached(roster, part, Some(node), depth + 1);
            all.extend(below);
            deepest = deepest.max(deep);
        }
        (all, deepest)
    }

    #[test]
    fn ten_thousand_nodes_are_reached_in_a_few_hops() {
        let (all, depth) = reached(&roster(1..=10_000), WHOLE, None, 0);
        assert_eq!(all.len(), 10_000);
        assert!(depth <= 6, "{depth}");
    }

    #[test]
    fn who_leaves_moves_only_those_beneath_or_beside_it() {
        let parents = |roster: &Roster| {
            let mut parents = std::collections::BTreeMap::new();
            let mut open = vec![(None, WHOLE)];
            while let Some((leader, span)) = open.pop() {
                for (node, part) in parts(roster, span, leader, 8) {
                    parents.insert(node, leader);
                    open.push((Some(node), part));
                }
            }
            parents
        };
        let (before, after) =
            (parents(&roster(1..=2_000)), parents(&roster((1..=2_000).filter(|id| *id != 77))));
        let moved = after.iter().filter(|(node, parent)| before[node] != **parent).count();
        assert!(moved < 60, "{moved} have another parent");
    }

    #[test]
    fn what_nobody_answered_is_missing() {
        let roster = roster(1..=100);
        let mut branch = Branch::new(Beat::default(), Vec::new(), Time(0));
        let all = parts(&roster, WHOLE, None, 8);
        let (first, span) = all[0];
        let asked = branch.hand_on(&roster, all, |node| node == first, Time(0));
        assert!(asked.contains(&(first, span)), "a silent one is asked all the same");
        assert_eq!(asked.len(), 9, "and one more for it");
        assert_eq!(members(&roster, &branch.missing()).len(), 100);
        for child in &mut branch.children {
            if child.node != first {
                child.answer = Answer::Complete(Vec::new(), 1);
            }
        }
        assert!(branch.is_complete());
        assert_eq!(members(&roster, &branch.missing()), [first]);
        assert_eq!((branch.oldest(4), branch.oldest(0)), (1, 0));
    }

    proptest! {
        #[test]
        fn everybody_is_reached_once(ids in prop::collection::btree_set(1u32..10_000, 0..200)) {
            let roster = roster(ids.iter().copied());
            let (mut all, _) = reached(&roster, WHOLE, None, 0);
            all.sort_unstable();
            prop_assert_eq!(all, ids.into_iter().map(NodeId).collect::<Vec<_>>());
        }

        /// Spans come from other nodes: any of them is looked at without harm.
        #[test]
        fn any_span_is_cut(low in any::<u64>(), high in any::<Option<u64>>(), leader in prop::option::of(1u32..50)) {
            let roster = roster(1..=50);
            let span = Span { low, high };
            for (_, part) in parts(&roster, span, leader.map(NodeId), 8) {
                prop_assert!(part.low >= low && (high.is_none() || part.high <= high));
            }
        }
    }
}
