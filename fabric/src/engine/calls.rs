//! Calls and transfers whose caller waits.
//!
//! Invariant: each is settled exactly once, and found by its ticket only while its caller has not taken the outcome.

use crate::session::Ticket;
use crate::{Error, Message, Priority, ServiceId};
use base::time::Time;
use slab::Slab;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A reply.
    Call,
    /// Nothing: a one-way message that is on its way.
    OneWay,
    /// The end of a one-sided transfer.
    Transfer,
}

/// What is known of a call besides its message.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Which remote it goes to.
    pub remote: usize,
    /// What is waited for.
    pub purpose: Purpose,
    /// The service that is asked.
    pub service: ServiceId,
    /// The channel.
    pub channel: Priority,
    /// The time that the caller gave.
    pub after: Duration,
    /// When it is over.
    pub deadline: Time,
}

enum State {
    Waiting(Option<Waker>),
    Settled(Result<Message, Error>),
}

struct Call {
    generation: u32,
    about: About,
    state: State,
}

/// All calls of an endpoint that are not over.
pub struct Calls {
    calls: Slab<Call>,
    generation: u32,
    /// No deadline lies before this.
    earliest: Option<Time>,
}

impl Calls {
    /// None.
    pub fn new() -> Calls {
        Calls { calls: Slab::new(), generation: 0, earliest: None }
    }

    /// A ticket for one more.
    pub fn open(&mut self, about: About) -> Ticket {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        self.earliest = Some(self.earliest.map_or(about.deadline, |earliest| earliest.min(about.deadline)));
        let index = self.calls.insert(Call { generation, about, state: State::Waiting(None) });
        Ticket((index as u64) << 32 | u64::from(generation))
    }

    fn call(&mut self, ticket: Ticket) -> Option<&mut Call> {
        let call = self.calls.get_mut((ticket.0 >> 32) as usize)?;
        (call.generation == ticket.0 as u32).then_some(call)
    }

    /// What is known of it, while it is not settled.
    pub fn about(&self, ticket: Ticket) -> Option<&About> {
        let call = self.calls.get((ticket.0 >> 32) as usize)?;
        let waits = call.generation == ticket.0 as u32 && matches!(call.state, State::Waiting(_));
        waits.then_some(&call.about)
    }

    /// Settles it; whoever waits is to be woken. Of one that nobody knows (it was given up) nothing happens.
    pub fn settle(&mut self, ticket: Ticket, outcome: Result<Message, Error>, wakes: &mut Vec<Waker>) {
        let Some(call) = self.call(ticket) else { return };
        if call.about.purpose == Purpose::OneWay {
            self.calls.remove((ticket.0 >> 32) as usize);
            return;
        }
        if let State::Waiting(waker) = &mut call.state {
            wakes.extend(waker.take());
            call.state = State::Settled(outcome);
        }
    }

    /// The outcome, once it is settled; then the ticket is worth nothing.
    pub fn poll(&mut self, ticket: Ticket, context: &mut Context<'_>) -> Poll<Result<Message, Error>> {
        let Some(call) = self.call(ticket) else { return Poll::Ready(Err(Error::Closed)) };
        match &mut call.state {
            State::Waiting(Some(waker)) if waker.will_wake(context.waker()) => Poll::Pending,
            State::Waiting(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            State::Settled(_) => match self.calls.remove((ticket.0 >> 32) as usize).state {
                State::Settled(outcome) => Poll::Ready(outcome),
                State::Waiting(_) => Poll::Pending,
            },
        }
    }

    /// Forgets it. True if it was not settled.
    pub fn give_up(&mut self, ticket: Ticket) -> bool {
        let Some(call) = self.call(ticket) else { return false };
        let waited = matches!(call.state, State::Waiting(_));
        self.calls.remove((ticket.0 >> 32) as usize);
        waited
    }

    /// Those of one remote that are not settled.
    pub fn of(&self, remote: usize) -> Vec<(Ticket, About)> {
        self.waiting().filter(|(_, about)| about.remote == remote).collect()
    }

    /// How many of one remote are not settled.
    pub fn count(&self, remote: usize) -> usize {
        self.waiting().filter(|(_, about)| about.remote == remote).count()
    }

    /// Those whose time is over.
    pub fn due(&mut self, now: Time) -> Vec<(Ticket, About)> {
        if self.earliest.is_none_or(|earliest| now < earliest) {
            return Vec::new();
        }
        let due = self.waiting().filter(|(_, about)| about.deadline <= now).collect();
        // Those that are due are settled by the caller of this.
        self.earliest =
            self.waiting().map(|(_, about)| about.deadline).filter(|deadline| *deadline > now).min();
        due
    }

    /// No call is due before this.
    pub fn earliest(&self) -> Option<Time> {
        self.earliest
    }

    fn waiting(&self) -> impl Iterator<Item = (Ticket, About)> + '_ {
        self.calls
            .iter()
            .filter(|(_, call)| matches!(call.state, State::Waiting(_)))
            .map(|(index, call)| (Ticket((index as u64) << 32 | u64::from(call.generation)), call.about))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(deadline: u64) -> About {
        About {
            remote: 3,
            purpose: Purpose::Call,
            service: ServiceId(1),
            channel: Priority::Meta,
            after: Duration::ZERO,
            deadline: Time(deadline),
        }
    }

    #[test]
    fn a_call_is_settled_once_and_taken_once() {
        let (mut calls, mut wakes) = (Calls::new(), Vec::new());
        let mut context = Context::from_waker(Waker::noop());
        let ticket = calls.open(about(9));
        assert!(calls.poll(ticket, &mut context).is_pending());
        calls.settle(ticket, Ok(Message::default()), &mut wakes);
        calls.settle(ticket, Err(Error::Closed), &mut wakes);
        assert_eq!(wakes.len(), 1);
        assert!(matches!(calls.poll(ticket, &mut context), Poll::Ready(Ok(_))));
        let next = calls.open(about(9));
        assert_ne!(ticket, next);
        assert!(!calls.give_up(ticket) && calls.give_up(next));
    }

    #[test]
    fn only_what_is_due_is_due() {
        let mut calls = Calls::new();
        let (early, late) = (calls.open(about(5)), calls.open(about(9)));
        assert!(calls.due(Time(4)).is_empty());
        assert_eq!(calls.due(Time(5)).iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), [early]);
        assert_eq!(calls.earliest(), Some(Time(9)));
        assert_eq!((calls.count(3), calls.count(4)), (2, 0));
        assert!(calls.give_up(late));
    }
}
