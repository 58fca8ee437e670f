//! Links: what the fabric says about connections to other `ssid`s, as events for the core.
//!
//! Invariant: no change of a link is lost; where the fabric had too many to tell, all are looked at anew.

use crate::core::Event;
use crate::shell::{Inbox, Input};
use fabric::{Endpoint, LinkEvent, Peer, Role};
use std::sync::mpsc;

/// Tells the core of links to other `ssid`s, until the endpoint or the core is gone.
pub(crate) async fn watch(endpoint: Endpoint, inbox: Inbox) {
    let mut links = endpoint.links();
    let mut missed = true;
    loop {
        if std::mem::take(&mut missed) {
            for status in endpoint.status().peers {
                if tell_link(&inbox, status.peer, status.connected).await.is_none() {
                    return;
                }
            }
        }
        let told = match links.recv().await {
            Ok(LinkEvent::Connected(peer)) => tell_link(&inbox, peer, true).await,
            Ok(LinkEvent::Lost(peer)) => tell_link(&inbox, peer, false).await,
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {
                missed = true;
                Some(())
            }
            Err(tokio::sync::broadcast::error::RecvError::Closed) => None,
        };
        if told.is_none() {
            return;
        }
    }
}

/// None once the core is gone. A link event must not be lost, so a full inbox is waited for.
async fn tell_link(inbox: &Inbox, peer: Peer, linked: bool) -> Option<()> {
    if peer.role != Role::Control {
        return Some(());
    }
    match inbox.try_send(Input::Event(Event::Link { peer: peer.node, linked })) {
        Ok(()) => Some(()),
        Err(mpsc::TrySendError::Disconnected(_)) => None,
        Err(mpsc::TrySendError::Full(input)) => {
            let inbox = inbox.clone();
            let sent = tokio::task::spawn_blocking(move || inbox.send(input).is_ok()).await;
            sent.unwrap_or(false).then_some(())
        }
    }
}
