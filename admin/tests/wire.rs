//! Whatever the bytes are, decoding them is an answer or an error.

use admin::wire::{Answer, Ask, ChangeWanted, Request, State, Transition, TransitionsWanted, Why, Wish};
use proptest::prelude::*;
use prost::Message;

proptest! {
    #[test]
    fn any_bytes_are_a_request_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Request::decode(&bytes[..]);
        let _ = Transition::decode(&bytes[..]);
        if let Ok(answer) = Answer::decode(&bytes[..]) {
            use_all(&answer);
        }
    }

    #[test]
    fn a_damaged_answer_is_an_answer_or_an_error(at in 0usize..200, bit in 0u32..8, cut in 0usize..200) {
        let mut bytes = sample().encode_to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        bytes.truncate(cut.max(1).min(bytes.len()));
        if let Ok(answer) = Answer::decode(&bytes[..]) {
            use_all(&answer);
        }
    }

    #[test]
    fn a_question_of_the_future_decodes_to_none(tag in 100u32..1000, bytes in prop::collection::vec(any::<u8>(), 0..50)) {
        let mut frame = Vec::new();
        prost::encoding::bytes::encode(tag, &bytes, &mut frame);
        prop_assert_eq!(Request::decode(&frame[..]).unwrap().ask, None);
    }
}

/// What the API does with an answer that came.
fn use_all(answer: &Answer) {
    for transition in &answer.transitions {
        for change in admin::api::changes(transition) {
            let _ = (change.id.to_string(), change.is_simple(), change.from.name(), change.cause.name());
        }
    }
    let view = answer.view.clone().unwrap_or_default();
    let _ = (view.regions(), view.find("1"), view.nodes.iter().map(admin::api::state_of).count());
}

fn sample() -> Answer {
    use admin::wire::{Cause, Change, Node, View};
    let node = Node { id: 3, name: "node3".into(), incarnation: 7, draining: true, ..Node::default() };
    let change = Change {
        node: 3,
        from: State::Up as i32,
        to: State::Shutdown as i32,
        cause: Cause::Drained as i32,
        text: "x".into(),
    };
    Answer {
        view: Some(View {
            epoch: 9,
            cluster: "blue".into(),
            master: 1,
            nodes: vec![node],
            ..View::default()
        }),
        transitions: vec![Transition { number: 9, at_ms: 1, changes: vec![change] }],
        why: Why::TooOld as i32,
        error: "too old".into(),
        ..Answer::default()
    }
}

#[test]
fn what_is_written_is_read_back() {
    let answer = sample();
    assert_eq!(Answer::decode(&answer.encode_to_vec()[..]).unwrap(), answer);
    for ask in [
        Ask::Nodes(()),
        Ask::Transitions(TransitionsWanted { after: 5, max: 1, wait_ms: 9, before: 0 }),
        Ask::Change(ChangeWanted { wish: Some(Wish::Voters(5)) }),
    ] {
        let request = Request { ask: Some(ask) };
        assert_eq!(Request::decode(&request.encode_to_vec()[..]).unwrap(), request);
    }
}

#[test]
fn states_are_known_by_their_names() {
    for state in (0..=10).map(|n| State::try_from(n).unwrap()) {
        assert_eq!(State::of_name(&state.name().to_lowercase()), Some(state));
    }
    assert_eq!(State::of_name("upp"), None);
}
