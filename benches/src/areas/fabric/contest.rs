//! Contests: two pairs of processes by turns, and the figures that are read from their blocks.
//!
//! Invariant: both sides of a figure come from the same turns.

use super::pair::Pair;
use super::sample::{Sample, only};
use crate::Error;
use crate::areas::print;
use ssi_benches::{BLOCKS_MIN, Figure, Target, Unit, alternate};

/// Blocks of each side.
const BLOCKS: usize = 7;

/// Ours beside a peer, both as (server's words, driver's words).
pub struct Contest {
    /// Ours.
    pub ours: (&'static str, &'static str),
    /// The peer.
    pub peer: (&'static str, &'static str),
    /// The peer's name in the line.
    pub beside: &'static str,
    /// What the peer is and does, for the reader.
    pub described: &'static str,
    /// What is read from the blocks.
    pub reads: &'static [Read],
}

/// A figure that is read from a contest's blocks.
pub struct Read {
    /// Its name.
    pub name: &'static str,
    /// The number of each sample.
    pub key: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// Its target.
    pub target: Target,
}

/// A duration.
pub const fn micros(name: &'static str, key: &'static str, target: Target) -> Read {
    Read { name, key, unit: Unit::Micros, target }
}

/// Calls a second.
pub const fn rate(name: &'static str, target: Target) -> Read {
    Read { name, key: "rate", unit: Unit::PerSecond, target }
}

/// MiB a second.
pub const fn mib(name: &'static str, target: Target) -> Read {
    Read { name, key: "mib", unit: Unit::MibPerSecond, target }
}

impl Contest {
    /// Takes all blocks and prints the figures, if one of their names contains `part`.
    pub fn run(&self, part: &str) -> Result<(), Error> {
        if !self.reads.iter().any(|read| read.name.contains(part)) {
            return Ok(());
        }
        let (ours, peer) = (Pair::new(self.ours.0, self.ours.1), Pair::new(self.peer.0, self.peer.1));
        println!("# ours: {}", self.ours.1);
        println!("# peer {}: {}", self.beside, self.described);
        let blocks = alternate(BLOCKS, || ours.block(), || peer.block())?;
        for read in self.reads {
            print(read.name, &only(read.key, &blocks)?, self.beside, read.unit, read.target);
        }
        Ok(())
    }

    /// The peer alone: what this machine can do.
    pub fn run_peer(&self) -> Result<(), Error> {
        let peer = Pair::new(self.peer.0, self.peer.1);
        println!("# peer {}: {}", self.beside, self.described);
        let samples: Vec<Sample> = (0..BLOCKS_MIN).map(|_| peer.block()).collect::<Result<_, _>>()?;
        for read in self.reads {
            let values =
                samples.iter().map(|sample| sample.value(read.key)).collect::<Result<Vec<_>, _>>()?;
            let name = format!("peer.{}.{}", self.beside, read.key);
            if let Some(figure) = Figure::alone(&name, &values, read.unit) {
                println!("{figure}   {}", figure.spread());
            }
        }
        Ok(())
    }
}
