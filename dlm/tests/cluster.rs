//! Lock managers of several nodes in one process, with real endpoints between them: what threads and tasks that lock see.

use base::{Epoch, Incarnation, NodeId};
use dlm::client::wire::{Open, Told, What};
use dlm::client::{status, wire};
use dlm::node::{Config, Member, MemberState};
use dlm::server::{Locks, lockspace};
use dlm::{Flags, Handle, Lockspace, Mode, Name, Refusal};
use fabric::{ClusterKey, Endpoint, Peer, Role};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const LOCALHOST: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn config(node: u32, life: u64) -> Config {
    Config {
        node: NodeId(node),
        life: Incarnation(life),
        table: dlm::Config::default(),
        tokens_idle_max: 1_000,
        trees_idle_max: 1_000,
        guarded: BTreeSet::new(),
        lease: Duration::from_secs(1),
        remaster: dlm::node::Remaster::default(),
    }
}

fn member(node: u32, life: u64, state: MemberState) -> Member {
    Member { node: NodeId(node), life: Incarnation(life), state }
}

/// Nodes 1 to `n`.
struct Nodes {
    handles: Vec<Handle>,
    endpoints: Vec<Endpoint>,
}

impl Nodes {
    async fn start(n: u32) -> Nodes {
        let key = ClusterKey::from_bytes([7; 32]);
        let (mut handles, mut endpoints) = (Vec::new(), Vec::new());
        for node in 1..=n {
            let peer = Peer { node: NodeId(node), role: Role::Control };
            let bound = Endpoint::bind(fabric::Config::new(peer, LOCALHOST, key.clone(), "blue")).await;
            endpoints.push(bound.unwrap());
        }
        for endpoint in &endpoints {
            for other in &endpoints {
                endpoint.set_address(other.local(), other.address());
            }
            handles.push(Handle::start(config(endpoint.local().node.0, 1), endpoint.clone()).unwrap());
        }
        let nodes = Nodes { handles, endpoints };
        nodes.view(1, &(1..=n).map(|node| member(node, 1, MemberState::Alive)).collect::<Vec<_>>());
        nodes
    }

    fn view(&self, era: u64, members: &[Member]) {
        self.handles.iter().for_each(|handle| handle.view(Epoch(era), members.to_vec()));
    }
}

fn space() -> Lockspace {
    lockspace(b"test")
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_excludes_tasks_of_all_nodes() {
    let nodes = Nodes::start(3).await;
    let inside = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let tasks = (0..12).map(|task| {
        let (handle, inside) = (nodes.handles[task % 3].clone(), inside.clone());
        tokio::spawn(async move {
            let mut last = 0;
            for _ in 0..50 {
                let lock = handle.lock(space(), name("one"), Mode::EX, Flags::NONE).await.unwrap();
                assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                tokio::task::yield_now().await;
                assert!(lock.token() >= last, "tokens only grow");
                last = lock.token();
                inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn what_was_let_go_is_had_again_until_somebody_wants_it() {
    let nodes = Nodes::start(2).await;
    let [one, two] = &nodes.handles[..] else { panic!("two nodes") };
    let lock = one.lock(space(), name("kept"), Mode::EX, Flags::NONE).await.unwrap();
    let token = lock.token();
    drop(lock);
    let again = one.lock(space(), name("kept"), Mode::PR, Flags::NONE).await.unwrap();
    assert_eq!((again.token(), again.mode()), (token, Mode::PR));
    // It is used as PR: another reader is let in beside it, a writer is not.
    let beside = two.lock(space(), name("kept"), Mode::PR, Flags::NONE).await.unwrap();
    assert!(beside.token() > token);
    let refused = two.lock(space(), name("kept"), Mode::EX, Flags::NOQUEUE).await;
    assert_eq!(refused.unwrap_err(), Refusal::Again);
    drop(beside);
    let writer = two.lock(space(), name("kept"), Mode::EX, Flags::NONE);
    let (writer, ()) = tokio::join!(writer, async {
        assert_eq!(again.wanted().await, Mode::EX);
        drop(again);
    });
    let writer = writer.unwrap();
    assert!(writer.token() > token && writer.is_wanted().is_none());
}

#[tokio::test]
async fn values_and_conversions_go_from_node_to_node() {
    let nodes = Nodes::start(2).await;
    let [one, two] = &nodes.handles[..] else { panic!("two nodes") };
    let mut lock = one.lock(space(), name("value"), Mode::EX, Flags::VALBLK).await.unwrap();
    assert_eq!(lock.value(), Some(&[0; 32]));
    lock.convert(Mode::CR, Flags::VALBLK, Some([1; 32])).await.unwrap();
    let other = two.lock(space(), name("value"), Mode::PW, Flags::VALBLK).await.unwrap();
    assert_eq!(other.value(), Some(&[1; 32]));
    let refused = lock.convert(Mode::EX, Flags::NOQUEUE, None).await;
    assert_eq!((refused, lock.mode()), (Err(Refusal::Again), Mode::CR));
    other.unlock(Some([2; 32])).await.unwrap();
    lock.convert(Mode::PR, Flags::VALBLK, None).await.unwrap();
    assert_eq!((lock.value(), lock.mode()), (Some(&[2; 32]), Mode::PR));
}

#[tokio::test]
async fn who_does_not_wait_any_more_is_in_nobodys_way() {
    let nodes = Nodes::start(2).await;
    let [one, two] = &nodes.handles[..] else { panic!("two nodes") };
    let held = one.lock(space(), name("x"), Mode::EX, Flags::NONE).await.unwrap();
    let late = two.lock(space(), name("x"), Mode::EX, Flags::NONE).within(Duration::from_millis(30)).await;
    assert_eq!(late.unwrap_err(), Refusal::TimedOut);
    let gone = two.lock(space(), name("x"), Mode::EX, Flags::NONE);
    assert!(tokio::time::timeout(Duration::from_millis(30), gone).await.is_err());
    drop(held);
    // Nobody waits: the third one has it at once.
    let third = one.lock(space(), name("x"), Mode::EX, Flags::NONE).await.unwrap();
    assert_eq!(third.mode(), Mode::EX);
}

#[tokio::test]
async fn without_a_lease_nothing_is_granted_and_with_it_all_is() {
    let nodes = Nodes::start(2).await;
    let [one, two] = &nodes.handles[..] else { panic!("two nodes") };
    drop(one.lock(space(), name("x"), Mode::EX, Flags::VALBLK).await.unwrap());
    one.lease(false);
    let mine = one.lock(space(), name("x"), Mode::EX, Flags::VALBLK);
    let theirs = two.lock(space(), name("x"), Mode::PR, Flags::NONE);
    let (mut mine, mut theirs) = (Box::pin(mine), Box::pin(theirs));
    let wait = async {
        tokio::select! {
            _ = &mut mine => panic!("this node has no lease"),
            _ = &mut theirs => panic!("the master has no lease"),
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    };
    wait.await;
    one.lease(true);
    drop(mine.await.unwrap());
    assert_eq!(theirs.await.unwrap().mode(), Mode::PR);
}

#[tokio::test]
async fn the_locks_of_a_dead_node_are_given_on_and_its_trees_are_rebuilt() {
    let nodes = Nodes::start(3).await;
    let [one, two, three] = &nodes.handles[..] else { panic!("three nodes") };
    let dead = three.lock(space(), name("dead"), Mode::EX, Flags::VALBLK).await.unwrap();
    // Somebody keeps the resource alive.
    let _null = one.lock(space(), name("dead"), Mode::NL, Flags::NONE).await.unwrap();
    // Mastered by node 3, held by node 1.
    drop(three.lock(space(), name("shared"), Mode::PR, Flags::NONE).await.unwrap());
    let kept = one.lock(space(), name("shared"), Mode::PR, Flags::NONE).await.unwrap();
    nodes.endpoints[2].close().await;
    let members =
        [member(1, 1, MemberState::Alive), member(2, 1, MemberState::Alive), member(3, 1, MemberState::Down)];
    one.view(Epoch(2), members.to_vec());
    two.view(Epoch(2), members.to_vec());
    let given = two.lock(space(), name("dead"), Mode::EX, Flags::VALBLK).await.unwrap();
    assert!(given.status().value_not_valid && given.token() > dead.token());
    let refused = two.lock(space(), name("shared"), Mode::EX, Flags::NOQUEUE).await;
    assert_eq!(refused.unwrap_err(), Refusal::Again);
    drop(kept);
    assert!(two.lock(space(), name("shared"), Mode::EX, Flags::NONE).await.is_ok());
}

#[test]
fn threads_wait_without_a_runtime_of_their_own() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let nodes = runtime.block_on(Nodes::start(2));
    std::thread::scope(|scope| {
        for handle in nodes.handles.iter().cycle().take(4) {
            scope.spawn(move || {
                for _ in 0..50 {
                    let mut lock = handle.lock(space(), name("t"), Mode::PW, Flags::VALBLK).wait().unwrap();
                    let mut value = *lock.value().unwrap();
                    value[0] += 1;
                    lock.convert_wait(Mode::NL, Flags::VALBLK, Some(value)).unwrap();
                    lock.unlock_wait(None).unwrap();
                }
            });
        }
    });
    let last = nodes.handles[0].lock(space(), name("t"), Mode::PR, Flags::VALBLK).wait().unwrap();
    assert_eq!(last.value().unwrap()[0], 200);
}

/// A program on a node; it is served in a task of the runtime.
struct Program(dlm::client::Connection);

impl Program {
    fn start(runtime: &tokio::runtime::Runtime, node: &Handle, dir: &std::path::Path) -> Program {
        let socket = dir.join(format!("{}.sock", node.node().0));
        if !socket.exists() {
            let _guard = runtime.enter();
            let listener = dlm::server::listen(&socket).unwrap();
            runtime.spawn(dlm::server::run(listener, Arc::new(node.clone())));
        }
        let mut program = Program(dlm::client::Connection::connect(&socket).unwrap());
        let open = Open { name: "s".into(), create: true, mode: 0o600, ..Open::default() };
        program.call(What::Open(open));
        program
    }

    fn call(&mut self, what: What) -> (u64, u32) {
        let tag = self.0.calls.next_tag();
        (tag, self.0.calls.call(tag, what).unwrap().lkid)
    }

    fn request(&mut self, name: &str, mode: Mode, flags: Flags, parent: u32, transaction: u64) -> (u64, u32) {
        let (mode, flags) = (mode as u32, flags.0);
        let lock =
            wire::Lock { name: name.into(), mode, flags, parent, transaction, ..wire::Lock::default() };
        self.call(What::Lock(lock))
    }

    /// The status with which something ends.
    fn ends(&mut self, tag: u64) -> u32 {
        loop {
            let notice = self.0.notices.wait().unwrap().expect("the server lives");
            if let Some(Told::Completion(end)) = notice.told
                && end.tag == tag
            {
                return end.status;
            }
        }
    }
}

#[test]
fn resources_below_others_are_shared_between_nodes() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (nodes, dir) = (runtime.block_on(Nodes::start(2)), tempfile::tempdir().unwrap());
    let [mut ann, mut bob] = [0, 1].map(|at| Program::start(&runtime, &nodes.handles[at], dir.path()));
    let parents = [&mut ann, &mut bob].map(|program| {
        let (tag, lkid) = program.request("volume", Mode::CR, Flags::NONE, 0, 0);
        assert_eq!(program.ends(tag), status::OK);
        lkid
    });
    let (tag, _) = ann.request("file", Mode::EX, Flags::NONE, parents[0], 0);
    assert_eq!(ann.ends(tag), status::OK);
    // The same child, of the same name elsewhere; and another one below the same parent.
    let (taken, _) = bob.request("file", Mode::EX, Flags::NOQUEUE, parents[1], 0);
    assert_eq!(bob.ends(taken), status::of(Refusal::Again));
    for (name, parent) in [("file", 0), ("other", parents[1])] {
        let (tag, _) = bob.request(name, Mode::EX, Flags::NOQUEUE, parent, 0);
        assert_eq!(bob.ends(tag), status::OK);
    }
}

#[test]
fn transactions_that_wait_in_a_circle_within_a_node_and_over_two_are_told() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (nodes, dir) = (runtime.block_on(Nodes::start(2)), tempfile::tempdir().unwrap());
    std::thread::scope(|scope| {
        for (round, places) in [[0, 0], [0, 1]].into_iter().enumerate() {
            let [mut ann, mut bob] =
                places.map(|at: usize| Program::start(&runtime, &nodes.handles[at], dir.path()));
            scope.spawn(move || {
                let [first, second] = [format!("a{round}"), format!("b{round}")];
                let old = 2 * round as u64 + 1;
                for (program, name, who) in [(&mut ann, &first, old), (&mut bob, &second, old + 1)] {
                    let (tag, _) = program.request(name, Mode::EX, Flags::NONE, 0, who);
                    assert_eq!(program.ends(tag), status::OK);
                }
                ann.request(&second, Mode::EX, Flags::NONE, 0, old);
                let (tag, _) = bob.request(&first, Mode::EX, Flags::NONE, 0, old + 1);
                assert_eq!(bob.ends(tag), status::DEADLOCK);
            });
        }
    });
}
