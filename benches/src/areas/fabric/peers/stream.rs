//! One TCP stream whose receiver touches what it receives, as iperf3 would if it could: a byte of each cache line is read.

use crate::Error;
use crate::areas::fabric::sample::throughput;
use crate::areas::fabric::side::{finished, serving, warm};
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Instant;

/// Bytes of one write and at most of one read: iperf3's own default for TCP.
const BLOCK: usize = 128 << 10;
/// Bytes of a cache line.
const LINE: usize = 64;
/// MiB before the clock starts.
const WARM_UP: usize = 64;

/// Takes one stream to its end and says so.
pub fn serve() -> Result<(), Error> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    serving(&listener.local_addr()?.to_string())?;
    loop {
        let (mut stream, _) = listener.accept()?;
        let (mut block, mut sum) = (vec![0; BLOCK], 0u8);
        loop {
            let more = stream.read(&mut block)?;
            if more == 0 {
                break;
            }
            sum = block[..more].iter().step_by(LINE).fold(sum, |sum, byte| sum.wrapping_add(*byte));
        }
        stream.write_all(&[black_box(sum)])?;
    }
}

/// Sends `mib` MiB and waits until the receiver has them all.
pub fn drive(mib: usize, at: &str) -> Result<(), Error> {
    send(WARM_UP, at)?;
    let before = warm()?;
    let begun = Instant::now();
    send(mib, at)?;
    finished(throughput(mib, begun), &before)
}

fn send(mib: usize, at: &str) -> Result<(), Error> {
    let mut stream = TcpStream::connect(at)?;
    let block = vec![7; BLOCK];
    for _ in 0..mib * (1 << 20) / BLOCK {
        stream.write_all(&block)?;
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(stream.read_exact(&mut [0])?)
}
