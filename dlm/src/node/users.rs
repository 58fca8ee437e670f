//! The node's own users, and the ward that stands among them for the rest of the cluster.
//!
//! The table is the same as a master's. On each resource the ward, a lock of node 0, has what everybody else in the cluster may have: at first
//! EX. A token lowers it; a callback raises it again, through the converting queue, so the table's own rules let holders be called, newcomers
//! wait, and conversions go first.
//!
//! Invariant: no user is granted what the token does not cover: the ward forbids it.

mod wards;

use super::tokens::{Token, ward_for};
use super::values::Parked;
use super::{Effect as NodeEffect, Node};
use crate::event::{
    Actor, Convert, Effect, Event, Gone, LockId, Owner, Refusal, Request, Transaction, Unlock,
};
use crate::flags::Flags;
use crate::message::{Ask, Key, Message};
use crate::mode::Mode;
use crate::policy::{Policy, Scope, Span};
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
            Event::Request(request) if request.scope.policy() != Policy::Plain => {
                self.scoped_requests(request);
            }
            Event::Request(request) => self.user_requests(request),
            Event::Convert(Convert { lock, .. })
            | Event::Unlock(Unlock { lock, .. })
            | Event::Cancel { lock, .. }
            | Event::Victim { lock, .. }
                if self.is_scoped(lock) =>
            {
                self.scoped_user(lock, event);
            }
            Event::Convert(Convert { lock, .. })
            | Event::Unlock(Unlock { lock, .. })
            | Event::Cancel { lock, .. }
            | Event::Victim { lock, .. } => {
                let key = self.users.key_of(lock);
                match key {
                    Some(key) if self.must_wait_for_token(&key, &event) => self.park(key, event),
                    _ => self.show(event),
                }
                if let Some(key) = key {
                    self.settle(key);
                }
            }
            Event::Gone(Gone::Orphans(node)) if node != self.me() => self.ask_to_purge(node, None),
            Event::Gone(Gone::OrphansOf(owner)) if owner.node != self.me() => {
                self.ask_to_purge(owner.node, Some(owner.holder));
            }
            Event::Gone(gone) => {
                self.forget_parked(gone);
                self.show(event);
                self.settle_all();
            }
            Event::Epoch(_) | Event::Floor(_) | Event::Value { .. } | Event::Tick => {}
            Event::Allow { .. } | Event::Deny { .. } => {}
        }
    }

    /// Orphans belong to the node on which their owner was: it takes them away. (Nobody waits for that: as libdlm's purge.)
    fn ask_to_purge(&mut self, node: NodeId, holder: Option<u64>) {
        if self.cluster.is_live(node) {
            self.post(node, Message::Purge { holder });
        }
    }

    pub(super) fn purge_orphans(&mut self, holder: Option<u64>) {
        let node = self.me();
        let whose = |holder| Gone::OrphansOf(Owner { node, holder });
        self.user(Event::Gone(holder.map_or(Gone::Orphans(node), whose)));
    }

    fn user_requests(&mut self, request: Request) {
        let key = match self.admit(&request) {
            Ok(key) => key,
            Err(why) => {
                let (tag, owner, lock, mode) = (request.tag, request.owner, None, None);
                return self.out.push(NodeEffect::User(Effect::Refused { tag, lock, owner, mode, why }));
            }
        };
        let event = Event::Request(request);
        match self.must_wait_for_token(&key, &event) {
            true => self.park(key, event),
            false => self.show(event),
        }
        self.settle(key);
    }

    /// The key of what is asked for; it has a ward from now on.
    fn admit(&mut self, request: &Request) -> Result<Key, Refusal> {
        let (key, above) = self.key_for(request)?;
        self.ensure_token(key, above, request)?;
        Ok(key)
    }

    /// The key of what is asked for, and that of its parent.
    pub(super) fn key_for(&self, request: &Request) -> Result<(Key, Option<Key>), Refusal> {
        if request.owner.node != self.me() {
            return Err(Refusal::Invalid("the owner is on another node"));
        }
        if !Key::may_be(request.lockspace) {
            return Err(Refusal::Invalid("no lockspace has such a number"));
        }
        let above = match request.parent {
            Some(parent) => Some(self.users.key_of(parent).ok_or(Refusal::NoLock)?),
            None => None,
        };
        let root = Key::new(request.lockspace, request.name);
        Ok((above.map_or(root, |above| above.child(request.name)), above))
    }

    /// True for what the table would answer wrongly without a token: a try, a null lock, a value to be read that may have changed elsewhere.
    fn must_wait_for_token(&self, key: &Key, event: &Event) -> bool {
        let Some(token) = self.tokens.get(key) else { return false };
        let (mode, flags) = match event {
            Event::Request(request) => (request.mode, request.flags),
            Event::Convert(convert) => (convert.mode, convert.flags),
            _ => return false,
        };
        if flags.has(Flags::ORPHAN) {
            // What is adopted is here, and covered.
            return false;
        }
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
            token.parked.push(Parked { event, after: self.last_tag });
        }
        self.user_parks(key);
        self.refuse_tries(key);
    }

    /// What must not wait does not wait for an ask that does.
    pub(super) fn refuse_tries(&mut self, key: Key) {
        let asked = self.tokens.get(&key).and_then(|token| token.asked);
        if asked.is_some_and(|asked| asked.is_queued && !asked.ask.tries) {
            self.unpark(key, Some(Mode::NL), None);
        }
    }

    /// Shows the table what was parked and is covered now, by the answer to `answered`; and the tries that failed for `denied`.
    pub(super) fn unpark(&mut self, key: Key, denied: Option<Mode>, answered: Option<Ask>) {
        let Some(token) = self.tokens.get_mut(&key) else { return };
        let ready = |token: &Token, parked: &Parked| {
            let (mode, tries) = Self::parked_mode(&parked.event);
            (token.covers(mode) && !parked.would_read_old(token, answered))
                || (tries && denied.is_some_and(|denied| mode.covers(denied)))
        };
        let parked = std::mem::take(&mut token.parked);
        let (ready, rest): (Vec<_>, Vec<_>) = parked.into_iter().partition(|parked| ready(token, parked));
        token.parked = rest;
        for Parked { event, .. } in ready {
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
        let is_meant = |parked: &mut Parked| Self::parked_tag(&parked.event) == Some(tag);
        let refused: Vec<Parked> = token.parked.extract_if(.., is_meant).collect();
        for parked in &refused {
            self.refuse(&parked.event, why);
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
        self.tokens.for_each(|token| {
            token.parked.retain(|parked| match &parked.event {
                Event::Request(Request { owner, .. }) | Event::Convert(Convert { owner, .. }) => {
                    *owner != gone
                }
                _ => true,
            });
        });
    }

    /// Refuses what waits for a token that is not to be had.
    pub(super) fn refuse_users(&mut self, key: Key, why: Refusal) {
        let Some(token) = self.tokens.get_mut(&key) else { return };
        let ward = token.ward;
        for Parked { event, .. } in std::mem::take(&mut token.parked) {
            self.refuse(&event, why);
        }
        if let Some(wait) = self.users.held_up_by(ward) {
            self.show(Event::Victim { lock: wait.lock, wait: wait.wait, why });
        }
    }

    /// Shows an event to the users' table and tells what it says.
    pub(super) fn show(&mut self, event: Event) {
        let mut effects = std::mem::take(&mut self.scratch);
        self.users.handle(self.now, event, &mut effects);
        self.tell_users(effects.drain(..));
        self.scratch = effects;
    }

    pub(super) fn tell_users(&mut self, effects: impl IntoIterator<Item = Effect>) {
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
            if let Effect::Purged { lock, .. } = effect {
                self.scoped_purged(lock);
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
    /// (Below another resource it is below that one's ward, and of the same owner.)
    fn ensure_token(&mut self, key: Key, above: Option<Key>, wanted: &Request) -> Result<(), Refusal> {
        if self.tokens.contains_key(&key) {
            return Ok(());
        }
        let parent = match above {
            Some(above) => Some(self.tokens.get(&above).ok_or(Refusal::NoLock)?),
            None => None,
        };
        self.last_ward += 1;
        let own = Owner { node: NOWHERE, holder: self.last_ward };
        let ward_owner = parent.map_or(own, |parent| parent.ward_owner);
        let request = Request {
            tag: 0,
            owner: ward_owner,
            transaction: Transaction(0),
            lockspace: key.lockspace,
            parent: parent.map(|parent| parent.ward),
            name: wanted.name,
            mode: ward_for(None),
            scope: whole(wanted.scope.policy()),
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
                moving: None,
                asked: None,
                called: None,
                giving: None,
                parked: Vec::new(),
                is_stale: false,
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
            self.idle.remove(&since);
        }
        self.wards.remove(&token.ward);
        let (owner, lock) = (token.ward_owner, token.ward);
        self.show(Event::Unlock(Unlock { tag: 0, owner, lock, flags: Flags::FORCEUNLOCK, value: None }));
    }
}
