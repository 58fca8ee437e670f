//! Programs and a lock manager with one table, over the local socket.

use dlm::client::status;
use dlm::client::wire::{
    Blocking, Completion, Convert, Lock, Notice, Open, Purge, Release, Told, Unlock, What,
};
use dlm::client::{Connection, wire};
use dlm::server::{self, OPEN_SPACE, Single};
use dlm::{Config, Error, Flags, Mode};
use proptest::prelude::*;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// A server in a thread of its own; it ends with the test process.
struct Node {
    _dir: tempfile::TempDir,
    socket: PathBuf,
}

impl Node {
    fn start() -> Node {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("dlm.sock");
        let (ready, is_ready) = std::sync::mpsc::channel();
        let path = socket.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let locks = Single::start(base::NodeId(1), Config::default()).unwrap();
                let listener = server::listen(&path).unwrap();
                ready.send(()).unwrap();
                server::run(listener, locks).await;
            });
        });
        is_ready.recv().unwrap();
        Node { _dir: dir, socket }
    }

    fn open(&self, space: &str) -> Program {
        let mut program = Program(Connection::connect(&self.socket).unwrap());
        let open = Open { name: space.into(), create: space != OPEN_SPACE, mode: 0o600, ..Open::default() };
        program.call(What::Open(open)).unwrap();
        program
    }
}

struct Program(Connection);

impl Program {
    fn call(&mut self, what: What) -> Result<(u64, u32), u32> {
        let tag = self.0.calls.next_tag();
        match self.0.calls.call(tag, what) {
            Ok(reply) => Ok((tag, reply.lkid)),
            Err(Error::Refused { status }) => Err(status),
            Err(error) => panic!("{error}"),
        }
    }

    fn request(&mut self, name: &str, mode: Mode, flags: Flags) -> (u64, u32) {
        let lock = Lock { name: name.into(), mode: mode as u32, flags: flags.0, ..Lock::default() };
        self.call(What::Lock(lock)).unwrap()
    }

    fn lock(&mut self, name: &str, mode: Mode) -> (u32, Completion) {
        let (tag, lkid) = self.request(name, mode, Flags::VALBLK);
        let end = self.completion(tag);
        assert_eq!((end.status, end.lkid), (status::OK, lkid));
        (lkid, end)
    }

    fn convert(&mut self, lkid: u32, mode: Mode, value: Vec<u8>) -> (u64, u32) {
        let mode = mode as u32;
        self.call(What::Convert(Convert { lkid, mode, flags: Flags::VALBLK.0, value, timeout_ms: 0 }))
            .unwrap()
    }

    fn unlock(&mut self, lkid: u32, flags: Flags) -> u64 {
        self.call(What::Unlock(Unlock { lkid, flags: flags.0, value: Vec::new() })).unwrap().0
    }

    fn told(&mut self) -> Told {
        let Notice { told } = self.0.notices.wait().unwrap().expect("the server lives");
        told.unwrap()
    }

    fn completion(&mut self, tag: u64) -> Completion {
        match self.told() {
            Told::Completion(end) if end.tag == tag => end,
            other => panic!("{other:?} instead of the completion of {tag}"),
        }
    }

    fn blocking(&mut self) -> Blocking {
        match self.told() {
            Told::Blocking(blocking) => blocking,
            other => panic!("{other:?} instead of a blocking callback"),
        }
    }

    fn is_told_nothing(&mut self) -> bool {
        self.0.notices.poll().unwrap().is_none()
    }
}

#[test]
fn a_holder_is_called_back_and_gives_way() {
    let node = Node::start();
    let (mut ann, mut bob) = (node.open("s"), node.open("s"));
    let (held, _) = ann.lock("r", Mode::EX);
    let (tag, waits) = bob.request("r", Mode::PR, Flags::NONE);
    assert_eq!(ann.blocking(), Blocking { lkid: held, mode: Mode::PR as u32 });
    assert!(bob.is_told_nothing());
    let gone = ann.unlock(held, Flags::NONE);
    assert_eq!(ann.completion(gone).status, status::UNLOCKED);
    let end = bob.completion(tag);
    assert_eq!((end.status, end.lkid, end.mode), (status::OK, waits, Some(Mode::PR as u32)));
    assert!(end.token > 0);
}

#[test]
fn a_value_travels_and_is_marked_when_its_writer_dies() {
    let node = Node::start();
    let (mut ann, mut bob) = (node.open("s"), node.open("s"));
    let (held, _) = ann.lock("r", Mode::EX);
    let (tag, _) = ann.convert(held, Mode::NL, vec![7; 32]);
    assert_eq!(ann.completion(tag).status, status::OK);
    let (lkid, read) = bob.lock("r", Mode::EX);
    assert_eq!((read.value, read.flags), (vec![7; 32], 0));
    drop(bob);
    let (tag, _) = ann.convert(held, Mode::PR, Vec::new());
    let read = ann.completion(tag);
    assert_eq!((read.status, read.flags), (status::OK, status::VALUE_NOT_VALID), "{lkid}");
}

#[test]
fn what_cannot_wait_is_refused_and_leaves_no_lock() {
    let node = Node::start();
    let (mut ann, mut bob) = (node.open("s"), node.open("s"));
    ann.lock("r", Mode::PW);
    let (tag, lkid) = bob.request("r", Mode::PW, Flags::NOQUEUE);
    assert_eq!(bob.completion(tag).status, status::AGAIN);
    assert_eq!(bob.call(What::Unlock(Unlock { lkid, ..Unlock::default() })), Err(status::NOT_THERE));
    let timed = Lock { name: "r".into(), mode: 5, timeout_ms: 20, ..Lock::default() };
    let (tag, _) = bob.call(What::Lock(timed)).unwrap();
    assert_eq!(bob.completion(tag).status, status::TIMED_OUT);
}

#[test]
fn a_wait_can_be_cancelled_or_unlocked_by_force_and_ends_once() {
    let node = Node::start();
    let (mut ann, mut bob) = (node.open("s"), node.open("s"));
    ann.lock("r", Mode::EX);
    let (waits, lkid) = bob.request("r", Mode::PR, Flags::NONE);
    assert_eq!(bob.call(What::Unlock(Unlock { lkid, ..Unlock::default() })), Err(status::BUSY));
    let (cancel, _) = bob.call(What::Cancel(lkid)).unwrap();
    let (first, second) = (bob.told(), bob.told());
    let expected =
        |tag, code| Told::Completion(Completion { tag, lkid, status: code, ..Completion::default() });
    assert_eq!(first, expected(cancel, status::OK));
    assert_eq!(second, expected(waits, status::CANCELLED));
    let (_, lkid) = bob.request("r", Mode::PR, Flags::NONE);
    let gone = bob.unlock(lkid, Flags::FORCEUNLOCK);
    assert_eq!(bob.completion(gone).status, status::UNLOCKED);
    let (waits, lkid) = bob.request("r", Mode::PR, Flags::NONE);
    let (cancel, _) = bob.call(What::DeadlockCancel(lkid)).unwrap();
    assert_eq!(bob.completion(cancel).status, status::OK);
    assert_eq!(bob.completion(waits).status, status::DEADLOCK);
    assert!(bob.is_told_nothing());
}

#[test]
fn a_persistent_lock_outlives_its_program_and_can_be_adopted_or_purged() {
    let node = Node::start();
    let mut ann = node.open("s");
    for name in ["adopted", "purged"] {
        let (tag, _) = ann.request(name, Mode::EX, Flags::PERSISTENT);
        assert_eq!(ann.completion(tag).status, status::OK);
    }
    let mut bob = node.open("s");
    let (waits, _) = bob.request("purged", Mode::PR, Flags::NONE);
    drop(ann);
    let (tag, _) = bob.request("adopted", Mode::EX, Flags::ORPHAN);
    // Bob may come before the server has seen Ann's end.
    let mut end = bob.completion(tag);
    while end.status == status::NOT_THERE {
        let (tag, _) = bob.request("adopted", Mode::EX, Flags::ORPHAN);
        end = bob.completion(tag);
    }
    assert_eq!(end.status, status::OK);
    bob.call(What::Purge(Purge::default())).unwrap();
    assert_eq!(bob.completion(waits).status, status::OK);
    let gone = bob.unlock(end.lkid, Flags::NONE);
    assert_eq!(bob.completion(gone).status, status::UNLOCKED);
}

#[test]
fn a_program_can_let_go_of_all_it_has() {
    let node = Node::start();
    let (mut ann, mut bob) = (node.open("s"), node.open("s"));
    ann.lock("r", Mode::EX);
    let pid = std::process::id();
    // The credentials of the socket say who Ann is; that is also Bob.
    ann.call(What::Purge(Purge { node: 0, pid })).unwrap();
    bob.lock("r", Mode::EX);
}

#[test]
fn lockspaces_do_not_share_names_and_are_released_when_empty_or_by_force() {
    let node = Node::start();
    let (mut ann, mut bob) = (node.open("one"), node.open("two"));
    ann.lock("r", Mode::EX);
    let (lkid, _) = bob.lock("r", Mode::EX);
    let release = |name: &str, force| What::Release(Release { name: name.into(), force });
    assert_eq!(ann.call(release("two", false)), Err(status::BUSY));
    ann.call(release("two", true)).unwrap();
    assert_eq!(bob.call(What::Unlock(Unlock { lkid, ..Unlock::default() })), Err(status::NOT_THERE));
    let lock = Lock { name: "r".into(), mode: 5, ..Lock::default() };
    assert_eq!(bob.call(What::Lock(lock)), Err(status::INVALID));
}

#[test]
fn lists_show_holders_and_waiters_and_circles() {
    let node = Node::start();
    let (mut ann, mut bob) = (node.open("s"), node.open(OPEN_SPACE));
    ann.lock("a", Mode::EX);
    bob.lock("b", Mode::EX);
    let (_, lkid) = ann.request("a", Mode::PR, Flags::NONE);
    let rows = bob.0.calls.call(90, What::List(())).unwrap().rows;
    let names: Vec<_> = rows.iter().map(|row| (row.space.as_slice(), row.name.as_slice())).collect();
    assert_eq!(names, [(&b"s"[..], &b"a"[..]), (b"s", b"a"), (b"ssi", b"b")]);
    assert!(rows.iter().all(|row| row.node == 1 && row.pid == std::process::id()));
    assert_eq!((rows[1].lkid, rows[1].granted, rows[1].wanted), (lkid, None, Some(Mode::PR as u32)));
    let waits = bob.0.calls.call(91, What::Waits(())).unwrap().waits;
    assert_eq!(waits.len(), 1);
    // It waits for its own program's lock: a circle of one.
    assert_eq!((waits[0].circle, waits[0].waiter.as_ref().unwrap().lkid), (1, lkid));
}

#[test]
fn one_of_two_transactions_that_wait_for_each_other_is_told() {
    let node = Node::start();
    let (mut ann, mut bob) = (node.open("s"), node.open("s"));
    let request = |program: &mut Program, name: &str, transaction| {
        let lock = Lock { name: name.into(), mode: 5, transaction, ..Lock::default() };
        program.call(What::Lock(lock)).unwrap().0
    };
    for (program, name, transaction) in [(&mut ann, "a", 1), (&mut bob, "b", 2)] {
        let tag = request(program, name, transaction);
        assert_eq!(program.completion(tag).status, status::OK);
    }
    request(&mut ann, "b", 1);
    let tag = request(&mut bob, "a", 2);
    bob.blocking();
    assert_eq!(bob.completion(tag).status, status::DEADLOCK);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes after the hello: the server closes that connection, or refuses, and serves the next one.
    #[test]
    fn garbage_harms_nobody_else(bytes in prop::collection::vec(any::<u8>(), 1..300), hello in any::<bool>()) {
        static NODE: std::sync::OnceLock<Node> = std::sync::OnceLock::new();
        let node = NODE.get_or_init(Node::start);
        let mut stream = UnixStream::connect(&node.socket).unwrap();
        if hello {
            let hello = base::codec::ServiceHello { service: wire::SERVICE.into(), version: wire::VERSION };
            stream.write_all(&base::encode_frame(&hello)).unwrap();
        }
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
        node.open(OPEN_SPACE).lock("r", Mode::EX);
    }

    /// Calls that decode but make no sense.
    #[test]
    fn nonsense_is_refused(calls in prop::collection::vec((0u32..9, any::<u32>(), 0u32..8, any::<u32>(), prop::collection::vec(any::<u8>(), 0..70)), 1..20)) {
        static NODE: std::sync::OnceLock<Node> = std::sync::OnceLock::new();
        let node = NODE.get_or_init(Node::start);
        let mut program = node.open(OPEN_SPACE);
        for (kind, lkid, mode, flags, bytes) in calls {
            let what = match kind {
                0 => What::Open(Open { name: bytes, create: true, exclusive: true, mode, pid: 0 }),
                1 => What::Lock(Lock { name: bytes, mode, flags, parent: lkid % 3, timeout_ms: 1, transaction: 0 }),
                2 => What::Convert(Convert { lkid, mode, flags, value: bytes, timeout_ms: 0 }),
                3 => What::Unlock(Unlock { lkid, flags, value: bytes }),
                4 => What::Cancel(lkid),
                5 => What::DeadlockCancel(lkid),
                6 => What::Purge(Purge { node: mode, pid: lkid }),
                7 => What::Waits(()),
                _ => What::List(()),
            };
            let tag = program.0.calls.next_tag();
            match program.0.calls.call(tag, what) {
                Ok(_) | Err(Error::Refused { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}
