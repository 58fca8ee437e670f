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

mod asks;
mod canary;
mod cluster;
mod detector;
mod directory;
#[cfg(test)]
pub(crate) mod fingerprint;
mod handed;
mod hashed;
mod master;
mod recovery;
mod remaster;
mod scoped;
mod tokens;
mod trees;
mod users;
mod values;
mod withdrawal;

pub use asks::Remaster;
pub use canary::Canary;
pub use cluster::{Member, MemberState, PARTITIONS, partition};

use crate::error::Error;
use crate::event::{self, LockId, Lockspace};
use crate::message::{Envelope, Key, Message};
use crate::policy::Scope;
use crate::table::{Table, first_token};
use base::{Epoch, Incarnation, NodeId, Time};
use canary::sings;
use cluster::Cluster;
use detector::Detector;
use directory::Directory;
use hashed::{Forest, Hashed};
use master::{Spot, Tree};
use recovery::Recovery;
use remaster::Cargo;
use scoped::{Ghost, ScopedLock};
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
    /// When a tree goes to another node.
    pub remaster: Remaster,
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
    tokens: Forest<Token>,
    wards: Hashed<LockId, Key>,
    last_ward: u64,
    last_tag: u64,
    last_fetch: u64,
    idle: BTreeMap<u64, Key>,
    last_idle: u64,
    scoped: BTreeMap<LockId, ScopedLock>,
    scoped_ghosts: BTreeMap<LockId, Ghost>,
    scoped_asks: BTreeMap<u64, LockId>,
    scoped_names: BTreeMap<(NodeId, LockId), LockId>,
    scoped_deadlines: BTreeSet<(Time, LockId)>,
    hints: Hashed<Key, NodeId>,
    directory: Directory,
    trees: Hashed<Key, Box<Tree>>,
    spots: Forest<Spot>,
    table: Table,
    token_locks: Hashed<LockId, Key>,
    scoped_locks: Hashed<LockId, (Key, NodeId, LockId)>,
    empty: BTreeSet<(u64, Key)>,
    arriving: BTreeMap<(NodeId, Key), Cargo>,
    trees_taken: u64,
    recovery: Recovery,
    /// Messages to this node itself, and of eras to come.
    inbox: VecDeque<Envelope>,
    early: Vec<Envelope>,
    out: Vec<Effect>,
    detector: Detector,
    canary: Canary,
    /// What the users' table says, for a moment.
    scratch: Vec<event::Effect>,
}

impl Node {
    /// A node that knows nothing yet; it serves after its first view.
    ///
    /// # Errors
    /// [`Error::Limit`]: see [`Table::new`].
    pub fn new(config: Config) -> Result<Node, Error> {
        let seed = config.table.seed;
        Ok(Node {
            users: Table::new(config.table)?,
            // An owner there is a whole node.
            table: Table::new(event::Config { locks_per_owner: config.table.locks_max, ..config.table })?,
            now: Time::default(),
            cluster: Cluster::default(),
            tokens: Forest::new(seed),
            config,
            wards: Hashed::new(seed),
            last_ward: 0,
            last_tag: 0,
            last_fetch: 0,
            idle: BTreeMap::new(),
            last_idle: 0,
            scoped: BTreeMap::new(),
            scoped_ghosts: BTreeMap::new(),
            scoped_asks: BTreeMap::new(),
            scoped_names: BTreeMap::new(),
            scoped_deadlines: BTreeSet::new(),
            hints: Hashed::new(seed),
            directory: Directory::new(seed),
            trees: Hashed::new(seed),
            spots: Forest::new(seed),
            token_locks: Hashed::new(seed),
            scoped_locks: Hashed::new(seed),
            empty: BTreeSet::new(),
            arriving: BTreeMap::new(),
            trees_taken: 0,
            recovery: Recovery::default(),
            inbox: VecDeque::new(),
            early: Vec::new(),
            out: Vec::new(),
            detector: Detector::default(),
            canary: Canary::None,
            scratch: Vec::new(),
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
        let scoped = self.scoped_deadlines.first().map(|(due, _)| *due);
        let tables = [self.users.next_deadline(), self.table.next_deadline()];
        tables.into_iter().chain([held, look_at, scoped]).flatten().min()
    }

    /// The trees that this node is master of.
    pub fn mastered(&self) -> impl Iterator<Item = Key> + '_ {
        self.trees.keys_that(|_, tree| !tree.is_leaving && tree.handed.is_none()).into_iter()
    }

    /// The last era that this node knows.
    pub fn era(&self) -> Epoch {
        self.cluster.era()
    }

    /// The node in whose directory a tree is looked up.
    pub fn directory_of(&self, key: &Key) -> Option<NodeId> {
        self.cluster.owner(partition(key))
    }

    /// The life of a node that lives, as far as this one knows: what is sent to the node is for that life alone.
    pub fn life_of(&self, node: NodeId) -> Option<Incarnation> {
        self.cluster.life(node)
    }

    /// All nodes that live, as far as this one knows.
    pub fn live(&self) -> Vec<NodeId> {
        self.cluster.live()
    }

    /// The node's own users' locks (and the wards, whose owner is on node 0).
    pub fn users(&self) -> &Table {
        &self.users
    }

    /// What this node knows of a tree, as text: for whoever looks into why somebody waits.
    pub fn describe(&self, key: &Key) -> String {
        let users = self.users.locks().filter(|lock| self.users.key_of(lock.lock) == Some(*key));
        format!(
            "token {:?}\nscoped {:?}\ntree {:?}\nspot {:?}\nusers {:#?}\nentry {:?}, lost {}",
            self.tokens.get(key),
            self.scoped_of(key),
            self.trees.get(&key.root()),
            self.spots.get(key),
            users.collect::<Vec<_>>(),
            self.directory.entries.get(&key.root()),
            self.recovery.lost.contains(&key.root()),
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
        self.scoped_tick();
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
        self.hear(envelope);
    }

    /// A message of somebody who lives, of this era or an earlier one.
    fn hear(&mut self, envelope: Envelope) {
        let Envelope { from, life, era, message } = envelope;
        match message {
            Message::Lookup(ask) => self.lookup(from, life, ask),
            // (Whoever asked this node itself would not ask again if the new master died.)
            Message::Ask(ask) if self.is_handed(&ask.key) => {
                self.post(from, Message::NotMaster { tag: ask.tag, key: ask.key });
            }
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
            Message::Granted { tag, key, lock, mode, scope, token, value } => {
                self.granted(from, tag, key, tokens::Given { lock, mode, scope, token, value });
            }
            Message::Denied { tag, key, why } => self.denied(tag, key, why),
            Message::Cancel { tag, key } => self.cancel_ask(from, tag, key),
            Message::Callback { key, lock, mode, scope: Scope::Plain, tries } => {
                self.callback(from, key, lock, mode, tries);
            }
            Message::Callback { lock, mode, scope, .. } => self.scoped_callback(from, lock, mode, scope),
            Message::InUse { key, mode } => self.in_use(from, key, mode),
            Message::Drop(_) if sings!(self, LosesADrop) && era < self.cluster.era() => {}
            Message::Fetch { key, lock, number } => self.fetch(from, key, lock, number),
            Message::Fetched { key, number, value } => self.fetched(from, key, number, value),
            Message::Drop(drop) => self.dropped(from, &drop),
            Message::Purge { holder } => self.purge_orphans(holder),
            Message::NotMaster { tag, key } => self.not_master(from, tag, key),
            Message::Release { key, floor } => self.release(from, key, floor),
            Message::Search(search) if era == self.cluster.era() => self.search(from, search),
            Message::Search(_) => {}
            Message::Report(report) if era == self.cluster.era() || sings!(self, CountsOldReports) => {
                self.report(from, report);
            }
            Message::Moving { key, to, number } => self.note_move(from, key, to, number),
            Message::Noted { key, number } => self.noted(from, key, number),
            Message::Tree { key, tokens, scoped, nodes, floor, more } => {
                self.tree_comes(from, key, Cargo { tokens, scoped }, floor);
                if !more {
                    self.take_over(from, key, &nodes);
                }
            }
            Message::Took { key } => self.took(from, key),
            Message::Confirmed { key } => self.confirmed(key),
            Message::Taken { key } => self.taken(from, key),
            Message::Moved { key, tokens, scoped, more } => {
                self.moved(from, &tokens, &scoped);
                if !more {
                    self.ask_new_master(from, key);
                }
            }
            Message::Report(_) => {}
            Message::Recovered { trees, scoped, done } => {
                self.recovered(from, era, &trees, done);
                self.scoped_recovered(from, era, &scoped, done);
            }
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
