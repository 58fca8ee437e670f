//! The handshake, end against end, without a socket.

use super::*;
use crate::Role;
use crate::setup::VERSION_MAX;
use base::NodeId;
use proptest::prelude::*;

fn identity(node: u32, key: u8, cluster: &str) -> Identity {
    let local = Peer { node: NodeId(node), role: Role::Control };
    Identity { local, keys: Keys::one(ClusterKey::from_bytes([key; 32])), cluster: cluster.into() }
}

fn open(_: Peer) -> Open {
    Open { session: 5, ..Open::default() }
}

/// Runs both ends, delivering at most `cut` bytes at a time.
fn meet(
    ours: &Identity,
    theirs: &Identity,
    cut: usize,
) -> Result<(Dialled, Opened), (&'static str, Refusal)> {
    let (mut dialling, mut to_them) = Dialling::begin(ours);
    let (mut accepting, mut to_us) = (Accepting::default(), Vec::new());
    let (mut their_input, mut our_input) = (Vec::new(), Vec::new());
    let mut opened = None;
    for _ in 0..10_000 {
        let taken = cut.min(to_them.len());
        their_input.extend(to_them.drain(..taken));
        if opened.is_none() {
            match accepting.advance(&mut their_input, theirs).map_err(|why| ("accepting", why))? {
                Step::More => {}
                Step::Send(bytes) => to_us.extend(bytes),
                Step::Done(done) => {
                    to_us.extend(done.welcome(&Welcome { resumed: true, ..Welcome::default() }));
                    opened = Some(done);
                }
            }
        }
        let taken = cut.min(to_us.len());
        our_input.extend(to_us.drain(..taken));
        match dialling.advance(&mut our_input, &open).map_err(|why| ("dialling", why))? {
            Step::More => {}
            Step::Send(bytes) => to_them.extend(bytes),
            Step::Done(dialled) => return Ok((dialled, opened.unwrap())),
        }
    }
    panic!("the handshake does not end");
}

#[test]
fn each_end_learns_who_the_other_is_and_what_he_wants() {
    for cut in [1, 7, 1_000] {
        let (dialled, opened) = meet(&identity(1, 7, "c"), &identity(2, 7, "c"), cut).unwrap();
        assert_eq!((dialled.peer.node, opened.peer.node), (NodeId(2), NodeId(1)));
        assert_eq!((dialled.version, opened.version), (VERSION_MAX, VERSION_MAX));
        assert!(dialled.welcome.resumed && opened.open.session == 5);
        assert_eq!((dialled.keys.send, dialled.keys.receive), (opened.keys.receive, opened.keys.send));
        assert_ne!(dialled.keys.send, dialled.keys.receive);
    }
}

#[test]
fn another_key_or_cluster_is_refused() {
    let refused = |ours, theirs| meet(&ours, &theirs, 1_000).map(|_| ()).unwrap_err();
    assert_eq!(refused(identity(1, 7, "c"), identity(2, 8, "c")), ("accepting", Refusal::WrongKey));
    assert_eq!(refused(identity(1, 7, "c"), identity(2, 7, "d")), ("accepting", Refusal::WrongCluster));
}

#[test]
fn a_joining_key_lets_newcomers_in_and_nobody_else() {
    let mut theirs = identity(2, 8, "c");
    theirs.keys.joining.push(ClusterKey::from_bytes([7; 32]));
    let newcomer = NEWCOMER.0;
    assert_eq!(meet(&identity(newcomer, 7, "c"), &theirs, 1_000).unwrap().1.peer.node, NEWCOMER);
    for (name, key) in [(0, 7), (1, 7), (3, 7), (newcomer, 8), (newcomer, 9)] {
        let refused = meet(&identity(name, key, "c"), &theirs, 1_000).map(|_| ()).unwrap_err();
        assert_eq!(refused, ("accepting", Refusal::WrongKey), "{name} with key {key}");
    }
}

#[test]
fn while_the_key_changes_both_keys_are_taken() {
    let mut theirs = identity(2, 8, "c");
    theirs.keys.also.push(ClusterKey::from_bytes([7; 32]));
    meet(&identity(1, 7, "c"), &theirs, 1_000).unwrap();
    meet(&identity(1, 8, "c"), &theirs, 1_000).unwrap();
    assert!(meet(&identity(1, 9, "c"), &theirs, 1_000).is_err());
}

#[test]
fn a_recorded_dialling_end_gets_no_further_than_the_answer() {
    let theirs = identity(2, 7, "c");
    let (mut dialling, first) = Dialling::begin(&identity(1, 7, "c"));
    let mut replies = Vec::new();
    for _ in 0..2 {
        let mut accepting = Accepting::default();
        let Ok(Step::Send(reply)) = accepting.advance(&mut first.clone(), &theirs) else {
            panic!("no answer")
        };
        replies.push((accepting, reply));
    }
    let Ok(Step::Send(third)) = dialling.advance(&mut replies[0].1.clone(), &open) else {
        panic!("no third message")
    };
    assert!(matches!(replies[0].0.advance(&mut third.clone(), &theirs), Ok(Step::Done(_))));
    assert_eq!(replies[1].0.advance(&mut third.clone(), &theirs).unwrap_err(), Refusal::Garbage);
}

#[test]
fn who_lowers_the_version_on_the_way_spoils_the_handshake() {
    let theirs = identity(2, 7, "c");
    let (_, mut first) = Dialling::begin(&identity(1, 7, "c"));
    first[10] = 2;
    assert_eq!(Accepting::default().advance(&mut first, &theirs).unwrap_err(), Refusal::WrongKey);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_get_through_or_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), flip in any::<prop::sample::Index>(), bit in 0u8..8) {
        let theirs = identity(2, 7, "c");
        let done = |step| matches!(step, Ok(Step::Done(_)));
        prop_assert!(!done(Accepting::default().advance(&mut bytes.clone(), &theirs)));
        let (mut dialling, mut first) = Dialling::begin(&identity(1, 7, "c"));
        let mut answer = bytes.clone();
        prop_assert!(!matches!(dialling.advance(&mut answer, &open), Ok(Step::Done(_))));
        let at = flip.index(first.len());
        first[at] ^= 1 << bit;
        prop_assert!(Accepting::default().advance(&mut first, &theirs).is_err());
    }
}
