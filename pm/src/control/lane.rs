//! Numbered requests between two `ssid`s: each is carried out once and in order, whatever the link does.
//!
//! A sender has one [`Lane`] for each peer and [`Track`]; the receiver has an [`Inlet`] for it. The receiver carries out
//! only the request that comes next, so an answer of 0 to number n says that 1..=n were carried out.
//!
//! ```text
//!  sender:    sent ... | under way (at most LANE_WINDOW) | waiting ...
//!             ^ answered 0: dropped, with all before it
//!  receiver:  number == next: carry out, next += 1, answer 0     number < next: answer 0 (a repetition)
//!             number >  next: EAGAIN, a gap: the sender goes back and sends all unanswered ones again
//!             lane unknown and number != 1: ESTALE, "I was restarted": the sender counts anew in a larger lane
//! ```
//!
//! Invariant: while both daemons live no request is lost, doubled or overtaken by another of its track. A restart of the
//! receiver may repeat those that were under way; a restart of the sender forgets them: `control` tells both state again.

use super::limits::{LANE_WINDOW, RETRY_LONGEST, RETRY_SHORTEST};
use crate::wire::peer::{Body, Command, News, Notice, Order};
use base::Time;
use rustix::io::Errno;
use std::collections::VecDeque;
use std::time::Duration;

/// Which of the two lanes to a node: a signal never waits behind output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Track {
    /// Spawns, signals, states.
    Control,
    /// Input and output.
    Data,
}

impl Track {
    /// The lane that `body` travels in: pieces of streams and their acknowledgements do not hold up the rest.
    pub fn of(body: &Body) -> Track {
        match body {
            Body::Notice(Notice { news: Some(News::Output(_)), .. })
            | Body::Command(Command { order: Some(Order::Input(_) | Order::Acknowledge(_)), .. }) => {
                Track::Data
            }
            _ => Track::Control,
        }
    }
}

/// One attempt to send one numbered request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// The lane it was sent in.
    pub lane: u64,
    /// Its number there.
    pub sequence: u64,
    /// Which time round; a failure of an earlier one says nothing.
    pub attempt: u32,
}

#[derive(Debug)]
struct Waiting {
    body: Body,
    bytes: usize,
}

/// The sender's end.
#[derive(Debug)]
pub struct Lane {
    id: u64,
    first: u64,
    queue: VecDeque<Waiting>,
    bytes: usize,
    under_way: usize,
    attempt: u32,
    retry_at: Option<Time>,
    backoff: Duration,
}

impl Lane {
    /// An empty lane called `id`, which must be larger than any that this node used towards this peer.
    pub fn new(id: u64) -> Lane {
        Lane {
            id,
            first: 1,
            queue: VecDeque::new(),
            bytes: 0,
            under_way: 0,
            attempt: 0,
            retry_at: None,
            backoff: RETRY_SHORTEST,
        }
    }

    /// Adds a request behind all others.
    pub fn push(&mut self, body: Body) {
        let bytes = body.encoded_len();
        self.bytes += bytes;
        self.queue.push_back(Waiting { body, bytes });
    }

    /// Bytes that were not answered yet.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When to look again, if a failed attempt waits for its repetition.
    pub fn retry_at(&self) -> Option<Time> {
        self.retry_at
    }

    /// The next request to send, if one may be sent now.
    pub fn poll(&mut self, now: Time) -> Option<(Ticket, Body)> {
        if self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        self.retry_at = None;
        // The first goes alone: a second that overtook it would look like one to a restarted receiver.
        let window = if self.first == 1 { 1 } else { LANE_WINDOW };
        if self.under_way >= window {
            return None;
        }
        let waiting = self.queue.get(self.under_way)?;
        let sequence = self.first + self.under_way as u64;
        self.under_way += 1;
        Some((Ticket { lane: self.id, sequence, attempt: self.attempt }, waiting.body.clone()))
    }

    /// The peer answered `errno` to `ticket`.
    pub fn answered(&mut self, now: Time, ticket: Ticket, errno: u32) {
        if ticket.lane != self.id || ticket.sequence < self.first {
            return;
        }
        if errno == 0 {
            self.drop_through(ticket.sequence);
        } else if errno == Errno::STALE.raw_os_error() as u32 {
            self.restart();
        } else {
            self.failed(now, ticket);
        }
    }

    /// Nothing is known of what became of `ticket`: all that is unanswered is sent again after a short wait.
    pub fn failed(&mut self, now: Time, ticket: Ticket) {
        let current = (self.id, self.attempt) == (ticket.lane, ticket.attempt);
        if !current || ticket.sequence < self.first {
            return;
        }
        self.attempt += 1;
        self.under_way = 0;
        self.retry_at = Some(now + self.backoff);
        self.backoff = (self.backoff * 2).min(RETRY_LONGEST);
    }

    /// The receiver has forgotten this lane: counts anew, with all that is unanswered.
    pub fn restart(&mut self) {
        self.id += 1;
        self.first = 1;
        self.under_way = 0;
        self.attempt = 0;
        self.retry_at = None;
    }

    fn drop_through(&mut self, sequence: u64) {
        while self.first <= sequence {
            let Some(done) = self.queue.pop_front() else { break };
            self.bytes -= done.bytes;
            self.first += 1;
            self.under_way = self.under_way.saturating_sub(1);
        }
        self.backoff = RETRY_SHORTEST;
    }
}

/// What to do with a numbered request that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Carry it out and answer 0.
    Next,
    /// Answer this; do nothing.
    Answer(u32),
}

/// The receiver's end.
#[derive(Debug, Default)]
pub struct Inlet {
    lane: u64,
    next: u64,
}

impl Inlet {
    /// Judges number `sequence` of `lane`.
    pub fn admit(&mut self, lane: u64, sequence: u64) -> Admission {
        if lane > self.lane && sequence == 1 {
            *self = Inlet { lane, next: 1 };
        }
        if lane != self.lane {
            return Admission::Answer(Errno::STALE.raw_os_error() as u32);
        }
        match sequence.cmp(&self.next) {
            std::cmp::Ordering::Less => Admission::Answer(0),
            std::cmp::Ordering::Greater => Admission::Answer(Errno::AGAIN.raw_os_error() as u32),
            std::cmp::Ordering::Equal => {
                self.next += 1;
                Admission::Next
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Prng;

    fn number(body: &Body) -> u32 {
        match body {
            Body::Where(n) => *n,
            other => panic!("not a number: {other:?}"),
        }
    }

    /// Sends 200 numbers through a link that loses requests, loses answers, delays and reorders.
    fn deliver(seed: u64) -> Vec<u32> {
        let mut prng = Prng::new(seed);
        let (mut lane, mut inlet) = (Lane::new(7), Inlet::default());
        let (mut flying, mut received) = (Vec::new(), Vec::new());
        let (mut now, mut pushed) = (Time(0), 0);
        while pushed < 200 || lane.bytes() > 0 {
            now = now + Duration::from_millis(prng.below(20));
            if pushed < 200 && prng.one_in(2) {
                lane.push(Body::Where(pushed + 1));
                pushed += 1;
            }
            while let Some(sent) = lane.poll(now) {
                flying.push(sent);
            }
            if flying.is_empty() {
                continue;
            }
            let (ticket, body) = flying.swap_remove(prng.below(flying.len() as u64) as usize);
            if prng.one_in(5) {
                lane.failed(now, ticket);
                continue;
            }
            let errno = match inlet.admit(ticket.lane, ticket.sequence) {
                Admission::Next => {
                    received.push(number(&body));
                    0
                }
                Admission::Answer(errno) => errno,
            };
            match prng.one_in(5) {
                true => lane.failed(now, ticket),
                false => lane.answered(now, ticket, errno),
            }
        }
        received
    }

    #[test]
    fn every_request_is_carried_out_once_and_in_order_over_a_bad_link() {
        for seed in 0..50 {
            assert_eq!(deliver(seed), (1..=200).collect::<Vec<_>>(), "seed {seed}");
        }
    }

    #[test]
    fn a_receiver_that_was_restarted_gets_what_was_not_answered() {
        let (mut lane, mut old) = (Lane::new(1), Inlet::default());
        for n in 1..=3 {
            lane.push(Body::Where(n));
        }
        let (first, _) = lane.poll(Time(0)).unwrap();
        assert_eq!(old.admit(first.lane, first.sequence), Admission::Next);
        lane.answered(Time(0), first, 0);
        let mut new = Inlet::default();
        let (second, _) = lane.poll(Time(0)).unwrap();
        assert!(lane.poll(Time(0)).is_some(), "more than one may be under way once the lane is known");
        let Admission::Answer(errno) = new.admit(second.lane, second.sequence) else { panic!("not known") };
        lane.answered(Time(0), second, errno);
        let mut received = Vec::new();
        while let Some((ticket, body)) = lane.poll(Time(0)) {
            assert_eq!(new.admit(ticket.lane, ticket.sequence), Admission::Next);
            lane.answered(Time(0), ticket, 0);
            received.push(number(&body));
        }
        assert_eq!(received, [2, 3]);
    }

    #[test]
    fn a_sender_that_was_restarted_is_heard() {
        let mut inlet = Inlet::default();
        assert_eq!(inlet.admit(10, 1), Admission::Next);
        assert_eq!(inlet.admit(10, 2), Admission::Next);
        assert_eq!(inlet.admit(20, 1), Admission::Next);
        assert_ne!(inlet.admit(10, 3), Admission::Next, "a late request of the earlier life");
    }
}
