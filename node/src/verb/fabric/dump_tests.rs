//! A capture is made of what two real endpoints say to each other through a relay that writes it down, and read again.

use super::dump;
use bytes::Bytes;
use fabric::{
    ClusterKey, Config, Endpoint, Message, Peer, Priority, Reply, Rights, Role, Security, Service, ServiceId,
};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

const SERVICE: ServiceId = ServiceId(77);
const DEADLINE: Duration = Duration::from_secs(20);

/// A pcap file of raw IPv4 packets, as it grows. Each connection has ports of its own.
#[derive(Clone)]
struct Tape(Arc<Mutex<Vec<u8>>>);

impl Tape {
    fn new() -> Tape {
        let mut file = 0xa1b2_c3d4u32.to_le_bytes().to_vec();
        for number in [0x0004_0002u32, 0, 0, 1 << 18, 101] {
            file.extend(number.to_le_bytes());
        }
        Tape(Arc::new(Mutex::new(file)))
    }

    fn packet(&self, ports: (u16, u16), sequence: u32, flags: u8, payload: &[u8]) {
        let length = 40 + payload.len();
        let mut ip = vec![0x45, 0];
        ip.extend((length as u16).to_be_bytes());
        ip.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        ip.extend(ports.0.to_be_bytes());
        ip.extend(ports.1.to_be_bytes());
        ip.extend(sequence.to_be_bytes());
        ip.extend([0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
        ip.extend(payload);
        let mut file = self.0.lock().unwrap();
        for number in [1, 2, length as u32, length as u32] {
            file.extend(number.to_le_bytes());
        }
        file.extend(ip);
    }
}

/// Passes one direction on and writes it down first.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, tape: Tape, ports: (u16, u16)) {
    let (mut buffer, mut sequence) = (vec![0; 30_000], u32::MAX - 100);
    tape.packet(ports, sequence, if ports.0 > ports.1 { 2 } else { 18 }, b"");
    sequence = sequence.wrapping_add(1);
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        tape.packet(ports, sequence, 16, &buffer[..read]);
        sequence = sequence.wrapping_add(read as u32);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

async fn relay(to: SocketAddr, tape: Tape) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut port = 40_000;
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(to).await.unwrap();
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::spawn(pass(near_in, far_out, tape.clone(), (port, 7_100)));
            tokio::spawn(pass(far_in, near_out, tape.clone(), (7_100, port)));
            port += 1;
        }
    });
    address
}

struct Echo;

impl Service for Echo {
    fn handle(self: Arc<Self>, _: Peer, request: Message) -> Reply {
        Reply::Now(request)
    }
}

/// What passes between two endpoints that call and write: the capture.
async fn captured(security: Security) -> Vec<u8> {
    let endpoint = |node| {
        let local = Peer { node: base::NodeId(node), role: Role::Control };
        let key = ClusterKey::from_bytes([7; 32]);
        let mut config = Config::new(local, "127.0.0.1:0".parse().unwrap(), key, "blue");
        config.security = security;
        Endpoint::bind(config)
    };
    let (caller, server) = (endpoint(1).await.unwrap(), endpoint(2).await.unwrap());
    server.serve(SERVICE, Arc::new(Echo));
    let tape = Tape::new();
    caller.set_address(server.local(), relay(server.address(), tape.clone()).await);
    let request = Message { head: Bytes::from_static(b"head"), bulk: Bytes::from(vec![9; 5_000]) };
    let reply = caller.call(server.local(), SERVICE, Priority::Lock, request.clone(), DEADLINE).await;
    assert_eq!(reply.unwrap(), request);
    let (from, into) = (caller.register(50_000).unwrap(), server.register(50_000).unwrap());
    let key = into.grant(caller.local(), Rights::ALL).unwrap();
    caller.write(&key, 8, &[from.part(0, 40_000).unwrap()], DEADLINE).await.unwrap();
    caller.close().await;
    server.close().await;
    tape.0.lock().unwrap().clone()
}

fn lines(capture: &[u8]) -> Vec<Value> {
    let mut out = Vec::new();
    assert_eq!(dump(capture, &mut out, true).unwrap(), 0);
    String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn count(lines: &[Value], what: &str) -> usize {
    lines.iter().filter(|line| line["what"] == what).count()
}

#[tokio::test]
async fn an_authenticated_connection_is_read_frame_by_frame() {
    let capture = captured(Security::Authenticated).await;
    let lines = lines(&capture);
    // Two lanes, and both ends of each.
    assert_eq!((count(&lines, "preamble"), count(&lines, "answer")), (2, 2));
    assert_eq!((count(&lines, "hello"), count(&lines, "broken"), count(&lines, "record")), (4, 0, 0));
    let frame = |kind: &str| {
        lines.iter().find(|line| line["kind"] == kind).unwrap_or_else(|| panic!("no {kind}: {lines:#?}"))
    };
    let request = frame("request");
    assert!(
        request["channel"] == "lock" && request["service"] == 77 && request["sequence"] == 1,
        "{request}"
    );
    assert!(
        request["head"] == 4 && request["bulk"] == 5_000 && request["to"] == "10.0.0.2:7100",
        "{request}"
    );
    let reply = frame("reply");
    assert!(
        reply["verdict"] == "answered" && reply["bulk"] == 5_000 && reply["credit_kib"].as_u64() > Some(0),
        "{reply}"
    );
    assert_eq!(frame("write")["access"]["offset"], 8);
    let pieces =
        lines.iter().filter(|line| line["what"] == "piece").map(|line| line["bytes"].as_u64().unwrap());
    assert_eq!(pieces.sum::<u64>(), 40_000);
    assert_eq!(frame("done")["verdict"], "answered");
    let mut out = Vec::new();
    dump(&capture[..], &mut out, false).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("1.000002 10.0.0.1:40000 > 10.0.0.2:7100 preamble versions"), "{text}");
    assert!(text.contains("request lock slot 0 sequence 1 service 77 head 4 bulk 5000"), "{text}");
}

#[tokio::test]
async fn of_an_encrypted_connection_only_lengths_are_seen() {
    let lines = lines(&captured(Security::Encrypted).await);
    assert!(
        count(&lines, "record") >= 4
            && count(&lines, "frame") + count(&lines, "piece") + count(&lines, "broken") == 0
    );
    let sealed =
        lines.iter().filter(|line| line["what"] == "record").map(|line| line["sealed"].as_u64().unwrap());
    assert!(sealed.sum::<u64>() > 50_000);
}

#[tokio::test]
async fn other_connections_and_lost_packets_are_told_apart() {
    let tape = Tape::new();
    tape.packet((5_000, 80), 1, 16, b"GET / HTTP/1.1");
    tape.packet((5_001, 7_100), 9, 2, b"");
    tape.packet((5_001, 7_100), 10, 16, &[&b"SSIFAB\r\n"[..], &[2, 0, 3, 0], &[0; 12]].concat());
    tape.packet((5_001, 7_100), 40, 16, b"later");
    let file = tape.0.lock().unwrap().clone();
    let mut out = Vec::new();
    assert_eq!(dump(&file[..], &mut out, false).unwrap(), 1);
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("preamble versions 2-3") && text.contains("6 bytes are missing"), "{text}");
}
