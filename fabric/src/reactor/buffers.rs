//! Buffers that links borrow while bytes are on their way, so that an idle link holds none.
//!
//! Invariant: at most [`KEPT_MAX`] of either kind are kept, none longer than [`KEPT_BYTES_MAX`].

use bytes::BytesMut;
use parking_lot::Mutex;

/// Bytes of a buffer to receive into.
pub const RECEIVE_BYTES: usize = 32 << 10;
/// Buffers of either kind that are kept for whoever comes next.
const KEPT_MAX: usize = 8;
/// A longer buffer goes back to the system.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// A new buffer to send from begins with this room.
const SEND_BYTES: usize = 4 << 10;

/// Buffers that wait for the next who needs one.
#[derive(Default)]
pub struct Buffers {
    receive: Mutex<Vec<BytesMut>>,
    send: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// An empty buffer to receive into. What is received may be handed out as slices of it: the memory is used again when all of
    /// them are gone.
    pub fn borrow_receive(&self) -> BytesMut {
        self.receive.lock().pop().unwrap_or_else(|| BytesMut::with_capacity(RECEIVE_BYTES))
    }

    /// Gives it back; what is in it is forgotten.
    pub fn give_receive(&self, mut buffer: BytesMut) {
        buffer.clear();
        let mut kept = self.receive.lock();
        if buffer.capacity() > 0 && kept.len() < KEPT_MAX {
            kept.push(buffer);
        }
    }

    /// An empty buffer to send from.
    pub fn borrow_send(&self) -> Vec<u8> {
        self.send.lock().pop().unwrap_or_else(|| Vec::with_capacity(SEND_BYTES))
    }

    /// Gives it back; what is in it is forgotten.
    pub fn give_send(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut kept = self.send.lock();
        if (1..=KEPT_BYTES_MAX).contains(&buffer.capacity()) && kept.len() < KEPT_MAX {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_and_hoards_do_not_grow() {
        let buffers = Buffers::default();
        let mut send = buffers.borrow_send();
        send.extend_from_slice(&[1; 9000]);
        let (place, room) = (send.as_ptr(), send.capacity());
        buffers.give_send(send);
        let again = buffers.borrow_send();
        assert_eq!((again.as_ptr(), again.capacity(), again.len()), (place, room, 0));
        for _ in 0..20 {
            buffers.give_send(vec![0; 10]);
            buffers.give_receive(BytesMut::with_capacity(10));
        }
        buffers.give_send(Vec::with_capacity(KEPT_BYTES_MAX + 1));
        assert_eq!(buffers.send.lock().len(), KEPT_MAX);
        assert_eq!(buffers.receive.lock().len(), KEPT_MAX);
    }
}
