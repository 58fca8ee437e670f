//! Figures, printed and not judged: links without an engine against bare sockets. They mean something in a release build:
//! `cargo test --release -p fabric tcp::tests::figures -- --nocapture --test-threads 1`.

use super::*;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

const ROUNDS: usize = if cfg!(debug_assertions) { 200 } else { 10_000 };
const MEBIBYTES: usize = if cfg!(debug_assertions) { 32 } else { 1_000 };
const REPEATS: usize = if cfg!(debug_assertions) { 1 } else { 5 };
const REGION_BYTES: usize = 1 << 20;
const PIECE_BYTES: usize = 128 << 10;

fn streams() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (theirs, _) = listener.accept().unwrap();
    ours.set_nodelay(true).unwrap();
    theirs.set_nodelay(true).unwrap();
    (ours, theirs)
}

fn link(stream: TcpStream, (io, sealed): (Io, bool), first: bool) -> (TcpLink, Reactor) {
    let mut reactor = reactor(io);
    let stream = OwnedFd::from(stream);
    let link = TcpLink::new(stream, Token(1), &mut reactor, protection(sealed, first), Vec::new()).unwrap();
    (link, reactor)
}

/// A sink that counts, and places everything into one region.
#[derive(Default)]
struct Count {
    frames: usize,
    bytes: usize,
    region: Option<Span>,
}

impl Sink for Count {
    fn frame(&mut self, _header: Header, body: Bytes) -> Result<(), WireError> {
        self.frames += 1;
        self.bytes += body.len();
        Ok(())
    }
    fn place(&mut self, header: &Header, access: &Access) -> Result<Place, WireError> {
        let region = self.region.as_ref();
        let span = region.and_then(|span| span.part(access.offset as usize, header.bulk as usize));
        Ok(span.map_or(Place::Skip, Place::Span))
    }
    fn placed(&mut self, header: &Header, _access: &Access) -> Result<(), WireError> {
        self.frames += 1;
        self.bytes += header.bulk as usize;
        Ok(())
    }
    fn posted(&mut self, _work: u64, _outcome: Result<(), LinkError>) {}
    fn notified(&mut self, _region: u64) {}
}

/// Receives until the count is so high; false when the other end closed. `spin` asks again and again instead of sleeping.
fn until(link: &mut TcpLink, reactor: &mut Reactor, count: &mut Count, frames: usize, spin: bool) -> bool {
    let mut ready = Vec::new();
    while count.frames < frames {
        if spin {
            std::thread::yield_now();
        } else {
            ready.clear();
            reactor.wait(None, &mut ready).unwrap();
        }
        while match link.receive(reactor, count, usize::MAX) {
            Ok(more) => more,
            Err(_) => return false,
        } {}
    }
    true
}

fn smallest(times: impl Iterator<Item = Duration>) -> Duration {
    times.min().unwrap_or_default()
}

/// The median round trip of `batch` frames of 64 bytes at once.
fn ping_pong(way: (Io, bool), spin: bool, batch: usize) -> Duration {
    let (ours, theirs) = streams();
    let echo = std::thread::spawn(move || {
        let (mut link, mut reactor) = link(theirs, way, false);
        let (mut count, mut next) = (Count::default(), batch);
        let frame = request(0, &[1; 64], b"");
        while until(&mut link, &mut reactor, &mut count, next, spin) {
            (0..batch).for_each(|_| link.push(frame.clone()));
            link.flush(&mut reactor).unwrap();
            next += batch;
        }
    });
    let (mut link, mut reactor) = link(ours, way, true);
    let mut count = Count::default();
    let frame = request(0, &[1; 64], b"");
    let mut times: Vec<Duration> = (1..=ROUNDS / batch)
        .map(|round| {
            let start = Instant::now();
            (0..batch).for_each(|_| link.push(frame.clone()));
            link.flush(&mut reactor).unwrap();
            assert!(until(&mut link, &mut reactor, &mut count, round * batch, spin));
            start.elapsed()
        })
        .collect();
    drop((link, reactor));
    echo.join().unwrap();
    times.sort();
    times[times.len() / 2]
}

fn bare_ping_pong(spin: bool) -> Duration {
    let (mut ours, mut theirs) = streams();
    ours.set_nonblocking(spin).unwrap();
    theirs.set_nonblocking(spin).unwrap();
    fn read(stream: &mut TcpStream, bytes: &mut [u8]) -> bool {
        loop {
            match stream.read(bytes) {
                Ok(got) => return got == bytes.len(),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(_) => return false,
            }
        }
    }
    let echo = std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while read(&mut theirs, &mut bytes) {
            theirs.write_all(&bytes).unwrap();
        }
    });
    let mut bytes = [1; 64];
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            ours.write_all(&bytes).unwrap();
            assert!(read(&mut ours, &mut bytes));
            start.elapsed()
        })
        .collect();
    drop(ours);
    echo.join().unwrap();
    times.sort();
    times[times.len() / 2]
}

/// How long writes of 1 MiB take, eight at once, each answered by a small frame.
fn writes(way: (Io, bool)) -> Duration {
    const MEBIBYTE: usize = 1 << 20;
    let (ours, theirs) = streams();
    let target = std::thread::spawn(move || {
        let (mut link, mut reactor) = link(theirs, way, false);
        let memory = Memory::new(REGION_BYTES).unwrap();
        let mut count = Count { region: Span::of(&memory, 0, REGION_BYTES), ..Count::default() };
        let mut done = 0;
        let mut ready = Vec::new();
        while let Ok(more) = link.receive(&mut reactor, &mut count, usize::MAX) {
            while done < count.bytes / MEBIBYTE {
                done += 1;
                link.push(empty(Kind::Done));
            }
            if link.flush(&mut reactor).is_err() {
                break;
            }
            if !more {
                ready.clear();
                reactor.wait(None, &mut ready).unwrap();
            }
        }
    });
    let (mut link, mut reactor) = link(ours, way, true);
    let memory = Memory::new(REGION_BYTES).unwrap();
    let region = Span::of(&memory, 0, REGION_BYTES).unwrap();
    region.fill(&vec![3; REGION_BYTES]);
    let template = match piece(7, 0, PIECE_BYTES, 0) {
        Frame { header, body: Body::Piece(access, _) } => (header, access),
        other => panic!("a piece, not {other:?}"),
    };
    let (mut count, mut pushed, mut ready) = (Count::default(), 0, Vec::new());
    let start = Instant::now();
    while count.frames < MEBIBYTES {
        while link.room() > 0 && pushed < MEBIBYTES * MEBIBYTE && pushed < (count.frames + 8) * MEBIBYTE {
            let at = pushed % REGION_BYTES;
            let (header, mut access) = template;
            access.offset = at as u64;
            let frame = Frame { header, body: Body::Piece(access, region.part(at, PIECE_BYTES).unwrap()) };
            link.push(frame);
            pushed += PIECE_BYTES;
            if link.room() < super::super::ROOM_BYTES / 2 {
                link.flush(&mut reactor).unwrap();
            }
        }
        link.flush(&mut reactor).unwrap();
        if !link.receive(&mut reactor, &mut count, usize::MAX).unwrap()
            && (link.room() == 0 || pushed >= (count.frames + 8) * MEBIBYTE)
            && count.frames < MEBIBYTES
        {
            ready.clear();
            reactor.wait(None, &mut ready).unwrap();
        }
    }
    let elapsed = start.elapsed();
    drop((link, reactor));
    target.join().unwrap();
    elapsed
}

/// The same bytes over a bare socket, 128 KiB at a time, into the same region again and again.
fn bare_copy() -> Duration {
    let (mut ours, mut theirs) = streams();
    let target = std::thread::spawn(move || {
        let mut into = vec![1; REGION_BYTES];
        let mut got = 0;
        while got < MEBIBYTES << 20 {
            let at = got % REGION_BYTES;
            got += theirs.read(&mut into[at..]).unwrap();
        }
        theirs.write_all(&[1]).unwrap();
    });
    let from = vec![3; REGION_BYTES];
    let start = Instant::now();
    for piece in 0..MEBIBYTES * 8 {
        let at = piece * PIECE_BYTES % REGION_BYTES;
        ours.write_all(&from[at..at + PIECE_BYTES]).unwrap();
    }
    ours.read_exact(&mut [0]).unwrap();
    let elapsed = start.elapsed();
    target.join().unwrap();
    elapsed
}

/// The processor time of this process so far, both ends together: the figure that load from others disturbs least.
fn processor() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// MB/s, and microseconds of processor time for each MiB.
fn rate(run: impl FnOnce() -> Duration) -> (f64, f64) {
    let before = processor();
    let elapsed = run();
    let used = (processor() - before).as_secs_f64() * 1e6 / MEBIBYTES as f64;
    ((MEBIBYTES << 20) as f64 / elapsed.as_secs_f64() / 1e6, used)
}

#[test]
fn ping_pong_of_64_bytes_against_bare_sockets() {
    let best = |one: &dyn Fn() -> Duration| smallest((0..REPEATS).map(|_| one()));
    println!("bare, blocking      {:?}", best(&|| bare_ping_pong(false)));
    println!("bare, spinning      {:?}", best(&|| bare_ping_pong(true)));
    for way in WAYS {
        let (sleeping, spinning) = (best(&|| ping_pong(way, false, 1)), best(&|| ping_pong(way, true, 1)));
        let each = best(&|| ping_pong(way, false, 64)) / 64;
        println!(
            "{:?}, sealed {}: sleeping {sleeping:?}, spinning {spinning:?}, 64 at once: each {each:?}",
            way.0, way.1
        );
    }
}

#[test]
fn writes_of_a_mebibyte_against_a_bare_socket() {
    for _ in 0..REPEATS {
        let (bare, bare_used) = rate(bare_copy);
        println!("bare: {bare:.0} MB/s, {bare_used:.0} us/MiB");
        for way in WAYS {
            let (ours, used) = rate(|| writes(way));
            println!("{:?}, sealed {}: {ours:.0} MB/s ({:.2}), {used:.0} us/MiB", way.0, way.1, ours / bare);
        }
    }
}
