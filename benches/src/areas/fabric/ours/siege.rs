//! Good calls while strangers knock.

use super::{Driver, Setting, calling};
use crate::Error;
use crate::areas::fabric::side::{finished, warm};
use base::NodeId;
use fabric::setup::{Dialling, Identity};
use fabric::{ClusterKey, Keys, Peer, Role};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// How long a stranger waits to be sent away.
const PATIENCE: Duration = Duration::from_secs(1);

/// Drives `count` calls, 64 at once, while `rate` strangers a second who do not hold the key come to the server's door.
pub fn besieged(setting: &Setting, at: &str, count: usize, rate: u32) -> Result<(), Error> {
    let driver = Driver::connect(setting, at)?;
    let (over, stop) = channel();
    let address = at.to_owned();
    let strangers = thread::spawn(move || knock(&address, rate, &stop));
    let outcome = driver.run(async |endpoint| {
        calling::calls_of(endpoint, count / 8, 64, 1).await?;
        let before = warm()?;
        let laps = calling::calls_of(endpoint, count, 64, 1).await?;
        finished(laps.sample()?, &before)
    });
    drop(over);
    strangers.join().map_err(|_| "the strangers have fallen over")?;
    outcome
}

/// Comes and is sent away, `rate` times a second, until told to stop.
fn knock(address: &str, rate: u32, stop: &Receiver<()>) {
    if rate == 0 {
        return;
    }
    let local = Peer { node: NodeId(9), role: Role::Control };
    let keys = Keys::one(ClusterKey::from_bytes([9; 32]));
    let (_, first) = Dialling::begin(&Identity { local, keys, cluster: "bench".into() });
    let mut waiting: Vec<TcpStream> = Vec::new();
    while stop.recv_timeout(Duration::from_secs(1) / rate) == Err(RecvTimeoutError::Timeout) {
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        // Whether it is heard or sent away at once is all the same.
        let _ = stream.write_all(&first);
        let _ = stream.set_read_timeout(Some(PATIENCE));
        waiting.push(stream);
        if waiting.len() > 32 {
            let _ = waiting.remove(0).read(&mut [0; 64]);
        }
    }
}
