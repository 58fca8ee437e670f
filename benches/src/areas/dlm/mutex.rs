//! The peer of a lock that is held already: an uncontended mutex of the C library.
//!
//! Invariant: the mutex is initialised before and destroyed after all use, and never moves.
#![allow(unsafe_code)]

use crate::Error;
use crate::areas::fabric::sample::Laps;
use crate::areas::fabric::side::{finished, warm};
use std::hint::black_box;

const BATCH: u32 = 1_000;

/// So many pairs of lock and unlock.
pub fn drive(count: usize) -> Result<(), Error> {
    let mutex = Box::into_raw(Box::new(libc::PTHREAD_MUTEX_INITIALIZER));
    let pair = || {
        // SAFETY: the mutex is initialised, stays where it is, and is unlocked by the thread that has locked it.
        unsafe {
            libc::pthread_mutex_lock(black_box(mutex));
            libc::pthread_mutex_unlock(black_box(mutex));
        }
    };
    (0..count / 10).for_each(|_| pair());
    let before = warm()?;
    let mut laps = Laps::start(count, BATCH);
    for _ in 0..count {
        pair();
        laps.lap();
    }
    let sample = laps.sample()?;
    // SAFETY: nobody holds it or will use it again; it came from a box.
    unsafe {
        libc::pthread_mutex_destroy(mutex);
        drop(Box::from_raw(mutex));
    }
    finished(sample, &before)
}
