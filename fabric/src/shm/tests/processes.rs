//! Two real processes, and what is left in one when links are gone.

use super::*;
use std::process::{Child, Command, Stdio};

/// Says to a test that it runs in a process of its own.
const ALONE: &str = "SSI_TEST_SHM_ALONE";

/// Runs this test again in a process of its own, with the socket as its standard input.
fn start(test: &str, socket: Stdio) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("shm::tests::processes::{test}"), "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .stdin(socket)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn is_alone() -> bool {
    std::env::var_os(ALONE).is_some()
}

/// A child that dies with its test.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Answers each request with a piece of its own memory, until the other end is gone.
fn echo() {
    let socket = std::io::Write::flush(&mut std::io::stdout())
        .and_then(|()| std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned())
        .unwrap();
    let mut side = Side::set_up(socket, End::Accepted);
    side.seen.memory = Some(Memory::new(CHUNK_BYTES).unwrap());
    let own = memory(CHUNK_BYTES, 9);
    while let Ok((header, bytes)) = side.next() {
        let length = header.bulk as usize;
        side.push(match header.kind {
            Kind::Write => {
                let span = Span::of(&own, 0, length).unwrap();
                span.fill(&bytes[ACCESS_BYTES..]);
                piece(Kind::ReadData, header.sequence, span)
            }
            _ => request(header.sequence, length),
        });
    }
}

#[test]
fn another_process_answers_and_its_death_is_seen_at_once() {
    if is_alone() {
        return echo();
    }
    let (ours, theirs) = sockets();
    let mut child = Guard(start("another_process_answers_and_its_death_is_seen_at_once", theirs.into()));
    let mut side = Side::set_up(ours, End::Dialled { ring_bytes: RING_BYTES });
    side.seen.memory = Some(Memory::new(CHUNK_BYTES).unwrap());
    let source = memory(CHUNK_BYTES, 4);
    for (sequence, length) in [64, 4000, 200_000, 5000].into_iter().cycle().take(400).enumerate() {
        let sequence = sequence as u64;
        side.push(request(sequence, length));
        assert_eq!(side.next().unwrap().0.sequence, sequence);
        let sent = piece(Kind::Write, sequence, Span::of(&source, 7, length).unwrap());
        side.push(sent.clone());
        let (header, bytes) = side.next().unwrap();
        assert!(header.kind == Kind::ReadData && bytes == body(&sent));
    }
    // It sleeps, and so does this end, when it is killed.
    let mut ready = Vec::new();
    while !side.link.arm(&mut side.reactor).unwrap() {
        side.reactor.wait(Some(Duration::ZERO), &mut ready).unwrap();
        if ready.is_empty() {
            break;
        }
        ready.clear();
        side.receive().unwrap();
    }
    child.0.kill().unwrap();
    assert!(matches!(side.next(), Err(LinkError::Lost(_))));
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("memfd:ssi-")).count()
}

#[test]
fn no_descriptor_and_no_mapping_is_left_when_links_and_memories_are_gone() {
    if !is_alone() {
        let name = "no_descriptor_and_no_mapping_is_left_when_links_and_memories_are_gone";
        assert!(start(name, Stdio::null()).wait().unwrap().success());
        return;
    }
    let before = (descriptors(), mappings());
    for _ in 0..3 {
        let (mut dialled, mut accepted) = pair(RING_BYTES);
        accepted.seen.memory = Some(Memory::new(CHUNK_BYTES).unwrap());
        let linked = (descriptors(), mappings());
        for sequence in 0..200 {
            // A new memory each time.
            let span = Span::of(&memory(8192, 1), 0, 8192).unwrap();
            dialled.push(piece(Kind::Write, sequence, span));
            assert_eq!(accepted.next().unwrap().0.sequence, sequence);
        }
        dialled.link.arm(&mut dialled.reactor).unwrap();
        accepted.receive().unwrap();
        assert_eq!((descriptors(), mappings()), linked, "all lent memories are forgotten");
        dialled.close();
        accepted.close();
    }
    assert_eq!((descriptors(), mappings()), before);
}
