//! The structures of `<ssi/cluster.h>`, and how they are handed to a program that may know a shorter or a longer one.

#![allow(unsafe_code)]

use admin::{Change, State};
use libc::{EINVAL, c_char, c_int, c_long, time_t};
use std::mem::MaybeUninit;

/// `clusternode_t`.
pub type NodeNumber = c_long;
/// A structure of more bytes than this is a mistake, not a newer one.
const SIZE_MAX: usize = 64 << 10;

const NAME_BYTES: usize = 64;
const ADDRESS_BYTES: usize = 64;
const TEXT_BYTES: usize = 208;

/// `clusternode_info_t`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct NodeInfo {
    /// The node.
    pub number: NodeNumber,
    /// `CLUSTERNODE_...`.
    pub state: c_int,
    /// `CLUSTERNODE_FLAG_...`.
    pub flags: c_int,
    /// The transition of the table that says so.
    pub transition: u64,
    /// Cores that it gives.
    pub cpus: c_int,
    /// The same while it lives.
    pub cpus_online: c_int,
    /// Relative speed of a core.
    pub speed: c_int,
    reserved: c_int,
    /// Bytes that it gives.
    pub memory: u64,
    /// Its life.
    pub life: u64,
    /// Its name.
    pub name: [c_char; NAME_BYTES],
    /// Where its daemon listens.
    pub address: [c_char; ADDRESS_BYTES],
}

/// `cluster_transinfo_t`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct TransInfo {
    /// The change.
    pub id: u64,
    /// The node, or 0.
    pub node: NodeNumber,
    /// `CLUSTERNODE_...` before.
    pub from: c_int,
    /// `CLUSTERNODE_...` after.
    pub to: c_int,
    /// `CLUSTER_TRANSWHY_...`.
    pub why: c_int,
    reserved: c_int,
    /// Seconds since 1970.
    pub time: time_t,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// For people.
    pub text: [c_char; TEXT_BYTES],
}

impl From<&admin::NodeInfo> for NodeInfo {
    fn from(node: &admin::NodeInfo) -> NodeInfo {
        let row = &node.row;
        let alive = matches!(node.state, State::Up | State::Shutdown | State::Stalled | State::GoingDown);
        let flags = [(node.local, 0x1), (node.master, 0x2), (row.voter, 0x4), (row.draining, 0x8)];
        let cpus = number(row.cpus);
        NodeInfo {
            number: row.id.into(),
            state: node.state as c_int,
            flags: flags.into_iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum(),
            transition: node.transition.0,
            cpus,
            cpus_online: if alive { cpus } else { 0 },
            speed: number(row.speed),
            reserved: 0,
            memory: row.memory_bytes,
            life: row.incarnation,
            name: text(&row.name),
            address: text(&row.control_address),
        }
    }
}

impl From<&Change> for TransInfo {
    fn from(change: &Change) -> TransInfo {
        TransInfo {
            id: change.id.0,
            node: change.node.into(),
            from: change.from as c_int,
            to: change.to as c_int,
            why: change.cause as c_int,
            reserved: 0,
            time: time_t::try_from(change.at_ms / 1000).unwrap_or(time_t::MAX),
            time_ms: change.at_ms,
            text: text(&change.text),
        }
    }
}

fn number(value: u32) -> c_int {
    c_int::try_from(value).unwrap_or(c_int::MAX)
}

/// A string in a field of fixed length: as much as fits, cut between letters, and zeros.
fn text<const N: usize>(from: &str) -> [c_char; N] {
    let mut field = [0; N];
    let end = (0..=from.len().min(N - 1)).rev().find(|end| from.is_char_boundary(*end)).unwrap_or(0);
    for (to, byte) in field.iter_mut().zip(&from.as_bytes()[..end]) {
        *to = byte.cast_signed() as c_char;
    }
    field
}

/// Checks the size that a program says a structure of kind `T` has. It is the size of today's or of a later one.
pub fn size<T>(said: c_int) -> Result<usize, c_int> {
    let size = usize::try_from(said).map_err(|_| EINVAL)?;
    if (size_of::<T>()..=SIZE_MAX).contains(&size) { Ok(size) } else { Err(EINVAL) }
}

/// Writes `value` into the program's structure of `size` bytes; what that has and we do not know is 0.
///
/// # Safety
/// `to` can be written, `size` bytes from it on; `size` came from [`size`] for the same kind.
pub unsafe fn hand_over<T: Copy>(value: &T, to: *mut T, size: usize) {
    // SAFETY: the caller's promise; `size` is at least that of `T`. The bytes need no alignment.
    unsafe {
        to.cast::<u8>().write_bytes(0, size);
        to.write_unaligned(*value);
    }
}

/// Reads the program's structure.
///
/// # Safety
/// `from` can be read for the size of `T`, of which every pattern of bits is a value.
pub unsafe fn take_over<T: Copy>(from: *const T) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the caller's promise; the copy is of bytes, which need no alignment.
    unsafe {
        value.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(from.cast::<u8>(), size_of::<T>());
        value.assume_init()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back<const N: usize>(field: [c_char; N]) -> String {
        let bytes: Vec<u8> = field.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_is_cut_between_letters_and_ends_with_zero() {
        assert_eq!(back(text::<8>("node1")), "node1");
        assert_eq!(back(text::<8>("1234567890")), "1234567");
        assert_eq!(back(text::<8>("äöüäöü")), "äöü");
        assert_eq!(back(text::<8>("")), "");
    }

    #[test]
    fn sizes_of_mistakes_are_refused() {
        let own = size_of::<NodeInfo>();
        assert_eq!(size::<NodeInfo>(own as c_int), Ok(own));
        assert_eq!(size::<NodeInfo>(own as c_int + 16), Ok(own + 16));
        for wrong in [-1, 0, 8, own as c_int - 1, 1 << 20] {
            assert_eq!(size::<NodeInfo>(wrong), Err(EINVAL), "{wrong}");
        }
    }

    #[test]
    fn a_longer_structure_is_filled_with_zeros_and_not_beyond() {
        let mut bytes = [0xffu8; 24];
        // SAFETY: 16 of the 24 bytes are offered.
        unsafe { hand_over(&7u64, bytes.as_mut_ptr().cast(), 16) };
        assert_eq!(bytes[..8], 7u64.to_ne_bytes());
        assert_eq!(bytes[8..16], [0; 8]);
        assert_eq!(bytes[16..], [0xff; 8]);
    }
}
