//! Views for a daemon that takes no part in the agreement: `ssid --data` follows the `ssid` of its node.

use crate::peers;
use crate::service::NEWER_WAIT;
use crate::talk::{Answer, Ask, Newer, Request, Say};
use crate::wire::View;
use bytes::Bytes;
use fabric::{Endpoint, Message, Peer, Priority, service};
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// Follows the views that `control` knows, beginning with `first`, and tells `endpoint` the addresses of all peers and
/// which of them are DOWN. The address of `control` must be known to `endpoint`. Goes on until no receiver is left;
/// while `control` is away the last view stays. Must be called inside a tokio runtime.
pub fn follow(endpoint: Endpoint, control: Peer, first: View) -> watch::Receiver<Arc<View>> {
    let first = Arc::new(first);
    let (out, views) = watch::channel(first.clone());
    apply(&endpoint, None, &first);
    tokio::spawn(async move {
        let mut present = first;
        // The pause only matters while control does not answer: a request for a newer view waits there.
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !out.is_closed() {
            pace.tick().await;
            let Some(view) = newer(&endpoint, control, present.epoch).await else { continue };
            if view.epoch > present.epoch && view.cluster == present.cluster {
                apply(&endpoint, Some(&present), &view);
                present = Arc::new(view);
                out.send_replace(present.clone());
            }
        }
    });
    views
}

async fn newer(endpoint: &Endpoint, control: Peer, than: u64) -> Option<View> {
    let sender = endpoint.local().node.0;
    let request =
        Request { sender, incarnation: u64::MAX, epoch: than, ask: Some(Ask::Newer(Newer { than })) };
    let message = Message { head: Bytes::from(request.encode_to_vec()), bulk: Bytes::new() };
    let deadline = NEWER_WAIT * 2;
    let call = endpoint.call(control, service::MEMBERSHIP, Priority::Control, message, deadline);
    match Answer::decode(call.await.ok()?.head).ok()?.say {
        Some(Say::Current(view)) => Some(view),
        _ => None,
    }
}

fn apply(endpoint: &Endpoint, before: Option<&View>, view: &View) {
    peers::apply(endpoint, endpoint.local().node, before, view);
    for row in view.nodes.iter().filter(|row| row.node_id() != endpoint.local().node) {
        peers::set_down(endpoint, row.node_id(), !row.is_alive());
    }
}
