//! Buffers that requests are read into. A written megabyte is handed on where the kernel put it, not copied.

use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;

/// Payloads up to this many bytes are copied, so that a short write does not hold a long buffer.
const COPIED_BYTES_MAX: usize = 16 << 10;

/// Equal buffers, used again and again; at most `kept_max` wait unused.
#[derive(Debug)]
pub(crate) struct Pool {
    free: Mutex<Vec<Vec<u8>>>,
    buffer_bytes: usize,
    kept_max: usize,
}

impl Pool {
    pub(crate) fn new(buffer_bytes: usize, kept_max: usize) -> Arc<Pool> {
        Arc::new(Pool { free: Mutex::new(Vec::new()), buffer_bytes, kept_max })
    }

    /// A buffer to read into.
    pub(crate) fn lease(self: &Arc<Pool>) -> Lease {
        let unused = self.free.lock().pop();
        let buffer = unused.unwrap_or_else(|| vec![0; self.buffer_bytes]);
        Lease { buffer, pool: self.clone() }
    }
}

/// A buffer that goes back to its pool when nobody needs it any more.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) buffer: Vec<u8>,
    pool: Arc<Pool>,
}

impl Lease {
    /// The bytes `start..end`, and the lease itself if it is still free to be read into.
    pub(crate) fn hand_on(self, start: usize, end: usize) -> (Bytes, Option<Lease>) {
        if end - start <= COPIED_BYTES_MAX {
            (Bytes::copy_from_slice(&self.buffer[start..end]), Some(self))
        } else {
            (Bytes::from_owner(self).slice(start..end), None)
        }
    }
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut free = self.pool.free.lock();
        if free.len() < self.pool.kept_max {
            free.push(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_payloads_keep_their_buffer_and_give_it_back() {
        let pool = Pool::new(100 << 10, 4);
        let (payload, lease) = pool.lease().hand_on(0, 50 << 10);
        assert!(lease.is_none());
        let address = payload.as_ptr();
        drop(payload);
        assert_eq!(pool.lease().buffer.as_ptr(), address);
    }

    #[test]
    fn short_payloads_are_copied() {
        let (payload, lease) = Pool::new(100 << 10, 4).lease().hand_on(10, 20);
        assert_eq!((payload.len(), lease.is_some()), (10, true));
    }
}
