//! Broadcasts reach everybody, also round those who fail.

use crate::world::{ECHO, SOON, World, message, peer, service};
use fabric::{Endpoint, Error, Peer, Priority};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// This many endpoints that know each other; each answers with its number.
async fn crowd(count: u32, asked: &Arc<AtomicUsize>) -> Vec<Endpoint> {
    let mut crowd = Vec::new();
    for node in 1..=count {
        let endpoint = World::default().endpoint(node).await;
        let asked = asked.clone();
        endpoint.serve(
            ECHO,
            service(move |from, request| {
                asked.fetch_add(1, SeqCst);
                assert_eq!(from, peer(1), "it asks in the root's name");
                async move { message(&[&request.head[..], &[node as u8]].concat()) }
            }),
        );
        crowd.push(endpoint);
    }
    for endpoint in &crowd {
        for other in &crowd {
            endpoint.set_address(other.local(), other.address());
        }
    }
    crowd
}

#[tokio::test]
async fn everybody_is_asked_once_and_answers() {
    let asked = Arc::new(AtomicUsize::new(0));
    let crowd = crowd(30, &asked).await;
    let peers: Vec<Peer> = crowd.iter().map(Endpoint::local).collect();
    let outcomes = crowd[0].broadcast(&peers, ECHO, Priority::Control, message(b"x"), SOON).await;
    assert_eq!(outcomes.iter().map(|(peer, _)| *peer).collect::<Vec<_>>(), peers);
    for (peer, outcome) in outcomes {
        assert_eq!(outcome.unwrap(), message(&[b'x', peer.node.0 as u8]));
    }
    assert_eq!(asked.load(SeqCst), 30);
    // The root did not ask all of them itself.
    assert!(crowd[0].status().peers.iter().filter(|peer| peer.calls > 0).count() <= 10);
}

#[tokio::test]
async fn the_part_of_a_peer_that_is_gone_is_asked_all_the_same() {
    let asked = Arc::new(AtomicUsize::new(0));
    let crowd = crowd(30, &asked).await;
    let peers: Vec<Peer> = crowd.iter().map(Endpoint::local).collect();
    // The first of the second and third part.
    for gone in [4, 8] {
        crowd[gone].close().await;
    }
    let outcomes = crowd[0].broadcast(&peers, ECHO, Priority::Control, message(b"x"), SOON).await;
    assert_eq!(outcomes.len(), 30);
    for (at, (peer, outcome)) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(reply) => assert_eq!(reply, message(&[b'x', peer.node.0 as u8])),
            Err(Error::Unreachable { .. }) => assert!([4, 8].contains(&at), "{peer} was there"),
            Err(other) => panic!("{peer}: {other}"),
        }
    }
}
