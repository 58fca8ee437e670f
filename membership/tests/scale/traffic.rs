//! Traffic: how many messages each node sends and receives, second by second.

use base::{NodeId, Time};

/// One second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Second {
    /// The most that one member sent and received.
    pub most: u32,
    /// What they sent and received on average.
    pub mean: f64,
    /// What the master sent and received.
    pub master: u32,
}

pub struct Traffic {
    counts: Vec<u32>,
    master: NodeId,
    members: usize,
    ends: Time,
    pub seconds: Vec<Second>,
}

const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

impl Traffic {
    pub fn new(members: usize, master: NodeId, start: Time) -> Traffic {
        Traffic { counts: vec![0; members + 2], master, members, ends: start + SECOND, seconds: Vec::new() }
    }

    /// Sent or received, either counts.
    pub fn count(&mut self, node: NodeId, now: Time) {
        while now >= self.ends {
            self.close();
        }
        self.counts[node.0 as usize] += 1;
    }

    fn close(&mut self) {
        let master = std::mem::take(&mut self.counts[self.master.0 as usize]);
        let most = self.counts.iter().copied().max().unwrap_or(0);
        let sum: u64 = self.counts.iter().map(|count| u64::from(*count)).sum();
        self.seconds.push(Second { most, mean: sum as f64 / self.members as f64, master });
        self.counts.fill(0);
        self.ends = self.ends + SECOND;
    }

    /// The worst of all seconds from `from` on.
    pub fn worst(&self, from: usize) -> Second {
        self.seconds.iter().skip(from).fold(Second::default(), |worst, second| Second {
            most: worst.most.max(second.most),
            mean: worst.mean.max(second.mean),
            master: worst.master.max(second.master),
        })
    }
}
