//! One node's part in the locks of the cluster: its users, the directory of its partitions, the trees that it is master of.
//!
//! ```text
//!  Event::User ------> users.rs    the node's own table: users against a *ward*, which has what the rest of the cluster may have
//!                        |  ^
//!               Lookup,  |  |  Granted, Callback                   all messages, also those to itself, go through `post`
//!               Ask,Drop v  |
//!  Event::Message --> directory.rs --Forward--> master.rs  a table of tokens: its owners are nodes
//!  Event::View -----> recovery.rs
//! ```
//!
//! Invariants: a token's mode as its holder knows it is never stronger than at its master: it is lowered here first and raised there first. So
//! whatever copies survive are compatible with each other. A tree has one master in one era.

mod canary;
mod cluster;
mod detector;
mod directory;
#[cfg(test)]
pub(crate) mod fingerprint;
mod master;
mod recovery;
mod tokens;
mod users;
mod withdrawal;

pub use canary::Canary;
pub use cluster::{Member, MemberState, PARTITIONS, partition};

use crate::error::Error;
use crate::event::{self, LockId, Lockspace};
use crate::message::{Envelope, Key, Message};
use crate::table::{Table, first_token};
use base::{Epoch, Incarnation, NodeId, Time};
use canary::sings;
use cluster::Cluster;
use detector::Detector;
use directory::Directory;
use master::Tree;
use recovery::Recovery;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use tokens::Token;

/// Settings of a node.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node.
    pub node: NodeId,
    /// This life of it.
    pub life: Incarnation,
    /// Settings of its tables.
    pub table: event::Config,
    /// Tokens kept for users to come, at most.
    pub tokens_idle_max: usize,
    /// Empty trees kept, at most.
    pub trees_idle_max: usize,
    /// Lockspaces whose locks guard shared storage.
    pub guarded: BTreeSet<Lockspace>,
    /// After so long a node that was declared DOWN can touch nothing any more.
    pub lease: Duration,
}

/// What a node is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// A new view: every one in its order, none left out.
    View {
        /// Its number.
        epoch: Epoch,
        /// Who is in it.
        members: Vec<Member>,
    },
    /// A message came.
    Message(Envelope),
    /// A user of this node (whose owner names this node).
    User(event::Event),
    /// Time has passed.
    Tick,
}

/// What must be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send this.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        envelope: Envelope,
    },
    /// Tell a user.
    User(event::Effect),
}

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    config: Config,
    now: Time,
    cluster: Cluster,
    users: Table,
    tokens: BTreeMap<Key, Token>,
    wards: BTreeMap<LockId, Key>,
    last_ward: u64,
    last_tag: u64,
    idle: BTreeSet<(u64, Key)>,
    last_idle: u64,
    directory: Directory,
    trees: BTreeMap<Key, Tree>,
    table: Table,
    token_locks: BTreeMap<LockId, Key>,
    empty: BTreeSet<(u64, Key)>,
    recovery: Recovery,
    /// Messages to this node itself, and of eras to come.
    inbox: VecDeque<Envelope>,
    early: Vec<Envelope>,
    out: Vec<Effect>,
    detector: Detector,
    canary: Canary,
}

impl Node {
    /// A node that knows nothing yet; it serves after its first view.
    ///
    /// # Errors
    /// [`Error::Limit`]: see [`Table::new`].
    pub fn new(config: Config) -> Result<Node, Error> {
        Ok(Node {
            users: Table::new(config.table)?,
            table: Table::new(config.table)?,
            config,
            now: Time::default(),
            cluster: Cluster::default(),
            tokens: BTreeMap::new(),
            wards: BTreeMap::new(),
            last_ward: 0,
            last_tag: 0,
            idle: BTreeSet::new(),
            last_idle: 0,
            directory: Directory::default(),
            trees: BTreeMap::new(),
            token_locks: BTreeMap::new(),
            empty: BTreeSet::new(),
            recovery: Recovery::default(),
            inbox: VecDeque::new(),
            early: Vec::new(),
            out: Vec::new(),
            detector: Detector::default(),
            canary: Canary::None,
        })
    }

    /// Applies one event; what must be done is added to `effects`, in order.
    pub fn handle(&mut self, now: Time, event: Event, effects: &mut Vec<Effect>) {
        self.now = now;
        match event {
            Event::View { epoch, members } => self.view(epoch, members),
            Event::Message(envelope) => self.inbox.push_back(envelope),
            Event::User(event) => self.user(event),
            Event::Tick => self.tick(),
        }
        while let Some(envelope) = self.inbox.pop_front() {
            self.receive(envelope);
        }
        effects.append(&mut self.out);
    }

    /// When [`Event::Tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Time> {
        let held = self.recovery.held_until();
        let look_at = self.detector.look_at();
        [self.users.next_deadline(), self.table.next_deadline(), held, look_at].into_iter().flatten().min()
    }

    /// The trees that this node is master of.
    pub fn mastered(&self) -> impl Iterator<Item = Key> + '_ {
        self.trees.iter().filter(|(_, tree)| !tree.is_leaving).map(|(key, _)| *key)
    }

    /// The last era that this node knows.
    pub fn era(&self) -> Epoch {
        self.cluster.era()
    }

    /// The node whose directory has a tree; `None` before the first view.
    pub fn owner_of(&self, key: &Key) -> Option<NodeId> {
        self.cluster.owner(partition(key))
    }

    /// The node's own users' locks (and the wards, whose owner is on node 0).
    pub fn users(&self) -> &Table {
        &self.users
    }

    /// What this node knows of a tree, as text: for whoever looks into why somebody waits.
    pub fn describe(&self, key: &Key) -> String {
        let place = (key.lockspace, key.name);
        let users = self.users.locks().filter(|lock| (lock.lockspace, lock.name) == place);
        format!(
            "token {:?}\ntree {:?}\nusers {:#?}\nentry {:?}, lost {}",
            self.tokens.get(key),
            self.trees.get(key),
            users.collect::<Vec<_>>(),
            self.directory.entries.get(key),
            self.recovery.lost.contains(key),
        )
    }

    fn me(&self) -> NodeId {
        self.config.node
    }

    fn tick(&mut self) {
        let mut effects = Vec::new();
        self.users.handle(self.now, event::Event::Tick, &mut effects);
        self.tell_users(effects);
        self.settle_all();
        self.master(event::Event::Tick);
        self.release_held();
        self.look_for_long_waits();
    }

    /// Sends; to itself through the inbox, so that there is one way only.
    fn post(&mut self, to: NodeId, message: Message) {
        let envelope = Envelope { from: self.me(), life: self.config.life, era: self.cluster.era(), message };
        if to == self.me() {
            self.inbox.push_back(envelope);
        } else {
            self.out.push(Effect::Send { to, envelope });
        }
    }

    fn receive(&mut self, envelope: Envelope) {
        if envelope.era > self.cluster.era() {
            self.early.push(envelope);
            return;
        }
        if !self.cluster.is_live_life(envelope.from, envelope.life) {
            return;
        }
        let Envelope { from, life, era, message } = envelope;
        match message {
            Message::Lookup(ask) => self.lookup(from, life, ask),
            Message::Ask(ask) => self.asked(from, ask),
            Message::Forward { from: asker, life, ask } => {
                if self.is_current(&ask.key, era) && self.cluster.is_live_life(asker, life) {
                    self.asked(asker, ask);
                }
            }
            Message::Yours { key, floor } if self.is_current(&key, era) => self.become_master(key, floor),
            Message::Released { key } if self.is_current(&key, era) => self.released(key),
            Message::Yours { .. } | Message::Released { .. } => {}
            Message::Queued { tag, key } => self.queued(from, tag, key),
            Message::Granted { tag, key, lock, mode, token, value } => {
                self.granted(from, tag, key, tokens::Given { lock, mode, token, value });
            }
            Message::Denied { tag, key, why } => self.denied(tag, key, why),
            Message::Cancel { tag, key } => self.cancel_ask(from, tag, key),
            Message::Callback { key, lock, mode, tries } => self.callback(from, key, lock, mode, tries),
            Message::InUse { key, mode } => self.in_use(from, key, mode),
            Message::Drop(_) if sings!(self, LosesADrop) && era < self.cluster.era() => {}
            Message::Drop(drop) => self.dropped(from, &drop),
            Message::NotMaster { tag, key } => self.not_master(from, tag, key),
            Message::Release { key, floor } => self.release(from, key, floor),
            Message::Search(search) if era == self.cluster.era() => self.search(from, search),
            Message::Search(_) => {}
            Message::Report(report) if era == self.cluster.era() || sings!(self, CountsOldReports) => {
                self.report(from, report);
            }
            Message::Report(_) => {}
            Message::Recovered { trees, done } => self.recovered(from, era, &trees, done),
        }
    }

    /// True if a directory's word of that era still counts: the partition has not moved since.
    fn is_current(&self, key: &Key, era: Epoch) -> bool {
        !self.cluster.moved_since(partition(key), era) || sings!(self, BelievesOldAnswers)
    }

    fn lift(&mut self, token: u64) {
        let mut none = Vec::new();
        self.users.handle(self.now, event::Event::Floor(token), &mut none);
        self.table.handle(self.now, event::Event::Floor(token), &mut none);
    }

    fn enter_era(&mut self, era: Epoch) {
        self.detector.forget_search();
        self.lift(first_token(era));
    }
}
