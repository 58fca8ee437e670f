//! A node's state as one number, for the explorer of all interleavings. In the crate's own tests only.
//!
//! Invariant: all that can change what a node does later is in it. Left out are settings, time (the explorer's stands still) and who owns which
//! partition (it follows from the era, since the explorer shows each node the same views).

use super::Node;
use std::fmt::{self, Write as _};

/// FNV-1a over what is written, twice as wide as a word.
struct Digest(u128);

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
        Ok(())
    }
}

/// The number of anything that shows all of itself.
pub fn fingerprint_of(what: fmt::Arguments<'_>) -> u128 {
    let mut digest = Digest(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
    digest.write_fmt(what).expect("a digest takes everything");
    digest.0
}

impl Node {
    /// The number of this node's state.
    pub(crate) fn fingerprint(&self) -> u128 {
        fingerprint_of(format_args!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
            self.cluster.era(),
            self.users,
            self.tokens,
            (self.last_ward, self.last_tag, self.last_idle),
            self.wards,
            self.idle,
            self.directory,
            self.trees,
            self.table,
            self.empty,
            self.recovery,
            self.early,
            self.detector,
        ))
    }
}
