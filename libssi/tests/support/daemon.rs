//! A daemon that is none: it answers a program's questions from a table and a list of transitions that the test keeps.

use admin::wire::{
    Answer, Ask, Cause, Change, ChangeWanted, Node, NodeState, Request, State, TRANSITIONS_MAX, Transition,
    TransitionsWanted, View, Why, Wish,
};
use base::codec::ServiceHello;
use base::{FrameReader, encode_frame};
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// The oldest transition that it keeps.
const OLDEST: u64 = 3;

/// What it knows, and what was asked of it.
#[derive(Default)]
struct Known {
    steps: Vec<Transition>,
    wishes: Vec<String>,
    /// Connections, to be cut.
    open: Vec<UnixStream>,
    waiters: usize,
}

/// A node's state directory with a daemon in it.
pub struct Daemon {
    dir: tempfile::TempDir,
    known: Arc<(Mutex<Known>, Condvar)>,
}

impl Daemon {
    /// A state directory whose daemon is away.
    pub fn away() -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("node.toml"), "").unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        let known = Known { steps: first_steps(), ..Known::default() };
        Daemon { dir, known: Arc::new((Mutex::new(known), Condvar::new())) }
    }

    /// One that answers.
    pub fn start() -> Daemon {
        let daemon = Daemon::away();
        daemon.listen();
        daemon
    }

    /// Begins to answer.
    pub fn listen(&self) {
        let listener = UnixListener::bind(self.dir.path().join("run/admin.sock")).unwrap();
        let known = Arc::clone(&self.known);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                known.0.lock().unwrap().open.push(stream.try_clone().unwrap());
                let known = Arc::clone(&known);
                std::thread::spawn(move || converse(stream, &known));
            }
        });
    }

    /// Cuts every connection; nobody finds the socket any more.
    pub fn vanish(&self) {
        std::fs::remove_file(self.dir.path().join("run/admin.sock")).unwrap();
        for stream in self.known.0.lock().unwrap().open.drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// What `SSI_DIR` is to be.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Has a transition happen.
    pub fn push(&self, changes: Vec<Change>) {
        let mut known = self.known.0.lock().unwrap();
        let number = known.steps.last().unwrap().number + 1;
        known.steps.push(Transition { number, at_ms: number * 1_000, changes });
        self.known.1.notify_all();
    }

    /// Waits until somebody waits for a transition.
    pub fn wait_for_a_waiter(&self) {
        let limit = Duration::from_secs(20);
        let known = self.known.0.lock().unwrap();
        let (known, ended) =
            self.known.1.wait_timeout_while(known, limit, |known| known.waiters == 0).unwrap();
        assert!(!ended.timed_out(), "nobody waits");
        drop(known);
    }

    /// What was asked for.
    pub fn wishes(&self) -> Vec<String> {
        self.known.0.lock().unwrap().wishes.clone()
    }
}

/// A change of a node's state.
pub fn change(node: u32, from: State, to: State, cause: Cause) -> Change {
    Change { node, from: from as i32, to: to as i32, cause: cause as i32, text: format!("text {node}") }
}

fn first_steps() -> Vec<Transition> {
    let one = |number, changes| Transition { number, at_ms: number * 1_000, changes };
    vec![
        one(3, vec![change(3, State::NeverUp, State::Up, Cause::Started)]),
        one(4, vec![change(3, State::Up, State::Stalled, Cause::Stalled)]),
        one(5, vec![change(0, State::None, State::None, Cause::Voters)]),
        one(
            6,
            vec![
                change(3, State::Stalled, State::Down, Cause::Failed),
                change(5, State::Down, State::Up, Cause::Started),
            ],
        ),
        one(7, vec![change(5, State::Up, State::Shutdown, Cause::Drained)]),
    ]
}

fn view(epoch: u64) -> View {
    let node = |id: u32, name: &str, state: NodeState, incarnation: u64| Node {
        id,
        name: name.into(),
        control_address: format!("10.0.0.{id}:7100"),
        cpus: 8,
        memory_bytes: 1 << 34,
        speed: 100,
        state: state as i32,
        incarnation,
        voter: id <= 2,
        draining: id == 5,
        ..Node::default()
    };
    let nodes = vec![
        node(1, "one", NodeState::Up, 3),
        node(2, "two", NodeState::Up, 5),
        node(3, "three", NodeState::Down, 4),
        node(4, "four", NodeState::Down, 0),
        node(5, "five", NodeState::Up, 9),
    ];
    View { epoch, cluster: "blue".into(), master: 1, nodes, pid_region: 16_384, ..View::default() }
}

fn converse(mut stream: UnixStream, known: &(Mutex<Known>, Condvar)) {
    let mut reader = FrameReader::default();
    let Some(hello) = next::<ServiceHello>(&mut stream, &mut reader) else { return };
    assert_eq!(hello.service, "admin");
    while let Some(request) = next::<Request>(&mut stream, &mut reader) {
        let answer = answer(request.ask.unwrap(), known);
        if stream.write_all(&encode_frame(&answer)).is_err() {
            return;
        }
    }
}

fn next<M: prost::Message + Default>(stream: &mut impl Read, reader: &mut FrameReader) -> Option<M> {
    loop {
        if let Some(message) = reader.next().unwrap() {
            return Some(message);
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(0) => return None,
            Ok(n) => reader.push(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

fn answer(ask: Ask, known: &(Mutex<Known>, Condvar)) -> Answer {
    match ask {
        Ask::Nodes(()) => {
            let epoch = known.0.lock().unwrap().steps.last().unwrap().number;
            Answer { view: Some(view(epoch)), local: 2, quorum: true, ..Answer::default() }
        }
        Ask::Transitions(wanted) => transitions(wanted, known),
        Ask::Change(ChangeWanted { wish: Some(Wish::Drain(wish)) }) if wish.node == 2 => {
            Answer { error: "not yours".into(), why: Why::NotPermitted as i32, ..Answer::default() }
        }
        Ask::Change(_) | Ask::Stop(()) => {
            known.0.lock().unwrap().wishes.push(format!("{ask:?}"));
            Answer::default()
        }
        other => panic!("nobody asks {other:?}"),
    }
}

fn transitions(wanted: TransitionsWanted, known: &(Mutex<Known>, Condvar)) -> Answer {
    if wanted.after > 0 && wanted.after + 1 < OLDEST {
        return Answer { error: "gone".into(), why: Why::TooOld as i32, ..Answer::default() };
    }
    let until = Instant::now() + Duration::from_millis(wanted.wait_ms.into());
    let mut inner = known.0.lock().unwrap();
    inner.waiters += usize::from(wanted.wait_ms > 100);
    known.1.notify_all();
    // Two at a time, so that a program has to turn pages.
    let steps: Vec<Transition> = loop {
        let all = inner.steps.iter();
        let steps: Vec<Transition> = match wanted.before {
            0 => all.filter(|step| step.number > wanted.after).take(2).cloned().collect(),
            before => {
                let all: Vec<&Transition> = all.filter(|step| step.number < before).collect();
                all[all.len().saturating_sub(2)..].iter().map(|step| (*step).clone()).collect()
            }
        };
        let left = until.saturating_duration_since(Instant::now());
        if !steps.is_empty() || left.is_zero() {
            break steps;
        }
        inner = known.1.wait_timeout(inner, left).unwrap().0;
    };
    inner.waiters -= usize::from(wanted.wait_ms > 100);
    assert!(steps.len() <= TRANSITIONS_MAX as usize);
    Answer { transitions: steps, ..Answer::default() }
}
