//! The threads and tasks of this process as one owner of locks: what they wait for, and what they hold.
//!
//! Invariant: each request, conversion and unlock that somebody waits for is answered once; what was given up is undone when its answer comes.

use super::holds::{Follows, Holds, Place};
use crate::event::{Convert, Effect, Event, Grant, LockId, Owner, Refusal, Status, Unlock, VALUE_BYTES};
use crate::flags::Flags;
use crate::message::Key;
use crate::mode::Mode;
use crate::shell::{Listener, Told};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

/// The tag of what nobody waits for.
const NOBODY: u64 = 0;

/// What a lock was granted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The lock.
    pub place: Place,
    /// Its mode.
    pub mode: Mode,
    /// Remarks.
    pub status: Status,
    /// The value block, if it was to be read.
    pub value: Option<[u8; VALUE_BYTES]>,
}

#[derive(Debug)]
enum About {
    Request { key: Key, is_single: bool },
    Convert(Place),
    Unlock,
}

#[derive(Debug)]
enum Stage {
    Waits(Option<Waker>),
    /// Nobody wants it any more.
    GivenUp,
    Over(Result<Option<Granted>, Refusal>),
}

#[derive(Debug)]
struct Wait {
    about: About,
    lock: Option<LockId>,
    stage: Stage,
}

/// All of them.
pub struct Threads {
    owner: OnceLock<Owner>,
    waits: Mutex<HashMap<u64, Wait, foldhash::fast::FixedState>>,
    last_tag: AtomicU64,
    pub holds: Holds,
}

impl Threads {
    /// Nobody waits for anything yet.
    pub fn new(seed: u64) -> Threads {
        Threads {
            owner: OnceLock::new(),
            waits: Mutex::default(),
            last_tag: AtomicU64::new(NOBODY),
            holds: Holds::new(seed),
        }
    }

    /// Who they are, for the core. Said once.
    pub fn be(&self, owner: Owner) {
        // It is said where it is made.
        let _ = self.owner.set(owner);
    }

    /// Who they are.
    pub fn owner(&self) -> Owner {
        *self.owner.get().expect("it is said before anybody can ask")
    }

    fn begin(&self, about: About) -> u64 {
        let tag = self.last_tag.fetch_add(1, Relaxed) + 1;
        self.waits.lock().insert(tag, Wait { about, lock: None, stage: Stage::Waits(None) });
        tag
    }

    /// A tag for a request. `is_single`: the lock goes when its user lets it go.
    pub fn request(&self, key: Key, is_single: bool) -> u64 {
        self.begin(About::Request { key, is_single })
    }

    /// A tag for a conversion.
    pub fn convert(&self, place: Place) -> u64 {
        self.begin(About::Convert(place))
    }

    /// A tag for an unlock that somebody waits for.
    pub fn unlock(&self) -> u64 {
        self.begin(About::Unlock)
    }

    /// The answer, once it is there.
    pub fn poll(&self, tag: u64, context: &mut Context<'_>) -> Poll<Result<Option<Granted>, Refusal>> {
        let mut waits = self.waits.lock();
        let Some(wait) = waits.get_mut(&tag) else { return Poll::Ready(Err(Refusal::NoLock)) };
        match &mut wait.stage {
            Stage::Over(_) => match waits.remove(&tag).map(|wait| wait.stage) {
                Some(Stage::Over(answer)) => Poll::Ready(answer),
                _ => Poll::Ready(Err(Refusal::NoLock)),
            },
            stage => {
                *stage = Stage::Waits(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }

    /// Nobody waits for this any more. What the core must be told now.
    pub fn give_up(&self, tag: u64) -> Option<Event> {
        let mut waits = self.waits.lock();
        let wait = waits.get_mut(&tag)?;
        let (owner, lock) = (self.owner(), wait.lock);
        if let Stage::Over(answer) = &wait.stage {
            let undone = answer.ok().flatten().filter(|_| matches!(wait.about, About::Request { .. }));
            waits.remove(&tag);
            drop(waits);
            return undone.and_then(|granted| self.let_go(granted.place));
        }
        wait.stage = Stage::GivenUp;
        // What is not named yet is cancelled as soon as it is.
        let is_request = matches!(wait.about, About::Request { .. } | About::Convert(_));
        lock.filter(|_| is_request).map(|lock| Event::Cancel { tag: NOBODY, owner, lock })
    }

    /// A user has done with a lock.
    pub fn let_go(&self, place: Place) -> Option<Event> {
        self.holds.put_back(place).map(|follows| self.event(follows))
    }

    fn event(&self, follows: Follows) -> Event {
        let (tag, owner) = (NOBODY, self.owner());
        match follows {
            Follows::Unlock(lock) => {
                Event::Unlock(Unlock { tag, owner, lock, flags: Flags::FORCEUNLOCK, value: None })
            }
            Follows::Lower(lock, mode) => {
                let (flags, value, scope, deadline) = (Flags::NONE, None, None, None);
                Event::Convert(Convert { tag, owner, lock, mode, scope, flags, value, deadline })
            }
        }
    }

    fn granted(&self, grant: &Grant, told: &mut Told) {
        let mut waits = self.waits.lock();
        let Some(wait) = waits.get_mut(&grant.tag) else { return };
        let place = match wait.about {
            About::Request { key, is_single } => {
                self.holds.granted(key, grant.lock, grant.mode, grant.token, is_single)
            }
            About::Convert(place) => {
                self.holds.converted(place, grant.mode, grant.token);
                Place { token: grant.token, ..place }
            }
            About::Unlock => return,
        };
        let value = grant.value.map(|(bytes, _)| bytes);
        let granted = Granted { place, mode: grant.mode, status: grant.status, value };
        let is_given_up = matches!(wait.stage, Stage::GivenUp);
        let is_request = matches!(wait.about, About::Request { .. });
        if !is_given_up {
            return end(wait, Ok(Some(granted)), told);
        }
        waits.remove(&grant.tag);
        if is_request {
            told.events.extend(self.let_go(place));
        }
    }

    fn ended(&self, tag: u64, answer: Result<Option<Granted>, Refusal>, told: &mut Told) {
        let mut waits = self.waits.lock();
        let Some(wait) = waits.get_mut(&tag) else { return };
        if matches!(wait.stage, Stage::GivenUp) {
            waits.remove(&tag);
            return;
        }
        end(wait, answer, told);
    }
}

fn end(wait: &mut Wait, answer: Result<Option<Granted>, Refusal>, told: &mut Told) {
    if let Stage::Waits(waker) = std::mem::replace(&mut wait.stage, Stage::Over(answer)) {
        told.wakes.extend(waker);
    }
}

impl Listener for Threads {
    fn hear(&self, effect: Effect, told: &mut Told) {
        match effect {
            Effect::Queued { tag, lock, owner } => {
                let mut waits = self.waits.lock();
                let Some(wait) = waits.get_mut(&tag) else { return };
                wait.lock = Some(lock);
                if matches!(wait.stage, Stage::GivenUp) {
                    told.events.push(Event::Cancel { tag: NOBODY, owner, lock });
                }
            }
            Effect::Granted(grant) => self.granted(&grant, told),
            Effect::Refused { tag, why, .. } => self.ended(tag, Err(why), told),
            Effect::Done { tag, .. } => self.ended(tag, Ok(None), told),
            Effect::Blocking { lock, mode, .. } => {
                let (follows, waker) = self.holds.wanted(lock, mode);
                told.events.extend(follows.map(|follows| self.event(follows)));
                told.wakes.extend(waker);
            }
            Effect::Purged { tag, .. } => {
                if let Some(tag) = tag {
                    self.ended(tag, Err(Refusal::NoLock), told);
                }
            }
        }
    }
}
