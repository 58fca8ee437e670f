//! What has become of a connection's locks, and what its program is told of it.
//!
//! Invariant: each call's end is told once. A program hears of a cancelled wait from the wait, and of a forced unlock from the unlock, as
//! libdlm's programs expect.

use super::session::{Doing, Early, Held, Kind, Session};
use crate::client::status;
use crate::client::wire::{self, Blocking, Completion, Notice};
use crate::event::{Effect, Event, Grant, LockId, Refusal, Unlock};
use crate::mode::Mode;
use base::Time;

/// What follows from an effect.
#[derive(Debug, Default)]
pub struct Told {
    /// To the program.
    pub notices: Vec<Notice>,
    /// To the table.
    pub events: Vec<Event>,
}

impl Told {
    fn complete(&mut self, completion: Completion) {
        self.notices.push(Notice { told: Some(wire::Told::Completion(completion)) });
    }
}

/// Applies an effect to its session.
pub fn apply(session: &mut Session, effect: Effect, now: Time) -> Told {
    let mut told = Told::default();
    match effect {
        Effect::Queued { tag, lock, .. } => name(session, tag, lock, &mut told),
        Effect::Granted(grant) => granted(session, &grant, now, &mut told),
        Effect::Refused { tag, lock, mode, why, .. } => {
            refused(session, tag, lock, (mode, why), now, &mut told)
        }
        Effect::Done { tag, .. } => done(session, tag, &mut told),
        Effect::Blocking { lock, mode, .. } => {
            if let Some(lkid) = session.names.get(&lock) {
                let blocking = Blocking { lkid: *lkid, mode: mode as u32 };
                told.notices.push(Notice { told: Some(wire::Told::Blocking(blocking)) });
            }
        }
        Effect::Purged { lock, tag, .. } => {
            if let Some(tag) = tag {
                session.doing.remove(&tag);
            }
            if let Some(lkid) = session.names.get(&lock).copied() {
                forget(session, lkid);
            }
        }
    }
    told
}

fn forget(session: &mut Session, lkid: u32) {
    let held = session.locks.remove(&lkid);
    if let Some(id) = held.and_then(|held| held.id) {
        session.names.remove(&id);
    }
}

/// The table has named a lock: what was waiting for that is said now.
fn name(session: &mut Session, tag: u64, lock: LockId, told: &mut Told) {
    let Some(doing) = session.doing.get(&tag) else { return };
    let (owner, lkid) = (session.owner, doing.lkid);
    let Some(held) = session.locks.get_mut(&lkid).filter(|held| held.id != Some(lock)) else { return };
    held.id = Some(lock);
    session.names.insert(lock, lkid);
    told.events.extend(held.early.take().map(|early| match early {
        Early::Cancel(tag) => Event::Cancel { tag, owner, lock },
        Early::Unlock(tag, flags) => Event::Unlock(Unlock { tag, owner, lock, flags, value: None }),
    }));
}

fn granted(session: &mut Session, grant: &Grant, now: Time, told: &mut Told) {
    name(session, grant.tag, grant.lock, told);
    let Some(doing) = session.doing.remove(&grant.tag) else { return };
    let Some(held) = session.locks.get_mut(&doing.lkid) else { return };
    (held.granted, held.wanted, held.pending) = (Some(grant.mode), None, None);
    (held.since, held.token) = (now, grant.token);
    if doing.is_overtaken {
        return;
    }
    let remark = |is_so: bool, flag: u32| if is_so { flag } else { 0 };
    told.complete(Completion {
        tag: doing.tag,
        lkid: doing.lkid,
        status: status::OK,
        flags: remark(grant.status.was_demoted, status::DEMOTED)
            | remark(grant.status.value_not_valid, status::VALUE_NOT_VALID)
            | remark(grant.status.is_other_mode, status::OTHER_MODE),
        mode: Some(grant.mode as u32),
        token: grant.token,
        value: grant.value.map(|(value, _)| value.to_vec()).unwrap_or_default(),
    });
}

fn refused(
    session: &mut Session,
    tag: u64,
    lock: Option<LockId>,
    (mode, why): (Option<Mode>, Refusal),
    now: Time,
    told: &mut Told,
) {
    let Some(doing) = session.doing.remove(&tag) else { return };
    let Doing { lkid, .. } = doing;
    let code = match why {
        Refusal::Cancelled if doing.as_deadlock => status::DEADLOCK,
        why => status::of(why),
    };
    let mut completion = Completion {
        tag: doing.tag,
        lkid,
        status: code,
        mode: mode.map(|mode| mode as u32),
        ..Completion::default()
    };
    match doing.kind {
        Kind::Lock => {
            let early = session.locks.get_mut(&lkid).and_then(|held| held.early.take());
            forget(session, lkid);
            if !doing.is_overtaken {
                told.complete(completion);
            }
            told.notices.extend(early.and_then(|early| end_early(session, early)));
            return;
        }
        Kind::Convert => {
            if let Some(held) = session.locks.get_mut(&lkid) {
                fall_back(held, mode, now, &mut completion);
            }
        }
        Kind::Unlock => {
            let held = session.locks.get_mut(&lkid);
            let is_gone = why == Refusal::NoLock;
            match held {
                Some(_) if is_gone => forget(session, lkid),
                Some(held) => held.is_unlocking = false,
                None => {}
            }
        }
        Kind::Cancel => {}
    }
    debug_assert!(lock.is_some());
    if !doing.is_overtaken {
        told.complete(completion);
    }
}

/// A conversion was refused: the lock is as before, or has lost its mode on the way.
fn fall_back(held: &mut Held, mode: Option<Mode>, now: Time, completion: &mut Completion) {
    if mode == Some(Mode::NL) && held.granted != mode {
        completion.flags |= status::DEMOTED;
    }
    (held.granted, held.wanted, held.pending, held.since) = (mode.or(held.granted), None, None, now);
}

/// What waited for a lock that never came to be: an unlock has what it wanted, a cancellation came too late.
fn end_early(session: &mut Session, early: Early) -> Option<Notice> {
    let (tag, code) = match early {
        Early::Cancel(tag) => (tag, status::BUSY),
        Early::Unlock(tag, _) => (tag, status::UNLOCKED),
    };
    let doing = session.doing.remove(&tag)?;
    let completion = Completion { tag: doing.tag, lkid: doing.lkid, status: code, ..Completion::default() };
    Some(Notice { told: Some(wire::Told::Completion(completion)) })
}

fn done(session: &mut Session, tag: u64, told: &mut Told) {
    let Some(doing) = session.doing.remove(&tag) else { return };
    let code = match doing.kind {
        Kind::Unlock => {
            // An overtaken request has ended with it.
            let pending = session.locks.get(&doing.lkid).and_then(|held| held.pending);
            pending.map(|pending| session.doing.remove(&pending));
            forget(session, doing.lkid);
            status::UNLOCKED
        }
        _ => status::OK,
    };
    told.complete(Completion { tag: doing.tag, lkid: doing.lkid, status: code, ..Completion::default() });
}
