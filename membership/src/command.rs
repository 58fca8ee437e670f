//! Commands: what is proposed to the log of the table, and what comes of it.
//!
//! Invariant: a command names the life that it is about, so that a late or doubled one does no harm.

use crate::token::Ticket;
use crate::wire::{Node, Property, View};

/// One entry of the log.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Command {
    /// When it was proposed, by the proposer's wall clock: milliseconds since 1970.
    #[prost(uint64, tag = "1")]
    pub at_ms: u64,
    /// What shall be.
    #[prost(oneof = "Act", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19")]
    pub act: Option<Act>,
}

/// What shall be.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Act {
    /// The table begins with this view. Only an empty table takes it.
    #[prost(message, tag = "2")]
    Found(View),
    /// This machine becomes a node, DOWN until it says hello; its id and life are ignored.
    #[prost(message, tag = "3")]
    Join(Node),
    /// A later life of a node whose earlier one is over is UP, as this row describes it.
    #[prost(message, tag = "4")]
    Rise(Node),
    /// Of these lives a daemon is away.
    #[prost(message, tag = "5")]
    Stall(Lives),
    /// The daemons of these lives are there again.
    #[prost(message, tag = "6")]
    Recover(Lives),
    /// These lives are over.
    #[prost(message, tag = "7")]
    Down(Lives),
    /// What fencing of a life has come to.
    #[prost(message, tag = "8")]
    Fenced(Fenced),
    /// A life ends at its own wish.
    #[prost(message, tag = "9")]
    Leave(Life),
    /// The node with this number is forgotten.
    #[prost(uint32, tag = "10")]
    Remove(u32),
    /// A node gets another name.
    #[prost(message, tag = "11")]
    Rename(Rename),
    /// Nothing new, or again something, is placed on a node.
    #[prost(message, tag = "12")]
    Drain(Drain),
    /// Something is written down about a node.
    #[prost(message, tag = "13")]
    Describe(Describe),
    /// So many voters there shall be.
    #[prost(uint32, tag = "14")]
    WantVoters(u32),
    /// These are the voters now.
    #[prost(message, tag = "15")]
    Voters(Voters),
    /// The node with this number is master now.
    #[prost(uint32, tag = "16")]
    Reign(u32),
    /// Another `ssid` runs in these lives.
    #[prost(message, tag = "17")]
    Run(Runs),
    /// A ticket lets machines in; who has used it is ignored.
    #[prost(message, tag = "18")]
    Ticket(Ticket),
    /// A machine becomes a node with a ticket, as [`Act::Join`], and the ticket has one use less.
    #[prost(message, tag = "19")]
    Enter(Enter),
}

/// A machine that joins with a ticket.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Enter {
    /// The row that it wants, as it was proved.
    #[prost(bytes = "vec", tag = "1")]
    pub row: Vec<u8>,
    /// The ticket's name.
    #[prost(bytes = "vec", tag = "2")]
    pub ticket: Vec<u8>,
    /// The machine's number for itself.
    #[prost(bytes = "vec", tag = "3")]
    pub machine: Vec<u8>,
    /// What proves that it has the token. A member that holds the cluster key checks it before the command is proposed.
    #[prost(bytes = "vec", tag = "4")]
    pub proof: Vec<u8>,
}

/// A run of an `ssid`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Run {
    /// In which life.
    #[prost(message, required, tag = "1")]
    pub life: Life,
    /// Its number.
    #[prost(fixed64, tag = "2")]
    pub daemon: u64,
}

/// Some of them.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Runs {
    /// Which.
    #[prost(message, repeated, tag = "1")]
    pub runs: Vec<Run>,
}

/// One life of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Message)]
pub struct Life {
    /// The node.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// Which life of it.
    #[prost(uint64, tag = "2")]
    pub life: u64,
}

/// Some lives, and why something happens to them.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Lives {
    /// Which.
    #[prost(message, repeated, tag = "1")]
    pub lives: Vec<Life>,
    /// Why, for operators.
    #[prost(string, tag = "2")]
    pub why: String,
}

/// What fencing has come to.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Fenced {
    /// The life that is over.
    #[prost(message, optional, tag = "1")]
    pub life: Option<Life>,
    /// It cannot touch anything shared any more.
    #[prost(bool, tag = "2")]
    pub done: bool,
    /// What the agent said.
    #[prost(string, tag = "3")]
    pub said: String,
}

/// Another name.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Rename {
    /// Of this node.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// The name.
    #[prost(string, tag = "2")]
    pub name: String,
}

/// Whether something is placed on a node.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Drain {
    /// The node.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// Nothing new is.
    #[prost(bool, tag = "2")]
    pub drained: bool,
}

/// Something about a node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Describe {
    /// The node.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// What; an empty value takes the key away.
    #[prost(message, optional, tag = "2")]
    pub property: Option<Property>,
}

/// The voters.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Voters {
    /// Their numbers, in order.
    #[prost(uint32, repeated, tag = "1")]
    pub nodes: Vec<u32>,
}

/// What came of a command; the same on all members.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Outcome {
    /// The transition that it made, or the epoch that it found as it wanted it.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// The number of the node that joined; 0 otherwise.
    #[prost(uint32, tag = "2")]
    pub node: u32,
    /// Why it was refused; empty if it was not.
    #[prost(string, tag = "3")]
    pub refused: String,
}

impl Act {
    /// True if any node may ask for it; the rest is the master's own.
    pub fn may_be_asked(&self) -> bool {
        matches!(
            self,
            Act::Join(_)
                | Act::Leave(_)
                | Act::Remove(_)
                | Act::Rename(_)
                | Act::Drain(_)
                | Act::Describe(_)
                | Act::WantVoters(_)
                | Act::Ticket(_)
                | Act::Enter(_)
        )
    }
}
