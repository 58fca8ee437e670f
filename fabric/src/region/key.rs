//! What the owner of a region gives to one peer, byte by byte. All numbers are little-endian.
//!
//! ```text
//!  0      4      5        6        7        8       12       16       24      32       40          48          56     60    64
//!  | node | role | rights | rail 0 | rail 1 | epoch | rkey 0 | region | token | length | address 0 | address 1 | rkey 1 | - |
//!  rail: 255 = no device key; its address and rkey are 0 then. rights: 1 read, 2 write. The last 4 bytes are 0.
//! ```
//!
//! Invariant: bytes decode to a key that encodes to the same bytes, or to a [`KeyError`].

use crate::provider::DeviceAddress;
use crate::{Peer, Role};
use base::NodeId;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a [`RemoteKey`].
pub const KEY_BYTES: usize = 64;
/// For so many rails a key says how a device reaches the region; on others it goes by frames.
pub const KEY_DEVICES_MAX: usize = 2;

/// Bytes that are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no remote key: {0}")]
pub struct KeyError(&'static str);

/// What the holder of a key may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Read the region.
    pub read: bool,
    /// Write into it.
    pub write: bool,
}

impl Rights {
    /// Both.
    pub const ALL: Rights = Rights { read: true, write: true };

    /// True if they reach for a write (or else a read).
    pub fn allow(self, write: bool) -> bool {
        if write { self.write } else { self.read }
    }
}

/// How a device at the other end of one rail reaches the region by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceKey {
    /// The rail whose device knows the region (0..=254).
    pub rail: u8,
    /// Where the region begins, for that device.
    pub at: DeviceAddress,
}

/// One peer's right to reach one region, until the region's epoch changes. Holding it proves nothing by itself: the owner checks
/// who speaks. Whoever holds the device keys as well can reach the region through those devices until they forget it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteKey {
    /// Whose memory it is.
    pub owner: Peer,
    /// The region's number at its owner.
    pub region: u64,
    /// The secret for this peer, region and epoch.
    pub token: u64,
    /// The epoch for which it is good.
    pub epoch: u32,
    /// Bytes of the region.
    pub length: u64,
    /// What it allows.
    pub rights: Rights,
    /// How devices reach the region; each rail at most once.
    pub devices: [Option<DeviceKey>; KEY_DEVICES_MAX],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    node: U32,
    role: u8,
    rights: u8,
    rails: [u8; 2],
    epoch: U32,
    rkey_0: U32,
    region: U64,
    token: U64,
    length: U64,
    addresses: [U64; 2],
    rkey_1: U32,
    zero: U32,
}

const NO_RAIL: u8 = 255;

impl RemoteKey {
    /// The device key for this rail.
    pub fn device(&self, rail: u8) -> Option<DeviceAddress> {
        self.devices.iter().flatten().find(|device| device.rail == rail).map(|device| device.at)
    }

    /// With one device key more; false (and unchanged) if there is no place for it, or one for this rail already.
    pub fn add_device(&mut self, device: DeviceKey) -> bool {
        if device.rail == NO_RAIL || self.device(device.rail).is_some() {
            return false;
        }
        let Some(place) = self.devices.iter_mut().find(|place| place.is_none()) else { return false };
        *place = Some(device);
        true
    }

    /// Closes the device keys for everybody but the holder of this token with this name, or opens them again: what a device checks is
    /// the device key alone, so who changes the token or is another peer has none. It is no secret from a peer that pretends: whoever
    /// may speak under any name is a member of the cluster, as everywhere.
    #[must_use]
    pub fn turned(mut self, holder: Peer) -> RemoteKey {
        let name = u64::from(holder.node.0) << 8 | holder.role as u64;
        for device in self.devices.iter_mut().flatten() {
            let mask = mixed(mixed(self.token).wrapping_add(name << 8 | u64::from(device.rail)));
            device.at.address ^= mask;
            device.at.rkey ^= mixed(mask) as u32;
        }
        self
    }

    /// As bytes.
    pub fn encode(&self) -> [u8; KEY_BYTES] {
        let rail = |device: Option<DeviceKey>| device.map_or(NO_RAIL, |device| device.rail);
        let address = |device: Option<DeviceKey>| U64::new(device.map_or(0, |device| device.at.address));
        let rkey = |device: Option<DeviceKey>| U32::new(device.map_or(0, |device| device.at.rkey));
        let [first, second] = self.devices;
        let raw = Raw {
            node: U32::new(self.owner.node.0),
            role: match self.owner.role {
                Role::Control => 0,
                Role::Data => 1,
            },
            rights: u8::from(self.rights.read) | u8::from(self.rights.write) << 1,
            rails: [rail(first), rail(second)],
            epoch: U32::new(self.epoch),
            rkey_0: rkey(first),
            region: U64::new(self.region),
            token: U64::new(self.token),
            length: U64::new(self.length),
            addresses: [address(first), address(second)],
            rkey_1: rkey(second),
            zero: U32::new(0),
        };
        zerocopy::transmute!(raw)
    }

    /// From bytes.
    ///
    /// # Errors
    /// A role or right that does not exist, a rail named twice, numbers where there must be none.
    pub fn decode(bytes: &[u8; KEY_BYTES]) -> Result<RemoteKey, KeyError> {
        let raw: Raw = zerocopy::transmute!(*bytes);
        let role = match raw.role {
            0 => Role::Control,
            1 => Role::Data,
            _ => return Err(KeyError("a role that does not exist")),
        };
        if raw.rights > 3 || raw.zero.get() != 0 {
            return Err(KeyError("a right that does not exist"));
        }
        let first = device(raw.rails[0], raw.addresses[0].get(), raw.rkey_0.get())?;
        let second = device(raw.rails[1], raw.addresses[1].get(), raw.rkey_1.get())?;
        if first.is_some() && first.map(|device| device.rail) == second.map(|device| device.rail) {
            return Err(KeyError("a rail named twice"));
        }
        Ok(RemoteKey {
            owner: Peer { node: NodeId(raw.node.get()), role },
            region: raw.region.get(),
            token: raw.token.get(),
            epoch: raw.epoch.get(),
            length: raw.length.get(),
            rights: Rights { read: raw.rights & 1 != 0, write: raw.rights & 2 != 0 },
            devices: [first, second],
        })
    }
}

/// A number in which every bit depends on all bits of the given one (the end of splitmix64).
fn mixed(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

fn device(rail: u8, address: u64, rkey: u32) -> Result<Option<DeviceKey>, KeyError> {
    match (rail, address, rkey) {
        (NO_RAIL, 0, 0) => Ok(None),
        (NO_RAIL, ..) => Err(KeyError("a device key without a rail")),
        _ => Ok(Some(DeviceKey { rail, at: DeviceAddress { address, rkey } })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_is_drawn_as_it_is_written() {
        assert_eq!(size_of::<Raw>(), KEY_BYTES);
        let mut key = RemoteKey {
            owner: Peer { node: NodeId(1), role: Role::Data },
            region: 7,
            token: 8,
            epoch: 5,
            length: 9,
            rights: Rights { read: true, write: true },
            devices: [None; 2],
        };
        assert!(key.add_device(DeviceKey { rail: 4, at: DeviceAddress { address: 10, rkey: 6 } }));
        assert!(!key.add_device(DeviceKey { rail: 4, at: DeviceAddress { address: 1, rkey: 1 } }));
        assert_eq!(key.device(4).map(|at| at.rkey), Some(6));
        assert_eq!(key.device(255), None);
        let bytes = key.encode();
        assert_eq!(bytes[..12], [1, 0, 0, 0, 1, 3, 4, 255, 5, 0, 0, 0]);
        let numbers: Vec<u8> = bytes[12..].iter().copied().filter(|byte| *byte != 0).collect();
        assert_eq!(numbers, [6, 7, 8, 9, 10]);
        assert_eq!(RemoteKey::decode(&bytes), Ok(key));
    }

    #[test]
    fn device_keys_are_good_for_one_peer_and_token_only() {
        let [one, other] = [1, 2].map(|node| Peer { node: NodeId(node), role: Role::Data });
        let at = DeviceAddress { address: 0x7f00_1234_5000, rkey: 0x1234 };
        let key = RemoteKey {
            owner: other,
            region: 7,
            token: 8,
            epoch: 5,
            length: 9,
            rights: Rights::ALL,
            devices: [Some(DeviceKey { rail: 0, at }), Some(DeviceKey { rail: 1, at })],
        };
        let closed = key.turned(one);
        assert_eq!(closed.turned(one), key);
        let forged = RemoteKey { token: 9, ..closed };
        let namesake = Peer { role: Role::Control, ..one };
        for wrong in [closed, closed.turned(other), closed.turned(namesake), forged.turned(one)] {
            for rail in 0..2 {
                let found = wrong.device(rail).unwrap();
                assert!(found.address != at.address && found.rkey != at.rkey);
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_key_or_none(bytes in any::<[u8; KEY_BYTES]>(), tame in any::<bool>(), lone in any::<bool>()) {
            let mut bytes = bytes;
            if tame {
                (bytes[4], bytes[5]) = (bytes[4] & 1, bytes[5] & 3);
                bytes[60..].fill(0);
            }
            if lone {
                bytes[7] = NO_RAIL;
                bytes[48..60].fill(0);
            }
            if let Ok(key) = RemoteKey::decode(&bytes) {
                prop_assert_eq!(key.encode(), bytes);
            }
        }
    }
}
