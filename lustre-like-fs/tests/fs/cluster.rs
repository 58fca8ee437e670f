//! Three nodes' servers and clients over the fabric: what one node does, the others see at once.

use crate::common::*;
use lustre_like_fs::wire::{MetaVerb, Place, Rename, SetTime, Setattr, Setxattr};
use lustre_like_fs::{Error, Layout, Pattern, Striping};
use membership::NodeState;
use proptest::prelude::*;
use rustix::io::Errno;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

fn errno<T: std::fmt::Debug>(result: Result<T, Error>) -> Errno {
    result.expect_err("it must fail").errno()
}

fn pattern(length: u64) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_writes_another_reads_over_all_stripes() {
    let cluster = Cluster::start(3).await;
    let (one, two) = (cluster.client(1), cluster.client(2));
    let ino = create(&one, "file", REGULAR).await.unwrap();
    let bytes = pattern(5 * MIB + 12_345);
    let mut at = 0;
    for chunk in bytes.chunks(700_001) {
        assert_eq!(one.write(ino, at, chunk.to_vec().into()).await.unwrap(), chunk.len() as u64);
        at += chunk.len() as u64;
    }
    let attr = two.getattr(ino).await.unwrap();
    assert_eq!(attr.size, bytes.len() as u64);
    assert!(attr.blocks * 512 >= attr.size);
    for (offset, size) in [(0, MIB), (MIB - 1, MIB), (3 * MIB + 77, 2 * MIB), (5 * MIB, MIB), (6 * MIB, 10)] {
        let expected = &bytes[bytes.len().min(offset as usize)..bytes.len().min((offset + size) as usize)];
        assert_eq!(read(&two, ino, offset, size as u32).await.unwrap(), expected, "at {offset}");
    }
    for node in 1..=3 {
        assert_eq!(cluster.objects(node).len(), 1, "every node has its stripes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_reads_as_zeros_and_the_end_is_the_end() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client(3);
    let ino = create(&client, "sparse", REGULAR).await.unwrap();
    assert_eq!(read(&client, ino, 0, 100).await.unwrap(), b"");
    client.write(ino, 4 * MIB + 10, "end".into()).await.unwrap();
    assert_eq!(client.getattr(ino).await.unwrap().size, 4 * MIB + 13);
    let middle = read(&client, ino, MIB - 5, MIB as u32).await.unwrap();
    assert_eq!(middle, vec![0; MIB as usize]);
    assert_eq!(read(&client, ino, 4 * MIB + 8, 100).await.unwrap(), b"\0\0end");
    let caller = client.caller(0, 0);
    let attr =
        client.setattr(caller, Setattr { ino, ..Setattr::default() }, Some(2 * MIB + 5)).await.unwrap();
    assert_eq!(attr.size, 2 * MIB + 5);
    assert_eq!(read(&client, ino, 2 * MIB, 100).await.unwrap(), b"\0\0\0\0\0");
    let attr = client.setattr(caller, Setattr { ino, ..Setattr::default() }, Some(9 * MIB)).await.unwrap();
    assert_eq!(attr.size, 9 * MIB, "a file can be stretched");
}

#[derive(Clone, Debug)]
enum Op {
    Write(u64, usize, u8),
    Resize(u64),
    Append(usize, u8),
    Punch(u64, u64),
    Read(u64, u32),
}

fn ops() -> impl Strategy<Value = Op> {
    let at = 0u64..400_000;
    prop_oneof![
        3 => (at.clone(), 1usize..200_000, any::<u8>()).prop_map(|(at, length, byte)| Op::Write(at, length, byte)),
        1 => at.clone().prop_map(Op::Resize),
        1 => (1usize..100_000, any::<u8>()).prop_map(|(length, byte)| Op::Append(length, byte)),
        1 => (at.clone(), 1u64..100_000).prop_map(|(at, length)| Op::Punch(at, length)),
        2 => (at, 1u32..300_000).prop_map(|(at, length)| Op::Read(at, length)),
    ]
}

fn slice(model: &[u8], at: u64, length: u64) -> &[u8] {
    let end = model.len() as u64;
    &model[at.min(end) as usize..(at + length).min(end) as usize]
}

async fn agrees(ops: Vec<Op>) {
    let cluster = Cluster::start(3).await;
    let clients = [cluster.client(1), cluster.client(2), cluster.client(3)];
    let small = Pattern { stripe_size: 65_536, ..Pattern::default() };
    clients[0].setstripe("/file", small, 0, 0).await.unwrap();
    let ino = clients[0].resolve("file", 0, 0).await.unwrap().attr.unwrap().ino;
    let mut model: Vec<u8> = Vec::new();
    for (turn, op) in ops.into_iter().enumerate() {
        let client = &clients[turn % 3];
        match op {
            Op::Write(at, length, byte) => {
                let end = at as usize + length;
                model.resize(model.len().max(end), 0);
                model[at as usize..end].fill(byte);
                client.write(ino, at, vec![byte; length].into()).await.unwrap();
            }
            Op::Append(length, byte) => {
                model.extend(std::iter::repeat_n(byte, length));
                let written =
                    client.append(client.caller(0, 0), ino, vec![byte; length].into()).await.unwrap();
                assert_eq!(written, length as u64);
            }
            Op::Resize(size) => {
                model.resize(size as usize, 0);
                let set = Setattr { ino, ..Setattr::default() };
                client.setattr(client.caller(0, 0), set, Some(size)).await.unwrap();
            }
            Op::Punch(at, length) => {
                let end = model.len().min((at + length) as usize);
                model[end.min(at as usize)..end].fill(0);
                client.allocate(ino, 3, at, length).await.unwrap();
            }
            Op::Read(at, length) => {
                let read = read(client, ino, at, length).await.unwrap();
                assert_eq!(read, slice(&model, at, u64::from(length)));
            }
        }
        assert_eq!(clients[(turn + 1) % 3].getattr(ino).await.unwrap().size, model.len() as u64);
    }
    assert_eq!(read(&clients[0], ino, 0, 1 << 20).await.unwrap(), slice(&model, 0, 1 << 20));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]
    #[test]
    fn a_file_holds_what_a_vector_would(ops in prop::collection::vec(ops(), 5..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(agrees(ops));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_of_three_nodes_neither_overlap_nor_tear() {
    let cluster = Cluster::start(3).await;
    let first = cluster.client(1);
    let small = Pattern { stripe_size: 65_536, ..Pattern::default() };
    first.setstripe("log", small, 0, 0).await.unwrap();
    let ino = first.resolve("log", 0, 0).await.unwrap().attr.unwrap().ino;
    let writers = (1..=3u8).map(|node| {
        let client = cluster.client(u32::from(node));
        tokio::spawn(async move {
            for _ in 0..40 {
                let record = vec![node; 5_000];
                assert_eq!(client.append(client.caller(0, 0), ino, record.into()).await.unwrap(), 5_000);
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(first.getattr(ino).await.unwrap().size, 3 * 40 * 5_000);
    let all = read(&first, ino, 0, 3 * 40 * 5_000).await.unwrap();
    let mut count = [0; 4];
    for record in all.chunks(5_000) {
        assert!(record.iter().all(|byte| *byte == record[0]), "a record is torn");
        count[record[0] as usize] += 1;
    }
    assert_eq!(count, [0, 40, 40, 40]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_asked_twice_is_written_once_also_after_a_restart_of_its_server() {
    let mut cluster = Cluster::start(2).await;
    let client = cluster.client(2);
    let on_first = Pattern { stripe_count: 1, start: 1, ..Pattern::default() };
    client.setstripe("log", on_first, 0, 0).await.unwrap();
    let ino = client.resolve("log", 0, 0).await.unwrap().attr.unwrap().ino;
    let caller = client.caller(0, 0);
    client.append(caller, ino, "one".into()).await.unwrap();
    client.append(client.caller(0, 0), ino, "two".into()).await.unwrap();
    cluster.stop(1).await;
    cluster.resume(1).await;
    client.append(caller, ino, "one".into()).await.unwrap();
    assert_eq!(read(&client, ino, 0, 100).await.unwrap(), b"onetwo");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unlinked_file_lives_until_its_release_then_its_objects_go() {
    let cluster = Cluster::start(2).await;
    let (one, two) = (cluster.client(1), cluster.client(2));
    let ino = create(&one, "file", REGULAR).await.unwrap();
    let handle = two.handle(ino, 1);
    two.ask(MetaVerb::Open(handle.clone())).await.unwrap();
    two.write(ino, 0, pattern(3 * MIB).into()).await.unwrap();
    let place = Place { parent: 1, name: "file".into() };
    one.change(one.caller(0, 0), MetaVerb::Unlink(place.clone())).await.unwrap();
    assert_eq!(errno(one.ask(MetaVerb::Lookup(place)).await), Errno::NOENT);
    assert_eq!(read(&two, ino, MIB, 10).await.unwrap().len(), 10);
    assert_eq!(two.getattr(ino).await.unwrap().nlink, 0);
    two.ask(MetaVerb::Release(handle)).await.unwrap();
    assert_eq!(errno(two.getattr(ino).await), Errno::NOENT);
    let gone = async || cluster.objects(1).is_empty() && cluster.objects(2).is_empty();
    until("the objects are destroyed", gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_goes_down_closes_its_files() {
    let cluster = Cluster::start(3).await;
    let (one, three) = (cluster.client(1), cluster.client(3));
    let on_first = Pattern { stripe_count: 1, start: 1, ..Pattern::default() };
    one.setstripe("file", on_first, 0, 0).await.unwrap();
    let ino = one.resolve("file", 0, 0).await.unwrap().attr.unwrap().ino;
    one.write(ino, 0, "x".into()).await.unwrap();
    three.ask(MetaVerb::Open(three.handle(ino, 5))).await.unwrap();
    let place = Place { parent: 1, name: "file".into() };
    one.change(one.caller(0, 0), MetaVerb::Unlink(place)).await.unwrap();
    one.getattr(ino).await.unwrap();
    cluster.set_state(3, NodeState::Down);
    until("the file is gone with its last handle", async || one.getattr(ino).await.is_err()).await;
    until("so is its object", async || cluster.objects(1).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_restart_of_any_server_is_not_seen() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client(2);
    let ino = create(&client, "file", REGULAR).await.unwrap();
    client.write(ino, 0, pattern(3 * MIB).into()).await.unwrap();
    for node in [1, 3] {
        cluster.stop(node).await;
        let other = client.clone();
        let reader = tokio::spawn(async move { read(&other, ino, 0, 3 * MIB as u32).await });
        let other = client.clone();
        let maker = tokio::spawn(async move { create(&other, &format!("made{node}"), REGULAR).await });
        tokio::task::yield_now().await;
        cluster.resume(node).await;
        assert_eq!(reader.await.unwrap().unwrap(), pattern(3 * MIB));
        maker.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_an_error_at_once_and_new_files_avoid_it() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client(1);
    let ino = create(&client, "old", REGULAR).await.unwrap();
    client.write(ino, 0, pattern(3 * MIB).into()).await.unwrap();
    cluster.stop(3).await;
    cluster.set_state(3, NodeState::Down);
    let started = Instant::now();
    assert_eq!(errno(read(&client, ino, 0, 3 * MIB as u32).await), Errno::NOTCONN);
    assert_eq!(errno(client.getattr(ino).await), Errno::NOTCONN);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let made = async || {
        let ino = create(&client, "new", REGULAR).await.unwrap();
        let layout = match client.getstripe("new", 0, 0).await.unwrap() {
            Striping::File(layout) => layout,
            other => panic!("{other:?}"),
        };
        let place = Place { parent: 1, name: "new".into() };
        client.change(client.caller(0, 0), MetaVerb::Unlink(place)).await.unwrap();
        assert!(ino > 0);
        !layout.osts.contains(&3)
    };
    until("new files avoid the node", made).await;
    let df = client.df().await;
    assert_eq!(df.len(), 3);
    assert!(df[0].space.is_ok() && df[2].space.is_err());
    assert!(client.statfs().await.unwrap().space.total > 0);
    cluster.resume(3).await;
    cluster.set_state(3, NodeState::Up);
    until("the file is whole again", async || {
        read(&client, ino, 0, 3 * MIB as u32).await.is_ok_and(|bytes| bytes == pattern(3 * MIB))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_and_sizes_follow_the_last_who_set_them() {
    let cluster = Cluster::start(3).await;
    let (one, two) = (cluster.client(1), cluster.client(2));
    let ino = create(&one, "file", REGULAR).await.unwrap();
    one.write(ino, 0, pattern(2 * MIB).into()).await.unwrap();
    let old = Setattr { ino, mtime: Some(SetTime { now: false, at: 1_000 }), ..Setattr::default() };
    assert_eq!(two.setattr(two.caller(0, 0), old, None).await.unwrap().mtime, 1_000);
    assert_eq!(one.getattr(ino).await.unwrap().mtime, 1_000, "utimensat wins over the writes before it");
    one.write(ino, 0, "x".into()).await.unwrap();
    assert!(two.getattr(ino).await.unwrap().mtime > 1_000, "and a write over utimensat");
    let mode = Setattr { ino, mode: Some(0o4711), uid: Some(5), gid: Some(6), ..Setattr::default() };
    let attr = one.setattr(one.caller(0, 0), mode, None).await.unwrap();
    assert_eq!((attr.mode, attr.uid, attr.gid, attr.size), (0o104_711, 5, 6, 2 * MIB));
}

#[tokio::test(flavor = "multi_thread")]
async fn stripes_are_as_asked() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client(1);
    create(&client, "dir", DIRECTORY).await.unwrap();
    assert_eq!(client.getstripe("/dir", 0, 0).await.unwrap(), Striping::Directory(None));
    let pattern = Pattern { stripe_size: 131_072, stripe_count: 2, start: 2 };
    client.setstripe("/dir", pattern.clone(), 0, 0).await.unwrap();
    assert_eq!(client.getstripe("/dir/", 0, 0).await.unwrap(), Striping::Directory(Some(pattern.clone())));
    client.setstripe("/dir/file", Pattern { start: 3, ..pattern.clone() }, 0, 0).await.unwrap();
    let layout = Layout { stripe_size: 131_072, osts: vec![3, 1] };
    assert_eq!(client.getstripe("dir/file", 0, 0).await.unwrap(), Striping::File(layout));
    assert_eq!(errno(client.setstripe("/dir/file", pattern.clone(), 0, 0).await), Errno::EXIST);
    assert_eq!(errno(client.setstripe("/dir", pattern.clone(), 9, 9).await), Errno::PERM);
    assert_eq!(errno(client.setstripe("/dir/other", pattern.clone(), 9, 9).await), Errno::ACCESS);
    let odd = Pattern { stripe_size: 5, ..pattern };
    assert_eq!(errno(client.setstripe("/dir", odd, 0, 0).await), Errno::INVAL);
    assert_eq!(errno(client.getstripe("/nothing", 0, 0).await), Errno::NOENT);
    let ino = client.resolve("dir", 0, 0).await.unwrap().attr.unwrap().ino;
    let closed = Setattr { ino, mode: Some(0o710), gid: Some(7), ..Setattr::default() };
    client.setattr(client.caller(0, 0), closed, None).await.unwrap();
    assert_eq!(
        errno(client.getstripe("/dir/file", 9, 9).await),
        Errno::ACCESS,
        "may not search the directory"
    );
    assert_eq!(errno(client.getstripe("/dir/nothing", 9, 9).await), Errno::ACCESS, "nor learn what is in it");
    assert!(client.getstripe("/dir/file", 9, 7).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn extended_attributes_are_kept() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client(1);
    let ino = create(&client, "file", REGULAR).await.unwrap();
    let place = |name: &str| Place { parent: ino, name: name.into() };
    let set = |name: &str, value: &[u8], flags| {
        let set = Setxattr { place: Some(place(name)), value: value.to_vec(), flags };
        client.change(client.caller(0, 0), MetaVerb::Setxattr(set))
    };
    set("user.a", b"1", 0).await.unwrap();
    assert_eq!(errno(set("user.a", b"2", 1).await), Errno::EXIST);
    assert_eq!(errno(set("user.b", b"2", 2).await), Errno::NODATA);
    assert_eq!(errno(set("system.posix_acl_access", b"2", 0).await), Errno::OPNOTSUPP);
    set("security.x", b"", 0).await.unwrap();
    assert_eq!(client.ask(MetaVerb::Getxattr(place("user.a"))).await.unwrap().data, b"1");
    assert_eq!(client.ask(MetaVerb::Listxattr(ino)).await.unwrap().data, b"security.x\0user.a\0");
    client.change(client.caller(0, 0), MetaVerb::Removexattr(place("user.a"))).await.unwrap();
    assert_eq!(errno(client.ask(MetaVerb::Getxattr(place("user.a"))).await), Errno::NODATA);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_another_node_turned_has_the_size_of_what_it_means_now() {
    let cluster = Cluster::start(3).await;
    let (here, there) = (cluster.client(1), cluster.client(2));
    let place = |name: &str| Place { parent: 1, name: name.into() };
    for (name, length) in [("old", 100_000), ("new", 7)] {
        here.setstripe(name, Pattern::default(), 0, 0).await.unwrap();
        let ino = here.lookup(place(name)).await.unwrap().ino;
        here.write(ino, 0, vec![1; length].into()).await.unwrap();
    }
    for _ in 0..2 {
        assert_eq!(here.lookup(place("old")).await.unwrap().size, 100_000);
    }
    let rename = Rename { from: Some(place("new")), to: Some(place("old")), flags: 0 };
    there.change(there.caller(0, 0), MetaVerb::Rename(rename)).await.unwrap();
    assert_eq!(here.lookup(place("old")).await.unwrap().size, 7);
    assert_eq!(errno(here.lookup(place("new")).await), Errno::NOENT);
    let ino = there.lookup(place("old")).await.unwrap().ino;
    there.write(ino, 7, vec![2; 3].into()).await.unwrap();
    assert_eq!(here.lookup(place("old")).await.unwrap().size, 10);
}
