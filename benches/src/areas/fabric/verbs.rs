//! The same over an RDMA device, beside perftest: for a machine that has one, or a virtual one with Soft-RoCE.

use super::contest::{Read, mib, micros};
use super::pair::Pair;
use super::peers::perftest::{self, Device};
use crate::Error;
use crate::areas::print;
use ssi_benches::Target::{AtLeast, AtMost};
use ssi_benches::alternate;

/// Blocks of each side.
const BLOCKS: usize = 5;

/// Ours beside one of perftest's programs.
struct Contest {
    /// Words of our server and driver.
    ours: (&'static str, &'static str),
    read: Read,
    program: &'static str,
    bytes: usize,
    iterations: usize,
    column: &'static str,
    /// What one of ours is in terms of the program's: it tells half a round trip of sends.
    times: f64,
}

const CONTESTS: [Contest; 3] = [
    Contest {
        ours: ("ours.serve verbs encrypted poll", "ours.call verbs encrypted poll 1000 1 1"),
        read: micros("fabric.verbs.call64.p50", "p50", AtMost(1.4)),
        program: "ib_send_lat",
        bytes: 64,
        iterations: 1000,
        column: "t_typical",
        times: 2.0,
    },
    Contest {
        ours: ("ours.serve verbs encrypted poll", "ours.read8 verbs encrypted poll 1000"),
        read: micros("fabric.verbs.read8.p50", "p50", AtMost(1.3)),
        program: "ib_read_lat",
        bytes: 8,
        iterations: 1000,
        column: "t_typical",
        times: 1.0,
    },
    Contest {
        ours: ("ours.serve verbs encrypted poll", "ours.write verbs encrypted poll 100 4 1"),
        read: mib("fabric.verbs.write1m", AtLeast(0.9)),
        program: "ib_write_bw",
        bytes: 1 << 20,
        iterations: 100,
        column: "average",
        times: 1.0,
    },
];

/// Measures and prints; `words` may name the device and the index of its address.
pub fn run(words: &[&str]) -> Result<(), Error> {
    let device = match words {
        [] => perftest::first_device().ok_or("this machine has no RDMA device")?,
        [name] => Device { name: (*name).to_owned(), gid: "1".to_owned() },
        [name, gid] => Device { name: (*name).to_owned(), gid: (*gid).to_owned() },
        _ => return Err("fabric-verbs [DEVICE [GID]]".into()),
    };
    for contest in &CONTESTS {
        contest.run(&device)?;
    }
    Ok(())
}

impl Contest {
    fn run(&self, device: &Device) -> Result<(), Error> {
        let (read, pair) = (&self.read, Pair::new(self.ours.0, self.ours.1));
        let (bytes, count) = (self.bytes, self.iterations);
        let words = format!("-F -d {} -x {} -s {bytes} -n {count}", device.name, device.gid);
        println!("# ours: {}", self.ours.1);
        println!(
            "# peer: {} {words}, {} x {}, both ends on this machine",
            self.program, self.times, self.column
        );
        let blocks = alternate(
            BLOCKS,
            || pair.block()?.value(read.key),
            || Ok(perftest::once(self.program, bytes, count, device, self.column)? * self.times),
        )?;
        print(read.name, &blocks, self.program, read.unit, read.target);
        Ok(())
    }
}
