//! What nodes say to one another about membership: requests of the service MEMBERSHIP on the fabric, and their answers.
//!
//! Every request says who speaks, which life of it, and the epoch it has. A life that was declared DOWN gets
//! [`Say::Evicted`] as the answer to whatever it asks.

use crate::wire::{Node, View};

/// A request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// The node that speaks; 0 for a machine that is joining.
    #[prost(uint32, tag = "1")]
    pub sender: u32,
    /// Which life of it.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// The newest epoch that it knows to be agreed.
    #[prost(uint64, tag = "3")]
    pub epoch: u64,
    /// What it wants.
    #[prost(oneof = "Ask", tags = "4, 5, 6, 7, 8, 9, 10")]
    pub ask: Option<Ask>,
}

/// What is wanted.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Ask {
    /// A voter wants to be master.
    #[prost(message, tag = "4")]
    Canvass(Canvass),
    /// The master is there, and proposes or has agreed.
    #[prost(message, tag = "5")]
    Lead(Lead),
    /// A life of a known node wants to be in the view.
    #[prost(message, tag = "6")]
    Hello(Hello),
    /// An unknown machine wants to be a node.
    #[prost(message, tag = "7")]
    Join(Join),
    /// The sender ends its life in the cluster.
    #[prost(message, tag = "8")]
    Leave(Leave),
    /// A node that is DOWN shall be forgotten.
    #[prost(message, tag = "9")]
    Remove(Remove),
    /// Tell me the next view (asked by `ssid --data` of its own `ssid`).
    #[prost(message, tag = "10")]
    Newer(Newer),
}

/// Standing for election.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Canvass {
    /// The term that the candidate wants to be master of.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// True: only asking whether it could win; nobody's state changes.
    #[prost(bool, tag = "2")]
    pub trial: bool,
    /// The term of the last view that the candidate accepted.
    #[prost(uint64, tag = "3")]
    pub accepted_term: u64,
    /// The epoch of that view.
    #[prost(uint64, tag = "4")]
    pub accepted_epoch: u64,
}

/// The master's beat.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Lead {
    /// The master's term.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// The view it proposes or has agreed, for a node that has not accepted it yet.
    #[prost(message, optional, tag = "2")]
    pub view: Option<View>,
    /// The voters of the view before `view`: until `view` is agreed a majority of them is needed too.
    #[prost(uint32, repeated, tag = "3")]
    pub base: Vec<u32>,
    /// The newest epoch that is agreed.
    #[prost(uint64, tag = "4")]
    pub committed: u64,
}

/// How a node is, by its own account.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Condition {
    /// Its `ssid --data` is there.
    #[prost(bool, tag = "1")]
    pub data_up: bool,
    /// This run of its `ssid`.
    #[prost(fixed64, tag = "2")]
    pub daemon: u64,
}

/// "Here I am (again)."
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    /// The row that the sender wants to have.
    #[prost(message, optional, tag = "1")]
    pub row: Option<Node>,
    /// How it is.
    #[prost(message, optional, tag = "2")]
    pub condition: Option<Condition>,
}

/// A new machine.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Join {
    /// The row that it wants to have; the id is given by the cluster.
    #[prost(message, optional, tag = "1")]
    pub row: Option<Node>,
    /// True if another member passes it on to the one it thinks is master: it is not passed on again.
    #[prost(bool, tag = "2")]
    pub forwarded: bool,
}

/// The end of the sender's life in the cluster.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Leave {
    /// The node that leaves.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// The life that ends.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
}

/// Forgetting a node.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Remove {
    /// Which.
    #[prost(uint32, tag = "1")]
    pub node: u32,
}

/// Waiting for a view.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Newer {
    /// Newer than this epoch.
    #[prost(uint64, tag = "1")]
    pub than: u64,
}

/// An answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Answer {
    /// What is answered.
    #[prost(oneof = "Say", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9")]
    pub say: Option<Say>,
}

/// What is answered.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Say {
    /// To [`Ask::Canvass`].
    #[prost(message, tag = "1")]
    Voted(Voted),
    /// To [`Ask::Lead`].
    #[prost(message, tag = "2")]
    Followed(Followed),
    /// The sender's life was declared DOWN (or removed) in this view.
    #[prost(message, tag = "3")]
    Evicted(View),
    /// To [`Ask::Join`]: the node is in the view.
    #[prost(message, tag = "4")]
    Joined(Joined),
    /// It is so.
    #[prost(message, tag = "5")]
    Done(()),
    /// It will not be done, and why.
    #[prost(string, tag = "6")]
    Refused(String),
    /// Only the master can decide that; its number, 0 if there is none now.
    #[prost(uint32, tag = "7")]
    NotMaster(u32),
    /// To [`Ask::Hello`]: heard; the master's number, 0 if there is none now.
    #[prost(uint32, tag = "8")]
    Noted(u32),
    /// To [`Ask::Newer`].
    #[prost(message, tag = "9")]
    Current(View),
}

/// A vote.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Voted {
    /// The term voted in; the voter's own if that is larger.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// It was a trial.
    #[prost(bool, tag = "2")]
    pub trial: bool,
    /// Yes or no.
    #[prost(bool, tag = "3")]
    pub granted: bool,
}

/// What a follower has.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Followed {
    /// The follower's term.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// The epoch that it has accepted in this term, 0 if none.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Which life of it answers.
    #[prost(uint64, tag = "3")]
    pub incarnation: u64,
    /// How it is.
    #[prost(message, optional, tag = "4")]
    pub condition: Option<Condition>,
}

/// A new node's number and the view that holds it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Joined {
    /// The number.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// The agreed view.
    #[prost(message, optional, tag = "2")]
    pub view: Option<View>,
}

impl Say {
    /// The answer that says this.
    pub fn answer(self) -> Answer {
        Answer { say: Some(self) }
    }
}
