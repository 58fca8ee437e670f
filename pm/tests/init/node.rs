//! A node of one: a keeper, its `ssi-init`, and the test in the role of `ssid`.

use base::{FrameReader, Incarnation, NodeId, PidRegions, encode_frame};
use pm::init::InitConfig;
use pm::wire::init::{FromInit, Hello, Report, Request, ToInit, VERSION, Welcome};
use pm::wire::{Change, Credentials, Failed, Mark, Signal, Started, TaskId, TaskSpec};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use std::collections::VecDeque;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// No wait in these tests lasts longer.
pub const DEADLINE: Duration = Duration::from_secs(20);
pub const KEY: [u8; 32] = [9; 32];

pub struct Node {
    keeper: Child,
    pub config: InitConfig,
    _directory: tempfile::TempDir,
}

/// How a node is to be made; the default is a small one without FUSE.
pub struct Wish {
    pub region: u32,
    pub fuse: bool,
    pub user_namespace: bool,
}

impl Default for Wish {
    fn default() -> Wish {
        Wish { region: 16_384, fuse: false, user_namespace: false }
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Node {
    /// `None` (said on stderr): this machine does not let us make one.
    pub fn start(wish: Wish) -> Option<Node> {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path();
        std::fs::create_dir(dir.join("admin")).unwrap();
        let config = InitConfig {
            node: NodeId(1),
            hostname: "testnode".into(),
            state_dir: dir.into(),
            init_socket: dir.join("init.sock"),
            admin_socket: dir.join("admin/admin.sock"),
            binary: PathBuf::from(env!("CARGO_BIN_EXE_pm-test-init")),
            commands: vec!["onnode".into()],
            regions: PidRegions::new(wish.region).unwrap(),
            fs_mount: wish.fuse.then(|| "/ssi".into()),
            cluster_proc: wish.fuse,
            cluster: "test".into(),
            key: KEY,
            incarnation: Incarnation(5),
        };
        std::fs::write(dir.join("config"), config.encode()).unwrap();
        let mut command = if is_root() && !wish.user_namespace {
            Command::new(&config.binary)
        } else {
            let mut unshare = Command::new("unshare");
            unshare.args(["--user", "--map-root-user", "--"]).arg(&config.binary);
            unshare
        };
        let keeper = command.arg(dir.join("config")).stdin(Stdio::piped()).spawn();
        let mut node = Node { keeper: keeper.unwrap(), config, _directory: directory };
        let deadline = Instant::now() + DEADLINE;
        while UnixStream::connect(&node.config.init_socket).is_err() {
            if let Some(status) = node.keeper.try_wait().unwrap() {
                eprintln!("skipped: ssi-init cannot run here ({status})");
                assert!(!is_root(), "as root it can");
                return None;
            }
            assert!(Instant::now() < deadline, "ssi-init does not listen");
            pause();
        }
        Some(node)
    }

    pub fn daemon(&self) -> Daemon {
        Daemon::connect(&self.config.init_socket, false)
    }

    /// Waits for the keeper's end: the exit code of ssi-init.
    pub fn ended(&mut self) -> Option<i32> {
        // wait() would close it, and the keeper takes that as an order.
        let held = self.keeper.stdin.take();
        let code = self.keeper.wait().unwrap().code();
        drop(held);
        code
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Between two looks at a condition that nobody announces.
pub fn pause() {
    let _ = rustix::event::poll(&mut [], Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 2_000_000 }));
}

pub struct Daemon {
    stream: UnixStream,
    reader: FrameReader,
    heard: VecDeque<FromInit>,
    pub welcome: Welcome,
    pub descriptors: Vec<OwnedFd>,
}

impl Daemon {
    pub fn connect(path: &std::path::Path, data: bool) -> Daemon {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut daemon = Daemon {
            stream,
            reader: FrameReader::default(),
            heard: VecDeque::new(),
            welcome: Welcome::default(),
            descriptors: Vec::new(),
        };
        daemon.ask(None, Request::Hello(Hello { version: VERSION, data }));
        daemon.receive_descriptors();
        let Some(Report::Welcome(welcome)) = daemon.next().report else { panic!("no welcome") };
        daemon.welcome = welcome;
        assert_eq!(daemon.welcome.descriptors as usize, daemon.descriptors.len());
        daemon
    }

    fn receive_descriptors(&mut self) {
        let mut bytes = [0; 4096];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let got =
            rustix::net::recvmsg(&self.stream, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.descriptors.extend(fds);
            }
        }
        self.reader.push(&bytes[..got.bytes]);
    }

    pub fn ask(&mut self, task: Option<TaskId>, request: Request) {
        let message = ToInit { task, request_id: 7, request: Some(request) };
        self.stream.write_all(&encode_frame(&message)).unwrap();
    }

    fn next(&mut self) -> FromInit {
        if let Some(message) = self.heard.pop_front() {
            return message;
        }
        self.receive()
    }

    fn receive(&mut self) -> FromInit {
        loop {
            if let Some(message) = self.reader.next().unwrap() {
                return message;
            }
            let mut bytes = [0; 65_536];
            let n = self.stream.read(&mut bytes).expect("ssi-init says something in time");
            assert!(n > 0, "ssi-init hung up");
            self.reader.push(&bytes[..n]);
        }
    }

    /// The next report that `wanted` takes; what comes before stays for later.
    pub fn wait_for<T>(&mut self, mut wanted: impl FnMut(&FromInit) -> Option<T>) -> T {
        for n in 0..self.heard.len() {
            if let Some(found) = wanted(&self.heard[n]) {
                self.heard.remove(n);
                return found;
            }
        }
        loop {
            let message = self.receive();
            if let Some(found) = wanted(&message) {
                return found;
            }
            self.heard.push_back(message);
        }
    }

    /// What has been heard so far and not been waited for, of this task.
    pub fn spawn(&mut self, index: u32, spec: TaskSpec) -> Result<Started, Failed> {
        let id = task(index);
        self.ask(Some(id), Request::Spawn(spec));
        self.wait_for(|message| match (&message.report, message.task) {
            (Some(Report::Started(started)), Some(of)) if of == id => Some(Ok(started.clone())),
            (Some(Report::Failed(failed)), Some(of)) if of == id => Some(Err(failed.clone())),
            _ => None,
        })
    }

    pub fn change(&mut self, index: u32) -> Change {
        let id = task(index);
        self.wait_for(|message| match (&message.report, message.task) {
            (Some(Report::Changed(change)), Some(of)) if of == id => Some(change.clone()),
            _ => None,
        })
    }

    /// One stream from `from` to its end, acknowledged piece by piece.
    pub fn output(&mut self, index: u32, stream: u32, from: u64) -> Vec<u8> {
        let (id, mut all, mut ended) = (task(index), Vec::new(), false);
        while !ended {
            let piece = self.piece(index, stream);
            let expected = from + all.len() as u64;
            assert!(piece.offset <= expected, "a gap before {}", piece.offset);
            let known = (expected - piece.offset) as usize;
            all.extend_from_slice(piece.data.get(known..).unwrap_or_default());
            ended = piece.end;
            let offset = from + all.len() as u64 + u64::from(ended);
            self.ask(Some(id), Request::Acknowledge(Mark { stream, offset }));
        }
        all
    }

    pub fn piece(&mut self, index: u32, stream: u32) -> pm::wire::Piece {
        let id = task(index);
        self.wait_for(|message| match (&message.report, message.task) {
            (Some(Report::Output(piece)), Some(of)) if of == id && piece.stream == stream => {
                Some(piece.clone())
            }
            _ => None,
        })
    }

    /// Output up to the end of a line.
    pub fn line(&mut self, index: u32, stream: u32) -> String {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            line.extend(self.piece(index, stream).data);
        }
        String::from_utf8(line).unwrap()
    }

    pub fn run(&mut self, index: u32, spec: TaskSpec) -> (u32, String) {
        self.spawn(index, spec).unwrap();
        let output = self.output(index, pm::wire::STDOUT, 0);
        (self.change(index).wait_status, String::from_utf8_lossy(&output).into_owned())
    }

    pub fn signal(&mut self, signal: Signal) -> u32 {
        self.ask(None, Request::Signal(signal));
        self.wait_for(|message| match message.report {
            Some(Report::Errno(errno)) if message.request_id == 7 => Some(errno),
            _ => None,
        })
    }
}

pub fn task(index: u32) -> TaskId {
    // Whoever we are, in the node's namespace we are root.
    TaskId { home: 1, session: 42, index, uid: 0 }
}

pub fn spec(argv: &[&str]) -> TaskSpec {
    TaskSpec {
        argv: argv.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
        env: vec![b"PATH=/usr/bin:/bin:/usr/sbin:/sbin".to_vec(), b"LC_ALL=C".to_vec()],
        cwd: b"/tmp".to_vec(),
        umask: 0o22,
        credentials: Some(Credentials::default()),
        limits: vec![pm::wire::Limit { resource: 4, soft: 0, hard: u64::MAX }],
        ..TaskSpec::default()
    }
}

pub fn shell(script: &str) -> TaskSpec {
    spec(&["sh", "-c", script])
}
