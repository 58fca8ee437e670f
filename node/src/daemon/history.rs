//! The answer to a question for transitions, and the wait for one.
//!
//! Invariant: an answer begins with the transition behind the one that the question names, and has no holes.

use super::table;
use crate::admin::server::refuse_because;
use admin::wire::{Answer, TRANSITIONS_MAX, TransitionsWanted, WAIT_MS_MAX, Why};
use membership::{History, Transition};
use std::time::Duration;
use tokio::time::Instant;

/// Answers at once if there is such a transition, or when there is one, or with none when the asker's patience is over.
pub async fn answer(history: &History, wanted: TransitionsWanted) -> Answer {
    let max = match wanted.max {
        0 => TRANSITIONS_MAX,
        max => max.min(TRANSITIONS_MAX),
    };
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    if wanted.before > 0 {
        return told(before(history, wanted.before, max).iter());
    }
    let until = Instant::now() + Duration::from_millis(wanted.wait_ms.min(WAIT_MS_MAX).into());
    // Marked as seen before looking: what comes after the look wakes us.
    let mut views = history.watch();
    loop {
        views.borrow_and_update();
        match after(history, wanted.after, max) {
            None => return too_old(wanted.after),
            Some(steps) if steps.is_empty() => {}
            Some(steps) => return told(steps.iter()),
        }
        match tokio::time::timeout_at(until, views.changed()).await {
            Ok(Ok(())) => {}
            // The time is over, or membership has ended: then ssid ends, and the asker finds the next one.
            Ok(Err(_)) | Err(_) => return Answer::default(),
        }
    }
}

/// The last `max` transitions with numbers below `number`, the oldest first.
fn before(history: &History, number: u64, max: usize) -> Vec<Transition> {
    let table = history.table();
    let steps = table.transitions().rev().filter(|step| step.number < number).take(max);
    let mut steps: Vec<Transition> = steps.map(|step| Transition::clone(step)).collect();
    steps.reverse();
    steps
}

/// The first `max` transitions behind `number`; `None` if some of them are no longer kept. Behind 0: behind all that are not kept.
fn after(history: &History, number: u64, max: usize) -> Option<Vec<Transition>> {
    let mut position = match number {
        0 => history.table().oldest().saturating_sub(1),
        number => number,
    };
    let mut steps = Vec::new();
    while steps.len() < max {
        let feed = history.feed(position);
        if feed.view.is_some() {
            // The oldest of them went just now, or some are no longer kept.
            return None;
        }
        let Some(last) = feed.steps.last() else { break };
        position = last.number;
        steps.extend(feed.steps);
    }
    steps.truncate(max);
    Some(steps)
}

fn told<'a>(steps: impl Iterator<Item = &'a Transition>) -> Answer {
    Answer { transitions: steps.map(table::transition).collect(), ..Answer::default() }
}

fn too_old(after: u64) -> Answer {
    let why = format!("the transitions after {after} are no longer kept; ask for the membership anew");
    refuse_because(Why::TooOld, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use membership::{Act, Command, Feed, Table, View};

    /// Tables after each of `count` changes, the first as it was before.
    fn tables(count: u64) -> Vec<Table> {
        let row = membership::Node { id: 1, name: "one".into(), incarnation: 1, ..Default::default() };
        let mut table = Table::from_view(View { epoch: 1, nodes: vec![row], ..Default::default() });
        let mut all = vec![table.clone()];
        for n in 0..count {
            let drain = membership::command::Drain { node: 1, drained: n % 2 == 0 };
            table.apply(&Command { at_ms: n, act: Some(Act::Drain(drain)) });
            all.push(table.clone());
        }
        all
    }

    fn numbers(answer: &Answer) -> Vec<u64> {
        answer.transitions.iter().map(|step| step.number).collect()
    }

    fn wanted(after: u64) -> TransitionsWanted {
        TransitionsWanted { after, ..Default::default() }
    }

    #[tokio::test]
    async fn pages_have_no_holes_in_both_directions() {
        let history = History::new(tables(200).pop().unwrap());
        assert_eq!(numbers(&answer(&history, wanted(0)).await), (2..=201).collect::<Vec<_>>());
        assert_eq!(numbers(&answer(&history, wanted(150)).await), (151..=201).collect::<Vec<_>>());
        let few = TransitionsWanted { max: 3, ..wanted(5) };
        assert_eq!(numbers(&answer(&history, few).await), [6, 7, 8]);
        let last = TransitionsWanted { before: u64::MAX, max: 2, ..Default::default() };
        assert_eq!(numbers(&answer(&history, last).await), [200, 201]);
        assert_eq!(numbers(&answer(&history, wanted(201)).await), Vec::<u64>::new());
    }

    #[tokio::test]
    async fn what_is_forgotten_is_told() {
        let old = tables(membership::table::HISTORY_MAX as u64 + 10).pop().unwrap();
        let history = History::new(old);
        assert_eq!(answer(&history, wanted(5)).await.why(), Why::TooOld);
        assert_eq!(answer(&history, wanted(0)).await.transitions[0].number, 12);
    }

    #[tokio::test]
    async fn a_waiter_is_woken_by_the_next_one() {
        let all = tables(1);
        let history = History::new(all[0].clone());
        let waiting = TransitionsWanted { wait_ms: 20_000, ..wanted(1) };
        let (answered, ()) = tokio::join!(answer(&history, waiting), async {
            tokio::task::yield_now().await;
            let feed: Feed = all[1].feed(1);
            assert!(history.take(&feed).is_some());
        });
        assert_eq!(numbers(&answered), [2]);
    }

    #[tokio::test]
    async fn a_waiter_whose_time_is_over_gets_none() {
        let history = History::new(tables(0).pop().unwrap());
        let waiting = TransitionsWanted { wait_ms: 1, ..wanted(1) };
        assert_eq!(answer(&history, waiting).await, Answer::default());
    }
}
