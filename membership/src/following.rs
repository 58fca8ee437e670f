//! Views for a daemon that takes no part in the agreement: `ssid --data` follows the `ssid` of its node.

use crate::history::History;
use crate::peers;
use crate::service::NEWER_WAIT;
use crate::table::{Feed, Table};
use crate::talk::{Answer, Ask, Newer, Request, Say};
use crate::wire::View;
use bytes::Bytes;
use fabric::{Endpoint, Message, Peer, Priority, service};
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// Follows the transitions that `control` knows, beginning with the table in `state_dir`'s view `first`, and tells `endpoint`
/// the addresses of all peers and which of them are DOWN. The address of `control` must be known to `endpoint`. Goes on
/// until nobody holds the history or a receiver of it; while `control` is away the last view stays. Must be called inside a
/// tokio runtime.
pub fn follow_transitions(endpoint: Endpoint, control: Peer, first: Table) -> History {
    apply(&endpoint, None, first.view());
    let history = History::new(first);
    let followed = history.clone();
    tokio::spawn(async move {
        let mut present = followed.view();
        // The pause only matters while control does not answer: a request for what is new waits there.
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while followed.is_watched() {
            pace.tick().await;
            let Some(feed) = newer(&endpoint, control, present.epoch).await else { continue };
            if feed.view.as_ref().is_some_and(|view| view.cluster != present.cluster) {
                continue;
            }
            if let Some(view) = followed.take(&feed) {
                apply(&endpoint, Some(&present), &view);
                present = view;
                pace.reset_immediately();
            }
        }
    });
    history
}

/// Like [`follow_transitions`], for one who only wants the newest view.
pub fn follow(endpoint: Endpoint, control: Peer, first: View) -> watch::Receiver<Arc<View>> {
    follow_transitions(endpoint, control, Table::from_view(first)).watch()
}

async fn newer(endpoint: &Endpoint, control: Peer, than: u64) -> Option<Feed> {
    let sender = endpoint.local().node.0;
    let request =
        Request { sender, incarnation: u64::MAX, epoch: than, ask: Some(Ask::Newer(Newer { than })) };
    let message = Message { head: Bytes::from(request.encode_to_vec()), bulk: Bytes::new() };
    let deadline = NEWER_WAIT * 2;
    let call = endpoint.call(control, service::MEMBERSHIP, Priority::Control, message, deadline);
    match Answer::decode(call.await.ok()?.head).ok()?.say {
        Some(Say::News(feed)) => Some(feed),
        _ => None,
    }
}

fn apply(endpoint: &Endpoint, before: Option<&View>, view: &View) {
    peers::apply(endpoint, endpoint.local().node, before, view);
    for row in view.nodes.iter().filter(|row| row.node_id() != endpoint.local().node) {
        peers::set_down(endpoint, row.node_id(), !row.is_alive());
    }
}
