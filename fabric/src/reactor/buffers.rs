//! Buffers that links borrow while bytes are on their way, so that an idle link holds none.
//!
//! Invariant: at most [`KEPT_MAX`] of either kind are kept, none longer than [`KEPT_BYTES_MAX`].

use bytes::BytesMut;
use parking_lot::Mutex;

/// Bytes of a buffer to receive into.
pub const RECEIVE_BYTES: usize = 32 << 10;
/// With less room than this a buffer is full: it is used again when nothing of what was received into it is held any more.
pub const SPARE_BYTES_MIN: usize = 4 << 10;
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
    /// An empty buffer to receive into, with room. What is received may be handed out as slices of it: the memory is used again when all
    /// of them are gone.
    pub fn borrow_receive(&self) -> BytesMut {
        let mut kept = self.receive.lock();
        let usable =
            |buffer: &mut BytesMut| buffer.capacity() >= SPARE_BYTES_MIN || buffer.try_reclaim(RECEIVE_BYTES);
        match kept.iter_mut().rposition(usable) {
            Some(at) => kept.remove(at),
            None => BytesMut::with_capacity(RECEIVE_BYTES),
        }
    }

    /// Gives it back; what is in it is forgotten.
    pub fn give_receive(&self, mut buffer: BytesMut) {
        buffer.clear();
        let mut kept = self.receive.lock();
        if kept.len() == KEPT_MAX {
            // The one that has been there longest: if it is full, slices of it are kept for long.
            kept.remove(0);
        }
        kept.push(buffer);
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

    #[test]
    fn a_full_buffer_is_used_again_when_nothing_of_it_is_held() {
        let buffers = Buffers::default();
        let mut first = buffers.borrow_receive();
        first.resize(first.capacity(), 7);
        let place = first.as_ptr();
        let held = first.split_to(100).freeze();
        buffers.give_receive(first.split_off(first.len()));
        let second = buffers.borrow_receive();
        assert_ne!(second.as_ptr(), place, "a slice of the first is held");
        drop((held, first));
        assert_eq!(buffers.borrow_receive().as_ptr(), place);
    }
}
