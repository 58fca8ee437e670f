//! The driver's side: one node, whose locks are timed.

use super::nodes::{endpoint_config, manager, name, peer, space, wait};
use super::orders::{ECHO, Echo, ORDERS, links_up};
use crate::Error;
use crate::areas::fabric::sample::Laps;
use crate::areas::fabric::side::{finished, warm};
use base::NodeId;
use bytes::Bytes;
use dlm::{Flags, Handle, Key, Mode, Name};
use fabric::{Endpoint, Message, Priority, Wait};
use futures_util::future::try_join_all;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(60);
const OUTSTANDING: usize = 64;
const WARM_UP: usize = 1_000;
/// Names that are held with one order.
const ORDER: usize = 1_000;

/// A lock that was let go is had again, `count` times; 1,000 of them for each look at the clock.
pub fn again(count: usize) -> Result<(), Error> {
    let endpoint = Endpoint::driven(endpoint_config("tcp", 1)?)?;
    let node = manager(&endpoint, 1, 1)?;
    let name = name("again", 0)?;
    let once = || node.lock(space(), name, Mode::EX, Flags::NONE).wait().map(drop);
    (0..WARM_UP).try_for_each(|_| once())?;
    let before = warm()?;
    let mut laps = Laps::start(count, 1_000);
    for _ in 0..count {
        once()?;
        laps.lap();
    }
    finished(laps.sample()?, &before)
}

struct Driver {
    endpoint: Endpoint,
    node: Handle,
    me: NodeId,
}

/// Drives `count` locks of one kind.
pub fn drive(
    provider: &str,
    word: &str,
    nodes: u32,
    what: &str,
    count: usize,
    at: &str,
) -> Result<(), Error> {
    let endpoint = Endpoint::driven(endpoint_config(provider, nodes)?)?;
    for (k, address) in (1..).zip(at.split(',')) {
        endpoint.set_address(peer(k), address.parse()?);
    }
    endpoint.serve(ECHO, Arc::new(Echo));
    let node = manager(&endpoint, nodes, nodes)?;
    let driver = Driver { endpoint: endpoint.clone(), node, me: NodeId(nodes) };
    endpoint.block_on(wait(word)?.unwrap_or(Wait::Sleep), async {
        driver.order(&format!("here {}", endpoint.address())).await?;
        links_up(&endpoint, 1, provider).await?;
        driver.order(&format!("links {provider}")).await?;
        match what {
            "local" => driver.local(count).await,
            "remote" => driver.remote(count).await,
            "known" => driver.known(count).await,
            "contended" => driver.contended(count).await,
            "many" => driver.many(count, true).await,
            "own" => driver.many(count, false).await,
            _ => Err(format!("no figure {what}").into()),
        }
    })
}

impl Driver {
    async fn order(&self, words: &str) -> Result<(), Error> {
        let message = Message { head: Bytes::from(words.to_owned()), bulk: Bytes::new() };
        let reply = self.endpoint.call(peer(1), ORDERS, Priority::Meta, message, WITHIN).await?;
        match std::str::from_utf8(&reply.head)? {
            "" => Ok(()),
            error => Err(format!("{words}: {error}").into()),
        }
    }

    async fn lock(&self, name: Name, mode: Mode) -> Result<(), Error> {
        Ok(self.node.lock(space(), name, mode, Flags::NONE).await.map(drop)?)
    }

    async fn timed(&self, count: usize, names: &[Name], mode: Mode) -> Result<(), Error> {
        for name in &names[..WARM_UP] {
            self.lock(*name, mode).await?;
        }
        let before = warm()?;
        let mut laps = Laps::start(count, 1);
        for name in &names[WARM_UP..] {
            self.lock(*name, mode).await?;
            laps.lap();
        }
        finished(laps.sample()?, &before)
    }

    /// Nobody has them, and another node's directory must be asked: this node becomes their master.
    async fn local(&self, count: usize) -> Result<(), Error> {
        let all = (0..).map(|k| name("local", k));
        let elsewhere = all.filter_map(Result::ok).filter(|name| {
            let key = Key::new(space(), *name);
            self.node.directory_of(&key).is_some_and(|node| node != self.me)
        });
        let names: Vec<Name> = elsewhere.take(count + WARM_UP).collect();
        self.timed(count, &names, Mode::EX).await
    }

    /// Another node is their master.
    async fn remote(&self, count: usize) -> Result<(), Error> {
        for first in (0..count + WARM_UP).step_by(ORDER) {
            self.order(&format!("hold remote {first} {ORDER}")).await?;
        }
        let names: Vec<Name> = (0..count + WARM_UP).map(|k| name("remote", k)).collect::<Result<_, _>>()?;
        self.timed(count, &names, Mode::PR).await
    }

    /// Another node is their master, which this one knows: it has them in CR, and wants PR.
    async fn known(&self, count: usize) -> Result<(), Error> {
        for first in (0..count + WARM_UP).step_by(ORDER) {
            self.order(&format!("hold remote {first} {ORDER}")).await?;
        }
        let names: Vec<Name> = (0..count + WARM_UP).map(|k| name("remote", k)).collect::<Result<_, _>>()?;
        for name in &names {
            self.lock(*name, Mode::CR).await?;
        }
        self.timed(count, &names, Mode::PR).await
    }

    /// Another node holds it, until it is wanted.
    async fn contended(&self, count: usize) -> Result<(), Error> {
        let name = name("hot", 0)?;
        self.order("rival hot").await?;
        let mut laps = Laps::start(count, 1);
        let mut before = warm_later();
        for k in 0..count + WARM_UP {
            if k == WARM_UP {
                before = Some(warm()?);
                laps = Laps::start(count, 1);
            }
            let lock = self.node.lock(space(), name, Mode::EX, Flags::NONE).await?;
            laps.lap();
            // The rival wants it again; then it is handed over to him, which is not timed.
            lock.wanted().await;
            drop(lock);
            laps.begin();
        }
        finished(laps.sample()?, &before.ok_or("nothing was timed")?)
    }

    /// Many at once: locked and unlocked.
    async fn many(&self, count: usize, are_new: bool) -> Result<(), Error> {
        self.loops("warm", WARM_UP, are_new).await?;
        let before = warm()?;
        let laps = self.loops("many", count, are_new).await?;
        finished(laps.sample()?, &before)
    }

    async fn loops(&self, figure: &str, count: usize, are_new: bool) -> Result<Laps, Error> {
        let laps = Rc::new(RefCell::new(Laps::start(count, 1)));
        let loops = (0..OUTSTANDING).map(|k| {
            let laps = laps.clone();
            async move {
                for round in 0..count / OUTSTANDING {
                    let number = if are_new { round * OUTSTANDING + k } else { k };
                    let name = name(figure, number)?;
                    let lock = self.node.lock(space(), name, Mode::EX, Flags::NONE).await?;
                    lock.unlock(None).await?;
                    laps.borrow_mut().lap();
                }
                Ok::<(), Error>(())
            }
        });
        try_join_all(loops).await?;
        Ok(Rc::into_inner(laps).ok_or("a loop still runs")?.into_inner())
    }
}

fn warm_later() -> Option<crate::areas::fabric::sample::Sample> {
    None
}
