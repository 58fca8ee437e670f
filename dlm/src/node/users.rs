//! The node's own users, and the ward that stands among them for the rest of the cluster.
//!
//! The table is the same as a master's. On each resource the ward, a lock of node 0, has what everybody else in the cluster may have: at first
//! EX. A token lowers it; a callback raises it again, through the converting queue, so the table's own rules let holders be called, newcomers
//! wait, and conversions go first.
//!
//! Invariant: no user is granted what the token does not cover: the ward forbids it.

use super::tokens::{Token, ward_for};
use super::{Effect as NodeEffect, Node};
use crate::event::{
    Actor, Convert, Effect, Event, Gone, LockId, Owner, Refusal, Request, Transaction, Unlock,
};
use crate::flags::Flags;
use crate::message::Key;
use crate::mode::Mode;
use crate::policy::{Policy, Scope, Span};
use crate::resource::Value;
use base::NodeId;

/// The node that wards are on.
pub const NOWHERE: NodeId = NodeId(0);

fn whole(policy: Policy) -> Scope {
    match policy {
        Policy::Plain => Scope::Plain,
        Policy::Bits => Scope::Bits(u64::MAX),
        Policy::Extent => Scope::Extent { span: Span::ALL, desired: Span::ALL },
    }
}

impl Node {
    /// A user's event.
    pub(super) fn user(&mut self, event: Event) {
        match event {
            Event::Request(request) => self.user_requests(request),
            Event::Convert(Convert { lock, .. })
            | Event::Unlock(Unlock { lock, .. })
            | Event::Cancel { lock, .. }
            | Event::Victim { lock, .. } => {
                let place = self.users.place_of(lock);
                let key = place.map(|(lockspace, name)| Key { lockspace, name });
                match key {
                    Some(key) if self.must_wait_for_token(&key, &event) => self.park(key, event),
                    _ => self.show(event),
                }
                if let Some(key) = key {
                    self.settle(key);
                }
            }
            Event::Gone(gone) => {
                self.forget_parked(gone);
                self.show(event);
                self.settle_all();
            }
            Event::Epoch(_) | Event::Floor(_) | Event::Value { .. } | Event::Tick => {}
        }
    }

    fn user_requests(&mut self, request: Request) {
        let key = Key { lockspace: request.lockspace, name: request.name };
        let why = if request.parent.is_some() {
            Some(Refusal::Invalid("sub-resources are not shared between nodes yet"))
        } else if request.owner.node != self.me() {
            Some(Refusal::Invalid("the owner is on another node"))
        } else {
            self.ensure_token(key, request.scope.policy()).err()
        };
        if let Some(why) = why {
            let (tag, owner) = (request.tag, request.owner);
            return self.out.push(NodeEffect::User(Effect::Refused {
                tag,
                lock: None,
                owner,
                mode: None,
                why,
            }));
        }
        let event = Event::Request(request);
        match self.must_wait_for_token(&key, &event) {
            true => self.park(key, event),
            false => self.show(event),
        }
        self.settle(key);
    }

    /// True for what the table would answer wrongly without a token: a try, a null lock, a value to be read that may have changed elsewhere.
    fn must_wait_for_token(&self, key: &Key, event: &Event) -> bool {
        let Some(token) = self.tokens.get(key) else { return false };
        let (mode, flags) = match event {
            Event::Request(request) => (request.mode, request.flags),
            Event::Convert(convert) => (convert.mode, convert.flags),
            _ => return false,
        };
        let is_covered = token.covers(mode);
        let reads = flags.has(Flags::VALBLK) && token.mode.is_none_or(|held| held < Mode::CW);
        (!is_covered && (flags.has(Flags::NOQUEUE) || mode == Mode::NL)) || (is_covered && reads)
    }

    /// The mode of a parked request, and whether it is a try.
    pub(super) fn parked_mode(event: &Event) -> (Mode, bool) {
        match event {
            Event::Request(request) => (request.mode, request.flags.has(Flags::NOQUEUE)),
            Event::Convert(convert) => (convert.mode, convert.flags.has(Flags::NOQUEUE)),
            _ => (Mode::NL, false),
        }
    }

    fn park(&mut self, key: Key, event: Event) {
        if let Some(token) = self.tokens.get_mut(&key) {
            token.parked.push(event);
        }
        self.user_parks(key);
        self.refuse_tries(key);
    }

    /// What must not wait does not wait for an ask that does.
    pub(super) fn refuse_tries(&mut self, key: Key) {
        let asked = self.tokens.get(&key).and_then(|token| token.asked);
        if asked.is_some_and(|asked| asked.is_queued && !asked.ask.tries) {
            self.unpark(key, Some(Mode::NL));
        }
    }

    /// Shows the table what was parked and is covered now; and the tries that failed for `denied`.
    pub(super) fn unpark(&mut self, key: Key, denied: Option<Mode>) {
        let Some(token) = self.tokens.get_mut(&key) else { return };
        let ready = |token: &Token, event: &Event| {
            let (mode, tries) = Self::parked_mode(event);
            token.covers(mode) || (tries && denied.is_some_and(|denied| mode.covers(denied)))
        };
        let parked = std::mem::take(&mut token.parked);
        let (ready, rest): (Vec<_>, Vec<_>) = parked.into_iter().partition(|event| ready(token, event));
        token.parked = rest;
        for event in ready {
            match event {
                // The ward forbids a null lock nothing: the table would grant it.
                Event::Request(Request { mode: Mode::NL, .. }) if denied.is_some() => {
                    self.refuse(&event, Refusal::Again);
                }
                event => self.show(event),
            }
        }
    }

    /// Refuses one that is parked.
    pub(super) fn refuse_parked(&mut self, key: Key, tag: u64, why: Refusal) {
        let Some(token) = self.tokens.get_mut(&key) else { return };
        let is_meant = |event: &mut Event| Self::parked_tag(event) == Some(tag);
        let refused: Vec<Event> = token.parked.extract_if(.., is_meant).collect();
        for event in &refused {
            self.refuse(event, why);
        }
        self.settle(key);
    }

    /// The tag of a parked request or conversion.
    pub(super) fn parked_tag(event: &Event) -> Option<u64> {
        match event {
            Event::Request(Request { tag, .. }) | Event::Convert(Convert { tag, .. }) => Some(*tag),
            _ => None,
        }
    }

    /// Who waits there.
    pub(super) fn parked_actor(&self, event: &Event) -> Option<Actor> {
        match event {
            Event::Request(request) => Some(request.transaction.actor(request.owner)),
            Event::Convert(convert) => self.users.actor_of(convert.lock),
            _ => None,
        }
    }

    /// Tells the user of a request or conversion that the table has not seen.
    fn refuse(&mut self, event: &Event, why: Refusal) {
        let (owner, lock, tag) = match event {
            Event::Request(Request { tag, owner, .. }) => (*owner, None, *tag),
            Event::Convert(Convert { tag, owner, lock, .. }) => (*owner, Some(*lock), *tag),
            _ => return,
        };
        let mode = lock.and_then(|lock| self.users.mode_of(lock));
        self.out.push(NodeEffect::User(Effect::Refused { tag, lock, owner, mode, why }));
    }

    fn forget_parked(&mut self, gone: Gone) {
        let Gone::Holder(gone) = gone else { return };
        for token in self.tokens.values_mut() {
            token.parked.retain(|event| match event {
                Event::Request(Request { owner, .. }) | Event::Convert(Convert { owner, .. }) => {
                    *owner != gone
                }
                _ => true,
            });
        }
    }

    /// Refuses what waits for a token that is not to be had.
    pub(super) fn refuse_users(&mut self, key: Key, why: Refusal) {
        let Some(token) = self.tokens.get_mut(&key) else { return };
        let ward = token.ward;
        for event in std::mem::take(&mut token.parked) {
            self.refuse(&event, why);
        }
        if let Some(wait) = self.users.held_up_by(ward) {
            self.show(Event::Victim { lock: wait.lock, wait: wait.wait, why });
        }
    }

    /// Shows an event to the users' table and tells what it says.
    pub(super) fn show(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.users.handle(self.now, event, &mut effects);
        self.tell_users(effects);
    }

    pub(super) fn tell_users(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let owner = match effect {
                Effect::Granted(grant) => grant.owner,
                Effect::Queued { owner, .. }
                | Effect::Refused { owner, .. }
                | Effect::Done { owner, .. }
                | Effect::Blocking { owner, .. }
                | Effect::Purged { owner, .. } => owner,
            };
            if let Some(lock) = effect.lock_of_what_ended() {
                self.user_may_wait_no_more(lock);
            }
            if owner.node != NOWHERE {
                if let Effect::Queued { lock, .. } = effect {
                    self.user_waits(lock);
                }
                self.out.push(NodeEffect::User(effect));
            } else if let Effect::Granted(grant) = effect {
                self.ward_granted(grant.lock, grant.mode);
            }
        }
    }

    fn ward_granted(&mut self, ward: LockId, mode: Mode) {
        let Some(key) = self.wards.get(&ward).copied() else { return };
        if let Some(token) = self.tokens.get_mut(&key) {
            token.ward_mode = mode;
        }
        self.finish_giving(key);
    }

    /// A ward for a resource that has none yet.
    fn ensure_token(&mut self, key: Key, policy: Policy) -> Result<(), Refusal> {
        if self.tokens.contains_key(&key) {
            return Ok(());
        }
        self.last_ward += 1;
        let ward_owner = Owner { node: NOWHERE, holder: self.last_ward };
        let request = Request {
            tag: 0,
            owner: ward_owner,
            transaction: Transaction(0),
            lockspace: key.lockspace,
            parent: None,
            name: key.name,
            mode: ward_for(None),
            scope: whole(policy),
            flags: Flags::NODLCKWT,
            deadline: None,
        };
        let mut effects = Vec::new();
        self.users.handle(self.now, Event::Request(request), &mut effects);
        let ward = match effects.first() {
            Some(Effect::Granted(grant)) => grant.lock,
            Some(Effect::Refused { why, .. }) => return Err(*why),
            _ => return Err(Refusal::Busy),
        };
        self.wards.insert(ward, key);
        self.tokens.insert(
            key,
            Token {
                ward,
                ward_owner,
                ward_mode: ward_for(None),
                mode: None,
                master: None,
                lock: None,
                asked: None,
                called: None,
                giving: None,
                parked: Vec::new(),
                serial: 0,
                synced: 0,
                idle_since: None,
            },
        );
        Ok(())
    }

    /// Takes a ward and its token away: nobody uses them.
    pub(super) fn forget_token(&mut self, key: Key) {
        let Some(token) = self.tokens.remove(&key) else { return };
        if let Some(since) = token.idle_since {
            self.idle.remove(&(since, key));
        }
        self.wards.remove(&token.ward);
        let (owner, lock) = (token.ward_owner, token.ward);
        self.show(Event::Unlock(Unlock { tag: 0, owner, lock, flags: Flags::FORCEUNLOCK, value: None }));
    }

    /// Converts the ward; what comes of it arrives in [`Node::ward_granted`]. It waits for holders only, not for its place in the queue: those ahead
    /// may be waiting for it.
    pub(super) fn convert_ward(&mut self, key: Key, mode: Mode) {
        self.show_ward(key, mode, Flags::NODLCKWT | Flags::NOORDER | Flags::YIELD, None);
    }

    fn show_ward(&mut self, key: Key, mode: Mode, flags: Flags, value: Option<[u8; 32]>) {
        let Some(token) = self.tokens.get(&key) else { return };
        let (tag, owner, lock) = (0, token.ward_owner, token.ward);
        let (scope, deadline) = (None, None);
        self.show(Event::Convert(Convert { tag, owner, lock, mode, scope, flags, value, deadline }));
    }

    /// The ward gives its conversion up, if one is under way.
    pub(super) fn stop_giving(&mut self, key: Key) {
        let Some(token) = self.tokens.get_mut(&key) else { return };
        if token.giving.take().is_some() {
            let (owner, lock) = (token.ward_owner, token.ward);
            self.show(Event::Cancel { tag: 0, owner, lock });
        }
    }

    /// The value as the master has it; nobody here can have changed it meanwhile.
    pub(super) fn take_value(&mut self, key: Key, value: Value) {
        let Some(ward_mode) = self.tokens.get(&key).map(|token| token.ward_mode) else { return };
        if ward_mode.writes_value() {
            self.show_ward(key, ward_mode, Flags::VALBLK, Some(value.bytes));
            if !value.is_valid {
                self.show_ward(key, ward_mode, Flags::IVVALBLK, None);
            }
        }
        let local = self.users.value(key.lockspace, key.name).unwrap_or(Value::NEW);
        if let Some(token) = self.tokens.get_mut(&key) {
            token.serial = value.serial;
            token.synced = local.serial;
        }
    }
}
