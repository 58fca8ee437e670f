//! Keys that change under a running cluster, and ends that want different protection.

use crate::world::{ECHO, SOON, World, ask, eventually, message, on_every_provider, peer, service};
use fabric::{ClusterKey, Endpoint, Error, Keys, Priority, Refusal, Security};
use std::sync::Arc;

on_every_provider!(a_key_is_changed_without_a_pause);

mod protection {
    use super::the_stricter_end_decides;
    crate::world::on_grounds!([tcp, driven][the_stricter_end_decides]);
}

fn key(seed: u8) -> ClusterKey {
    ClusterKey::from_bytes([seed; 32])
}

async fn fresh(world: &World, current: u8, also: &[u8], server: &Endpoint) -> Result<(), Error> {
    let caller = world.endpoint(9).await;
    caller.set_keys(Keys {
        current: key(current),
        also: also.iter().copied().map(key).collect(),
        joining: Vec::new(),
    });
    caller.set_address(peer(2), server.address());
    let outcome = caller.call(peer(2), ECHO, Priority::Meta, message(b"new here"), SOON).await;
    caller.close().await;
    outcome.map(|_| ())
}

async fn a_key_is_changed_without_a_pause(world: World) {
    let (caller, server) = world.pair().await;
    // First everybody takes the new key, then everybody proves it, then the old one is forgotten.
    for endpoint in [&caller, &server] {
        endpoint.set_keys(Keys { current: key(7), also: vec![key(8)], joining: Vec::new() });
    }
    ask(&caller, b"both are good").await.unwrap();
    fresh(&world, 7, &[8], &server).await.unwrap();
    fresh(&world, 8, &[7], &server).await.unwrap();
    for endpoint in [&server, &caller] {
        endpoint.set_keys(Keys { current: key(8), also: vec![key(7)], joining: Vec::new() });
        ask(&caller, b"the new one is proved").await.unwrap();
    }
    fresh(&world, 7, &[8], &server).await.unwrap();
    for endpoint in [&caller, &server] {
        endpoint.set_keys(Keys::one(key(8)));
        ask(&caller, b"the old one is worth nothing").await.unwrap();
    }
    fresh(&world, 8, &[], &server).await.unwrap();
    let outcome = fresh(&world, 7, &[8], &server).await;
    assert!(matches!(outcome, Err(Error::Refused { why: Refusal::WrongKey, .. })), "{outcome:?}");
    eventually("it is counted", || server.status().refused.wrong_key > 0).await;
}

/// What a wire between the two shows of a call.
async fn overheard(world: &World, caller: Security, server: Security) -> bool {
    let secret = b"a secret that is long enough to be found";
    let (mut ours, mut theirs) = (world.config(1), world.config(2));
    (ours.security, theirs.security) = (caller, server);
    let (caller, server) = (world.bind(ours).await, world.bind(theirs).await);
    server.serve(ECHO, service(|_, request| async move { request }));
    let relay = crate::relay::Relay::to(server.address(), 3).await;
    let heard: Arc<_> = relay.listen();
    caller.set_address(peer(2), relay.address);
    assert_eq!(ask(&caller, secret).await.unwrap(), message(secret));
    let heard = heard.lock();
    heard.windows(secret.len()).any(|bytes| bytes == secret)
}

async fn the_stricter_end_decides(world: World) {
    let (open, sealed) = (Security::Authenticated, Security::Encrypted);
    assert!(overheard(&world, open, open).await);
    for (caller, server) in [(open, sealed), (sealed, open), (sealed, sealed)] {
        assert!(!overheard(&world, caller, server).await, "{caller:?} with {server:?}");
    }
}
