//! What is refused before anything is changed: contradictory flags, foreign locks, limits.
//!
//! Invariant: nothing here changes the table.

use super::Table;
use super::names::Place;
use crate::event::{Convert, LockId, Owner, Refusal, Request};
use crate::flags::Flags;
use crate::lock::State;
use crate::mode::{Mode, ValueMove, value_move};
use crate::slab::NONE;

/// Flags that mean nothing to a new request.
const NOT_OF_REQUESTS: Flags =
    Flags(Flags::QUECVT.0 | Flags::CONVDEADLK.0 | Flags::FORCEUNLOCK.0 | Flags::IVVALBLK.0);
/// Flags that mean nothing to a conversion.
const NOT_OF_CONVERSIONS: Flags = Flags(Flags::EXPEDITE.0 | Flags::ORPHAN.0 | Flags::FORCEUNLOCK.0);

fn check(holds: bool, why: &'static str) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(Refusal::Invalid(why)) }
}

/// What holds for requests and conversions alike.
fn check_flags(flags: Flags, mode: Mode, has_deadline: bool) -> Result<(), Refusal> {
    check(!flags.has(Flags::ALTPR | Flags::ALTCW), "ALTPR and ALTCW")?;
    check(!flags.has(Flags::TIMEOUT) || has_deadline, "TIMEOUT without a deadline")?;
    check(!flags.has(Flags::QUECVT | Flags::NOQUEUE), "QUECVT and NOQUEUE")?;
    check(!flags.has(Flags::CONVDEADLK | Flags::NOQUEUE), "CONVDEADLK and NOQUEUE")?;
    check(!flags.has(Flags::EXPEDITE) || mode == Mode::NL, "EXPEDITE is for NL")?;
    check(!flags.has(Flags::EXPEDITE | Flags::NOQUEUE), "EXPEDITE and NOQUEUE")
}

/// The flags of a new lock, by themselves.
pub(crate) fn check_request(flags: Flags, mode: Mode, has_deadline: bool) -> Result<(), Refusal> {
    check_flags(flags, mode, has_deadline)?;
    check(!flags.has_any(NOT_OF_REQUESTS), "a flag of conversions or unlocks with a new lock")
}

/// The flags of a conversion from `granted` to `mode`.
pub(crate) fn check_conversion(
    flags: Flags,
    granted: Mode,
    mode: Mode,
    has_deadline: bool,
) -> Result<(), Refusal> {
    check_flags(flags, mode, has_deadline)?;
    check(!flags.has_any(NOT_OF_CONVERSIONS), "a flag of new locks or unlocks with a conversion")?;
    let asks_for_more = granted.may_queue(mode);
    check(!flags.has(Flags::QUECVT) || asks_for_more, "QUECVT with a conversion that asks for no more")
}

impl Table {
    /// Where the resource of an admissible request is. `owner`: the owner's place, if he has locks.
    pub(super) fn admit(&self, request: &Request, owner: Option<u32>) -> Result<Place, Refusal> {
        check_request(request.flags, request.mode, request.deadline.is_some())?;
        check(request.scope.is_sound(), "an empty scope, or one that desires less than it requires")?;
        if self.locks.count() >= self.config.locks_max {
            return Err(Refusal::Limit("locks_max"));
        }
        if owner.is_some_and(|slot| self.owners[slot].locks.len() >= self.config.locks_per_owner) {
            return Err(Refusal::Limit("locks_per_owner"));
        }
        let (mut lockspace, mut parent) = (request.lockspace, NONE);
        if let Some(above) = request.parent {
            let above = self.own_lock(request.owner, above)?;
            check(self.locks[above].granted.is_some(), "the parent is not granted")?;
            parent = self.locks[above].resource;
            lockspace = self.resources[parent].lockspace;
            check(self.resources[parent].depth < super::DEPTH_MAX, "the tree would be deeper than 8")?;
        }
        Ok(Place { lockspace, parent, name: request.name })
    }

    /// The lock, if `owner` has it.
    pub(super) fn own_lock(&self, owner: Owner, id: LockId) -> Result<u32, Refusal> {
        let index = self.locks.find(id.0).ok_or(Refusal::NoLock)?;
        let lock = &self.locks[index];
        let is_his = lock.owner == owner && !lock.held_over && !lock.orphan;
        if is_his { Ok(index) } else { Err(Refusal::NoLock) }
    }

    /// The lock of an admissible conversion.
    pub(super) fn admit_convert(&self, convert: &Convert) -> Result<u32, Refusal> {
        let index = self.own_lock(convert.owner, convert.lock)?;
        let lock = &self.locks[index];
        let (State::Granted, Some(granted)) = (lock.state, lock.granted) else { return Err(Refusal::Busy) };
        let flags = convert.flags;
        check_conversion(flags, granted, convert.mode, convert.deadline.is_some())?;
        let queues = granted.may_queue(convert.mode);
        if let Some(scope) = convert.scope {
            check(scope.is_sound() && lock.scope.holds(scope), "a scope that is not within the lock's")?;
            check(scope == lock.scope || !queues, "another scope with a conversion that asks for more")?;
        }
        let writes = value_move(Some(granted), convert.mode) == ValueMove::Write;
        let lacks_value = writes && flags.has(Flags::VALBLK) && convert.value.is_none();
        check(!lacks_value || flags.has(Flags::IVVALBLK), "VALBLK without a value to write")?;
        Ok(index)
    }
}
