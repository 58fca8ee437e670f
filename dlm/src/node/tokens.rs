//! Tokens: this node's locks at the masters, asked for when users need them, kept when they do not, given back when called.
//!
//! ```text
//!  (none) --Lookup / Ask--> asked --Granted--> held in mode m --somebody called--> giving --users have gone--> held in less, or none
//!                                                 |   ^
//!                                     users need more |
//!                                                 v   |
//!                                       down to what is really used, then Ask for more
//! ```
//!
//! Invariant: while an ask is under way nothing is given back; what is given back is given up here first. So no token is ever converted
//! sideways, and no conversion at a master is held up by what nobody uses.

mod giving;

use super::canary::sings;
use super::values::Parked;
use super::{Node, partition};
use crate::event::{LockId, Owner, Refusal};
use crate::message::{Ask, Drop, Key, Message};
use crate::mode::Mode;
use crate::policy::Scope;
use crate::resource::Value;
use base::NodeId;

/// What a master has granted.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    pub lock: LockId,
    pub mode: Mode,
    pub scope: Scope,
    pub token: u64,
    pub value: Value,
}

/// An ask under way.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub ask: Ask,
    /// The master that has it; `None`: the directory was asked, nobody has answered.
    pub to: Option<NodeId>,
    /// The master has said that it waits.
    pub is_queued: bool,
    pub is_cancelled: bool,
    /// The last wait in the users' table before it.
    pub last_wait: u64,
}

/// This node's token of one tree, and the ward that stands for the rest of the cluster in the node's own table.
#[derive(Clone, Debug)]
pub struct Token {
    pub ward: LockId,
    pub ward_owner: Owner,
    pub ward_mode: Mode,
    pub mode: Option<Mode>,
    pub master: Option<NodeId>,
    pub lock: Option<LockId>,
    /// It may have the one or the other as its master: whoever it is will say so.
    pub moving: Option<(NodeId, NodeId)>,
    pub asked: Option<Asked>,
    /// What others want of it.
    pub called: Option<Mode>,
    /// To which mode it is being given up: the ward is converting, or has converted and the master is not known.
    pub giving: Option<Option<Mode>>,
    /// Users' requests that may not be shown to the table before a token is there.
    pub parked: Vec<Parked>,
    /// The ward stays as it is though the token allows more: somebody would read a value that is older than its request.
    pub is_stale: bool,
    /// The value's serial number at the master, and here, when they were last the same.
    pub serial: u64,
    pub synced: u64,
    pub idle_since: Option<u64>,
}

/// What the rest of the cluster may have while this node has a token in `mode`: it forbids this node's users just what the token does not cover.
///
/// ```text
///  token   none  NL  CR  CW  PR  PW  EX
///  ward    EX    EX  PW  CW  PR  CR  NL
/// ```
pub fn ward_for(mode: Option<Mode>) -> Mode {
    match mode {
        None | Some(Mode::NL) => Mode::EX,
        Some(Mode::CR) => Mode::PW,
        Some(Mode::PW) => Mode::CR,
        Some(Mode::EX) => Mode::NL,
        Some(same) => same,
    }
}

/// The strongest mode within `mode` that leaves room for `wanted`.
fn room_for(mode: Mode, wanted: Mode) -> Mode {
    let within = Mode::ALL.into_iter().rev().filter(|kept| mode.covers(*kept));
    within.into_iter().find(|kept| kept.goes_with(wanted)).unwrap_or(Mode::NL)
}

impl Token {
    /// True if nothing is to be done for it, as long as nobody waits.
    fn is_quiet(&self) -> bool {
        self.called.is_none() && self.giving.is_none() && self.parked.is_empty() && !self.is_stale
    }

    pub fn covers(&self, mode: Mode) -> bool {
        self.mode.is_some_and(|held| held.covers(mode))
    }
}

impl Node {
    /// Brings one token where it should be: gives way, asks, keeps or lets go.
    pub(super) fn settle(&mut self, key: Key) {
        let Some(token) = self.tokens.get(&key) else { return };
        if token.asked.is_some() {
            return self.perhaps_cancel(key);
        }
        if token.is_quiet() && !self.users.has_pending(token.ward) {
            return self.note_idle(key);
        }
        let need = self.need(key);
        let converts = need.is_some_and(|(_, converts, _)| converts);
        let token = &self.tokens[&key];
        if token.called.is_some() && !converts {
            self.give_way(key);
        } else if token.giving.is_some() && need.is_none() {
            self.finish_giving(key);
        }
        if let Some((mode, _, tries)) = self.need(key) {
            self.ask(key, mode, tries);
        }
        self.note_idle(key);
    }

    pub(super) fn settle_all(&mut self) {
        // Most are as they should be: `settle` would change nothing.
        let is_unsettled = |_: &Key, token: &Token| {
            let is_alone = self.users.is_alone(token.ward);
            let is_noted = is_alone == token.idle_since.is_some() && (token.mode.is_some() || !is_alone);
            token.asked.is_some() || !token.is_quiet() || self.users.has_pending(token.ward) || !is_noted
        };
        for key in self.tokens.keys_that(is_unsettled) {
            self.settle(key);
        }
    }

    /// What users need that the token does not allow: the mode, whether a conversion does, whether it is only a try.
    pub(super) fn need(&self, key: Key) -> Option<(Mode, bool, bool)> {
        let token = self.tokens.get(&key)?;
        let held_up = self.users.held_up_by(token.ward).filter(|wait| !token.covers(wait.mode));
        if let Some(wait) = held_up.filter(|wait| wait.converts) {
            return Some((wait.mode, true, false));
        }
        if token.is_stale && !self.users.is_alone(token.ward) {
            return token.mode.map(|mode| (mode, false, false));
        }
        if let Some(parked) = token.parked.first() {
            let (mode, tries) = Self::parked_mode(&parked.event);
            // Covered: the value is to be read anew.
            let mode = if token.covers(mode) { token.mode.unwrap_or(mode) } else { mode };
            return Some((mode, false, tries));
        }
        held_up.map(|wait| (wait.mode, false, false))
    }

    /// Asks for a token that allows `mode` besides what users have.
    fn ask(&mut self, key: Key, mode: Mode, tries: bool) {
        let Some(token) = self.tokens.get(&key) else { return };
        if token.asked.is_some() || (token.mode.is_some() && token.master.is_none()) {
            return;
        }
        // The ward cannot hold a null lock up: as long as one waits in the queue the token does not go.
        let waits_null = self.users.is_wanted(token.ward, Mode::NL).then_some(Mode::NL);
        let used = self.users.joined_besides(token.ward).or(waits_null);
        let has_more = token.mode.is_some() && token.mode != used && token.mode != Some(mode);
        if has_more && !self.give(key, used) {
            return;
        }
        let Some(token) = self.tokens.get_mut(&key) else { return };
        let wanted = token.mode.map_or(mode, |held| held.join(mode));
        self.last_tag += 1;
        let reads = token.is_stale
            || token.parked.iter().any(Parked::reads)
            || self.users.last_read_wait(token.ward).is_some();
        let reads = reads && wanted < Mode::CW;
        let ask =
            Ask { tag: self.last_tag, key, mode: wanted, holds: token.lock, tries, reads, scoped: None };
        let last_wait = self.users.last_wait();
        token.asked = Some(Asked { ask, to: None, is_queued: false, is_cancelled: false, last_wait });
        self.send_ask(key);
    }

    /// Sends the ask under way: to the master, if it is known, otherwise to the directory.
    pub(super) fn send_ask(&mut self, key: Key) {
        // Whoever has something of a tree knows its master.
        let known = self.tokens.get(&key.root()).filter(|root| root.mode.is_some());
        let known = known.and_then(|root| root.master);
        let Some(token) = self.tokens.get_mut(&key) else { return };
        let Some(asked) = &mut token.asked else { return };
        if token.mode.is_none() {
            token.master = token.master.or(known);
        }
        asked.ask.holds = token.lock;
        let ask = asked.ask;
        asked.to = token.master;
        asked.is_queued = false;
        match (token.master, self.cluster.owner(partition(&key))) {
            (Some(master), _) => self.post(master, Message::Ask(ask)),
            (None, Some(owner)) => self.post(owner, Message::Lookup(ask)),
            (None, None) => {}
        }
    }

    /// This node has become the master of what it may have asked for.
    pub(super) fn ask_myself(&mut self, key: Key) {
        let me = self.me();
        let Some(token) = self.tokens.get_mut(&key) else { return };
        if token.asked.is_some_and(|asked| asked.to.is_none()) && token.mode.is_none() {
            token.master = Some(me);
            self.send_ask(key);
        }
    }

    pub(super) fn queued(&mut self, from: NodeId, tag: u64, key: Key) {
        let Some(token) = self.tokens.get_mut(&key) else { return self.scoped_queued(from, tag, key) };
        let Some(asked) = token.asked.as_mut().filter(|asked| asked.ask.tag == tag) else { return };
        asked.to = Some(from);
        asked.is_queued = true;
        token.master = Some(from);
        self.refuse_tries(key);
        self.settle(key);
    }

    pub(super) fn not_master(&mut self, from: NodeId, tag: u64, key: Key) {
        if let Some(lock) = self.scoped_asks.get(&tag).copied() {
            return self.scoped_not_master(from, lock);
        }
        let Some(token) = self.tokens.get_mut(&key) else { return };
        if token.asked.is_none_or(|asked| asked.ask.tag != tag) || token.mode.is_some() {
            return;
        }
        if token.master == Some(from) {
            token.master = None;
        }
        self.send_ask(key);
    }

    pub(super) fn granted(&mut self, from: NodeId, tag: u64, key: Key, given: Given) {
        if let Some(lock) = self.scoped_asks.remove(&tag) {
            return self.scoped_granted(from, lock, given);
        }
        let Some(token) = self.tokens.get_mut(&key) else { return self.give_back(from, key, given.lock) };
        let Some(asked) = token.asked.filter(|asked| asked.ask.tag == tag) else {
            let is_known = token.lock == Some(given.lock) && token.master == Some(from);
            return if is_known { self.say_again(key) } else { self.give_back(from, key, given.lock) };
        };
        let last_read = self.users.last_read_wait(token.ward).filter(|_| given.mode < Mode::CW);
        let is_stale = last_read.is_some_and(|wait| !asked.ask.reads || wait > asked.last_wait);
        let was_weak = token.mode.is_none_or(|mode| mode < Mode::CW);
        token.asked = None;
        token.called = None;
        token.is_stale = is_stale;
        token.mode = Some(given.mode);
        token.master = Some(from);
        token.lock = Some(given.lock);
        if !sings!(self, TokensGoBack) {
            self.lift(given.token);
        }
        self.stop_giving(key);
        if was_weak {
            self.take_value(key, given.value);
        }
        if !is_stale {
            self.convert_ward(key, ward_for(Some(given.mode)));
        }
        self.unpark(key, None, Some(asked.ask));
        self.settle(key);
    }

    /// A grant that this node did not wait for: it was asked twice around a change of view.
    fn give_back(&mut self, from: NodeId, key: Key, lock: LockId) {
        let floor = self.users.last_token();
        self.post(from, Message::Drop(Drop { key, lock, mode: None, scope: None, value: None, floor }));
    }

    /// The master seems to think that this node has more than it has.
    fn say_again(&mut self, key: Key) {
        let floor = self.users.last_token();
        let Some(token) = self.tokens.get(&key).filter(|token| token.asked.is_none()) else { return };
        let (Some(master), Some(lock), mode) = (token.master, token.lock, token.mode) else { return };
        self.post(master, Message::Drop(Drop { key, lock, mode, scope: None, value: None, floor }));
    }

    pub(super) fn denied(&mut self, tag: u64, key: Key, why: Refusal) {
        if let Some(lock) = self.scoped_asks.remove(&tag) {
            return self.scoped_denied(lock, why);
        }
        let Some(token) = self.tokens.get_mut(&key) else { return };
        let Some(asked) = token.asked.take_if(|asked| asked.ask.tag == tag) else { return };
        match why {
            Refusal::Cancelled => {}
            // The ask was for the first that is parked, perhaps in a stronger mode than that one's.
            Refusal::Again => {
                let tried = self.tokens.get(&key).and_then(|token| token.parked.first());
                let mode = tried.map(|parked| Self::parked_mode(&parked.event).0);
                self.unpark(key, mode.or(Some(asked.ask.mode)), None);
            }
            why => self.refuse_users(key, why),
        }
        self.settle(key);
    }

    /// Keeps unused tokens, but not too many.
    fn note_idle(&mut self, key: Key) {
        let Some(token) = self.tokens.get_mut(&key) else { return };
        let is_idle = token.asked.is_none() && token.parked.is_empty() && self.users.is_alone(token.ward);
        if is_idle && token.mode.is_none() {
            return self.forget_token(key);
        }
        match (is_idle, token.idle_since) {
            (true, None) => {
                self.last_idle += 1;
                token.idle_since = Some(self.last_idle);
                self.idle.insert(self.last_idle, key);
            }
            (false, Some(since)) => {
                token.idle_since = None;
                self.idle.remove(&since);
            }
            _ => {}
        }
        if self.idle.len() > self.config.tokens_idle_max {
            let oldest = self
                .idle
                .values()
                .copied()
                .find(|key| self.tokens.get(key).is_some_and(|token| token.master.is_some()));
            if let Some(key) = oldest.filter(|key| self.give(*key, None)) {
                self.forget_token(key);
            }
        }
    }
}
