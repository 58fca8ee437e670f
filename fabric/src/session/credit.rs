//! Credits: how much of requests one end may send, and the other has to hold. One [`Purse`] or [`Till`] a channel.
//!
//! Credits are counted in KiB since the session began and wrap; a difference of two of them is what counts. Invariant: what the
//! caller has spent is at most what it was allowed, and what it was allowed at most a window above what it has spent.

use crate::Message;
use crate::frame::{Header, WireError};

/// Above this a difference of two wrapping counts would no longer tell which one is ahead.
const WINDOW_KIB_MAX: u32 = 1 << 30;

fn window(granted_kib: u32) -> u32 {
    granted_kib.clamp(1, WINDOW_KIB_MAX)
}

/// KiB by which `count` is ahead of `other`; negative if it is behind.
fn ahead(count: u32, other: u32) -> i32 {
    count.wrapping_sub(other).cast_signed()
}

fn weight(bytes: u64, window: u32) -> u32 {
    u32::try_from(1 + (bytes >> 10)).unwrap_or(u32::MAX).min(window)
}

/// What the caller has left.
pub(super) struct Purse {
    window: u32,
    spent: u32,
    allowed: u32,
}

impl Purse {
    pub(super) fn new(granted_kib: u32) -> Purse {
        let window = window(granted_kib);
        Purse { window, spent: 0, allowed: window }
    }

    /// KiB.
    pub(super) fn left(&self) -> u32 {
        self.allowed.wrapping_sub(self.spent)
    }

    /// What sending this costs.
    #[inline]
    pub(super) fn price(&self, message: &Message) -> u32 {
        weight((message.head.len() + message.bulk.len()) as u64, self.window)
    }

    /// Pays; it must not be more than is left.
    #[inline]
    pub(super) fn pay(&mut self, price: u32) {
        debug_assert!(price <= self.left(), "who pays has looked into the purse");
        self.spent = self.spent.wrapping_add(price);
    }

    /// The callee said how much is allowed in all. What it said earlier may come later.
    #[inline]
    pub(super) fn told(&mut self, credit: u32) -> Result<(), WireError> {
        if ahead(credit, self.allowed) <= 0 {
            return Ok(());
        }
        if ahead(credit, self.spent) > self.window.cast_signed() {
            return Err(WireError("credit for more than was sent"));
        }
        self.allowed = credit;
        Ok(())
    }
}

/// What the callee has been paid and given back.
pub(super) struct Till {
    window: u32,
    charged: u32,
    allowed: u32,
    /// The caller has not been told of `allowed` on a link that lives.
    due: bool,
}

impl Till {
    pub(super) fn new(granted_kib: u32) -> Till {
        let window = window(granted_kib);
        Till { window, charged: 0, allowed: window, due: false }
    }

    /// What this request costs.
    #[inline]
    pub(super) fn price(&self, request: &Header) -> u32 {
        weight(u64::from(request.head) + u64::from(request.bulk), self.window)
    }

    /// Takes the price of a request that is new.
    #[inline]
    pub(super) fn charge(&mut self, price: u32) -> Result<(), WireError> {
        let charged = self.charged.wrapping_add(price);
        if ahead(charged, self.allowed) > 0 {
            return Err(WireError("a request beyond the credit"));
        }
        self.charged = charged;
        Ok(())
    }

    /// A request is served; its price may be spent again.
    #[inline]
    pub(super) fn refund(&mut self, price: u32) {
        self.allowed = self.allowed.wrapping_add(price);
        self.due = true;
    }

    /// True if the caller waits to be told.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        self.due
    }

    /// What a frame that goes out now says.
    #[inline]
    pub(super) fn tell(&mut self) -> u32 {
        self.due = false;
        self.allowed
    }

    /// What was told may be lost.
    pub(super) fn tell_again(&mut self) {
        self.due |= self.allowed != self.window;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Priority;
    use crate::frame::Kind;

    fn request(bytes: u32) -> Header {
        Header { bulk: bytes, ..Header::new(Kind::Request, Priority::Data) }
    }

    fn message(bytes: usize) -> Message {
        Message { bulk: vec![0; bytes].into(), ..Message::default() }
    }

    #[test]
    fn both_ends_weigh_alike_and_nothing_weighs_more_than_the_window() {
        let (purse, till) = (Purse::new(10), Till::new(10));
        for (bytes, price) in [(0, 1), (1023, 1), (1024, 2), (9 << 10, 10), (10 << 10, 10), (4 << 20, 10)] {
            assert_eq!(purse.price(&message(bytes)), price);
            assert_eq!(till.price(&request(bytes as u32)), price);
        }
    }

    #[test]
    fn what_is_refunded_can_be_spent_again_beyond_the_end_of_all_numbers() {
        let (mut purse, mut till) = (Purse::new(WINDOW_KIB_MAX), Till::new(u32::MAX));
        for _ in 0..20 {
            let price = purse.left();
            purse.pay(price);
            till.charge(price).unwrap();
            assert_eq!(till.charge(1), Err(WireError("a request beyond the credit")));
            till.refund(price);
            purse.told(till.tell()).unwrap();
        }
        assert_eq!(purse.left(), WINDOW_KIB_MAX);
    }

    #[test]
    fn old_credit_is_ignored_and_too_much_is_refused() {
        let mut purse = Purse::new(8);
        purse.pay(5);
        purse.told(8 + 5).unwrap();
        purse.told(8).unwrap();
        assert_eq!(purse.left(), 8);
        assert!(purse.told(8 + 6).is_err());
    }

    #[test]
    fn credit_is_told_once_and_again_only_if_there_was_any() {
        let mut till = Till::new(8);
        till.tell_again();
        assert!(!till.is_due());
        till.charge(3).unwrap();
        till.refund(3);
        assert_eq!((till.is_due(), till.tell(), till.is_due()), (true, 11, false));
        till.tell_again();
        assert!(till.is_due());
    }
}
