//! Captures of network traffic, as tcpdump writes them: from a file to the bytes of each direction of each TCP connection.
//!
//! ```text
//!  file -> packets (pcap, pcapng) -> segments (Ethernet .. TCP) -> streams (in order) -> conversations -> lines
//! ```
//!
//! Invariant: whatever a file holds, memory stays bounded, and bytes that the capture lacks are said to be missing, never made up.

pub mod conversation;
pub mod file;
pub mod packet;
pub mod stream;
