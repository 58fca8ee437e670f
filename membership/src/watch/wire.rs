//! What watching at scale says over the network: tagged messages, stable field numbers.
//!
//! Heartbeats are the datagrams of [`crate::heartbeat`]. Invariant: whatever bytes come in, decoding gives a message within the limits
//! of this file, or an error.

use super::pace::MEMBERS_MAX;
use crate::Error;
use prost::Message as _;

/// Subjects that one alarm may name.
pub const SUSPECTS_MAX: usize = 256;
/// Alarms in one bundle.
pub const ALARMS_MAX: usize = 4_096;
/// Transitions that one beat may carry.
pub const TRANSITIONS_MAX: usize = 64;
/// Missing spans that one answer may name.
pub const SPANS_MAX: usize = 4_096;

/// What is in a transition.
pub type Body = bytes::Bytes;

/// A subject that a watcher does not hear.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Suspect {
    /// The node.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// The life of it that was watched.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
}

/// All that one watcher suspects at the moment: it replaces what it said before, and an empty one takes all back.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Alarm {
    /// Who says so.
    #[prost(uint32, tag = "1")]
    pub watcher: u32,
    /// Which life of it.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// Grows with every alarm of this life.
    #[prost(uint64, tag = "3")]
    pub sequence: u64,
    /// The view that it watches by.
    #[prost(uint64, tag = "4")]
    pub epoch: u64,
    /// Whom it does not hear.
    #[prost(message, repeated, tag = "5")]
    pub suspects: Vec<Suspect>,
}

/// Alarms of several watchers on their way to the master.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Alarms {
    /// The alarms.
    #[prost(message, repeated, tag = "1")]
    pub alarms: Vec<Alarm>,
}

/// One change of the view. What is in it is the business of who keeps the table.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Transition {
    /// The epoch that it changes.
    #[prost(uint64, tag = "1")]
    pub after: u64,
    /// The epoch that it makes.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// The change.
    #[prost(bytes = "bytes", tag = "3")]
    pub body: Body,
}

/// A part of the tree's line.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Span {
    /// The first place of it.
    #[prost(fixed64, tag = "1")]
    pub low: u64,
    /// The first place behind it; not there: to the end.
    #[prost(fixed64, optional, tag = "2")]
    pub high: Option<u64>,
}

/// Down the tree: I am master; renew your lease; take this part of the line over.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Beat {
    /// The master's term.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// Grows with every round of the term, from 1.
    #[prost(uint64, tag = "2")]
    pub round: u64,
    /// The newest agreed view.
    #[prost(uint64, tag = "3")]
    pub epoch: u64,
    /// Whom the receiver answers for: itself, and all members in here.
    #[prost(message, optional, tag = "4")]
    pub span: Option<Span>,
    /// The round whose answers this beat acknowledges; 0: none.
    #[prost(uint64, tag = "5")]
    pub heard: u64,
    /// Nodes whose answer to that round had not come: their leases are not renewed.
    #[prost(uint32, repeated, tag = "6")]
    pub unheard: Vec<u32>,
    /// The latest changes of the view, or those that the receiver lacks.
    #[prost(message, repeated, tag = "7")]
    pub transitions: Vec<Transition>,
}

/// Up the tree: we are here.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ack {
    /// The term of the beat.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// Its round.
    #[prost(uint64, tag = "2")]
    pub round: u64,
    /// The newest view of who answers.
    #[prost(uint64, tag = "3")]
    pub epoch: u64,
    /// The oldest view of all that answered to it.
    #[prost(uint64, tag = "4")]
    pub oldest: u64,
    /// True if nothing more is waited for.
    #[prost(bool, tag = "5")]
    pub complete: bool,
    /// Of its part, who has not answered.
    #[prost(message, repeated, tag = "6")]
    pub missing: Vec<Span>,
}

/// What one station says to another: one message of the service.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Note {
    /// It.
    #[prost(oneof = "Say", tags = "1, 2, 3, 4")]
    pub say: Option<Say>,
}

/// What a note says.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Say {
    /// A watcher to a relay, or to the master.
    #[prost(message, tag = "1")]
    Alarm(Alarm),
    /// A relay to the master.
    #[prost(message, tag = "2")]
    Alarms(Alarms),
    /// Down the tree.
    #[prost(message, tag = "3")]
    Beat(Beat),
    /// Up the tree.
    #[prost(message, tag = "4")]
    Ack(Ack),
}

impl Say {
    /// What the note in `bytes` says.
    ///
    /// # Errors
    /// [`Error::Malformed`]: no note, one that says nothing known here, or one beyond the limits.
    pub fn read(bytes: &[u8]) -> Result<Say, Error> {
        let note = Note::decode(bytes).map_err(|error| Error::Malformed(error.to_string()))?;
        let say = note.say.ok_or_else(|| Error::Malformed("it says nothing".into()))?;
        if say.fits() { Ok(say) } else { Err(Error::Malformed("it is longer than its limits".into())) }
    }

    /// The bytes of a note that says so.
    pub fn write(self) -> Vec<u8> {
        Note { say: Some(self) }.encode_to_vec()
    }

    fn fits(&self) -> bool {
        let alarm_fits = |alarm: &Alarm| alarm.suspects.len() <= SUSPECTS_MAX;
        match self {
            Say::Alarm(alarm) => alarm_fits(alarm),
            Say::Alarms(bundle) => bundle.alarms.len() <= ALARMS_MAX && bundle.alarms.iter().all(alarm_fits),
            Say::Beat(beat) => beat.unheard.len() <= MEMBERS_MAX && beat.transitions.len() <= TRANSITIONS_MAX,
            Say::Ack(ack) => ack.missing.len() <= SPANS_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_sent_is_read() {
        let suspect = Suspect { node: 7, incarnation: 3 };
        let alarm = Alarm { watcher: 2, incarnation: 1, sequence: 5, epoch: 9, suspects: vec![suspect] };
        let span = Span { low: 5, high: None };
        let beat = Beat {
            term: 1,
            round: 2,
            epoch: 3,
            span: Some(span),
            heard: 1,
            unheard: vec![4, 5],
            transitions: vec![Transition { after: 2, epoch: 3, body: b"x".as_slice().into() }],
        };
        let ack = Ack { term: 1, round: 2, epoch: 3, oldest: 2, complete: true, missing: vec![span] };
        let bundle = Alarms { alarms: vec![alarm.clone()] };
        for say in [Say::Alarm(alarm), Say::Alarms(bundle), Say::Beat(beat), Say::Ack(ack)] {
            assert_eq!(Say::read(&say.clone().write()).unwrap(), say);
        }
    }

    #[test]
    fn what_is_beyond_the_limits_is_refused() {
        let suspects = vec![Suspect { node: 1, incarnation: 1 }; SUSPECTS_MAX + 1];
        let alarm = Alarm { suspects, ..Alarm::default() };
        for say in [
            Say::Alarm(alarm.clone()),
            Say::Alarms(Alarms { alarms: vec![alarm] }),
            Say::Alarms(Alarms { alarms: vec![Alarm::default(); ALARMS_MAX + 1] }),
            Say::Beat(Beat { unheard: vec![1; MEMBERS_MAX + 1], ..Beat::default() }),
            Say::Beat(Beat {
                transitions: vec![Transition::default(); TRANSITIONS_MAX + 1],
                ..Beat::default()
            }),
            Say::Ack(Ack { missing: vec![Span::default(); SPANS_MAX + 1], ..Ack::default() }),
        ] {
            assert!(Say::read(&say.write()).is_err());
        }
        assert!(Say::read(b"").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_note_or_an_error(tag in 1u8..6, bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            // One of the four (or a fifth) messages around any bytes, or only these.
            let framed = [&[tag << 3 | 2, bytes.len() as u8], bytes.as_slice()].concat();
            for bytes in [framed, bytes] {
                if let Ok(say) = Say::read(&bytes) {
                    prop_assert_eq!(Say::read(&say.clone().write()).unwrap(), say);
                }
            }
        }
    }
}
