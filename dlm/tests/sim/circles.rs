//! What a deadlock is, as the users see it: who wants what another one has, who wants what ... and so round.
//!
//! Invariant: nothing counts but what users have, want, and when they asked; so a circle here is a deadlock whatever the nodes think.

use super::users::{Doing, Habit, User};
use super::world::{LEASE, PATIENCE};
use crate::Key;
use base::Time;
use std::collections::BTreeMap;

/// Within this it is broken, if nothing else goes wrong: the lease of the dead, who may be among those waited for; patience of who waits, and of a
/// search that began a moment too early; messages that are sent again.
pub const BOUND: u64 = LEASE + LEASE / 10 + 3 * PATIENCE + 16_000;
/// Who asks so much later than another one may all the same be ahead of it in a queue.
const OVERTAKES: u64 = 16_000;

/// True if `waiter` cannot go on before `other` does something, whatever the order in which they are served.
fn holds_up(waiter: &User, other: &User) -> bool {
    let (Some(key), Some(wanted)) = (waiter.key, waiter.wanted) else { return false };
    other.has(&key).is_some_and(|mode| !mode.goes_with(wanted))
}

/// True if `other` may be ahead of `waiter`; or if it may have to go first, because their node was called back by somebody.
fn may_be_ahead(waiter: &User, other: &User) -> bool {
    if other.owner.node == waiter.owner.node && waiter.key.is_some_and(|key| other.has(&key).is_some()) {
        return true;
    }
    // A node that must give its token back asks for it again, behind all others who have asked: however long its own users have waited for each other.
    let is_elsewhere = other.owner.node != waiter.owner.node;
    let is_earlier = other.doing == Doing::Converting || other.since.0 < waiter.since.0 + OVERTAKES;
    other.key == waiter.key && (is_elsewhere || is_earlier)
}

/// Notes for each user since when it has been in a circle, and whether it may have been.
pub fn note(now: Time, habit: Habit, users: &mut [&mut User]) {
    let mut waiting: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
    for (at, user) in users.iter().enumerate().filter(|(_, user)| user.waits()) {
        for key in user.held.iter().map(|held| held.key).chain(user.key) {
            waiting.entry(key).or_default().push(at);
        }
    }
    let ways = |ahead: bool| -> Vec<Vec<usize>> {
        let way = |one: &usize| -> Vec<usize> {
            let waiter = &users[*one];
            let others = waiter.key.filter(|_| waiter.waits()).and_then(|key| waiting.get(&key));
            let others = others.into_iter().flatten().filter(|other| *other != one);
            let is_way = |other: &&usize| {
                holds_up(waiter, users[**other]) || (ahead && may_be_ahead(waiter, users[**other]))
            };
            others.filter(is_way).copied().collect()
        };
        (0..users.len()).map(|one| way(&one)).collect()
    };
    let surely = ways(false);
    let perhaps = if habit == Habit::Exclusive { surely.clone() } else { ways(true) };
    for (at, user) in users.iter_mut().enumerate() {
        if !reaches(&surely, at) {
            user.in_circle = None;
        } else if user.in_circle.is_none() {
            user.in_circle = Some(now);
        }
        if reaches(&perhaps, at) {
            user.was_in_circle = true;
        }
    }
}

fn reaches(ways: &[Vec<usize>], start: usize) -> bool {
    let mut seen = vec![false; if ways[start].is_empty() { 0 } else { ways.len() }];
    let mut next = ways[start].clone();
    while let Some(at) = next.pop() {
        if at == start {
            return true;
        }
        if !std::mem::replace(&mut seen[at], true) {
            next.extend(&ways[at]);
        }
    }
    false
}
