//! Our figures beside a peer's, measured in one run on the same nodes.
//!
//! Invariant: a figure is the median of at least [`BLOCKS_MIN`] blocks of ours and as many of the peer's, taken by turns,
//! so that whatever else the machine does falls on both. A figure that loses is printed like the others.
//!
//! [`blocks::alternate`] takes the blocks, [`figure::Figure`] prints the line.

pub mod blocks;
pub mod figure;

pub use blocks::{BLOCKS_MIN, Blocks, Spread, alternate};
pub use figure::{Figure, Target, Unit};
