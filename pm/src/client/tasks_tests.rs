//! Against a fake `ssid`: a thread that follows a script on a Unix socket.

use super::*;
use crate::client::News;
use crate::wire::client::{Event, Request, ToClient};
use crate::wire::{Change, Mark, Piece, Started};
use base::{FrameReader, ServiceHello, encode_frame};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

/// The fake's end of one connection.
struct Daemon {
    stream: UnixStream,
    frames: FrameReader,
}

impl Daemon {
    fn accept(listener: &UnixListener) -> Daemon {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut daemon = Daemon { stream, frames: FrameReader::default() };
        let hello: ServiceHello = daemon.read();
        assert_eq!(hello, ServiceHello { service: "tasks".to_owned(), version: 1 });
        daemon
    }

    fn read<M: prost::Message + Default>(&mut self) -> M {
        loop {
            if let Some(message) = self.frames.next().unwrap() {
                return message;
            }
            let mut buffer = [0; 4096];
            let length = self.stream.read(&mut buffer).unwrap();
            assert_ne!(length, 0, "the client hung up");
            self.frames.push(&buffer[..length]);
        }
    }

    fn request(&mut self) -> Request {
        self.read::<ToDaemon>().request.unwrap()
    }

    fn tell(&mut self, event: Event) {
        self.stream.write_all(&encode_frame(&ToClient { index: 0, event: Some(event) })).unwrap();
    }
}

fn output(offset: usize, data: &[u8], end: bool) -> Event {
    Event::Output(Piece { stream: 1, offset: offset as u64, data: data.to_vec(), end })
}

fn started() -> Event {
    Event::Started(Started { pid: 40_000, start_time: 1, node: 2 })
}

fn exited(code: u32) -> Event {
    Event::Changed(Change { wait_status: code << 8, ended: true, ..Change::default() })
}

fn spec() -> TaskSpec {
    TaskSpec { argv: vec![b"true".to_vec()], ..TaskSpec::default() }
}

#[test]
fn a_restart_in_the_middle_of_output_loses_and_doubles_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let text: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
    let sent = text.clone();
    let daemon_path = path.clone();
    let daemon = std::thread::spawn(move || {
        let mut first = Daemon::accept(&listener);
        let Request::Hello(hello) = first.request() else { panic!() };
        assert!(!hello.again);
        assert!(matches!(first.request(), Request::Spawn(spawn) if spawn.node == 2));
        first.tell(started());
        first.tell(output(0, &sent[..90_000], false));
        first.request();
        drop(first);
        drop(listener);
        std::fs::remove_file(&daemon_path).unwrap();
        // Only now: the client meets ENOENT at least until here.
        let listener = UnixListener::bind(&daemon_path).unwrap();
        let mut second = Daemon::accept(&listener);
        let Request::Hello(again) = second.request() else { panic!() };
        assert_eq!((again.session, again.again), (hello.session, true));
        let Request::Resume(resume) = second.request() else { panic!() };
        assert_eq!((resume.node, resume.pid), (2, 40_000));
        assert_eq!(resume.received, [Mark { stream: 1, offset: 90_000 }]);
        second.tell(output(50_000, &sent[50_000..150_000], false));
        second.tell(output(150_000, &sent[150_000..], true));
        second.tell(exited(3));
        let mut acknowledged = 0;
        loop {
            match second.request() {
                Request::Acknowledge(mark) => acknowledged = mark.offset,
                Request::Forget(()) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(acknowledged, sent.len() as u64 + 1);
    });
    let (got, code) = run_to_end(&path);
    daemon.join().unwrap();
    assert!(got == text, "the bytes differ");
    assert_eq!(code, 3 << 8);
}

fn run_to_end(path: &Path) -> (Vec<u8>, u32) {
    let mut tasks = Tasks::open(path).unwrap();
    let index = tasks.spawn(NodeId(2), spec()).unwrap();
    let mut got = Vec::new();
    loop {
        let events = tasks.wait(&mut [], Some(Duration::from_secs(10))).unwrap();
        assert!(!events.is_empty(), "nothing happens");
        for event in events {
            match event.news {
                News::Output { stream, data } => {
                    got.extend_from_slice(&data);
                    tasks.written(index, stream, data.len());
                }
                News::Changed(change) => {
                    tasks.forget(index);
                    tasks.flush(Duration::from_secs(5));
                    return (got, change.wait_status);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn input_that_was_not_accepted_and_held_signals_go_to_the_next_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let daemon = std::thread::spawn(move || {
        let mut first = Daemon::accept(&listener);
        first.request();
        first.request();
        first.tell(started());
        assert!(matches!(first.request(), Request::Input(piece) if piece.data == b"hello"));
        first.tell(Event::Accepted(Mark { stream: 0, offset: 2 }));
        drop(first);
        let mut second = Daemon::accept(&listener);
        second.request();
        assert!(matches!(second.request(), Request::Resume(_)));
        assert!(
            matches!(second.request(), Request::Input(piece) if piece.data == b"llo" && piece.offset == 2)
        );
        second.tell(exited(0));
        second.request();
    });
    let mut tasks = Tasks::open(&path).unwrap();
    tasks.spawn(NodeId(2), spec()).unwrap();
    tasks.wait(&mut [], Some(Duration::from_secs(10))).unwrap();
    assert_eq!(tasks.input(0, 0, b"hello"), 5);
    let events = tasks.wait(&mut [], Some(Duration::from_secs(10))).unwrap();
    assert!(matches!(&events[0].news, News::Changed(change) if change.ended));
    tasks.forget(0);
    tasks.flush(Duration::from_secs(5));
    daemon.join().unwrap();
}

#[test]
fn without_a_daemon_the_error_says_so_and_where() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nobody.sock");
    // The whole grace time would pass: shortened by a link that broke long ago.
    let link =
        Link::Down { grace_end: Instant::now(), next_attempt: Instant::now(), why: "refused".to_owned() };
    let mut tasks = Tasks { path: path.clone(), session: Session::new(1), link, held: Vec::new() };
    let error = tasks.wait(&mut [], None).unwrap_err().to_string();
    assert!(
        error.starts_with("ssid on this node does not answer") && error.contains("nobody.sock"),
        "{error}"
    );
}

#[test]
fn garbage_from_the_daemon_breaks_the_connection_not_the_client() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let daemon = std::thread::spawn(move || {
        let mut first = Daemon::accept(&listener);
        first.stream.write_all(&[0xff; 64]).unwrap();
        let mut second = Daemon::accept(&listener);
        second.request();
        second.request();
        second.tell(started());
        second.tell(exited(0));
        second.request();
    });
    assert_eq!(run_to_end(&path), (Vec::new(), 0));
    daemon.join().unwrap();
}

#[test]
fn other_descriptors_wake_the_wait() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let mut tasks = Tasks::open(&path).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"x").unwrap();
    let mut watches = [Watch::new(reader.as_fd(), PollFlags::IN)];
    assert!(tasks.wait(&mut watches, Some(Duration::from_secs(10))).unwrap().is_empty());
    assert!(watches[0].is_ready());
}
