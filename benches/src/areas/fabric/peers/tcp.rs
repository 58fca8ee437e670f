//! Bare TCP: 96 bytes there and 96 back, as much as a call of 64 bytes with a 32-byte header.

use crate::Error;
use crate::areas::fabric::sample::Laps;
use crate::areas::fabric::side::{finished, rest, serving, warm};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

/// Bytes each way.
const BYTES: usize = 96;
/// Round trips before the clock starts.
const WARM_UP: usize = 2_000;

/// Echoes what one connection sends, blocking (`block`) or asking again and again (`spin`).
pub fn serve(how: &str) -> Result<(), Error> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    serving(&listener.local_addr()?.to_string())?;
    let (mut stream, _) = listener.accept()?;
    set_up(&stream, how)?;
    let mut bytes = [0; BYTES];
    while take(&mut stream, &mut bytes).is_ok() {
        stream.write_all(&bytes)?;
    }
    rest()
}

/// Sends and waits for the echo, `count` times.
pub fn drive(how: &str, count: usize, at: &str) -> Result<(), Error> {
    let mut stream = TcpStream::connect(at)?;
    set_up(&stream, how)?;
    let mut bytes = [7; BYTES];
    for _ in 0..WARM_UP {
        stream.write_all(&bytes)?;
        take(&mut stream, &mut bytes)?;
    }
    let before = warm()?;
    let mut laps = Laps::start(count, 1);
    for _ in 0..count {
        stream.write_all(&bytes)?;
        take(&mut stream, &mut bytes)?;
        laps.lap();
    }
    finished(laps.sample()?, &before)
}

fn set_up(stream: &TcpStream, how: &str) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    match how {
        "block" => Ok(()),
        "spin" => Ok(stream.set_nonblocking(true)?),
        _ => Err(format!("tcp {how}").into()),
    }
}

/// Reads until the buffer is full; of a socket that does not block, by asking again and again.
fn take(stream: &mut TcpStream, bytes: &mut [u8]) -> io::Result<()> {
    let mut have = 0;
    while have < bytes.len() {
        match stream.read(&mut bytes[have..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(more) => have += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
