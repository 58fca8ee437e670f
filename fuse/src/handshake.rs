//! INIT: what this side wants, what the kernel offers, and what both agree on. Pure.

use crate::abi::{self, init_flags as flag};
use crate::error::Error;
use std::sync::Arc;

/// The oldest protocol understood: 7.31 (kernel 5.4).
const MINOR_MIN: u32 = 31;
/// The newest that this side claims: it makes no difference to layouts, what counts are the flags.
const MINOR_MAX: u32 = 40;
const PAGE_BYTES: u32 = 4_096;

/// Hears what was agreed at INIT.
pub type OnAgreed = Arc<dyn Fn(&Agreed) + Send + Sync>;

/// What a session wants.
#[derive(Clone)]
pub struct Config {
    /// Bytes of the longest WRITE; also of the longest READ, if the kernel offers MAX_PAGES.
    pub max_write: u32,
    /// Bytes that the kernel may read ahead.
    pub max_readahead: u32,
    /// Requests that nobody waits for (read-ahead, asynchronous direct I/O) under way at once.
    pub max_background: u16,
    /// [`crate::init_flags`] wanted; those that the kernel does not offer are left out.
    pub flags: u64,
    /// Called once, when INIT is agreed and *before* the kernel hears it: what is stored here is what
    /// [`crate::Session::adopt`] takes in the next life of the daemon.
    pub on_agreed: Option<OnAgreed>,
}

impl Default for Config {
    /// 1 MiB writes, 1 MiB read-ahead, 64 in the background, and [`Config::FLAGS`].
    fn default() -> Config {
        Config {
            max_write: 1 << 20,
            max_readahead: 1 << 20,
            max_background: 64,
            flags: Config::FLAGS,
            on_agreed: None,
        }
    }
}

impl Config {
    /// The flags of the default: the server sees open-with-truncate and the umask itself, directories are read and
    /// searched in parallel, files open with `DIRECT_IO` can be mapped, and a daemon's successor can ask for resends.
    /// Set-user-id bits stay the kernel's business (no HANDLE_KILLPRIV), there is no export over NFS.
    pub const FLAGS: u64 = flag::ASYNC_READ
        | flag::ATOMIC_O_TRUNC
        | flag::BIG_WRITES
        | flag::DONT_MASK
        | flag::ASYNC_DIO
        | flag::PARALLEL_DIROPS
        | flag::DIRECT_IO_ALLOW_MMAP
        | flag::HAS_RESEND;

    /// Bytes of the buffer that any request fits into.
    pub(crate) fn buffer_bytes(&self, agreed: Option<&Agreed>) -> usize {
        let write = agreed.map_or(0, |agreed| agreed.max_write).max(self.max_write).max(PAGE_BYTES);
        write as usize + PAGE_BYTES as usize
    }

    /// The answer to the kernel's INIT.
    pub(crate) fn agree(&self, kernel: &abi::InitIn, flags2: u32) -> Result<(Agreed, abi::InitOut), Error> {
        if kernel.major != 7 || kernel.minor < MINOR_MIN {
            return Err(Error::TooOld { major: kernel.major, minor: kernel.minor, least: MINOR_MIN });
        }
        let offered = u64::from(kernel.flags) | u64::from(flags2) << 32;
        let flags = offered & (self.flags | flag::MAX_PAGES | flag::INIT_EXT);
        let write_limit =
            if flags & flag::MAX_PAGES == 0 { 32 * PAGE_BYTES } else { u32::from(u16::MAX) * PAGE_BYTES };
        let max_write = self.max_write.clamp(PAGE_BYTES, write_limit);
        let max_pages = max_write.div_ceil(PAGE_BYTES) as u16;
        let agreed = Agreed { minor: kernel.minor.min(MINOR_MAX), flags, max_write };
        let out = abi::InitOut {
            major: 7,
            minor: agreed.minor,
            max_readahead: kernel.max_readahead.min(self.max_readahead),
            flags: flags as u32,
            max_background: self.max_background,
            congestion_threshold: self.max_background / 4 * 3,
            max_write,
            time_gran: 1,
            max_pages,
            flags2: (flags >> 32) as u32,
            ..Default::default()
        };
        Ok((agreed, out))
    }
}

/// What was agreed with the kernel at INIT, which happens once in the life of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Minor version of the protocol (the major one is 7).
    pub minor: u32,
    /// [`crate::init_flags`] in force.
    pub flags: u64,
    /// Bytes of the longest WRITE.
    pub max_write: u32,
}

impl Agreed {
    const MAGIC: [u8; 4] = *b"fua1";

    /// For keeping over a restart of the daemon: magic 4, minor 4, flags 8, max_write 4 bytes, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let minor = self.minor.to_le_bytes();
        [&Self::MAGIC[..], &minor, &self.flags.to_le_bytes(), &self.max_write.to_le_bytes()].concat()
    }

    /// The other way round.
    ///
    /// # Errors
    /// [`Error::Agreed`] if these are not the bytes of [`Agreed::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Agreed, Error> {
        let parse = || {
            let (magic, rest) = bytes.split_first_chunk::<4>()?;
            let (minor, rest) = rest.split_first_chunk::<4>()?;
            let (flags, rest) = rest.split_first_chunk::<8>()?;
            let max_write = rest.try_into().ok()?;
            (*magic == Self::MAGIC).then_some(Agreed {
                minor: u32::from_le_bytes(*minor),
                flags: u64::from_le_bytes(*flags),
                max_write: u32::from_le_bytes(max_write),
            })
        };
        parse().ok_or(Error::Agreed(bytes.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_the_kernel_offers_is_agreed() {
        let kernel =
            abi::InitIn { major: 7, minor: 45, max_readahead: 4_096, flags: flag::ASYNC_READ as u32 };
        let (agreed, out) = Config::default().agree(&kernel, 0).unwrap();
        assert_eq!((agreed.flags, out.max_readahead, out.minor), (flag::ASYNC_READ, 4_096, MINOR_MAX));
        assert_eq!(
            (out.max_write, out.max_pages),
            (128 << 10, 32),
            "without MAX_PAGES 32 pages are the limit"
        );
        let everything = abi::InitIn { flags: u32::MAX, ..kernel };
        let (agreed, out) = Config::default().agree(&everything, u32::MAX).unwrap();
        assert_eq!(agreed.flags, Config::FLAGS | flag::MAX_PAGES | flag::INIT_EXT);
        assert_eq!((out.max_write, out.max_pages), (1 << 20, 256));
        assert!(Config::default().agree(&abi::InitIn { minor: 26, ..kernel }, 0).is_err());
    }

    proptest! {
        #[test]
        fn an_agreement_survives_storage(minor: u32, flags: u64, max_write: u32) {
            let agreed = Agreed { minor, flags, max_write };
            prop_assert_eq!(Agreed::from_bytes(&agreed.to_bytes()).unwrap(), agreed);
        }

        #[test]
        fn other_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assume!(!bytes.starts_with(b"fua1"));
            prop_assert!(Agreed::from_bytes(&bytes).is_err());
        }
    }
}
