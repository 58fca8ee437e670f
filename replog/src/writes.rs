//! Which writes are under way, and how much of the log they will have made safe.
//!
//! Invariant: what is up to [`Writes::safe`] is on disk *as it stands in memory now*: a truncation takes it back.

use crate::ids::{Index, Ticket};
use std::collections::VecDeque;

/// The writes that were ordered.
#[derive(Clone, Debug)]
pub struct Writes {
    ordered: VecDeque<(Ticket, Index)>,
    last: Ticket,
    done: Ticket,
    safe: Index,
}

impl Writes {
    /// Nothing is under way; the log is on disk up to `safe`.
    pub fn new(safe: Index) -> Writes {
        Writes { ordered: VecDeque::new(), last: Ticket(0), done: Ticket(0), safe }
    }

    /// Up to here the log is on disk.
    pub fn safe(&self) -> Index {
        self.safe
    }

    /// The newest ticket given.
    pub fn last(&self) -> Ticket {
        self.last
    }

    /// The newest ticket whose write is on disk.
    pub fn done(&self) -> Ticket {
        self.done
    }

    /// The log is cut: nothing from `from` on is what it was.
    pub fn truncated(&mut self, from: Index) {
        let left = from.before();
        self.safe = self.safe.min(left);
        self.ordered.iter_mut().for_each(|(_, upto)| *upto = (*upto).min(left));
    }

    /// A write is ordered after which the log is on disk up to `upto`.
    pub fn order(&mut self, upto: Index) -> Ticket {
        self.last = Ticket(self.last.0 + 1);
        self.ordered.push_back((self.last, upto));
        self.last
    }

    /// The write with this ticket and all before it are done.
    pub fn finished(&mut self, ticket: Ticket) {
        while let Some(&(first, upto)) = self.ordered.front().filter(|(first, _)| *first <= ticket) {
            self.done = first;
            self.safe = self.safe.max(upto);
            self.ordered.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_is_not_safe_when_its_write_ends() {
        let mut writes = Writes::new(Index(3));
        let first = writes.order(Index(9));
        writes.truncated(Index(6));
        let second = writes.order(Index(7));
        writes.finished(first);
        assert_eq!((writes.safe(), writes.done()), (Index(5), first));
        writes.finished(second);
        assert_eq!(writes.safe(), Index(7));
        writes.truncated(Index(2));
        assert_eq!(writes.safe(), Index(1));
    }
}
