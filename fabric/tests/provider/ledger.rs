//! Who asked what, and how often it was carried out: what "exactly once, in order, to the right caller" is checked against.
//!
//! Invariant: every request has a number of its own in its channel, given in the order in which requests are sent.

use crate::world::{ECHO, PRIORITIES, pattern, service};
use base::Prng;
use fabric::{Endpoint, Error, Message, Peer, Priority, Reply, Service};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// How a request ended, as far as its caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was answered, or one-way: carried out once.
    Once,
    /// It failed or was given up: carried out once or never.
    Perhaps,
}

#[derive(Default)]
struct Channel {
    /// One ending for each number.
    sent: Vec<Ending>,
    /// Numbers in the order in which the service was asked.
    started: Vec<u64>,
}

/// The book of one caller and one server.
#[derive(Default)]
pub struct Ledger {
    channels: [Mutex<Channel>; 4],
}

/// What a request is like.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub priority: Priority,
    pub bulk: usize,
    pub reply: usize,
}

impl Kind {
    /// One of many kinds; bulk and reply are mostly short and never longer than this.
    pub fn any(prng: &mut Prng, bytes_max: u64) -> Kind {
        let mut bytes = || {
            if prng.one_in(4) { prng.below(bytes_max + 1) as usize } else { prng.below(200) as usize }
        };
        let (bulk, reply) = (bytes(), bytes());
        Kind { priority: PRIORITIES[prng.below(4) as usize], bulk, reply }
    }

    fn request(&self, number: u64) -> Message {
        let mut head = number.to_le_bytes().to_vec();
        head.extend((self.priority as u32).to_le_bytes());
        head.extend((self.reply as u32).to_le_bytes());
        Message { head: head.into(), bulk: pattern(self.bulk, number as usize) }
    }

    fn answer(&self, number: u64) -> Message {
        Message { head: number.to_le_bytes().to_vec().into(), bulk: pattern(self.reply, number as usize + 1) }
    }
}

/// A service that keeps a book for each caller.
pub fn by_caller(books: Vec<(Peer, Arc<dyn Service>)>) -> Arc<dyn Service> {
    Arc::new(ByCaller(books))
}

struct ByCaller(Vec<(Peer, Arc<dyn Service>)>);

impl Service for ByCaller {
    fn handle(self: Arc<Self>, from: Peer, request: Message) -> Reply {
        let book = self.0.iter().find(|(peer, _)| *peer == from);
        book.expect("only those ask that have a book").1.clone().handle(from, request)
    }
}

impl Ledger {
    /// The service that keeps the book. Some of its answers take several turns.
    pub fn service(self: &Arc<Ledger>) -> Arc<dyn Service> {
        let ledger = self.clone();
        service(move |_: Peer, request: Message| {
            let number = u64::from_le_bytes(request.head[..8].try_into().expect("eight bytes are a number"));
            let field = |at: usize| {
                u32::from_le_bytes(request.head[at..at + 4].try_into().expect("four bytes are a number"))
            };
            let (channel, reply) = (field(8) as usize, field(12) as usize);
            assert!(request.bulk == pattern(request.bulk.len(), number as usize), "bulk changed on the way");
            ledger.channels[channel].lock().started.push(number);
            async move {
                for _ in 0..number % 3 {
                    tokio::task::yield_now().await;
                }
                Kind { priority: PRIORITIES[channel], bulk: 0, reply }.answer(number)
            }
        })
    }

    /// Calls node 2's book, and writes down how that ended. Whoever drops this has given up.
    pub async fn call(
        &self,
        caller: &Endpoint,
        server: Peer,
        kind: Kind,
        deadline: Duration,
    ) -> Result<(), Error> {
        let channel = &self.channels[kind.priority as usize];
        let (mut call, mut number) = (None, 0);
        // Numbers are given in the order of sending: a call is sent when it is polled first.
        let first = poll_fn(|context| {
            let mut channel = channel.lock();
            number = channel.sent.len() as u64;
            channel.sent.push(Ending::Perhaps);
            let asked = caller.call(server, ECHO, kind.priority, kind.request(number), deadline);
            Poll::Ready(call.insert(Box::pin(asked)).as_mut().poll(context))
        })
        .await;
        let outcome = match (first, call) {
            (Poll::Pending, Some(call)) => call.await,
            (Poll::Pending, None) => unreachable!("it was just begun"),
            (Poll::Ready(outcome), _) => outcome,
        };
        let reply = outcome?;
        assert!(reply == kind.answer(number), "request {number} got the reply of another");
        channel.lock().sent[number as usize] = Ending::Once;
        Ok(())
    }

    /// Sends node 2's book a one-way message.
    pub fn send(&self, caller: &Endpoint, server: Peer, kind: Kind, deadline: Duration) -> Result<(), Error> {
        let mut channel = self.channels[kind.priority as usize].lock();
        let number = channel.sent.len() as u64;
        let sent = caller.send(server, ECHO, kind.priority, kind.request(number), deadline);
        channel.sent.push(if sent.is_ok() { Ending::Once } else { Ending::Perhaps });
        sent
    }

    /// Nothing that must be carried out is still to come.
    pub fn is_settled(&self) -> bool {
        self.channels.iter().all(|channel| {
            let channel = channel.lock();
            let started: HashSet<u64> = channel.started.iter().copied().collect();
            let missing =
                |(number, ending): (u64, &Ending)| *ending == Ending::Once && !started.contains(&number);
            !(0..).zip(&channel.sent).any(missing)
        })
    }

    /// Every request was carried out as often as it may be, in the order of sending.
    pub fn check(&self) {
        for (channel, name) in self.channels.iter().zip(PRIORITIES) {
            let channel = channel.lock();
            let ordered = channel.started.windows(2).all(|two| two[0] < two[1]);
            assert!(ordered, "{name:?}: started twice or in another order: {:?}", channel.started);
            for (number, ending) in channel.sent.iter().enumerate() {
                let started = channel.started.binary_search(&(number as u64)).is_ok();
                assert!(started || *ending == Ending::Perhaps, "{name:?}: {number} was answered by nobody");
            }
        }
    }
}
