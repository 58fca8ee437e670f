//! A node dies that was master of many locks: how long until they serve again.
//!
//! Three nodes in one process, over tcp. Node 3 is master of all of them, node 1 holds each; the clock starts with the view in which node 3 is DOWN and
//! stops when node 2 has had an answer for one lock in a thousand, spread over all of them, and could lock the last of them.

use super::nodes::{endpoint_config, manager, members, name, space};
use crate::Error;
use crate::areas::fabric::sample::Sample;
use crate::areas::fabric::side::{finished, warm};
use base::Epoch;
use dlm::{Flags, Mode, Refusal};
use fabric::Endpoint;
use std::time::Instant;

/// So many locks are asked for one that is looked at.
const EACH: usize = 1_000;

/// With so many locks.
pub fn run(count: usize) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (mut endpoints, mut nodes) = (Vec::new(), Vec::new());
        for k in 1..=3 {
            let endpoint = Endpoint::bind(endpoint_config("tcp", k)?).await?;
            nodes.push(manager(&endpoint, k, 3)?);
            endpoints.push(endpoint);
        }
        for endpoint in &endpoints {
            endpoints.iter().for_each(|other| endpoint.set_address(other.local(), other.address()));
        }
        let mut held = Vec::new();
        for k in 0..count {
            let name = name("lost", k)?;
            drop(nodes[2].lock(space(), name, Mode::CR, Flags::NONE).await?);
            held.push(nodes[0].lock(space(), name, Mode::PR, Flags::NONE).await?);
        }
        let before = warm()?;
        endpoints[2].close().await;
        let begun = Instant::now();
        nodes[..2].iter().for_each(|node| node.view(Epoch(2), members(3, Some(3))));
        for k in (0..count).step_by(EACH) {
            let refused = nodes[1].lock(space(), name("lost", k)?, Mode::EX, Flags::NOQUEUE).await;
            if refused.err() != Some(Refusal::Again) {
                return Err(format!("lock {k} was lost").into());
            }
        }
        drop(nodes[1].lock(space(), name("lost", count - 1)?, Mode::PR, Flags::NONE).await?);
        let took = begun.elapsed().as_secs_f64() * 1e6;
        finished(Sample::default().with("took", took).with("count", 1.0), &before)
    })
}
