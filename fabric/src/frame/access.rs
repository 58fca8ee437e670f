//! What a one-sided frame is allowed to touch.

use super::WireError;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of an [`Access`].
pub const ACCESS_BYTES: usize = 48;

/// One end's claim to a part of the other end's region: what a remote key says, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The region's number at its owner.
    pub region: u64,
    /// The secret that the owner gave to this peer for this region.
    pub token: u64,
    /// The region's epoch for which the secret is good.
    pub epoch: u32,
    /// True if the region's arrival counter goes up when all is placed.
    pub notify: bool,
    /// Where in the region the whole transfer begins.
    pub offset: u64,
    /// Bytes of the whole transfer.
    pub length: u64,
    /// Where in the transfer the bytes of this frame belong.
    pub at: u64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    region: U64,
    token: U64,
    epoch: U32,
    flags: U32,
    offset: U64,
    length: U64,
    at: U64,
}

const NOTIFY: u32 = 1;

impl Access {
    /// As bytes.
    pub fn encode(&self) -> [u8; ACCESS_BYTES] {
        let raw = Raw {
            region: U64::new(self.region),
            token: U64::new(self.token),
            epoch: U32::new(self.epoch),
            flags: U32::new(if self.notify { NOTIFY } else { 0 }),
            offset: U64::new(self.offset),
            length: U64::new(self.length),
            at: U64::new(self.at),
        };
        zerocopy::transmute!(raw)
    }

    /// From bytes.
    ///
    /// # Errors
    /// A flag that does not exist, or an end beyond all numbers.
    pub fn decode(bytes: &[u8; ACCESS_BYTES]) -> Result<Access, WireError> {
        let raw: Raw = zerocopy::transmute!(*bytes);
        if raw.flags.get() & !NOTIFY != 0 {
            return Err(WireError("a flag of an access that does not exist"));
        }
        let (offset, length, at) = (raw.offset.get(), raw.length.get(), raw.at.get());
        if offset.checked_add(length).is_none() || at > length {
            return Err(WireError("an access beyond its own end"));
        }
        Ok(Access {
            region: raw.region.get(),
            token: raw.token.get(),
            epoch: raw.epoch.get(),
            notify: raw.flags.get() & NOTIFY != 0,
            offset,
            length,
            at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_access_is_drawn_as_it_is_written() {
        assert_eq!(size_of::<Raw>(), ACCESS_BYTES);
        let access = Access { region: 1, token: 2, epoch: 3, notify: true, offset: 4, length: 6, at: 5 };
        let numbers: Vec<u8> = access.encode().iter().copied().filter(|byte| *byte != 0).collect();
        assert_eq!(numbers, [1, 2, 3, 1, 4, 6, 5]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_access_or_none(bytes in any::<[u8; ACCESS_BYTES]>(), small in any::<bool>()) {
            let mut bytes = bytes;
            if small {
                bytes[20] &= 1;
                bytes[21..24].fill(0);
                bytes[31] = 0;
                bytes[39] = 0;
                bytes[44..48].fill(0);
            }
            if let Ok(access) = Access::decode(&bytes) {
                prop_assert_eq!(access.encode(), bytes);
                prop_assert!(access.at <= access.length);
            }
        }
    }
}
