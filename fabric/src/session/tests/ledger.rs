//! The checker: what was asked, started and answered, and whether that may be.

use crate::frame::Verdict;
use crate::session::{CHANNELS, Completed, Start};
use crate::{Message, Priority};
use base::Prng;
use bytes::Bytes;
use std::sync::LazyLock;

/// Bytes that look like nothing else; messages are parts of it.
static PATTERN: LazyLock<Bytes> = LazyLock::new(|| {
    let mut prng = Prng::new(0);
    (0..(1 << 17)).flat_map(|_| prng.next_u64().to_le_bytes()).collect()
});
/// Where parts begin.
const STARTS: usize = 4 << 10;

fn part(id: u64, length: usize) -> Bytes {
    let from = (id as usize).wrapping_mul(7) % STARTS;
    PATTERN.slice(from..from + length)
}

/// A call of the simulated world.
#[derive(Clone, Copy)]
pub struct Call {
    pub channel: Priority,
    pub one_way: bool,
    /// Bytes of the heads and bulks of request and reply.
    pub lengths: [usize; 4],
    started: bool,
    served: bool,
    completed: bool,
    /// Cancelled, and whether it had been sent then.
    cancelled: Option<bool>,
}

impl Call {
    pub fn new(channel: Priority, one_way: bool, lengths: [usize; 4]) -> Call {
        Call { channel, one_way, lengths, started: false, served: false, completed: false, cancelled: None }
    }

    fn price(&self, window: u32) -> u32 {
        (1 + ((8 + self.lengths[0] + self.lengths[1]) >> 10) as u32).min(window)
    }
}

/// All calls of a world; a call's ticket is its place.
pub struct Ledger {
    pub calls: Vec<Call>,
    window_kib: [u32; 4],
    last_started: [Option<u64>; 4],
    in_service_kib: [u32; 4],
}

type Verdicted = Result<(), String>;

impl Ledger {
    pub fn new(window_kib: [u32; 4]) -> Ledger {
        Ledger { calls: Vec::new(), window_kib, last_started: [None; 4], in_service_kib: [0; 4] }
    }

    pub fn request(&self, id: u64) -> Message {
        let [head, bulk, ..] = self.calls[id as usize].lengths;
        Message { head: [&id.to_le_bytes()[..], &part(id, head)].concat().into(), bulk: part(id + 1, bulk) }
    }

    pub fn reply(&self, id: u64) -> Message {
        let [.., head, bulk] = self.calls[id as usize].lengths;
        let mark = (!id).to_le_bytes();
        Message { head: [&mark[..], &part(id + 2, head)].concat().into(), bulk: part(id + 3, bulk) }
    }

    fn is_request(&self, id: u64, message: &Message) -> bool {
        let [head, bulk, ..] = self.calls[id as usize].lengths;
        let rest = message.head.strip_prefix(&id.to_le_bytes());
        rest == Some(&part(id, head)[..]) && message.bulk == part(id + 1, bulk)
    }

    fn is_reply(&self, id: u64, message: &Message) -> bool {
        let [.., head, bulk] = self.calls[id as usize].lengths;
        let rest = message.head.strip_prefix(&(!id).to_le_bytes());
        rest == Some(&part(id + 2, head)[..]) && message.bulk == part(id + 3, bulk)
    }

    pub fn was_started(&self, start: &Start) -> bool {
        let id = start.message.head.first_chunk().map(|mark| u64::from_le_bytes(*mark));
        id.and_then(|id| self.calls.get(id as usize)).is_some_and(|call| call.started)
    }

    /// Says which call was started.
    pub fn started(&mut self, start: &Start) -> Result<u64, String> {
        let mark = start.message.head.first_chunk().ok_or("a request without a number was started")?;
        let id = u64::from_le_bytes(*mark);
        let known = self.calls.get(id as usize).copied();
        let known = known.ok_or_else(|| format!("call {id} was started and never made"))?;
        if known.started {
            return Err(format!("call {id} was started twice"));
        }
        if !self.is_request(id, &start.message) || start.one_way != known.one_way {
            return Err(format!("call {id} was started with another request"));
        }
        if known.cancelled == Some(false) {
            return Err(format!("call {id} was started, but cancelled before it was sent"));
        }
        let channel = known.channel as usize;
        if self.last_started[channel].replace(id).is_some_and(|last| last > id) {
            return Err(format!("call {id} was started out of its order"));
        }
        self.in_service_kib[channel] += known.price(self.window_kib[channel]);
        if self.in_service_kib[channel] > self.window_kib[channel] {
            return Err(format!("more in service on channel {channel} than was granted"));
        }
        self.calls[id as usize].started = true;
        Ok(id)
    }

    pub fn served(&mut self, id: u64) {
        let call = &mut self.calls[id as usize];
        call.served = true;
        let channel = call.channel as usize;
        self.in_service_kib[channel] -= call.price(self.window_kib[channel]);
    }

    pub fn completed(&mut self, done: &Completed) -> Verdicted {
        let id = done.ticket.0;
        let call = self.calls[id as usize];
        let is_right = if call.one_way {
            done.verdict == Verdict::Unheard && done.message == Message::default()
        } else {
            done.verdict == Verdict::Answered && self.is_reply(id, &done.message)
        };
        match () {
            () if call.completed => Err(format!("call {id} completed twice")),
            () if call.cancelled.is_some() => Err(format!("call {id} completed and was cancelled")),
            () if !call.started => Err(format!("call {id} completed before it was started")),
            () if !call.one_way && !call.served => Err(format!("call {id} completed unserved")),
            () if !is_right => Err(format!("call {id} has the reply of another, or none")),
            () => {
                self.calls[id as usize].completed = true;
                Ok(())
            }
        }
    }

    pub fn cancelled(&mut self, id: u64, sent: bool) {
        self.calls[id as usize].cancelled = Some(sent);
    }

    /// Calls that have neither completed nor been cancelled.
    pub fn open(&self) -> Vec<u64> {
        let open = |call: &Call| !call.completed && call.cancelled.is_none();
        (0..).zip(&self.calls).filter(|(_, call)| open(call)).map(|(id, _)| id).collect()
    }

    /// At the end all that was not cancelled is over.
    pub fn is_over(&self) -> Verdicted {
        match self.open().first() {
            Some(id) => {
                let Call { channel, started, served, .. } = self.calls[*id as usize];
                Err(format!("call {id} did not complete ({channel:?}, started {started}, served {served})"))
            }
            None => Ok(()),
        }
    }

    /// The session was given up: what came back is what was open, and whether it was sent is right.
    pub fn is_given_back(&self, drained: &[(u64, bool)]) -> Verdicted {
        let mut ids: Vec<u64> = drained.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        if ids != self.open() {
            return Err(format!("{ids:?} came back of {:?}", self.open()));
        }
        match drained.iter().find(|(id, sent)| self.calls[*id as usize].started && !sent) {
            Some((id, _)) => Err(format!("call {id} was started and is said to be unsent")),
            None => Ok(()),
        }
    }
}

/// A random channel.
pub fn channel(prng: &mut Prng) -> Priority {
    CHANNELS[prng.below(4) as usize]
}
