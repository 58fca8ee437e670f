//! Notices become what the program sees: status blocks are filled in, ASTs and BASTs called.
//!
//! Invariant: the block is complete before the AST; whoever waits is woken after it.

#![allow(unsafe_code)]

use crate::space::{Ask, Callback, Callbacks, Place, Space, State, Under};
use dlm::client::status;
use dlm::client::wire::{Blocking, Completion, Notice, Told};

impl State {
    /// The request or conversion that an unlock has ended: nothing else will tell of it.
    fn overtaken(&mut self, under: &Under, end: &Completion) -> Option<(u64, Under)> {
        if under.kind != Ask::Unlock || end.status != status::UNLOCKED {
            return None;
        }
        let is_pending = |(_, other): &(&u64, &Under)| other.kind == Ask::Lock && other.lkid == end.lkid;
        let tag = *self.calls.iter().find(is_pending)?.0;
        self.calls.remove_entry(&tag)
    }
}

fn call(callback: Option<Callback>, argument: Place) {
    if let Some(callback) = callback {
        // SAFETY: the program gave this function for being called with this argument, in the thread that dispatches.
        unsafe { callback(argument.0) };
    }
}

impl Space {
    /// One notice.
    pub(crate) fn deliver(&self, notice: Notice) {
        match notice.told {
            Some(Told::Completion(end)) => self.complete(&end),
            Some(Told::Blocking(Blocking { lkid, .. })) => {
                let callbacks = self.state.lock().locks.get(&lkid).copied();
                if let Some(callbacks) = callbacks {
                    call(callbacks.bast, callbacks.bast_argument);
                }
            }
            // Of a newer lock manager.
            None => {}
        }
    }

    fn complete(&self, end: &Completion) {
        let mut state = self.state.lock();
        let Some(under) = state.calls.remove(&end.tag) else { return };
        let overtaken = state.overtaken(&under, end);
        let callbacks = match under.kind {
            Ask::Lock => under.callbacks,
            Ask::Unlock => {
                let pending = overtaken.as_ref().map(|(_, pending)| &pending.callbacks);
                of_unlock(&under, pending.or_else(|| state.locks.get(&end.lkid)))
            }
            Ask::Cancel => Callbacks { block: None, ..under.callbacks },
        };
        match (under.kind, end.status, end.mode) {
            (Ask::Unlock, status::UNLOCKED, _) => drop(state.locks.remove(&end.lkid)),
            // Granted, or refused a conversion: the lock is there.
            (Ask::Lock, _, Some(_)) => drop(state.locks.insert(end.lkid, under.callbacks)),
            (Ask::Lock, ..) => drop(state.locks.remove(&end.lkid)),
            _ => {}
        }
        drop(state);
        fill(&callbacks, end);
        if let (Ask::Cancel, status::OK, Some(block)) = (under.kind, end.status, under.callbacks.block) {
            block.set_status(status::CANCELLED);
        }
        call(callbacks.ast, callbacks.ast_argument);
        self.note_end(end.tag, &under);
        if let Some((tag, pending)) = overtaken {
            fill(&pending.callbacks, end);
            self.note_end(tag, &pending);
        }
    }

    fn note_end(&self, tag: u64, under: &Under) {
        if under.is_awaited {
            self.state.lock().ended.insert(tag);
            self.changed.notify_all();
        }
    }

    /// The lock manager is gone: what waits will not be granted any more.
    pub(crate) fn break_off(&self) {
        let mut state = self.state.lock();
        state.is_broken = true;
        let calls = std::mem::take(&mut state.calls);
        state.locks.clear();
        drop(state);
        for (tag, under) in calls {
            let end = Completion { tag, status: status::GONE, ..Completion::default() };
            if under.kind != Ask::Cancel {
                fill(&under.callbacks, &end);
                call(under.callbacks.ast, under.callbacks.ast_argument);
            }
            self.note_end(tag, &under);
        }
    }
}

/// The lock's last AST, with the unlock's argument and block if it has them; none for who waits.
fn of_unlock(under: &Under, lock: Option<&Callbacks>) -> Callbacks {
    let unlock = under.callbacks;
    let Some(lock) = lock else { return unlock };
    let ast_argument = if unlock.ast_argument.0.is_null() { lock.ast_argument } else { unlock.ast_argument };
    let ast = lock.ast.filter(|_| !under.is_awaited);
    Callbacks { ast, ast_argument, block: unlock.block.or(lock.block), ..*lock }
}

fn fill(callbacks: &Callbacks, end: &Completion) {
    let Some(block) = callbacks.block else { return };
    if let Ok(value) = end.value.as_slice().try_into() {
        block.set_value(value);
    }
    if end.lkid != 0 {
        block.set_lkid(end.lkid);
    }
    block.set_flags(end.flags);
    block.set_status(end.status);
}
