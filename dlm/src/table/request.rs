//! New locks, and orphans that are adopted.
//!
//! Invariant: a request that is refused leaves nothing behind.

use super::Table;
use super::names::Place;
use crate::event::{Effect, Refusal, Request};
use crate::flags::Flags;
use crate::lock::{LASTING, Lock, State, Wish};
use crate::mode::ModeSet;
use crate::queue::Link;
use crate::slab::NONE;

impl Table {
    pub(super) fn request(&mut self, request: &Request, effects: &mut Vec<Effect>) {
        if let Err(why) = self.try_request(request, effects) {
            let (tag, owner) = (request.tag, request.owner);
            effects.push(Effect::Refused { tag, lock: None, owner, mode: None, why });
        }
    }

    fn try_request(&mut self, request: &Request, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
        let owner = self.owner_slot(request.owner);
        let place = self.admit(request, owner)?;
        if request.flags.has(Flags::ORPHAN) {
            return self.adopt(request, &place, effects);
        }
        let resource =
            self.resource(&place, request.scope.policy()).ok_or(Refusal::Limit("resources_max"))?;
        if self.resources[resource].policy != request.scope.policy() {
            return Err(Refusal::Invalid("another policy than the other locks of the resource"));
        }
        let wish = Wish {
            tag: request.tag,
            mode: request.mode,
            scope: request.scope,
            flags: request.flags,
            deadline: request.deadline,
        };
        let lock = self.enter(request, owner, resource);
        if let Some(mode) = self.mode_at_once(resource, lock, &wish) {
            self.grant(resource, lock, &wish, mode, None, effects);
            return Ok(());
        }
        let outcome = self.wait(resource, lock, &wish, effects);
        if outcome.is_err() {
            self.forget(lock);
            self.drop_if_idle(resource);
        }
        outcome
    }

    /// Puts a wish that cannot be granted into its queue, or says why it does not wait.
    pub(super) fn wait(
        &mut self,
        resource: u32,
        lock: u32,
        wish: &Wish,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        if wish.flags.has(Flags::NOQUEUE) {
            if wish.flags.has(Flags::NOQUEUEBAST) {
                self.call_holders(resource, lock, wish, effects);
            }
            return Err(Refusal::Again);
        }
        let queued = &self.resources[resource];
        if queued.converting.len() + queued.waiting.len() >= self.config.queue_max {
            return Err(Refusal::Limit("queue_max"));
        }
        self.enqueue(resource, lock, wish);
        let owner = self.locks[lock].owner;
        effects.push(Effect::Queued { tag: wish.tag, lock: self.id(lock), owner });
        if !wish.flags.has(Flags::AWAIT) {
            self.call_holders(resource, lock, wish, effects);
        }
        Ok(())
    }

    /// The lock of a request, in no queue yet.
    fn enter(&mut self, request: &Request, owner: Option<u32>, resource: u32) -> u32 {
        let lock = self.locks.insert(Lock {
            owner: request.owner,
            owner_slot: NONE,
            transaction: request.transaction,
            resource,
            links: [Link::NOWHERE; 2],
            state: State::Waiting,
            granted: None,
            pending: None,
            scope: request.scope,
            lasting: Flags(request.flags.0 & LASTING.0),
            token: 0,
            called: ModeSet::default(),
            called_bits: None,
            parent: request.parent,
            children: 0,
            held_over: false,
            orphan: false,
            demoted: false,
        });
        self.own(lock, owner);
        if let Some(parent) = request.parent.and_then(|id| self.locks.find(id.0)) {
            self.locks[parent].children += 1;
        }
        lock
    }

    /// Takes a lock that is in no queue out of the table.
    pub(super) fn forget(&mut self, lock: u32) {
        self.disown(lock);
        let parent = self.locks[lock].parent;
        self.locks.remove(lock);
        if let Some(parent) = parent.and_then(|id| self.locks.find(id.0)) {
            self.locks[parent].children -= 1;
        }
    }

    /// Gives an orphan of the same node to the requester.
    fn adopt(&mut self, request: &Request, place: &Place, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
        let resource = self.find_resource(place).ok_or(Refusal::NoOrphan)?;
        let is_orphan = |lock: &Lock| lock.orphan && lock.owner.node == request.owner.node;
        let granted = self.resources[resource].granted.iter(&self.locks);
        let orphans: Vec<u32> = granted.filter(|lock| is_orphan(&self.locks[*lock])).collect();
        if orphans.is_empty() {
            return Err(Refusal::NoOrphan);
        }
        let fits = |lock: &&u32| {
            let lock = &self.locks[**lock];
            lock.granted == Some(request.mode) && lock.scope.holds(request.scope)
        };
        let lock = *orphans.iter().find(fits).ok_or(Refusal::Again)?;
        self.disown(lock);
        let adopted = &mut self.locks[lock];
        adopted.owner = request.owner;
        adopted.transaction = request.transaction;
        adopted.lasting = Flags(request.flags.0 & LASTING.0);
        adopted.orphan = false;
        let owner = self.owner_slot(request.owner);
        self.own(lock, owner);
        let status = self.status(resource, lock);
        self.tell_grant(lock, request.tag, status, None, effects);
        Ok(())
    }
}
