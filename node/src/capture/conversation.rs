//! The fabric's connections in a capture: each segment goes to its connection, whole records come out.
//!
//! Invariant: a connection that does not begin as the fabric's protocol does, or whose beginning the capture lacks, costs no more than its
//! name.

use super::packet::Segment;
use super::stream::{Piece, Stream};
use fabric::bystander::{Bystander, Seen, Speaker};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Connections that are known at once; of more the oldest is forgotten.
const CONNECTIONS_MAX: usize = 4_096;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Something of the protocol.
    Seen(Seen),
    /// So many bytes are missing in the capture; nothing more can be read of this direction.
    Missing(u64),
    /// This direction, or the connection, ends.
    Ends,
}

/// One thing that happened on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// When the packet was captured that completes it, nanoseconds since 1970.
    pub time_ns: u64,
    /// Who spoke.
    pub from: SocketAddr,
    /// To whom.
    pub to: SocketAddr,
    /// What.
    pub what: What,
}

#[derive(Debug)]
struct Direction {
    stream: Stream,
    /// None once nothing can be read any more.
    bystander: Option<Bystander>,
    /// It has begun as the protocol does.
    known: bool,
}

#[derive(Debug)]
struct Connection {
    born: u64,
    dialling: SocketAddr,
    directions: BTreeMap<SocketAddr, Direction>,
}

/// All connections of a capture.
#[derive(Debug, Default)]
pub struct Conversations {
    connections: BTreeMap<(SocketAddr, SocketAddr), Connection>,
    born: u64,
    strange: u64,
}

impl Connection {
    fn direction(&mut self, from: SocketAddr) -> &mut Direction {
        let speaker = if from == self.dialling { Speaker::Dialling } else { Speaker::Accepting };
        self.directions.entry(from).or_insert_with(|| Direction {
            stream: Stream::default(),
            bystander: Some(Bystander::new(speaker)),
            known: false,
        })
    }
}

impl Direction {
    /// What comes of the next pieces; and whether it is none of the fabric's.
    fn hear(&mut self, pieces: Vec<Piece>) -> (Vec<What>, bool) {
        let (mut what, mut strange) = (Vec::new(), false);
        for piece in pieces {
            let Some(bystander) = &mut self.bystander else { break };
            match piece {
                Piece::Missing(missing) => {
                    self.bystander = None;
                    what.extend(self.known.then_some(What::Missing(missing)));
                }
                Piece::Bytes(bytes) => {
                    for seen in bystander.hear(&bytes) {
                        strange |= !self.known && matches!(seen, Seen::Broken(_));
                        self.known |= !matches!(seen, Seen::Broken(_));
                        what.extend((!strange).then_some(What::Seen(seen)));
                    }
                }
            }
        }
        if strange {
            (self.bystander, self.stream) = (None, Stream::default());
        }
        (what, strange)
    }
}

impl Conversations {
    /// Takes a segment that was captured at this time.
    pub fn take(&mut self, time_ns: u64, segment: &Segment) -> Vec<Happened> {
        let Segment { from, to, begins, answers, .. } = *segment;
        let name = (from.min(to), from.max(to));
        if begins && !answers {
            self.connections.remove(&name);
        }
        if !begins && segment.payload.is_empty() && !self.connections.contains_key(&name) {
            return Vec::new();
        }
        let dialling = if begins && answers { to } else { from };
        let connection = self.connection(name, dialling);
        let direction = connection.direction(from);
        let mut sequence = segment.sequence;
        if begins {
            sequence = sequence.wrapping_add(1);
            direction.stream.begin(sequence);
        }
        let mut what = Vec::new();
        if direction.bystander.is_some() && !segment.payload.is_empty() {
            let pieces = direction.stream.take(sequence, &segment.payload);
            let (heard, strange) = direction.hear(pieces);
            what = heard;
            self.strange += u64::from(strange);
        }
        if segment.ends
            && self.connections.get(&name).is_some_and(|connection| connection.directions[&from].known)
        {
            what.push(What::Ends);
        }
        what.into_iter().map(|what| Happened { time_ns, from, to, what }).collect()
    }

    /// The capture is over: what still waited for bytes that are missing in it.
    pub fn end(&mut self, time_ns: u64) -> Vec<Happened> {
        let mut happened = Vec::new();
        for (name, mut connection) in std::mem::take(&mut self.connections) {
            for (from, direction) in &mut connection.directions {
                let to = if *from == name.0 { name.1 } else { name.0 };
                let pieces = direction.stream.end();
                let (what, strange) = direction.hear(pieces);
                self.strange += u64::from(strange);
                happened.extend(what.into_iter().map(|what| Happened { time_ns, from: *from, to, what }));
            }
        }
        happened
    }

    /// Directions of connections that are none of the fabric's, or whose beginning the capture lacks.
    pub fn strange(&self) -> u64 {
        self.strange
    }

    fn connection(&mut self, name: (SocketAddr, SocketAddr), dialling: SocketAddr) -> &mut Connection {
        if self.connections.len() >= CONNECTIONS_MAX && !self.connections.contains_key(&name) {
            let oldest =
                self.connections.iter().min_by_key(|(_, connection)| connection.born).map(|(name, _)| *name);
            oldest.map(|oldest| self.connections.remove(&oldest));
        }
        self.born += 1;
        let born = self.born;
        self.connections.entry(name).or_insert_with(|| Connection {
            born,
            dialling,
            directions: BTreeMap::new(),
        })
    }
}
