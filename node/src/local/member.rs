//! One node of a local cluster: from the process in its network namespace to a member's keeper.

use super::{Plan, network, node_name};
use crate::config::{NodeConfig, Provider, all_providers};
use crate::error::Error;
use crate::keeper::Keeper;
use rustix::event::{Timespec, poll};
use std::io::Read;
use std::time::{Duration, Instant};

/// How long the nodes may take until all are members, and so much more for each before this one.
const MEMBER_WITHIN: Duration = Duration::from_secs(30);
const MEMBER_WITHIN_EACH: Duration = Duration::from_secs(2);

/// What `ssi local-node` does: waits for the cable, becomes a member, becomes the keeper.
///
/// # Errors
/// What could not be done; ssi-local shows the log.
pub fn run(plan: &Plan, k: u32) -> Result<(), Error> {
    let mut go = [0; 2];
    std::io::stdin().read_exact(&mut go).map_err(Error::step("wait for the network"))?;
    network::set_address(k)?;
    let state = plan.state(k);
    let config = NodeConfig {
        cluster: "local".into(),
        id: 1,
        name: node_name(k),
        address: network::address(k),
        port: crate::config::PORT,
        pid_region: plan.pid_region,
        cpus: plan.cpus,
        memory_mib: crate::config::default_memory() / u64::from(plan.nodes),
        speed: 100,
        mount: "/ssi".into(),
        ost_dir: None,
        mdt_dir: None,
        rails: Vec::new(),
        security: plan.security,
        providers: all_providers()
            .into_iter()
            .filter(|provider| plan.shm || *provider != Provider::Shm)
            .collect(),
        shm_dir: None,
        watchdog: None,
        fence: Vec::new(),
    };
    if k == 1 {
        crate::verb::cluster::make(&state, &config)?;
    } else {
        let seed = std::net::SocketAddr::new(network::address(1), crate::config::PORT);
        let key = wait_for_turn(plan, k)?;
        crate::verb::node::become_member(&state, config, seed, &key, MEMBER_WITHIN)?;
    }
    Keeper::new(state)?.run()
}

/// The cluster's key, once the node before `k` is a member: so numbers follow names.
fn wait_for_turn(plan: &Plan, k: u32) -> Result<fabric::ClusterKey, Error> {
    let until = Instant::now() + MEMBER_WITHIN + MEMBER_WITHIN_EACH * k;
    loop {
        match plan.state(k - 1).load().and_then(|_| plan.state(1).key()) {
            Ok(key) => return Ok(key),
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => {
                let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 }));
            }
        }
    }
}
