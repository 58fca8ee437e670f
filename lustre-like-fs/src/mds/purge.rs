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
use std::sync::Arc;
use std::time::Duration;

/// Files in one round.
const ROUND_MAX: usize = 256;
/// When to ask again a server that refused. One that was down is asked when the view changes.
const RETRY: Duration = Duration::from_secs(10);

/// Runs until the server stops.
pub async fn run(server: Arc<MetadataServer>, peers: Peers) {
    let mut retry = tokio::time::interval(RETRY);
    loop {
        let resumed = tokio::select! {
            () = server.purge.notified() => Ok(()),
            _ = retry.tick() => server.resume_purges().await,
        };
        let mut more = resumed.map(|()| true);
        while let Ok(true) = more {
            more = round(&server, &peers).await;
        }
        if more.is_err() {
            return;
        }
    }
}

/// One round; true if another may find more.
async fn round(server: &MetadataServer, peers: &Peers) -> Result<bool, Error> {
    let purges = server.purges(ROUND_MAX).await?;
    if purges.is_empty() {
        return Ok(false);
    }
    let done = join_all(purges.iter().map(|(ino, layout)| destroy(peers, *ino, layout))).await;
    let (mut gone, mut left) = (Vec::new(), Vec::new());
    for ((ino, _), done) in purges.iter().zip(done) {
        if done { &mut gone } else { &mut left }.push(*ino);
    }
    server.purged(gone).await?;
    server.postpone(left).await?;
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
