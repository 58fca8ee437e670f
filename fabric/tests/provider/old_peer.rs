//! A peer of the version before, recorded: what it says and is told, byte by byte, on a connection without encryption.
//!
//! `version2.hex` holds two conversations, one where the old peer calls and one where it is called: `> bytes` it sends, `< bytes` it must be
//! told, in records as they are on the wire behind the handshake; `xx*n` is a byte n times. It knows no `Taken`.

use crate::ground::Ground;
use crate::world::{ECHO, World, eventually, message, peer, service};
use base::NodeId;
use fabric::frame::{HEADER_BYTES, Header, Kind};
use fabric::setup::{Accepting, Dialling, Identity, Open, Step, Versions, Welcome};
use fabric::{ClusterKey, Keys, Limits, Message, Peer, Priority, Refusal, Role};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const RECORDED: &str = include_str!("version2.hex");
/// What the recorded requests of the new end allow.
const RECORDED_DEADLINE: Duration = Duration::from_secs(20);
const OLD: Versions = Versions { min: 2, max: 2 };
/// In front of each record: its length and flags.
const PREFIX_BYTES: usize = 4;

enum Line {
    Says(Vec<u8>),
    IsTold(Vec<u8>),
}

/// The conversation of this name.
fn conversation(name: &str) -> Vec<Line> {
    let lines = RECORDED.lines().skip_while(|line| *line != format!("= {name}")).skip(1);
    lines
        .take_while(|line| !line.starts_with('='))
        .filter(|line| line.starts_with(['<', '>']))
        .map(|line| {
            let bytes = line[1..].split_whitespace().flat_map(bytes).collect();
            if line.starts_with('>') { Line::Says(bytes) } else { Line::IsTold(bytes) }
        })
        .collect()
}

/// `0a1b2c`, or `0a*3`.
fn bytes(word: &str) -> Vec<u8> {
    let (digits, times) = word
        .split_once('*')
        .map_or((word, 1), |(digits, times)| (digits, times.parse().expect("a recorded number")));
    let pair = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("recorded digits");
    (0..digits.len()).step_by(2).map(pair).collect::<Vec<u8>>().repeat(times)
}

fn identity(node: u32) -> Identity {
    let local = Peer { node: NodeId(node), role: Role::Control };
    Identity { local, keys: Keys::one(ClusterKey::from_bytes([7; 32])), cluster: "blue".into() }
}

async fn more(stream: &mut TcpStream, input: &mut Vec<u8>) {
    let read = stream.read_buf(input).await.expect("the new end stays connected");
    assert!(read > 0, "the new end hung up");
}

/// Plays the old peer's part.
async fn play(stream: &mut TcpStream, mut input: Vec<u8>, lines: Vec<Line>) {
    for (at, line) in lines.into_iter().enumerate() {
        match line {
            Line::Says(bytes) => stream.write_all(&bytes).await.unwrap(),
            Line::IsTold(bytes) => {
                while input.len() < bytes.len() {
                    more(stream, &mut input).await;
                }
                let told: Vec<u8> = input.drain(..bytes.len()).collect();
                assert!(told == bytes, "line {at}: the old peer was told\n{}", drawn(&told));
            }
        }
    }
    assert!(input.is_empty(), "the old peer was told more:\n{}", drawn(&input));
}

/// Records and the headers in them, for whoever looks for the difference.
fn drawn(told: &[u8]) -> String {
    let digits: String = told.iter().take(200).map(|byte| format!("{byte:02x}")).collect();
    let header = told.get(PREFIX_BYTES..PREFIX_BYTES + HEADER_BYTES);
    let header = header.and_then(|header| Header::decode(header.try_into().ok()?).ok());
    format!("{digits}\n{header:?}")
}

/// A world with the grants of the recorded one.
fn world() -> World {
    let limits = Limits { window_kib: [16 << 10; 4], ..Limits::default() };
    World { limits, ..World::on(Ground::TcpAuthenticated) }
}

#[tokio::test]
async fn an_old_peer_calls_a_new_one() {
    let server = world().endpoint(2).await;
    server.serve(ECHO, service(|_, request| async move { request }));
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let (mut dialling, first) = Dialling::speaking(&identity(1), OLD);
    stream.write_all(&first).await.unwrap();
    let mut input = Vec::new();
    let open = |_| Open { session: 5, lane: 0, provider: 3, ..Open::default() };
    let dialled = loop {
        match dialling.advance(&mut input, &open).unwrap() {
            Step::More => more(&mut stream, &mut input).await,
            Step::Send(bytes) => stream.write_all(&bytes).await.unwrap(),
            Step::Done(dialled) => break dialled,
        }
    };
    assert_eq!((dialled.version, dialled.welcome.encrypted), (2, false));
    play(&mut stream, input, conversation("the old peer calls")).await;
    drop(stream);
    eventually("the new end notices", || server.status().accepted == 0).await;
    assert_eq!(server.status().refused.total(), 0);
}

/// Accepts one connection as an old peer.
async fn accept(listener: &TcpListener) -> (TcpStream, Vec<u8>, u16) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let (mut accepting, mut input) = (Accepting::speaking(OLD), Vec::new());
    let opened = loop {
        match accepting.advance(&mut input, &identity(2)).unwrap() {
            Step::More => more(&mut stream, &mut input).await,
            Step::Send(bytes) => stream.write_all(&bytes).await.unwrap(),
            Step::Done(opened) => break opened,
        }
    };
    let welcome = Welcome { slots: vec![4; 4], window_kib: vec![1 << 10; 4], ..Welcome::default() };
    stream.write_all(&opened.welcome(&welcome)).await.unwrap();
    (stream, input, opened.version)
}

#[tokio::test]
async fn a_new_peer_calls_an_old_one_and_never_says_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let caller = world().endpoint(1).await;
    caller.set_address(peer(2), listener.local_addr().unwrap());
    let old = async {
        let (mut stream, input, version) = accept(&listener).await;
        assert_eq!(version, 2);
        play(&mut stream, input, conversation("the old peer is called")).await;
        stream
    };
    let calls = async {
        let call = |head: &'static [u8]| {
            caller.call(peer(2), ECHO, Priority::Control, message(head), RECORDED_DEADLINE)
        };
        assert_eq!(
            call(b"long").await.unwrap(),
            Message { bulk: vec![0xab; 2_048].into(), ..message(b"re") }
        );
        assert_eq!(call(b"again").await.unwrap(), message(b"ok"));
    };
    let (_stream, ()) = tokio::join!(old, calls);
}

#[tokio::test]
async fn a_peer_of_the_version_before_that_is_refused() {
    let server = world().endpoint(2).await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let (mut dialling, first) = Dialling::speaking(&identity(1), Versions { min: 1, max: 1 });
    stream.write_all(&first).await.unwrap();
    let mut input = Vec::new();
    stream.read_to_end(&mut input).await.unwrap();
    assert_eq!(dialling.advance(&mut input, &|_| Open::default()).err(), Some(Refusal::Version));
    eventually("it is counted", || server.status().refused.version == 1).await;
}

#[test]
fn no_recorded_frame_is_a_taken() {
    for name in ["the old peer calls", "the old peer is called"] {
        let lines = conversation(name);
        assert!(lines.len() >= 4, "{name} is recorded");
        for line in lines {
            let (Line::Says(bytes) | Line::IsTold(bytes)) = line;
            let header = bytes[PREFIX_BYTES..PREFIX_BYTES + HEADER_BYTES].try_into().unwrap();
            assert_ne!(Header::decode(header).unwrap().kind, Kind::Taken);
        }
    }
}
