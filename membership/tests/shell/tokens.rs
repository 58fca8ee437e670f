//! Machines that come with a token, and those who try something else with it.

use super::*;
use fabric::{Keys, Message, NEWCOMER, Priority, service};
use membership::token::{Ticket, TicketId, Token};
use membership::{Act, Command};
use prost::Message as _;

async fn newcomer(token: &Token) -> Endpoint {
    let local = Peer { node: NEWCOMER, role: Role::Control };
    Endpoint::bind(fabric::Config::new(local, LOCALHOST, token.key.clone(), CLUSTER.to_string()))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_a_token_joins_once_and_can_do_nothing_else() {
    use membership::talk::{Answer, Ask, Change, Newer, Replace, Request, Say};
    let (dir, watchers) = (tempfile::tempdir().unwrap(), Watchers::default());
    let one = start(1, 10, dir.path(), None, &watchers).await;
    wait_for(&one.handle, "up alone", |view| states(view) == [NodeState::Up]).await;
    let token = one.handle.token_create(Duration::from_secs(600), 1).await.unwrap();
    let joining = one.handle.view().tickets.keys(&ClusterKey::from_bytes(KEY), token.expires - 1);
    one.endpoint.set_keys(Keys { joining, ..Keys::one(ClusterKey::from_bytes(KEY)) });
    let (machine, seed) = (newcomer(&token).await, one.endpoint.address());

    let change = |act| {
        let command = Some(Command { at_ms: 0, act: Some(act) });
        Ask::Change(Change { command, session: 7, forwarded: false })
    };
    let address = |port| SocketAddr::new(LOCALHOST.ip(), port);
    let asks = [
        Ask::Newer(Newer { than: 0 }),
        Ask::Replace(Replace { old: 1, new: 1 }),
        Ask::Log(vec![1, 2, 3].into()),
        change(Act::Join(row(2, 0, address(1), address(2)))),
        change(Act::Remove(1)),
        change(Act::WantVoters(5)),
        change(Act::Ticket(Ticket::new(TicketId([9; 16]), token.expires, 9))),
    ];
    for ask in asks {
        for sender in [NEWCOMER.0, 0, 1] {
            let request = Request { sender, incarnation: 10, epoch: 0, ask: Some(ask.clone()) };
            let message = Message { head: request.encode_to_vec().into(), ..Message::default() };
            let call = machine.call_address(seed, service::MEMBERSHIP, Priority::Control, message, PATIENCE);
            let say = Answer::decode(call.await.unwrap().head).unwrap().say;
            assert!(
                matches!(&say, Some(Say::Refused(why)) if why.contains("nothing else")),
                "{ask:?}: {say:?}"
            );
        }
    }
    assert_eq!(one.handle.view().nodes.len(), 1);

    let entered = membership::enter(&machine, &token, &row(0, 0, address(1), address(2)), PATIENCE).await;
    let entered = entered.unwrap();
    assert_eq!((entered.node, entered.key), (NodeId(2), ClusterKey::from_bytes(KEY)));
    let again = membership::enter(&machine, &token, &row(0, 0, address(3), address(4)), PATIENCE).await;
    assert!(matches!(&again, Err(Error::Refused(why)) if why.contains("used already")), "{again:?}");
    // While the key changes nobody comes in, and no token is made.
    one.handle.set_heartbeat_keys(vec![KEY, [4; 32]]);
    let refused = one.handle.token_create(Duration::from_secs(600), 1).await;
    assert!(matches!(&refused, Err(Error::Refused(why)) if why.contains("being changed")), "{refused:?}");
    machine.close().await;
    one.kill().await;
}

#[tokio::test]
async fn a_machine_that_reaches_no_member_is_told_all_addresses_that_were_tried() {
    // Ports that were free a moment ago, and are held by nobody who listens.
    let held = [0, 1].map(|_| UdpSocket::bind(LOCALHOST).unwrap());
    let seeds = held.each_ref().map(|socket| socket.local_addr().unwrap());
    let ticket = Ticket::new(TicketId([1; 16]), u64::MAX, 1);
    let token = Token::new(&ClusterKey::from_bytes(KEY), &ticket, CLUSTER, &seeds).unwrap();
    let machine = newcomer(&token).await;
    let wanted = row(0, 0, seeds[0], seeds[1]);
    let error = membership::enter(&machine, &token, &wanted, Duration::from_millis(600)).await.unwrap_err();
    let text = error.to_string();
    assert!(seeds.iter().all(|seed| text.contains(&seed.to_string())), "{text}");
    machine.close().await;
}
