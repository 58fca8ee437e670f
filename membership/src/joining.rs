//! Becoming a node: the first table of a new cluster, and asking to be in one.

use crate::command::{Act, Command};
use crate::handle::ATTEMPT_INTERVAL;
use crate::saved;
use crate::shell::random_number;
use crate::table::Table;
use crate::talk::{Answer, Ask, Change, Request, Say};
use crate::wire::{Node, View};
use crate::{Error, table};
use base::{NodeId, PidRegions};
use bytes::Bytes;
use fabric::{Endpoint, Message, Priority, service};
use prost::Message as _;
use replog::Voters;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// Where in a node's state directory the log of the table is.
pub fn log_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("clms")
}

/// Writes the first view of a new cluster, whose node 1 is `first` (its id is ignored), and founds its log.
///
/// # Errors
/// [`Error::Refused`] if there is a table already, or if `first` or `pid_region` cannot be used; [`Error::Store`];
/// [`Error::Log`].
pub fn init_table(state_dir: &Path, cluster: &str, first: Node, pid_region: u32) -> Result<View, Error> {
    if PidRegions::new(pid_region).is_none() {
        let why =
            format!("a home region of {pid_region} pids: it must be a power of two from 512 to 1048576");
        return Err(Error::Refused(why));
    }
    if cluster.is_empty() || cluster.len() > table::NAME_BYTES_MAX {
        return Err(Error::Refused(format!("{cluster:?} is no name for a cluster")));
    }
    table::check_row(&first).map_err(Error::Refused)?;
    let path = saved::path(state_dir);
    if path.exists() {
        return Err(Error::Refused(format!(
            "{} exists: this machine is in a cluster already",
            path.display()
        )));
    }
    let view = table::founded(cluster, &first, pid_region);
    remove_leftover(state_dir)?;
    replog::create(&log_dir(state_dir), NodeId(1), |first| Some(Voters::of([first])))?;
    saved::save(state_dir, &Table::from_view(view.clone()))?;
    Ok(view)
}

/// Asks the cluster, through any member that listens at `seed`, to take this machine in as `row` (its id is ignored).
/// The node is DOWN in the view until its membership is started. Asking again with the same name gives the same id.
///
/// # Errors
/// [`Error::Refused`] with the cluster's reason; [`Error::Undecided`] if nobody decided in time.
pub async fn join(
    endpoint: &Endpoint,
    seed: SocketAddr,
    row: Node,
    deadline: Duration,
) -> Result<(NodeId, View), Error> {
    let end = Instant::now() + deadline;
    let sender = endpoint.local().node.0;
    let command = Some(Command { at_ms: 0, act: Some(Act::Join(row)) });
    let ask = Some(Ask::Change(Change { command, session: random_number(), forwarded: false }));
    let head = Bytes::from(Request { sender, incarnation: 0, epoch: 0, ask }.encode_to_vec());
    let mut attempts = tokio::time::interval(ATTEMPT_INTERVAL);
    let mut last = format!("{seed} did not answer");
    loop {
        attempts.tick().await;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Undecided(last));
        }
        let message = Message { head: head.clone(), bulk: Bytes::new() };
        let call = endpoint.call_address(seed, service::MEMBERSHIP, Priority::Control, message, left);
        match call.await {
            Ok(reply) => match Answer::decode(reply.head).map_err(|e| Error::Malformed(e.to_string()))?.say {
                Some(Say::Decided(decided)) => {
                    let view = decided.view.ok_or_else(|| Error::Malformed("no view".into()))?;
                    return Ok((NodeId(decided.outcome.unwrap_or_default().node), view));
                }
                Some(Say::Refused(why)) => return Err(Error::Refused(why)),
                _ => {
                    last =
                        format!("the cluster of {seed} has no master with a majority of its nodes behind it")
                }
            },
            // A member that is starting offers nothing yet; every other refusal is final.
            Err(error @ fabric::Error::Refused { why, .. }) if why != fabric::Refusal::NoService => {
                return Err(Error::Refused(error.to_string()));
            }
            Err(error) => last = error.to_string(),
        }
    }
}

/// A log without a table is what is left of another cluster, or of an attempt that failed.
fn remove_leftover(state_dir: &Path) -> Result<(), Error> {
    let path = log_dir(state_dir);
    match std::fs::remove_dir_all(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Store { action: "remove", path, source })
        }
        _ => Ok(()),
    }
}

/// Writes the view that [`join`] gave, for [`Membership::start`](crate::Membership::start).
///
/// # Errors
/// [`Error::Store`].
pub fn persist_joined(state_dir: &Path, view: &View) -> Result<(), Error> {
    if !saved::path(state_dir).exists() {
        remove_leftover(state_dir)?;
    }
    saved::save(state_dir, &Table::from_view(view.clone()))
}

/// The newest agreed table on disk: the view and the last transitions.
///
/// # Errors
/// No table, or a damaged one.
pub fn saved_table(state_dir: &Path) -> Result<Table, Error> {
    saved::load(state_dir)
}

/// The newest agreed view on disk, for verbs that work without a daemon.
///
/// # Errors
/// No table, or a damaged one.
pub fn saved_view(state_dir: &Path) -> Result<View, Error> {
    Ok(saved::load(state_dir)?.view().clone())
}
