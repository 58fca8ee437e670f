//! Traffic: how many messages each node sends and receives, second by second.

use base::{NodeId, Time};

/// What a message is about.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Heartbeat,
    Tree,
    Alarm,
}

/// Messages of one node, by kind.
type Counts = [u32; 3];

/// One second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Second {
    /// The most that one member sent and received: heartbeats, of the tree, alarms.
    pub busiest: Counts,
    /// What they sent and received on average.
    pub mean: f64,
    /// What the master sent and received.
    pub master: u32,
}

pub struct Traffic {
    counts: Vec<Counts>,
    master: NodeId,
    members: usize,
    ends: Time,
    pub seconds: Vec<Second>,
}

const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

impl Traffic {
    pub fn new(members: usize, master: NodeId, start: Time) -> Traffic {
        Traffic {
            counts: vec![Counts::default(); members + 2],
            master,
            members,
            ends: start + SECOND,
            seconds: Vec::new(),
        }
    }

    /// Sent or received, either counts.
    pub fn count(&mut self, node: NodeId, kind: Kind, now: Time) {
        while now >= self.ends {
            self.close();
        }
        self.counts[node.0 as usize][kind as usize] += 1;
    }

    fn close(&mut self) {
        let sum = |counts: &Counts| counts.iter().sum::<u32>();
        let master = sum(&std::mem::take(&mut self.counts[self.master.0 as usize]));
        let busiest = self.counts.iter().copied().max_by_key(sum).unwrap_or_default();
        let all: u64 = self.counts.iter().map(|counts| u64::from(sum(counts))).sum();
        self.seconds.push(Second { busiest, mean: all as f64 / self.members as f64, master });
        self.counts.fill(Counts::default());
        self.ends = self.ends + SECOND;
    }

    /// The worst of all seconds from `from` on.
    pub fn worst(&self, from: usize) -> Second {
        self.seconds.iter().skip(from).fold(Second::default(), |worst, second| Second {
            busiest: if second.most() > worst.most() { second.busiest } else { worst.busiest },
            mean: worst.mean.max(second.mean),
            master: worst.master.max(second.master),
        })
    }
}

impl Second {
    /// The most that one member sent and received.
    pub fn most(&self) -> u32 {
        self.busiest.iter().sum()
    }
}
