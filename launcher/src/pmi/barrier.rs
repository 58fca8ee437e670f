//! The barrier of a job: whoever enters waits until all have entered. With one exception.
//!
//! MPICH 4.0 waits in a last barrier of MPI_Finalize, without moving its network on. Over TCP another rank may still need
//! exactly that to close its connections, so it never arrives: a deadlock inside the library, under every launcher (its
//! own included), which later versions avoid by leaving that barrier out. So do we, when it comes to that: a barrier orders
//! puts before gets, and this one orders nothing.
//!
//! ```text
//!   init:      barrier . put . barrier . get ...        the first barrier, and each with a put before it: strict
//!   finalize:  barrier                                  nothing put since the last one: opens LINGER after the last arrival
//! ```
//!
//! Invariant: a rank passes its k-th barrier only when all ranks have entered theirs, or nothing was put since the
//! barrier before it and an earlier one did carry puts.

use base::Time;
use std::time::Duration;

/// How long a barrier that orders nothing waits for a rank that does not come.
pub const LINGER: Duration = Duration::from_millis(300);

/// Barriers are counted: every rank's k-th `barrier_in` belongs to barrier k.
#[derive(Debug)]
pub(crate) struct Barrier {
    /// How many barriers each rank has entered.
    entered: Vec<u32>,
    /// How many barriers each rank has been let through.
    passed: Vec<u32>,
    /// Barriers that all ranks have entered.
    complete: u32,
    /// Barriers that are open, complete or not.
    open: u32,
    /// Ranks that have entered the barrier after the last complete one.
    arrived: usize,
    /// When the last rank entered one.
    last: Time,
    /// Something was put since the last complete barrier.
    dirty: bool,
    /// A complete barrier has ordered puts: initialisation is over or nearly so.
    carried: bool,
}

impl Barrier {
    /// For so many ranks.
    pub(crate) fn new(ranks: usize) -> Barrier {
        let none = vec![0; ranks];
        Barrier {
            entered: none.clone(),
            passed: none,
            complete: 0,
            open: 0,
            arrived: 0,
            last: Time(0),
            dirty: false,
            carried: false,
        }
    }

    /// Somebody has put something.
    pub(crate) fn put(&mut self) {
        self.dirty = true;
    }

    /// A rank enters; gives back the ranks that may go on.
    ///
    /// # Errors
    /// It waits in a barrier already.
    pub(crate) fn enter(&mut self, now: Time, rank: usize) -> Result<Vec<u32>, String> {
        if self.entered[rank] > self.passed[rank] {
            return Err("barrier_in while it waits in the barrier".to_owned());
        }
        self.entered[rank] += 1;
        self.last = now;
        if self.entered[rank] == self.complete + 1 {
            self.arrived += 1;
        }
        if self.arrived == self.entered.len() {
            self.completed();
        }
        Ok(self.let_through())
    }

    /// When [`Barrier::tick`] may have something to do.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let waits = self.entered.iter().zip(&self.passed).any(|(entered, passed)| entered > passed);
        (waits && self.carried && !self.dirty).then(|| self.last + LINGER)
    }

    /// Time has passed; gives back the ranks that may go on.
    pub(crate) fn tick(&mut self, now: Time) -> Vec<u32> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        self.open += 1;
        self.let_through()
    }

    fn completed(&mut self) {
        self.complete += 1;
        self.carried |= self.dirty;
        self.dirty = false;
        self.open = self.open.max(self.complete);
        self.arrived = self.entered.iter().filter(|&&entered| entered > self.complete).count();
    }

    fn let_through(&mut self) -> Vec<u32> {
        let mut through = Vec::new();
        for (rank, (entered, passed)) in self.entered.iter().zip(&mut self.passed).enumerate() {
            if *entered > *passed && *entered <= self.open {
                *passed = *entered;
                through.push(rank as u32);
            }
        }
        through
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    /// As MPICH does in MPI_Init: a barrier, then one with puts.
    fn initialised() -> Barrier {
        let mut barrier = Barrier::new(3);
        for round in 0..2 {
            for rank in 0..3 {
                assert_eq!(barrier.enter(at(0), rank).unwrap().len(), if rank == 2 { 3 } else { 0 });
            }
            if round == 0 {
                barrier.put();
            }
        }
        barrier
    }

    #[test]
    fn a_barrier_that_orders_puts_waits_for_ever() {
        let mut barrier = Barrier::new(2);
        barrier.enter(at(0), 0).unwrap();
        assert_eq!((barrier.deadline(), barrier.tick(at(60_000))), (None, vec![]));
        barrier.put();
        assert_eq!(barrier.enter(at(60_000), 1).unwrap(), [0, 1]);
        let mut barrier = initialised();
        barrier.put();
        barrier.enter(at(1), 0).unwrap();
        assert_eq!((barrier.deadline(), barrier.tick(at(60_000))), (None, vec![]));
    }

    #[test]
    fn the_barrier_of_finalize_does_not_wait_for_a_rank_that_needs_the_others() {
        let mut barrier = initialised();
        barrier.enter(at(1_000), 0).unwrap();
        barrier.enter(at(1_100), 2).unwrap();
        assert_eq!(barrier.tick(at(1_399)), []);
        assert_eq!(barrier.deadline(), Some(at(1_400)));
        assert_eq!(barrier.tick(at(1_400)), [0, 2]);
        assert_eq!(barrier.deadline(), None);
        assert_eq!(barrier.enter(at(2_000), 1).unwrap(), [1]);
    }

    #[test]
    fn a_rank_that_passed_early_waits_in_its_next_barrier() {
        let mut barrier = initialised();
        barrier.enter(at(0), 0).unwrap();
        assert_eq!(barrier.tick(at(300)), [0]);
        barrier.put();
        assert_eq!(barrier.enter(at(400), 0).unwrap(), []);
        assert!(barrier.enter(at(400), 0).is_err());
        assert_eq!(barrier.enter(at(500), 1).unwrap(), [1]);
        assert_eq!(barrier.enter(at(500), 2).unwrap(), [2]);
        assert_eq!(barrier.enter(at(600), 1).unwrap(), []);
        assert_eq!(barrier.enter(at(600), 2).unwrap(), [0, 1, 2]);
    }
}
