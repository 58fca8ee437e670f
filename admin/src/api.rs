//! The cluster API, as OpenSSI's libcluster had it: who is in the cluster, and what changed. libssi and the shell commands are thin
//! shells over this.
//!
//! Every call makes a connection of its own and keeps nothing: it may be used by any thread, and after fork(2).

mod change;
mod following;

pub use crate::wire::{Cause, State};
pub use change::{Change, TransId, changes, state_of};

use crate::error::Error;
use crate::place::Place;
use crate::wire::{Answer, Ask, ChangeWanted, DrainWanted, Node, View, Wish};
use base::NodeId;
use base::limits::NODES_MAX;

/// The cluster that a node belongs to.
#[derive(Clone, Debug)]
pub struct Cluster {
    place: Place,
}

/// Which transition is meant, in relation to a given one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The given one itself.
    This,
    /// The one after it.
    Next,
    /// The one before it.
    Previous,
    /// The oldest that is kept.
    First,
    /// The newest.
    Last,
}

/// Who is UP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The transition that made it so.
    pub transition: TransId,
    /// The nodes that are UP, by number.
    pub up: Vec<u32>,
}

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeInfo {
    /// Its row in the table.
    pub row: Node,
    /// Its state.
    pub state: State,
    /// The transition of the table that says so.
    pub transition: TransId,
    /// It is the CLMS master.
    pub master: bool,
    /// It is the node that was asked.
    pub local: bool,
}

impl Cluster {
    /// The cluster of the view that we are in, of the directory that `SSI_DIR` names, or of this machine.
    ///
    /// # Errors
    /// [`Error::NoNode`].
    pub fn here() -> Result<Cluster, Error> {
        Place::from_environment().map(Cluster::at)
    }

    /// The cluster of a node.
    pub fn at(place: Place) -> Cluster {
        Cluster { place }
    }

    fn table(&self) -> Result<(View, Answer), Error> {
        let mut answer = self.place.ask(Ask::Nodes(()))?;
        let view = answer.view.take();
        view.map(|view| (view, answer)).ok_or(Error::Closed)
    }

    /// The cluster's name.
    ///
    /// # Errors
    /// No daemon answers.
    pub fn name(&self) -> Result<String, Error> {
        Ok(self.table()?.0.cluster)
    }

    /// The number of the node that we ask.
    ///
    /// # Errors
    /// No daemon answers.
    pub fn number(&self) -> Result<u32, Error> {
        Ok(self.table()?.1.local)
    }

    /// The largest number that a node can have.
    ///
    /// # Errors
    /// No daemon answers.
    pub fn nodes_max(&self) -> Result<u32, Error> {
        let most = u32::try_from(NODES_MAX).unwrap_or(u32::MAX);
        Ok(self.table()?.0.regions().node_max().0.min(most))
    }

    /// Who is UP, and which transition made it so.
    ///
    /// # Errors
    /// No daemon answers.
    pub fn membership(&self) -> Result<Membership, Error> {
        let (view, _) = self.table()?;
        let up = view.nodes.iter().filter(|row| is_available(state_of(row))).map(|row| row.id);
        Ok(Membership { transition: TransId::whole(view.epoch), up: up.collect() })
    }

    /// What there is to know of a node.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no such node; no daemon answers.
    pub fn node(&self, id: u32) -> Result<NodeInfo, Error> {
        let (view, answer) = self.table()?;
        let row = view.node(NodeId(id)).ok_or_else(|| no_node(id))?.clone();
        Ok(NodeInfo {
            state: state_of(&row),
            transition: TransId::whole(view.epoch),
            master: view.master == id,
            local: answer.local == id,
            row,
        })
    }

    /// The number of the node of that name.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is none; no daemon answers.
    pub fn find(&self, name: &str) -> Result<u32, Error> {
        let (view, _) = self.table()?;
        let row = view.nodes.iter().find(|row| row.name == name);
        row.map(|row| row.id).ok_or_else(|| Error::Invalid(format!("there is no node {name:?}")))
    }

    /// True if the node is UP.
    ///
    /// # Errors
    /// As [`Cluster::node`].
    pub fn is_up(&self, id: u32) -> Result<bool, Error> {
        Ok(is_available(self.node(id)?.state))
    }

    /// Asks for another state of a node: SHUTDOWN (no new work) from UP, UP from SHUTDOWN, GOINGDOWN (stop it) from either.
    ///
    /// # Errors
    /// [`Error::Invalid`] if that change does not exist, [`Error::Unsupported`] for those that the system makes by itself, or what the daemon
    /// says.
    pub fn set_state(&self, id: u32, wanted: State) -> Result<(), Error> {
        let node = self.node(id)?;
        let wish = match (node.state, wanted) {
            (State::Up, State::Shutdown) => Wish::Drain(DrainWanted { node: id, drain: true }),
            (State::Shutdown, State::Up) => Wish::Drain(DrainWanted { node: id, drain: false }),
            (State::Up | State::Shutdown, State::GoingDown) if node.local => {
                return self.place.ask(Ask::Stop(())).map(drop);
            }
            (State::Up | State::Shutdown, State::GoingDown) => {
                return Err(Error::Unsupported("a node is stopped by a process that runs there"));
            }
            (State::ComingUp, State::Up) | (State::UserCleanup, State::Down) | (_, State::KernelCleanup) => {
                return Err(Error::Unsupported("the system makes this change by itself"));
            }
            (from, to) => {
                let why = format!("node {id} cannot go from {} to {}", from.name(), to.name());
                return Err(Error::Invalid(why));
            }
        };
        self.place.ask(Ask::Change(ChangeWanted { wish: Some(wish) })).map(drop)
    }
}

/// True in the states in which a node works: a drained one does, and it is no longer UP.
fn is_available(state: State) -> bool {
    state == State::Up
}

fn no_node(id: u32) -> Error {
    Error::Invalid(format!("there is no node {id}"))
}
