//! What users are told, and what the oracles say to it.
//!
//! Invariant: each answer is that to what the user does, or to its cancel.

use super::{Happening, World, circles};
use crate::node::Event;
use crate::sim::users::User;
use crate::{Effect as Told, Key, Refusal};
use base::NodeId;

impl World {
    pub(super) fn user_cancels(&mut self, node: NodeId, tag: u64) -> Result<(), String> {
        self.last_tag += 1;
        let cancel_tag = self.last_tag;
        let Some(machine) = self.machines.get_mut(&node).filter(|machine| machine.runs) else {
            return Ok(());
        };
        let user = machine.users.iter_mut().find(|user| user.tag == tag);
        let Some(event) = user.and_then(|user| user.cancel(cancel_tag)) else { return Ok(()) };
        self.note(|| format!("{node} user {event:?}"));
        self.show(node, Event::User(event))
    }

    pub(super) fn told(&mut self, node: NodeId, told: Told) -> Result<(), String> {
        self.note(|| format!("{node} told {told:?}"));
        let machine = self.machines.get_mut(&node).unwrap();
        let owner = match told {
            Told::Granted(grant) => grant.owner,
            Told::Refused { owner, .. } | Told::Done { owner, .. } | Told::Purged { owner, .. } => owner,
            Told::Queued { owner, .. } | Told::Blocking { owner, .. } => owner,
        };
        let Some(at) = machine.users.iter().position(|user| user.owner == owner) else {
            let is_purged = matches!(told, Told::Purged { .. });
            return if is_purged { Ok(()) } else { Err(format!("nobody is told {told:?}")) };
        };
        let user = &mut machine.users[at];
        match told {
            Told::Blocking { .. } => return Ok(()),
            Told::Queued { tag, lock, .. } if tag == user.tag => {
                user.queued = Some(lock);
                return Ok(());
            }
            Told::Done { tag, .. } | Told::Refused { tag, .. } if user.cancels == Some(tag) => {
                user.cancels = None;
                return Ok(());
            }
            _ if told.ended() != Some(user.tag) => return Err(format!("{user:?} is told {told:?}")),
            _ => {}
        }
        self.users_acted = true;
        let key: Key = user.key.unwrap();
        let mut verdict = Ok(());
        match told {
            Told::Granted(grant) => {
                user.granted(grant.lock, grant.mode);
                verdict = self.oracle.granted(self.now, key, &grant);
            }
            Told::Refused { why, mode, .. } => {
                verdict = self.oracle.refused(key, user, why, mode);
                user.has_left(mode);
                if why == Refusal::Deadlock {
                    user.is_victim();
                    self.victims += 1;
                }
            }
            _ => user.has_left(None),
        }
        let pause = 1 + self.prng.below(1_500);
        self.later(pause, Happening::UserActs { node, user: at });
        verdict
    }

    /// Circles of waits: who is in one, and that none lasts.
    pub(super) fn circles(&mut self) -> Result<(), String> {
        if std::mem::take(&mut self.users_acted) {
            let running = self.machines.values_mut().filter(|machine| machine.runs);
            let mut users: Vec<&mut User> = running.flat_map(|machine| &mut machine.users).collect();
            circles::note(self.now, self.plan.habit, &mut users);
            self.oldest_circle = users.iter().filter_map(|user| user.in_circle).min();
        }
        match self.oldest_circle {
            Some(since) if self.now.0 > since.max(self.disturbed).0 + circles::BOUND => {
                Err(format!("a circle of waits has lasted since {since:?}"))
            }
            _ => Ok(()),
        }
    }
}
