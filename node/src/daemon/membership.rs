//! A node's way into the cluster table: the first view of a new cluster, and joining one.

use crate::config::{NodeConfig, StateDir};
use crate::error::Error;
use base::Incarnation;
use fabric::{ClusterKey, Endpoint};
use membership::Node;
use membership::token::Token;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The row that a node's configuration makes in the cluster table.
pub fn row(config: &NodeConfig, incarnation: Incarnation) -> Node {
    Node {
        id: config.id,
        name: config.name.clone(),
        control_address: config.control_address().to_string(),
        data_address: config.data_address().to_string(),
        arch: std::env::consts::ARCH.into(),
        cpus: config.cpus,
        memory_bytes: config.memory_mib << 20,
        speed: config.speed,
        state: membership::NodeState::Up as i32,
        incarnation: incarnation.0,
        ..Node::default()
    }
}

/// Writes the first view of a new cluster: this node alone.
///
/// # Errors
/// The state directory cannot be written.
pub fn first_table(state: &StateDir, config: &NodeConfig) -> Result<(), Error> {
    membership::init_table(&state.0, &config.cluster, row(config, Incarnation(0)), config.pid_region)
        .map(drop)
        .map_err(Error::said)
}

/// Asks the member at `seed` to take this machine in, again and again until `limit` is over; a refusal is final.
///
/// # Errors
/// The refusal, or the last reason why nobody answered.
pub async fn join(
    state: &StateDir,
    mut config: NodeConfig,
    seed: SocketAddr,
    key: &fabric::ClusterKey,
    limit: Duration,
) -> Result<NodeConfig, Error> {
    let endpoint = Endpoint::bind(config.joining_endpoint(key)).await.map_err(Error::said)?;
    let until = Instant::now() + limit;
    let wanted = row(&config, Incarnation(0));
    let joined =
        membership::join(&endpoint, seed, wanted, until.saturating_duration_since(Instant::now())).await;
    endpoint.close().await;
    let (id, view) = joined.map_err(|e| Error::Said(format!("join the cluster at {seed}: {e}")))?;
    membership::persist_joined(&state.0, &view).map_err(Error::said)?;
    config.id = id.0;
    config.pid_region = view.pid_region;
    Ok(config)
}

/// Has this machine taken in with a join token; gives the configuration with its number, and the cluster key.
///
/// # Errors
/// The cluster's refusal, or which addresses were tried in vain within `limit`.
pub async fn enter(
    state: &StateDir,
    config: NodeConfig,
    token: &Token,
    limit: Duration,
) -> Result<(NodeConfig, ClusterKey), Error> {
    let endpoint = Endpoint::bind(config.newcomer_endpoint(&token.key)).await.map_err(Error::said)?;
    let entered = membership::enter(&endpoint, token, &row(&config, Incarnation(0)), limit).await;
    endpoint.close().await;
    let membership::Entered { node, view, key } =
        entered.map_err(|error| Error::Said(format!("join cluster {}: {error}", token.cluster)))?;
    membership::persist_joined(&state.0, &view).map_err(Error::said)?;
    Ok((NodeConfig { id: node.0, pid_region: view.pid_region, ..config }, key))
}
