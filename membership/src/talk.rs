//! What nodes say to one another about membership: requests of the service MEMBERSHIP on the fabric, and their answers.
//!
//! Every request says who speaks, which life of it, and the epoch it has. A life that was declared DOWN gets
//! [`Say::Evicted`] as the answer to whatever it asks.

use crate::command::{Command, Outcome};
use crate::table::Feed;
use crate::wire::{Node, View};
use bytes::Bytes;

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
    #[prost(oneof = "Ask", tags = "4, 5, 6, 7, 8, 9")]
    pub ask: Option<Ask>,
}

/// What is wanted.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Ask {
    /// The master is there; this is new, and so long you may serve.
    #[prost(message, tag = "4")]
    Lead(Lead),
    /// A life of a known node wants to be in the view.
    #[prost(message, tag = "5")]
    Hello(Hello),
    /// The table shall be changed.
    #[prost(message, tag = "6")]
    Change(Change),
    /// Another node shall keep the log in the place of one that does.
    #[prost(message, tag = "7")]
    Replace(Replace),
    /// What is new? (asked by `ssid --data` of its own `ssid`).
    #[prost(message, tag = "8")]
    Newer(Newer),
    /// A message of one voter's log to another's: `replog::wire`. It is not answered.
    #[prost(bytes = "bytes", tag = "9")]
    Log(Bytes),
}

/// The master's beat.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Lead {
    /// The term in which it is master.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// The life of the node that it speaks to, as the table has it.
    #[prost(uint64, tag = "2")]
    pub life: u64,
    /// What that node does not know yet, as far as the master knows.
    #[prost(message, optional, tag = "3")]
    pub feed: Option<Feed>,
    /// `sent` of the newest answer that the master has of it; 0: none.
    #[prost(fixed64, tag = "4")]
    pub echo: u64,
    /// For so long after `echo` it may serve, microseconds; 0: no longer than it knows already.
    #[prost(uint64, tag = "5")]
    pub grant_us: u64,
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

/// A change of the table.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Change {
    /// What shall be; the time in it is the master's.
    #[prost(message, optional, tag = "1")]
    pub command: Option<Command>,
    /// A number of this request: one that is sent again bears the same, and is carried out once.
    #[prost(fixed64, tag = "2")]
    pub session: u64,
    /// True if another member passes it on to the one it thinks is master: it is not passed on again.
    #[prost(bool, tag = "3")]
    pub forwarded: bool,
}

/// One voter for another.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Replace {
    /// The node that votes no more.
    #[prost(uint32, tag = "1")]
    pub old: u32,
    /// The node that takes its place.
    #[prost(uint32, tag = "2")]
    pub new: u32,
}

/// Waiting for what is new.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Newer {
    /// Everything up to this epoch is known.
    #[prost(uint64, tag = "1")]
    pub than: u64,
}

/// An answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Answer {
    /// What is answered.
    #[prost(oneof = "Say", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    pub say: Option<Say>,
}

/// What is answered.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Say {
    /// To [`Ask::Lead`].
    #[prost(message, tag = "1")]
    Followed(Followed),
    /// The sender's life was declared DOWN (or removed) in this view.
    #[prost(message, tag = "2")]
    Evicted(View),
    /// To [`Ask::Change`] and [`Ask::Replace`]: it is agreed.
    #[prost(message, tag = "3")]
    Decided(Decided),
    /// It will not be done, and why.
    #[prost(string, tag = "4")]
    Refused(String),
    /// Only the master can decide that; its number, 0 if there is none now. Or it may have been decided: ask again.
    #[prost(uint32, tag = "5")]
    NotMaster(u32),
    /// To [`Ask::Hello`]: heard.
    #[prost(message, tag = "6")]
    Noted(Noted),
    /// To [`Ask::Newer`].
    #[prost(message, tag = "7")]
    News(Feed),
    /// To [`Ask::Log`]: nothing.
    #[prost(message, tag = "8")]
    Nothing(()),
}

/// What a node has, and how it is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Followed {
    /// The newest term of a master that it knows.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// The epoch that it knows.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Which life of it answers.
    #[prost(uint64, tag = "3")]
    pub incarnation: u64,
    /// How it is.
    #[prost(message, optional, tag = "4")]
    pub condition: Option<Condition>,
    /// When it answers, by its own clock.
    #[prost(fixed64, tag = "5")]
    pub sent: u64,
    /// The identity of the disk on which it would keep the log: the lower half.
    #[prost(fixed64, tag = "6")]
    pub disk_low: u64,
    /// And the upper.
    #[prost(fixed64, tag = "7")]
    pub disk_high: u64,
}

/// Heard.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Noted {
    /// The master's number, 0 if there is none now.
    #[prost(uint32, tag = "1")]
    pub master: u32,
    /// What the sender does not know yet.
    #[prost(message, optional, tag = "2")]
    pub feed: Option<Feed>,
}

/// What was agreed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Decided {
    /// What came of it.
    #[prost(message, optional, tag = "1")]
    pub outcome: Option<Outcome>,
    /// For one that joins: the view.
    #[prost(message, optional, tag = "2")]
    pub view: Option<View>,
    /// For one that joins with a token: the cluster key, wrapped for its eyes only.
    #[prost(bytes = "bytes", tag = "3")]
    pub key: Bytes,
}

impl Say {
    /// The answer that says this.
    pub fn answer(self) -> Answer {
        Answer { say: Some(self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    proptest! {
        #[test]
        fn garbage_is_an_error_or_a_message(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(request) = Request::decode(&bytes[..]) {
                prop_assert_eq!(Request::decode(&request.encode_to_vec()[..]).unwrap(), request);
            }
            if let Ok(answer) = Answer::decode(&bytes[..]) {
                prop_assert_eq!(Answer::decode(&answer.encode_to_vec()[..]).unwrap(), answer);
            }
        }
    }
}
