//! The session as a pure core: no byte twice, none lost, no end told twice, whatever a daemon's restart sends again.

use super::*;
use proptest::prelude::*;

fn running() -> Session {
    let mut session = Session::new(7);
    session.spawn(NodeId(2), TaskSpec::default()).unwrap();
    let started = Started { pid: 32_768, start_time: 1, node: 2 };
    let (news, _) = session.receive(ToClient { index: 0, event: Some(Event::Started(started)) }).unwrap();
    assert_eq!(news.len(), 1);
    session
}

fn output(offset: u64, data: &[u8], end: bool) -> ToClient {
    ToClient { index: 0, event: Some(Event::Output(Piece { stream: 1, offset, data: data.to_vec(), end })) }
}

fn bytes(events: &[TaskEvent]) -> Vec<u8> {
    let mut all = Vec::new();
    for event in events {
        if let News::Output { data, .. } = &event.news {
            all.extend(data);
        }
    }
    all
}

#[test]
fn output_that_comes_again_is_told_once() {
    let mut session = running();
    assert_eq!(bytes(&session.receive(output(0, b"hello ", false)).unwrap().0), b"hello ");
    assert_eq!(bytes(&session.receive(output(0, b"hello wor", false)).unwrap().0), b"wor");
    let (events, answer) = session.receive(output(6, b"world", true)).unwrap();
    assert_eq!(bytes(&events), b"ld");
    assert_eq!(events.last().unwrap().news, News::OutputEnd { stream: 1 });
    assert_eq!(answer, Some(ask(0, Request::Acknowledge(Mark { stream: 1, offset: 0 }))));
    assert!(session.receive(output(6, b"world", true)).unwrap().0.is_empty());
    let last = session.written(0, 1, 11).unwrap();
    assert_eq!(last, ask(0, Request::Acknowledge(Mark { stream: 1, offset: 12 })));
}

#[test]
fn a_gap_breaks_the_connection_and_resume_says_where() {
    let mut session = running();
    session.receive(output(0, b"abc", false)).unwrap();
    assert!(session.receive(output(5, b"x", false)).unwrap_err().contains("3..5"));
    let [message] = &session.resume()[..] else { panic!("one task, one message") };
    let Some(Request::Resume(resume)) = &message.request else { panic!("{message:?}") };
    assert_eq!((resume.node, resume.pid), (2, 32_768));
    assert_eq!(resume.received, [Mark { stream: 1, offset: 3 }]);
}

#[test]
fn a_task_not_known_to_run_is_asked_for_again() {
    let mut session = Session::new(7);
    let spec = TaskSpec { argv: vec![b"true".to_vec()], ..TaskSpec::default() };
    let (_, first) = session.spawn(NodeId(3), spec).unwrap();
    assert_eq!(session.resume(), [first]);
}

#[test]
fn input_is_kept_until_accepted_and_never_beyond_the_window() {
    let mut session = running();
    let (taken, pieces) = session.input(0, 0, &vec![1; STREAM_WINDOW_BYTES + 5]);
    assert_eq!(taken, STREAM_WINDOW_BYTES);
    assert_eq!(pieces.len(), STREAM_WINDOW_BYTES / STREAM_CHUNK_BYTES);
    assert_eq!(session.input_room(0, 0), 0);
    let accepted = Event::Accepted(Mark { stream: 0, offset: 100 });
    let accepted = ToClient { index: 0, event: Some(accepted) };
    let room = TaskEvent { index: 0, news: News::InputRoom { stream: 0 } };
    assert_eq!(session.receive(accepted.clone()).unwrap().0, [room], "whoever waits for room hears of it");
    assert!(session.receive(accepted).unwrap().0.is_empty());
    assert_eq!(session.input_room(0, 0), 100);
    session.end_input(0, 0);
    let again = session.resume();
    let Some(Request::Input(piece)) = &again[1].request else { panic!("{:?}", again[1]) };
    assert_eq!(piece.offset, 100);
    let Some(Request::Input(last)) = &again.last().unwrap().request else { panic!() };
    assert!(last.end);
}

#[test]
fn an_end_is_told_once_and_a_forgotten_task_is_silent() {
    let mut session = running();
    let end = ToClient { index: 0, event: Some(Event::Changed(Change { ended: true, ..Change::default() })) };
    assert_eq!(session.receive(end.clone()).unwrap().0.len(), 1);
    assert_eq!(session.receive(end.clone()).unwrap().0.len(), 0);
    assert!(session.forget(0).is_some());
    assert!(session.forget(0).is_none());
    assert!(session.receive(end).unwrap().0.is_empty());
    assert!(session.resume().is_empty());
}

#[test]
fn more_tasks_than_allowed_are_refused() {
    let mut session = Session::new(1);
    for _ in 0..TASKS_PER_CLIENT_MAX {
        session.spawn(NodeId(1), TaskSpec::default()).unwrap();
    }
    assert!(matches!(session.spawn(NodeId(1), TaskSpec::default()), Err(Error::TooMany { .. })));
}

proptest! {
    #[test]
    fn any_resending_gives_the_same_bytes(total in 1usize..400, cuts in prop::collection::vec((0usize..400, 1usize..80), 1..60)) {
        let stream: Vec<u8> = (0..total).map(|n| n as u8).collect();
        let mut session = running();
        let mut got = Vec::new();
        for (from, length) in cuts {
            let from = from.min(got.len());
            let to = (from + length).min(total);
            let (events, _) = session.receive(output(from as u64, &stream[from..to], to == total)).unwrap();
            got.extend(bytes(&events));
        }
        prop_assert_eq!(&got[..], &stream[..got.len()]);
    }

    #[test]
    fn no_event_of_any_shape_breaks_the_session(stream in 0u32..5, offset in any::<u64>(), data in prop::collection::vec(any::<u8>(), 0..20), end in any::<bool>(), mark in any::<u64>()) {
        let mut session = running();
        session.input(0, 0, b"abc");
        let offset = offset % (u64::MAX - 100);
        let _ = session.receive(ToClient { index: 0, event: Some(Event::Output(Piece { stream, offset, data, end })) });
        let _ = session.receive(ToClient { index: 0, event: Some(Event::Accepted(Mark { stream: 0, offset: mark })) });
        let _ = session.receive(ToClient { index: 9, event: None });
    }
}
