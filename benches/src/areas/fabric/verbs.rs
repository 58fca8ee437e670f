//! The same over RDMA devices, beside perftest: for a machine that has some, or a virtual one with Soft-RoCE.
//!
//! Invariant: both sides of a figure go between the same two devices, by turns, and ours only once verbs carries both lanes. Nobody is
//! pinned: where the kernel plays the device, it works on whichever core a packet reaches, and would share it with who is pinned there.

use super::contest::{Read, mib, micros};
use super::pair::Pair;
use super::peers::perftest::{Device, Program, devices};
use crate::Error;
use crate::areas::print;
use ssi_benches::Target::{AtLeast, AtMost};
use ssi_benches::alternate;

/// Blocks of each side.
const BLOCKS: usize = 5;

/// Ours beside one of perftest's programs.
struct Contest {
    /// What is read, by those who poll and by those who sleep.
    reads: [Read; 2],
    /// The name of our driver, and its words behind the setting.
    ours: (&'static str, &'static str),
    /// The server has no part in it, and sleeps, as the peer's does.
    one_sided: bool,
    peer: Program,
}

const CONTESTS: [Contest; 3] = [
    Contest {
        reads: [
            micros("fabric.verbs.call64.p50", "p50", AtMost(1.4)),
            micros("fabric.verbs.call64.sleeping.p50", "p50", AtMost(1.4)),
        ],
        ours: ("ours.call", "1000 1 1"),
        one_sided: false,
        // It tells half a round trip.
        peer: Program { name: "ib_send_lat", words: "-s 64 -n 1000", column: "t_typical", times: 2.0 },
    },
    Contest {
        reads: [
            micros("fabric.verbs.read8.p50", "p50", AtMost(1.3)),
            micros("fabric.verbs.read8.sleeping.p50", "p50", AtMost(1.3)),
        ],
        ours: ("ours.read8", "1000"),
        one_sided: true,
        peer: Program { name: "ib_read_lat", words: "-s 8 -n 1000", column: "t_typical", times: 1.0 },
    },
    Contest {
        reads: [
            mib("fabric.verbs.write1m", AtLeast(0.9)),
            mib("fabric.verbs.write1m.sleeping", AtLeast(0.9)),
        ],
        ours: ("ours.write", "100 4 1"),
        one_sided: true,
        peer: Program { name: "ib_write_bw", words: "-s 1048576 -n 100", column: "average", times: 1.0 },
    },
];

/// Measures and prints: `poll|sleep [DEVICE [DEVICE]] [PART]`, between a device and itself or another one.
pub fn run(words: &[&str]) -> Result<(), Error> {
    let [wait @ ("poll" | "sleep"), names @ ..] = words else {
        return Err("fabric-verbs poll|sleep [DEVICE [DEVICE [PART]]]".into());
    };
    let all = devices();
    let named = |name: &str| {
        let found = all.iter().find(|device| device.name == name);
        found.cloned().ok_or_else(|| format!("no device {name} with an IP address"))
    };
    let first = || all.first().cloned().ok_or("this machine has no RDMA device with an IP address");
    let (ends, part) = match names {
        [] => ([first()?, first()?], ""),
        [one] => ([named(one)?, named(one)?], ""),
        [one, other] => ([named(one)?, named(other)?], ""),
        [one, other, part] => ([named(one)?, named(other)?], *part),
        _ => return Err("too many words".into()),
    };
    let mut chosen = CONTESTS.iter().filter(|contest| contest.reads[0].name.contains(part));
    chosen.try_for_each(|contest| contest.run(wait, &ends))
}

impl Contest {
    fn run(&self, wait: &str, ends: &[Device; 2]) -> Result<(), Error> {
        let sleeps = wait == "sleep";
        let (read, [server, driver]) = (&self.reads[usize::from(sleeps)], ends);
        let setting = |device: &Device, wait| format!("verbs@{} encrypted {wait}", device.address);
        let serve = format!("ours.serve {}", setting(server, if self.one_sided { "sleep" } else { wait }));
        let drive = format!("{} {} {}", self.ours.0, setting(driver, wait), self.ours.1);
        println!("# ours: {serve}; {drive}");
        println!("# peer: {}; {} x {}", self.peer.shown(sleeps, ends), self.peer.times, self.peer.column);
        let pair = Pair::new(&serve, &drive).unpinned();
        let blocks = alternate(BLOCKS, || pair.block()?.value(read.key), || self.peer.once(sleeps, ends))?;
        print(read.name, &blocks, self.peer.name, read.unit, read.target);
        Ok(())
    }
}
