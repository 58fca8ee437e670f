//! Destroys the objects of files that are gone. The list of them is in the store, so a restart forgets none; an object
//! server that is down is asked again when it is back.

use super::server::MetadataServer;
use crate::error::Error;
use crate::layout::Layout;
use crate::peers::{Peers, errno_of};
use crate::wire::{ObjectRequest, ObjectVerb};
use base::NodeId;
use bytes::Bytes;
use futures_util::future::join_all;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Files in one round.
const ROUND_MAX: usize = 256;
/// When to look again after a round that could not reach everybody.
const RETRY: Duration = Duration::from_secs(1);

/// Runs until the server stops.
pub async fn run(server: Arc<MetadataServer>, peers: Peers) {
    let mut skip = HashSet::new();
    loop {
        match round(&server, &peers, &mut skip).await {
            Ok(true) => {}
            Ok(false) if skip.is_empty() => server.purge.notified().await,
            Ok(false) => {
                let _ = tokio::time::timeout(RETRY, server.purge.notified()).await;
                skip.clear();
            }
            Err(_) => return,
        }
    }
}

/// One round; true if another may find more. Files that could not be destroyed are in `skip` for this time.
async fn round(server: &MetadataServer, peers: &Peers, skip: &mut HashSet<u64>) -> Result<bool, Error> {
    let mut purges = server.purges(ROUND_MAX + skip.len()).await?;
    purges.retain(|(ino, _)| !skip.contains(ino));
    if purges.is_empty() {
        return Ok(false);
    }
    let done = join_all(purges.iter().map(|(ino, layout)| destroy(peers, *ino, layout))).await;
    let mut gone = Vec::new();
    for ((ino, _), done) in purges.iter().zip(done) {
        match done {
            true => gone.push(*ino),
            false => drop(skip.insert(*ino)),
        }
    }
    server.purged(gone).await?;
    Ok(true)
}

async fn destroy(peers: &Peers, ino: u64, layout: &Layout) -> bool {
    let alive = peers.servers();
    if !layout.osts.iter().all(|&ost| alive.contains(&NodeId(ost))) {
        return false;
    }
    let objects = (0..layout.count()).map(|stripe| async move {
        let request = ObjectRequest { ino, stripe, verb: Some(ObjectVerb::Destroy(())) };
        match peers.object(layout.server(stripe), &request, Bytes::new()).await {
            Ok((reply, _)) if reply.errno == 0 => true,
            Ok((reply, _)) => {
                let why = errno_of(reply.errno);
                tracing::error!(ino, stripe, node = %layout.server(stripe), "an object cannot be destroyed: {why}");
                false
            }
            Err(_) => false,
        }
    });
    join_all(objects).await.into_iter().all(|done| done)
}
