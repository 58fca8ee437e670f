//! The cluster table as a state machine: commands in, transitions out.
//!
//! ```text
//!   Command --apply--> Outcome, and at most one Transition --advance--> the next View
//!                      Feed (transitions, or a whole view) --take-----> the same View, elsewhere
//! ```
//!
//! Invariants: a command that changes anything makes exactly one transition, whose number is one more than the last; one
//! that changes nothing or is refused makes none. The same commands make the same table. The last [`HISTORY_MAX`]
//! transitions are part of the table.

pub mod rules;

pub use rules::{NAME_BYTES_MAX, check_row, founded, join, leave, reborn, remove};

use crate::command::{Act, Command, Outcome};
use crate::transition::{ChangeKind, Transition};
use crate::wire::{NodeState, View};
use base::NodeId;
use prost::Message;
use std::collections::VecDeque;
use std::sync::Arc;

/// Transitions that are remembered.
pub const HISTORY_MAX: usize = 4_096;
/// Transitions in one feed.
pub const FEED_MAX: usize = 64;

/// The table.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Table {
    view: View,
    history: VecDeque<Arc<Transition>>,
}

/// What somebody lacks who knows less than another.
#[derive(Clone, PartialEq, Message)]
pub struct Feed {
    /// The next transitions, in order.
    #[prost(message, repeated, tag = "1")]
    pub steps: Vec<Transition>,
    /// The present view, where they reach too far back.
    #[prost(message, optional, tag = "2")]
    pub view: Option<View>,
}

/// [`Table`] as it rests.
#[derive(Clone, PartialEq, Message)]
struct Resting {
    #[prost(message, optional, tag = "1")]
    view: Option<View>,
    #[prost(message, repeated, tag = "2")]
    history: Vec<Transition>,
}

/// What a command does to a draft.
struct Done {
    kind: ChangeKind,
    why: String,
    node: u32,
}

impl Feed {
    /// True if there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.view.is_none()
    }
}

impl Table {
    /// A table that begins with `view`; what led to it is not known.
    pub fn from_view(view: View) -> Table {
        Table { view, history: VecDeque::new() }
    }

    /// The present view.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// True before anything was founded.
    pub fn is_empty(&self) -> bool {
        self.view.epoch == 0
    }

    /// The number of the oldest transition that is remembered; one more than the epoch if there is none.
    pub fn oldest(&self) -> u64 {
        self.history.front().map_or(self.view.epoch.saturating_add(1), |step| step.number)
    }

    /// The transition `number`, if it is remembered.
    pub fn transition(&self, number: u64) -> Option<&Arc<Transition>> {
        let place = usize::try_from(number.checked_sub(self.oldest())?).ok()?;
        self.history.get(place)
    }

    /// The transitions that are remembered, the oldest first.
    pub fn transitions(&self) -> impl DoubleEndedIterator<Item = &Arc<Transition>> {
        self.history.iter()
    }

    /// The view after transition `number`, if everything since is remembered.
    pub fn view_at(&self, number: u64) -> Option<View> {
        let mut view = self.view.clone();
        for step in self.history.iter().rev() {
            if view.epoch <= number || !view.retreat(step) {
                break;
            }
        }
        (view.epoch == number).then_some(view)
    }

    /// Carries out a command.
    pub fn apply(&mut self, command: &Command) -> Outcome {
        let mut draft = self.view.clone();
        let done = match command.act.as_ref().map(|act| carry_out(&mut draft, act, command.at_ms)) {
            Some(Ok(done)) => done,
            Some(Err(refused)) => return Outcome { refused, number: self.view.epoch, node: 0 },
            None => return Outcome { refused: "nothing is wanted".into(), number: self.view.epoch, node: 0 },
        };
        if draft != self.view {
            // A table that is founded again from what was last known goes on from there.
            draft.epoch = if self.is_empty() { draft.epoch.max(1) } else { self.view.epoch + 1 };
            if !draft.lives().eq(self.view.lives()) {
                draft.era = draft.epoch;
            }
            let before = self.history.back().map_or(0, |step| step.at_ms);
            let at_ms = command.at_ms.max(before);
            let step = Transition::between(&self.view, &draft, done.kind, &done.why, done.node, at_ms);
            self.view = draft;
            self.remember(Arc::new(step));
        }
        Outcome { number: self.view.epoch, node: done.node, refused: String::new() }
    }

    /// Takes in what another knows; false if there was nothing new.
    pub fn take(&mut self, feed: &Feed) -> bool {
        let before = self.view.epoch;
        for step in &feed.steps {
            if self.view.advance(step) {
                self.remember(Arc::new(step.clone()));
            }
        }
        if let Some(view) = feed.view.as_ref().filter(|view| view.epoch > self.view.epoch) {
            self.view = view.clone();
            self.history.clear();
        }
        self.view.epoch > before
    }

    /// Takes in what another copy of this table has, and gives it as a feed.
    pub fn catch_up(&mut self, newer: &Table) -> Option<Feed> {
        let mut whole = Feed::default();
        while self.view.epoch < newer.view.epoch {
            let feed = newer.feed(self.view.epoch);
            if !self.take(&feed) {
                break;
            }
            whole.steps.extend(feed.steps);
            whole.view = feed.view.or(whole.view);
        }
        (!whole.is_empty()).then_some(whole)
    }

    /// What somebody lacks who knows everything up to `after`; at most [`FEED_MAX`] steps of it.
    pub fn feed(&self, after: u64) -> Feed {
        if after >= self.view.epoch {
            return Feed::default();
        }
        let first = after + 1;
        if first < self.oldest() {
            return Feed { steps: Vec::new(), view: Some(self.view.clone()) };
        }
        let skipped = usize::try_from(first - self.oldest()).unwrap_or(usize::MAX);
        let steps = self.history.iter().skip(skipped).take(FEED_MAX);
        Feed { steps: steps.map(|step| Transition::clone(step)).collect(), view: None }
    }

    fn remember(&mut self, step: Arc<Transition>) {
        if self.history.len() >= HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(step);
    }

    /// The table as bytes, with at most `most` transitions.
    pub fn encode(&self, most: usize) -> Vec<u8> {
        let skipped = self.history.len().saturating_sub(most);
        let history = self.history.iter().skip(skipped).map(|step| Transition::clone(step)).collect();
        Resting { view: Some(self.view.clone()), history }.encode_to_vec()
    }

    /// The table from bytes.
    ///
    /// # Errors
    /// What is wrong with them, as a sentence.
    pub fn decode(bytes: &[u8]) -> Result<Table, String> {
        let resting = Resting::decode(bytes).map_err(|error| error.to_string())?;
        let view = resting.view.ok_or("it holds no view")?;
        if resting.history.len() > HISTORY_MAX {
            return Err(format!("{} transitions; the maximum is {HISTORY_MAX}", resting.history.len()));
        }
        let mut number = view.epoch;
        for step in resting.history.iter().rev() {
            if step.number != number || number == 0 {
                return Err(format!("transition {} stands in the place of {number}", step.number));
            }
            number -= 1;
        }
        let history = resting.history.into_iter().map(Arc::new).collect();
        Ok(Table { view, history })
    }
}

/// Does to a draft what a command wants.
fn carry_out(draft: &mut View, act: &Act, at_ms: u64) -> Result<Done, String> {
    use ChangeKind as Kind;
    use NodeState::{Down, Fenced, Stalled, Up};
    let done = |kind, node: u32, why: &str| Ok(Done { kind, node, why: why.to_owned() });
    if draft.epoch == 0 && !matches!(act, Act::Found(_)) {
        return Err("there is no cluster yet".into());
    }
    match act {
        Act::Found(view) => {
            if draft.epoch > 0 {
                return Err("the cluster is founded already".into());
            }
            *draft = view.clone();
            done(Kind::Founded, view.master, "")
        }
        Act::Join(row) => {
            let node = rules::join(draft, row)?;
            done(Kind::Joined, node.0, "")
        }
        Act::Rise(row) => {
            rules::rise(draft, row)?;
            done(Kind::Up, row.id, "")
        }
        Act::Stall(lives) => {
            rules::set_states(draft, &lives.lives, &[Up], Stalled);
            done(Kind::Stalled, 0, &lives.why)
        }
        Act::Recover(lives) => {
            rules::set_states(draft, &lives.lives, &[Stalled], Up);
            done(Kind::Recovered, 0, &lives.why)
        }
        Act::Run(runs) => {
            rules::set_runs(draft, &runs.runs);
            done(Kind::Restarted, 0, "")
        }
        Act::Down(lives) => {
            rules::set_states(draft, &lives.lives, &[Up, Stalled], Down);
            done(Kind::Down, 0, &lives.why)
        }
        Act::Fenced(fenced) => {
            let life = fenced.life.unwrap_or_default();
            if !fenced.done {
                return Err(format!("node {} is not fenced: {}", life.node, fenced.said));
            }
            rules::set_states(draft, &[life], &[Down], Fenced);
            done(Kind::Fenced, life.node, &fenced.said)
        }
        Act::Leave(life) => {
            rules::set_states(draft, &[*life], &[Up, Stalled], Down);
            done(Kind::Left, life.node, "")
        }
        Act::Enter(enter) => {
            let node = rules::enter(draft, enter, at_ms / 1_000)?;
            done(Kind::Joined, node.0, "with a join token")
        }
        Act::Ticket(ticket) => {
            let id = rules::invite(draft, ticket, at_ms / 1_000)?;
            done(Kind::Invited, 0, &format!("ticket {id} for {}", ticket.uses))
        }
        act => settle(draft, act),
    }
}

/// Does to a draft what a command wants that is not about a life.
fn settle(draft: &mut View, act: &Act) -> Result<Done, String> {
    use ChangeKind as Kind;
    let done = |kind, node: u32, why: &str| Ok(Done { kind, node, why: why.to_owned() });
    match act {
        Act::Remove(node) => {
            rules::remove(draft, NodeId(*node))?;
            done(Kind::Removed, *node, "")
        }
        Act::Rename(rename) => {
            rules::rename(draft, NodeId(rename.node), &rename.name)?;
            done(Kind::Renamed, rename.node, "")
        }
        Act::Drain(drain) => {
            rules::drain(draft, NodeId(drain.node), drain.drained)?;
            done(if drain.drained { Kind::Drained } else { Kind::Undrained }, drain.node, "")
        }
        Act::Describe(describe) => {
            let property = describe.property.clone().unwrap_or_default();
            rules::describe(draft, NodeId(describe.node), &property)?;
            done(Kind::Described, describe.node, &property.key)
        }
        Act::WantVoters(wanted) => {
            rules::want_voters(draft, *wanted)?;
            done(Kind::Setting, 0, "voters")
        }
        Act::Voters(voters) => {
            draft.voters = voters.nodes.clone();
            done(Kind::Voters, 0, "")
        }
        Act::Reign(node) => {
            draft.master = *node;
            done(Kind::Master, *node, "")
        }
        _ => Err("this is about a life".into()),
    }
}

#[cfg(test)]
#[path = "table/tests.rs"]
mod tests;
