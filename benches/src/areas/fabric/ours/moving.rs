//! One-sided transfers between regions.

use super::calling::call;
use super::{Driver, MIB, REGION, Setting, WITHIN, remote_key};
use crate::Error;
use crate::areas::fabric::sample::{Laps, throughput};
use crate::areas::fabric::side::{finished, warm};
use fabric::{Endpoint, Priority, Region, RemoteKey};
use futures_util::future::{join, try_join_all};
use std::cell::Cell;
use std::time::Instant;

/// MiB before the clock starts, of each stream and buffer.
const WARM_UP: usize = 8;

/// Which way the bytes go.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// To the server.
    Write,
    /// From the server.
    Read,
}

/// Streams of transfers of 1 MiB, each going round buffers of its own at both ends.
struct Streams<'a> {
    key: RemoteKey,
    region: &'a Region,
    way: Way,
    buffers: usize,
}

impl Streams<'_> {
    /// Transfer `k` of a stream.
    async fn one(&self, endpoint: &Endpoint, stream: usize, k: usize) -> Result<(), Error> {
        let place = (stream * self.buffers + k % self.buffers) * MIB;
        let span = self.region.part(place, MIB).ok_or("beyond the region")?;
        let (key, place, pieces) = (&self.key, place as u64, std::slice::from_ref(&span));
        match self.way {
            Way::Write => endpoint.write(key, place, pieces, WITHIN).await?,
            Way::Read => endpoint.read(key, place, pieces, WITHIN).await?,
        }
        Ok(())
    }

    /// So many transfers of each of `streams` streams.
    async fn all(&self, endpoint: &Endpoint, streams: usize, each: usize) -> Result<(), Error> {
        let loops = (0..streams).map(|stream| async move {
            for k in 0..each {
                self.one(endpoint, stream, k).await?;
            }
            Ok::<(), Error>(())
        });
        try_join_all(loops).await.map(drop)
    }
}

/// Drives transfers of 1 MiB; `words` are how many, how many at once, and how many buffers each of these uses in turn.
pub fn stream(setting: &Setting, at: &str, key: &str, way: Way, words: [&str; 3]) -> Result<(), Error> {
    let (mib, outstanding, buffers): (usize, usize, usize) =
        (words[0].parse()?, words[1].parse()?, words[2].parse()?);
    let driver = Driver::connect(setting, at)?;
    let region = filled(&driver, REGION)?;
    let streams = Streams { key: remote_key(key)?, region: &region, way, buffers };
    driver.run(async |endpoint| {
        streams.all(endpoint, outstanding, WARM_UP.max(buffers * 2)).await?;
        let before = warm()?;
        let begun = Instant::now();
        streams.all(endpoint, outstanding, mib / outstanding).await?;
        finished(throughput(mib, begun), &before)
    })
}

/// Drives reads of 8 bytes, one after the other.
pub fn read8(setting: &Setting, at: &str, key: &str, count: usize) -> Result<(), Error> {
    let driver = Driver::connect(setting, at)?;
    let (region, key) = (driver.region(8)?, remote_key(key)?);
    let into = [region.span()];
    driver.run(async |endpoint| {
        for _ in 0..100 {
            endpoint.read(&key, 0, &into, WITHIN).await?;
        }
        let before = warm()?;
        let mut laps = Laps::start(count, 1);
        for _ in 0..count {
            endpoint.read(&key, 0, &into, WITHIN).await?;
            laps.lap();
        }
        finished(laps.sample()?, &before)
    })
}

/// Drives control calls beside `streams` streams of writes of 1 MiB that never pause.
pub fn beside(setting: &Setting, at: &str, key: &str, count: usize, streams: usize) -> Result<(), Error> {
    let driver = Driver::connect(setting, at)?;
    let region = filled(&driver, streams.max(1) * MIB)?;
    let bulk = Streams { key: remote_key(key)?, region: &region, way: Way::Write, buffers: 1 };
    let over = Cell::new(false);
    driver.run(async |endpoint| {
        bulk.all(endpoint, streams, WARM_UP).await?;
        let (bulk, over) = (&bulk, &over);
        let loops = (0..streams).map(|stream| async move {
            while !over.get() {
                bulk.one(endpoint, stream, 0).await?;
            }
            Ok::<(), Error>(())
        });
        let calls = async {
            let before = warm()?;
            let mut laps = Laps::start(count, 1);
            for _ in 0..count {
                call(endpoint, Priority::Control).await?;
                laps.lap();
            }
            finished(laps.sample()?, &before)
        };
        let (streamed, called) = join(try_join_all(loops), async {
            let called = calls.await;
            over.set(true);
            called
        })
        .await;
        streamed?;
        called
    })
}

/// A region whose pages are there.
fn filled(driver: &Driver, length: usize) -> Result<Region, Error> {
    let region = driver.region(length)?;
    region.span().fill(&vec![7; length]);
    Ok(region)
}
