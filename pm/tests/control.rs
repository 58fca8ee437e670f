//! Process control over a real fabric: the shells of two nodes, each with a scripted `ssi-init`, on 127.0.0.1.

use base::{FrameReader, NodeId, Pid, PidRegions, encode_frame};
use fabric::{ClusterKey, Endpoint, Peer, Role};
use membership::{Node, NodeState, View};
use pm::link::Link;
use pm::wire::client::{Event, Hello, Request, Resume, Spawn, ToClient, ToDaemon};
use pm::wire::init::{FromInit, Report, Request as Order, TaskState, ToInit, VERSION, Welcome};
use pm::wire::{Change, Mark, Piece, STDIN, STDOUT, Signal, Started, TaskId, TaskSpec};
use pm::{Config, Handle, Pm};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

const LONGEST: Duration = Duration::from_secs(20);
const ESRCH: u32 = libc::ESRCH as u32;
const EPERM: u32 = libc::EPERM as u32;

/// A task of the scripted `ssi-init`: it prints what it is told, and ends when its input ends.
#[derive(Clone, Default)]
struct Cat {
    pid: u32,
    text: Vec<u8>,
    ended: bool,
}

/// A node's `ssi-init`: outlives the connections of daemons.
#[derive(Default)]
struct Init {
    node: u32,
    cats: Mutex<BTreeMap<TaskId, Cat>>,
    signals: Mutex<Vec<Signal>>,
    changed: Condvar,
}

impl Init {
    fn connect(self: &Arc<Self>) -> Link {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let init = self.clone();
        std::thread::spawn(move || init.serve(theirs));
        Link::greet(ours, false).unwrap().0
    }

    fn serve(&self, mut stream: UnixStream) {
        let (mut reader, mut buffer) = (FrameReader::default(), vec![0; 4096]);
        loop {
            while let Some(message) = reader.next::<ToInit>().unwrap() {
                for report in self.answer(message) {
                    if stream.write_all(&encode_frame(&report)).is_err() {
                        return;
                    }
                }
            }
            match stream.read(&mut buffer) {
                Ok(n) if n > 0 => reader.push(&buffer[..n]),
                _ => return,
            }
        }
    }

    fn started(&self, cat: &Cat) -> Started {
        Started { pid: cat.pid, start_time: 1, node: self.node }
    }

    fn answer(&self, message: ToInit) -> Vec<FromInit> {
        let request_id = message.request_id;
        let about = |task, report| FromInit { task, request_id, report: Some(report) };
        let mut cats = self.cats.lock().unwrap();
        let Some(id) = message.task else {
            return match message.request {
                Some(Order::Hello(_)) => {
                    let welcome = Welcome { version: VERSION, ..Welcome::default() };
                    let known = cats.iter().map(|(id, cat)| {
                        let state = TaskState { started: Some(self.started(cat)), ..TaskState::default() };
                        about(Some(*id), Report::Task(state))
                    });
                    std::iter::once(about(None, Report::Welcome(welcome))).chain(known).collect()
                }
                Some(Order::Signal(signal)) => vec![about(None, Report::Errno(self.signal(signal)))],
                _ => vec![],
            };
        };
        let next = self.node * 1024 + cats.len() as u32;
        let reports = match message.request {
            Some(Order::Spawn(_)) => {
                let cat = cats.entry(id).or_insert(Cat { pid: next, ..Cat::default() });
                vec![Report::Started(self.started(cat))]
            }
            Some(Order::Input(piece)) => match cats.get_mut(&id) {
                Some(cat) => cat.read(piece),
                None => vec![],
            },
            Some(Order::Rewind(mark)) if mark.stream == STDOUT => match cats.get(&id) {
                Some(cat) => vec![cat.print(mark.offset as usize)],
                None => vec![],
            },
            Some(Order::Forget(())) => {
                cats.remove(&id);
                self.changed.notify_all();
                vec![]
            }
            _ => vec![],
        };
        reports
            .into_iter()
            .map(|report| FromInit { task: Some(id), request_id: 0, report: Some(report) })
            .collect()
    }

    fn signal(&self, signal: Signal) -> u32 {
        let errno = match signal.target.unsigned_abs() % 1024 {
            7 => 0,
            8 if signal.privileged => 0,
            8 => EPERM,
            _ => ESRCH,
        };
        self.signals.lock().unwrap().push(signal);
        errno
    }

    fn wait_until_forgotten(&self) {
        let cats = self.cats.lock().unwrap();
        let (cats, outcome) =
            self.changed.wait_timeout_while(cats, LONGEST, |cats| !cats.is_empty()).unwrap();
        assert!(!outcome.timed_out(), "{} tasks are left", cats.len());
    }
}

impl Cat {
    fn print(&self, from: usize) -> Report {
        let data = self.text.get(from..).unwrap_or_default().to_vec();
        Report::Output(Piece { stream: STDOUT, offset: from as u64, data, end: self.ended })
    }

    fn read(&mut self, piece: Piece) -> Vec<Report> {
        let from = self.text.len();
        let known = (from - piece.offset as usize).min(piece.data.len());
        self.text.extend(&piece.data[known..]);
        let ends = piece.end && !std::mem::replace(&mut self.ended, piece.end);
        let offset = self.text.len() as u64 + u64::from(self.ended);
        let mut reports = vec![Report::Accepted(Mark { stream: STDIN, offset }), self.print(from)];
        if ends {
            reports.push(Report::Changed(Change { wait_status: 0x300, ended: true, ..Change::default() }));
        }
        reports
    }
}

/// One node: its endpoint, its `ssi-init`, its process control.
struct House {
    node: u32,
    init: Arc<Init>,
    endpoint: Endpoint,
    pm: Handle,
}

impl House {
    async fn start(node: u32, init: Arc<Init>, view: &watch::Sender<Arc<View>>) -> House {
        let local = Peer { node: NodeId(node), role: Role::Control };
        let key = ClusterKey::from_bytes([7; 32]);
        let config = fabric::Config::new(local, "127.0.0.1:0".parse().unwrap(), key, "test");
        let endpoint = Endpoint::bind(config).await.unwrap();
        let link = tokio::task::spawn_blocking({
            let init = init.clone();
            move || init.connect()
        });
        let regions = PidRegions::new(1024).unwrap();
        let config = Config { node: NodeId(node), regions, procfs: None, listener: None, ledger: None };
        let pm = Pm::start(config, endpoint.clone(), link.await.unwrap(), view.subscribe()).unwrap();
        House { node, init, endpoint, pm }
    }

    fn meet(&self, other: &House) {
        let name = |house: &House| Peer { node: NodeId(house.node), role: Role::Control };
        self.endpoint.set_address(name(other), other.endpoint.address());
        other.endpoint.set_address(name(self), self.endpoint.address());
    }

    async fn end(self) {
        self.pm.close();
        self.endpoint.close().await;
    }
}

fn view(epoch: u64, states: &[NodeState]) -> Arc<View> {
    let node = |(n, state): (usize, &NodeState)| {
        let id = n as u32 + 1;
        Node { id, name: format!("n{id}"), state: *state as i32, incarnation: 1, ..Node::default() }
    };
    Arc::new(View { epoch, nodes: states.iter().enumerate().map(node).collect(), ..View::default() })
}

async fn two_houses() -> (House, House, watch::Sender<Arc<View>>) {
    let views = watch::Sender::new(view(1, &[NodeState::Up, NodeState::Up, NodeState::Down]));
    let init = |node| Arc::new(Init { node, ..Init::default() });
    let first = House::start(1, init(1), &views).await;
    let second = House::start(2, init(2), &views).await;
    first.meet(&second);
    (first, second, views)
}

/// A client's end of its connection.
struct Client {
    stream: tokio::net::UnixStream,
    reader: FrameReader,
}

impl Client {
    async fn connect(pm: &Handle, again: bool) -> Client {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        pm.attach_client(theirs, FrameReader::default());
        let mut client = Client { stream: ours, reader: FrameReader::default() };
        client.say(0, vec![Request::Hello(Hello { session: 99, again })]).await;
        client
    }

    async fn say(&mut self, index: u32, requests: Vec<Request>) {
        let frame = |request| encode_frame(&ToDaemon { index, request: Some(request) });
        let frames: Vec<u8> = requests.into_iter().flat_map(frame).collect();
        self.stream.write_all(&frames).await.unwrap();
    }

    async fn hear(&mut self) -> Event {
        let heard = async {
            let mut buffer = vec![0; 4096];
            loop {
                if let Some(ToClient { event, .. }) = self.reader.next().unwrap() {
                    return event.unwrap();
                }
                let n = self.stream.read(&mut buffer).await.unwrap();
                assert_ne!(n, 0, "the connection was closed");
                self.reader.push(&buffer[..n]);
            }
        };
        tokio::time::timeout(LONGEST, heard).await.expect("something is told in time")
    }

    /// Listens until all output was printed and the task has ended.
    async fn hear_out(&mut self, text: &mut Vec<u8>) -> u32 {
        let (mut end, mut status) = (false, None);
        while !end || status.is_none() {
            match self.hear().await {
                Event::Output(piece) => {
                    assert_eq!(piece.offset, text.len() as u64);
                    text.extend(&piece.data);
                    end |= piece.end;
                }
                Event::Changed(change) => status = Some(change.wait_status),
                Event::Started(_) | Event::Accepted(_) => {}
                other => panic!("{other:?}"),
            }
        }
        status.unwrap()
    }
}

fn spawn(node: u32) -> Request {
    let spec = TaskSpec { argv: vec![b"cat".to_vec()], ..TaskSpec::default() };
    Request::Spawn(Spawn { node, spec: Some(spec) })
}

fn input(offset: u64, data: &[u8], end: bool) -> Request {
    Request::Input(Piece { stream: STDIN, offset, data: data.to_vec(), end })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_runs_on_the_other_node_and_on_this_one() {
    let (first, second, _views) = two_houses().await;
    for (index, node) in [(0, 2), (1, 1)] {
        let mut client = Client::connect(&first.pm, false).await;
        client.say(index, vec![spawn(node), input(0, b"hello ", false), input(6, b"world", true)]).await;
        let mut text = Vec::new();
        assert_eq!(client.hear_out(&mut text).await, 0x300);
        assert_eq!(text, b"hello world");
        client.say(index, vec![Request::Forget(())]).await;
        let init = if node == 1 { first.init.clone() } else { second.init.clone() };
        tokio::task::spawn_blocking(move || init.wait_until_forgotten()).await.unwrap();
    }
    assert_eq!((first.pm.counts(), second.pm.counts()), ((0, 0), (0, 0)));
    first.end().await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spawn_on_a_node_that_is_not_there_says_why() {
    let (first, second, _views) = two_houses().await;
    let mut client = Client::connect(&first.pm, false).await;
    for (node, why) in [(9, "node 9: no such node; the cluster has nodes 1-3"), (3, "node 3 (n3) is DOWN")] {
        client.say(node, vec![spawn(node)]).await;
        match client.hear().await {
            Event::Failed(failed) => assert_eq!(failed.what, why),
            other => panic!("{other:?}"),
        }
    }
    first.end().await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_gets_the_errno_of_the_node_where_the_process_runs() {
    let (first, second, views) = two_houses().await;
    let signal =
        |target, privileged| Signal { target, number: 15, privileged, sender: 1030, ..Signal::default() };
    for (target, privileged, errno) in [
        (2048 + 7, false, 0),
        (2048 + 8, false, EPERM),
        (2048 + 8, true, 0),
        (2048 + 9, false, ESRCH),
        (-(2048 + 7), false, 0),
        (3072 + 7, false, ESRCH),
        (9000, false, ESRCH),
        (1024 + 7, false, 0),
    ] {
        assert_eq!(first.pm.kill(signal(target, privileged)).await, errno, "{target} {privileged}");
    }
    assert!(second.init.signals.lock().unwrap().iter().any(|signal| signal.sender == 1030));
    assert_eq!(first.pm.where_pid(Pid(3072 + 7)).await, None, "its node is DOWN");
    views.send_replace(view(2, &[NodeState::Up, NodeState::Down, NodeState::Down]));
    let gone = async { while first.pm.kill(signal(2048 + 7, false)).await != ESRCH {} };
    tokio::time::timeout(LONGEST, gone).await.expect("a node that is DOWN has no processes");
    first.end().await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_daemons_are_restarted_under_a_running_task() {
    let (first, second, views) = two_houses().await;
    let mut client = Client::connect(&first.pm, false).await;
    client.say(0, vec![spawn(2), input(0, b"one ", false)]).await;
    let mut text = Vec::new();
    while text.len() < 4 {
        if let Event::Output(piece) = client.hear().await {
            text.extend(&piece.data);
        }
    }
    client.say(0, vec![Request::Acknowledge(Mark { stream: STDOUT, offset: 4 })]).await;

    let init = second.init.clone();
    second.end().await;
    let second = House::start(2, init, &views).await;
    first.meet(&second);
    client.say(0, vec![input(4, b"two ", false)]).await;
    while text.len() < 8 {
        if let Event::Output(piece) = client.hear().await {
            text.extend(&piece.data[text.len() - piece.offset as usize..]);
        }
    }

    let init = first.init.clone();
    first.end().await;
    let first = House::start(1, init, &views).await;
    first.meet(&second);
    let mut client = Client::connect(&first.pm, true).await;
    let received = vec![Mark { stream: STDOUT, offset: 8 }];
    let resume = Resume { node: 2, received, ..Resume::default() };
    client.say(0, vec![Request::Resume(resume), input(8, b"three", true)]).await;
    assert_eq!(client.hear_out(&mut text).await, 0x300);
    assert_eq!(text, b"one two three");
    client.say(0, vec![Request::Forget(())]).await;
    let init = second.init.clone();
    tokio::task::spawn_blocking(move || init.wait_until_forgotten()).await.unwrap();
    first.end().await;
    second.end().await;
}
