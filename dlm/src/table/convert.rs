//! Conversions, and the deadlocks that they can make among themselves.

use super::Table;
use crate::event::{Convert, Effect, Refusal};
use crate::flags::Flags;
use crate::lock::{Lock, Wish};
use crate::mode::Mode;
use crate::policy::Policy;

/// A conversion as the search for deadlocks sees it.
struct Half<'a> {
    lock: &'a Lock,
    wish: &'a Wish,
}

impl Half<'_> {
    /// True if what this one has is in the way of what `other` wants.
    fn holds_up(&self, other: &Half<'_>) -> bool {
        self.lock.granted.is_some_and(|mode| !mode.goes_with(other.wish.mode))
            && self.lock.scope.meets(other.wish.scope)
    }

    /// True if this one, further back, is not granted before `ahead` is.
    fn stands_behind(&self, ahead: &Half<'_>, policy: Policy) -> bool {
        let in_the_way = policy == Policy::Plain
            || !self.wish.mode.goes_with(ahead.wish.mode) && self.wish.scope.meets(ahead.wish.scope);
        in_the_way && !self.wish.flags.has(Flags::NOORDER)
    }
}

impl Table {
    pub(super) fn convert(&mut self, convert: &Convert, effects: &mut Vec<Effect>) {
        let (tag, owner) = (convert.tag, convert.owner);
        let lock = match self.admit_convert(convert) {
            Ok(lock) => lock,
            Err(why) => {
                let known = self.own_lock(owner, convert.lock).ok();
                let mode = known.and_then(|lock| self.locks[lock].granted);
                effects.push(Effect::Refused { tag, lock: Some(convert.lock), owner, mode, why });
                return;
            }
        };
        if let Err(why) = self.try_convert(lock, convert, effects) {
            let mode = self.locks[lock].granted;
            effects.push(Effect::Refused { tag, lock: Some(convert.lock), owner, mode, why });
        }
    }

    fn try_convert(
        &mut self,
        lock: u32,
        convert: &Convert,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let (resource, old_scope, old_mode) = {
            let lock = &self.locks[lock];
            (lock.resource, lock.scope, lock.granted)
        };
        let scope = convert.scope.unwrap_or(old_scope);
        let wish = Wish {
            tag: convert.tag,
            mode: convert.mode,
            scope,
            flags: convert.flags,
            deadline: convert.deadline,
        };
        if let Some(mode) = self.mode_at_once(resource, lock, &wish) {
            self.grant(resource, lock, &wish, mode, convert.value, effects);
            let gives_up = old_mode.is_some_and(|old| !mode.covers(old)) || scope != old_scope;
            if gives_up {
                self.serve(resource, Some(old_scope), effects);
            }
            return Ok(());
        }
        if wish.flags.has_any(Flags::NOQUEUE | Flags::NODLCKWT | Flags::AWAIT)
            || !self.would_deadlock(resource, lock, &wish)
        {
            return self.wait(resource, lock, &wish, effects);
        }
        if !wish.flags.has(Flags::CONVDEADLK) {
            return Err(Refusal::Deadlock);
        }
        self.demote(resource, lock, &wish, effects);
        Ok(())
    }

    /// Gives the granted mode up, lets those behind it go ahead, and waits on.
    fn demote(&mut self, resource: u32, lock: u32, wish: &Wish, effects: &mut Vec<Effect>) {
        let scope = self.locks[lock].scope;
        self.set_granted(resource, lock, Mode::NL, scope);
        self.locks[lock].demoted = true;
        self.serve(resource, Some(scope), effects);
        if let Some(mode) = self.mode_at_once(resource, lock, wish) {
            self.grant(resource, lock, wish, mode, None, effects);
        } else if let Err(why) = self.wait(resource, lock, wish, effects) {
            let (owner, id) = (self.locks[lock].owner, self.id(lock));
            let (tag, mode) = (wish.tag, Some(Mode::NL));
            effects.push(Effect::Refused { tag, lock: Some(id), owner, mode, why });
        }
    }

    /// True if the conversion would wait for one that waits for it. Two are enough to look at: of a longer circle in one
    /// queue one would wait for another one behind it, and that one waits for all ahead of it.
    fn would_deadlock(&self, resource: u32, lock: u32, wish: &Wish) -> bool {
        let held = &self.resources[resource];
        let mine = Half { lock: &self.locks[lock], wish };
        held.converting.iter(&self.locks).any(|other| {
            let Some(pending) = &self.locks[other].pending else { return false };
            if pending.wish.flags.has(Flags::YIELD) {
                return false;
            }
            let other = Half { lock: &self.locks[other], wish: &pending.wish };
            let (first, second) =
                if wish.flags.has(Flags::HEADQUE) { (&mine, &other) } else { (&other, &mine) };
            second.holds_up(first) && (first.holds_up(second) || second.stands_behind(first, held.policy))
        })
    }
}
