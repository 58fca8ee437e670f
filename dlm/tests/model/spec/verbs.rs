//! The model's verbs: what each event does.
//!
//! Invariant: each is one rule after the other, as the README says them.

use super::{Outcome, Pending, Spec, SpecLock, meets};
use crate::history::LOSS_KEPT;
use dlm::mode::{ValueMove, value_move};
use dlm::{Convert, Flags, Gone, Mode, Owner, Refusal, Request, Scope, Status, Unlock};

impl Spec {
    fn contradicts(flags: Flags, mode: Mode, deadline: bool) -> bool {
        flags.has(Flags::ALTPR | Flags::ALTCW)
            || flags.has(Flags::TIMEOUT) && !deadline
            || flags.has(Flags::NOQUEUE) && flags.has_any(Flags::QUECVT | Flags::CONVDEADLK | Flags::EXPEDITE)
            || flags.has(Flags::EXPEDITE) && mode != Mode::NL
    }

    pub(super) fn request(&mut self, request: &Request) {
        if let Err(why) = self.try_request(request) {
            self.locks.retain(|lock| lock.key != request.tag);
            self.tell(request.tag, Outcome::Refused { why, mode: None });
        }
    }

    fn try_request(&mut self, request: &Request) -> Result<(), Refusal> {
        let misplaced = Flags::QUECVT | Flags::CONVDEADLK | Flags::FORCEUNLOCK | Flags::IVVALBLK;
        let flags = request.flags;
        if Self::contradicts(flags, request.mode, request.deadline.is_some())
            || flags.has_any(misplaced)
            || !request.scope.is_sound()
        {
            return Err(Refusal::Invalid(""));
        }
        if self.locks.iter().filter(|lock| lock.owner == request.owner).count() >= 20 {
            return Err(Refusal::Limit("locks_per_owner"));
        }
        if flags.has(Flags::ORPHAN) {
            return self.adopt(request);
        }
        self.block(&request.name);
        self.locks.push(SpecLock {
            key: request.tag,
            owner: request.owner,
            name: request.name,
            scope: request.scope,
            granted: None,
            pending: None,
            lasting: flags,
            demoted: false,
            orphan: false,
            held_over: false,
            until: u64::MAX,
        });
        let wish = self.wish(request.tag, request.mode, request.scope, flags, request.deadline.map(|d| d.0));
        match self.mode_at_once(request.tag, &wish) {
            Some(mode) => self.grant(request.tag, &wish, mode, None),
            None => self.wait(request.tag, wish)?,
        }
        Ok(())
    }

    fn wish(&mut self, tag: u64, mode: Mode, scope: Scope, flags: Flags, deadline: Option<u64>) -> Pending {
        self.places += 1;
        let place = if flags.has(Flags::HEADQUE) { -self.places } else { self.places };
        Pending { tag, mode, scope, flags, deadline, place }
    }

    fn wait(&mut self, key: u64, wish: Pending) -> Result<(), Refusal> {
        if wish.flags.has(Flags::NOQUEUE) {
            return Err(Refusal::Again);
        }
        if self.others(key).filter(|other| other.pending.is_some()).count() >= 12 {
            return Err(Refusal::Limit("queue_max"));
        }
        self.at(key).pending = Some(wish);
        Ok(())
    }

    fn adopt(&mut self, request: &Request) -> Result<(), Refusal> {
        let orphans: Vec<_> = self
            .locks
            .iter()
            .filter(|lock| lock.orphan && lock.name == request.name && lock.owner.node == request.owner.node)
            .collect();
        if orphans.is_empty() {
            return Err(Refusal::NoOrphan);
        }
        let fits: Vec<u64> = orphans
            .iter()
            .filter(|lock| lock.granted == Some(request.mode) && lock.scope.holds(request.scope))
            .map(|lock| lock.key)
            .collect();
        // Which of several: any; histories in which it matters are not made.
        let key = *fits.first().ok_or(Refusal::Again)?;
        let is_valid = self.block(&request.name).is_valid;
        let lock = self.at(key);
        lock.owner = request.owner;
        lock.orphan = false;
        lock.lasting = request.flags;
        let (mode, scope) = (lock.granted.unwrap(), lock.scope);
        let status = Status { value_not_valid: !is_valid, ..Status::default() };
        self.tell(request.tag, Outcome::Granted { mode, scope, status, value: None });
        Ok(())
    }

    fn is_his(&self, key: u64, owner: Owner) -> bool {
        self.lock(key).is_some_and(|lock| lock.owner == owner && !lock.orphan && !lock.held_over)
    }

    pub(super) fn convert(&mut self, key: u64, convert: &Convert) {
        if !self.is_his(key, convert.owner) {
            return self.tell(convert.tag, Outcome::Refused { why: Refusal::NoLock, mode: None });
        }
        if let Err(why) = self.try_convert(key, convert) {
            self.refuse(convert.tag, key, why);
        }
    }

    fn try_convert(&mut self, key: u64, convert: &Convert) -> Result<(), Refusal> {
        let lock = self.lock(key).unwrap().clone();
        let (Some(granted), None) = (lock.granted, &lock.pending) else { return Err(Refusal::Busy) };
        let flags = convert.flags;
        let misplaced = Flags::EXPEDITE | Flags::ORPHAN | Flags::FORCEUNLOCK;
        let lacks_value = value_move(Some(granted), convert.mode) == ValueMove::Write
            && flags.has(Flags::VALBLK)
            && !flags.has(Flags::IVVALBLK)
            && convert.value.is_none();
        if Self::contradicts(flags, convert.mode, convert.deadline.is_some())
            || flags.has_any(misplaced)
            || flags.has(Flags::QUECVT) && granted.covers(convert.mode)
            || lacks_value
        {
            return Err(Refusal::Invalid(""));
        }
        let wish = self.wish(convert.tag, convert.mode, lock.scope, flags, convert.deadline.map(|d| d.0));
        if let Some(mode) = self.mode_at_once(key, &wish) {
            self.grant(key, &wish, mode, convert.value);
            self.serve();
            return Ok(());
        }
        let stays = flags.has_any(Flags::NOQUEUE | Flags::NODLCKWT);
        if stays || !self.would_deadlock(key, &wish) {
            return self.wait(key, wish);
        }
        if !flags.has(Flags::CONVDEADLK) {
            return Err(Refusal::Deadlock);
        }
        self.at(key).granted = Some(Mode::NL);
        self.at(key).demoted = true;
        self.serve();
        match self.mode_at_once(key, &wish) {
            Some(mode) => self.grant(key, &wish, mode, None),
            None => self.wait(key, wish)?,
        }
        Ok(())
    }

    /// A conversion ahead waits for what one behind has, and the one behind waits for the one ahead, or for what it has.
    fn would_deadlock(&self, key: u64, wish: &Pending) -> bool {
        let me = self.lock(key).unwrap();
        self.others(key).any(|other| {
            let (Some(theirs), true) = (&other.pending, other.granted.is_some()) else { return false };
            let holds_up = |lock: &SpecLock, wish: &Pending| {
                !lock.granted.unwrap().goes_with(wish.mode) && meets(lock.scope, wish.scope)
            };
            let both = holds_up(me, theirs) && holds_up(other, wish);
            let behind = |second: &SpecLock, waits: &Pending, ahead: &Pending| {
                holds_up(second, ahead) && Self::in_the_way(ahead, waits) && !waits.flags.has(Flags::NOORDER)
            };
            both || if wish.flags.has(Flags::HEADQUE) {
                behind(other, theirs, wish)
            } else {
                behind(me, wish, theirs)
            }
        })
    }

    pub(super) fn unlock(&mut self, key: u64, unlock: &Unlock) {
        let lock = match self.lock(key) {
            Some(lock) if self.is_his(key, unlock.owner) => lock.clone(),
            _ => return self.tell(unlock.tag, Outcome::Refused { why: Refusal::NoLock, mode: None }),
        };
        let writes = lock.granted.is_some_and(|mode| mode >= Mode::PW);
        let (flags, forced) = (unlock.flags, unlock.flags.has(Flags::FORCEUNLOCK));
        if lock.pending.is_some() && !forced {
            return self.refuse(unlock.tag, key, Refusal::Busy);
        }
        let lacks = writes && flags.has(Flags::VALBLK) && unlock.value.is_none();
        if lacks && !flags.has(Flags::IVVALBLK) {
            return self.refuse(unlock.tag, key, Refusal::Invalid(""));
        }
        if writes {
            self.write(&lock.name, flags, unlock.value);
        }
        if let Some(pending) = &lock.pending {
            self.refuse(pending.tag, key, Refusal::Cancelled);
        }
        self.tell(unlock.tag, Outcome::Done);
        self.locks.retain(|lock| lock.key != key);
        self.serve();
    }

    pub(super) fn cancel(&mut self, key: u64, tag: u64, owner: Owner) {
        if !self.is_his(key, owner) {
            self.tell(tag, Outcome::Refused { why: Refusal::NoLock, mode: None });
        } else if self.lock(key).unwrap().pending.is_none() {
            self.refuse(tag, key, Refusal::NotPending);
        } else {
            self.tell(tag, Outcome::Done);
            self.give_up(key, Refusal::Cancelled);
        }
    }

    fn give_up(&mut self, key: u64, why: Refusal) {
        let pending = self.at(key).pending.take().unwrap();
        self.refuse(pending.tag, key, why);
        self.at(key).demoted = false;
        self.locks.retain(|lock| lock.key != key || lock.granted.is_some());
        self.serve();
    }

    pub(super) fn gone(&mut self, gone: Gone) {
        let concerned = |lock: &SpecLock| match gone {
            Gone::Holder(owner) => lock.owner == owner && !lock.orphan && !lock.held_over,
            Gone::Down { node, .. } | Gone::Fenced(node) => lock.owner.node == node,
            Gone::Orphans(node) => lock.owner.node == node && lock.orphan,
            Gone::OrphansOf(owner) => lock.owner == owner && lock.orphan,
        };
        for key in self.locks.iter().filter(|lock| concerned(lock)).map(|lock| lock.key).collect::<Vec<_>>() {
            let lock = self.lock(key).unwrap().clone();
            let stays = lock.granted.is_some_and(|mode| match gone {
                Gone::Holder(_) => lock.lasting.has(Flags::PERSISTENT),
                Gone::Down { until, .. } => {
                    lock.lasting.has(Flags::GUARD) && mode != Mode::NL && until.0 > self.now
                }
                Gone::Fenced(_) | Gone::Orphans(_) | Gone::OrphansOf(_) => false,
            });
            if lock.held_over && stays {
                continue;
            }
            if let Some(pending) = &lock.pending {
                self.tell(pending.tag, Outcome::Purged);
            }
            if !matches!((gone, stays), (Gone::Holder(_), true)) {
                self.lose(&lock);
            }
            match gone {
                _ if !stays => self.locks.retain(|lock| lock.key != key),
                Gone::Holder(_) => self.at(key).orphan = true,
                Gone::Down { until, .. } => (self.at(key).held_over, self.at(key).until) = (true, until.0),
                Gone::Fenced(_) | Gone::Orphans(_) | Gone::OrphansOf(_) => {}
            }
            if stays {
                self.at(key).pending = None;
                self.at(key).demoted = false;
            }
        }
        self.serve();
    }

    fn lose(&mut self, lock: &SpecLock) {
        if lock.granted.is_some_and(|mode| mode >= Mode::PW) && !lock.held_over {
            let until = self.now + LOSS_KEPT;
            let block = self.block(&lock.name);
            block.is_valid = false;
            block.loss_until = until;
        }
    }

    /// Whatever is due, the earliest first.
    pub(super) fn tick(&mut self) {
        loop {
            let waits =
                self.locks.iter().filter_map(|lock| Some((lock.pending.as_ref()?.deadline?, 0, lock.key)));
            let holds = self.locks.iter().filter(|lock| lock.held_over).map(|lock| (lock.until, 1, lock.key));
            let due = waits.chain(holds).filter(|(when, ..)| *when <= self.now).min();
            match due {
                Some((_, 0, key)) => self.give_up(key, Refusal::TimedOut),
                Some((_, _, key)) => {
                    self.locks.retain(|lock| lock.key != key);
                    self.serve();
                }
                None => return,
            }
        }
    }
}
