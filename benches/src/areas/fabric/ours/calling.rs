//! Calls of 64 bytes, one after the other or many at once.

use super::{BYTES, Driver, ECHO, Setting, WITHIN, peer};
use crate::Error;
use crate::areas::fabric::sample::Laps;
use crate::areas::fabric::side::{finished, warm};
use bytes::Bytes;
use fabric::{Endpoint, Message, Priority};
use futures_util::future::try_join_all;
use std::cell::RefCell;
use std::rc::Rc;

/// Calls before the clock starts.
const WARM_UP: usize = 4_000;

/// Drives `count` calls, `outstanding` of them at once, timed `batch` at a time.
pub fn calls(setting: &Setting, at: &str, count: usize, outstanding: usize, batch: u32) -> Result<(), Error> {
    let driver = Driver::connect(setting, at)?;
    driver.run(async |endpoint| {
        calls_of(endpoint, WARM_UP, outstanding, batch).await?;
        let before = warm()?;
        let laps = calls_of(endpoint, count, outstanding, batch).await?;
        finished(laps.sample()?, &before)
    })
}

/// The calls themselves.
pub async fn calls_of(
    endpoint: &Endpoint,
    count: usize,
    outstanding: usize,
    batch: u32,
) -> Result<Laps, Error> {
    if outstanding == 1 {
        // Nothing between the caller and the endpoint.
        let mut laps = Laps::start(count, batch);
        for _ in 0..count {
            call(endpoint, Priority::Control).await?;
            laps.lap();
        }
        return Ok(laps);
    }
    let laps = Rc::new(RefCell::new(Laps::start(count, batch)));
    let loops = (0..outstanding).map(|_| async {
        for _ in 0..count / outstanding {
            call(endpoint, Priority::Control).await?;
            laps.borrow_mut().lap();
        }
        Ok::<(), Error>(())
    });
    try_join_all(loops).await?;
    Ok(Rc::into_inner(laps).ok_or("a loop still runs")?.into_inner())
}

/// One call.
pub async fn call(endpoint: &Endpoint, priority: Priority) -> Result<(), Error> {
    let request = Message { head: Bytes::from_static(&[7; BYTES]), bulk: Bytes::new() };
    let reply = endpoint.call(peer(1), ECHO, priority, request, WITHIN).await?;
    assert_eq!(reply.head.len(), BYTES, "an echo is as long");
    Ok(())
}
