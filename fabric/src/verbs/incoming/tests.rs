//! What comes in messages: the frames that were sent, however they were cut; and whatever else comes, frames or an error.

use super::*;
use crate::Priority;
use crate::provider::LinkError;
use crate::region::Memory;
use proptest::prelude::*;
use std::sync::Arc;

/// Bytes of the memory that pieces go into, and of what lies before and behind it and belongs to others.
const OPEN: usize = 2000;
const FENCE: usize = 500;
/// Messages that may come.
const PROMISED: u32 = 64;

/// Takes down what it is told.
struct Ear {
    memory: Arc<Memory>,
    frames: Vec<(Header, Bytes)>,
    placed: usize,
}

impl Ear {
    fn new() -> Ear {
        let memory = Memory::new(OPEN + 2 * FENCE).expect("memory");
        Ear { memory, frames: Vec::new(), placed: 0 }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; OPEN + 2 * FENCE];
        Span::of(&self.memory, 0, bytes.len()).expect("all of it").copy_to(&mut bytes);
        bytes
    }

    /// Nothing was written beside what is open.
    fn is_fence_whole(&self) -> bool {
        let bytes = self.bytes();
        bytes[..FENCE].iter().chain(&bytes[FENCE + OPEN..]).all(|byte| *byte == 0)
    }
}

impl Sink for Ear {
    fn frame(&mut self, header: Header, body: Bytes) -> Result<(), WireError> {
        assert_eq!(body.len(), header.carried(), "a frame is whole");
        self.frames.push((header, body));
        Ok(())
    }

    fn place(&mut self, header: &Header, access: &Access) -> Result<Place, WireError> {
        if access.region.is_multiple_of(4) {
            return Ok(Place::Skip);
        }
        let at = usize::try_from(access.offset).ok().filter(|at| *at <= OPEN);
        let length = at.map(|at| (at, header.bulk as usize)).filter(|(at, length)| at + length <= OPEN);
        let (at, length) = length.ok_or(WireError("out of bounds"))?;
        Span::of(&self.memory, FENCE + at, length).map(Place::Span).ok_or(WireError("out of bounds"))
    }

    fn placed(&mut self, _header: &Header, _access: &Access) -> Result<(), WireError> {
        self.placed += 1;
        Ok(())
    }

    fn posted(&mut self, _work: u64, _outcome: Result<(), LinkError>) {
        panic!("nothing was posted");
    }

    fn notified(&mut self, _region: u64) {
        panic!("devices do not notify");
    }
}

/// What is sent: bytes that must not be cut, and bytes that may be.
#[derive(Clone, Debug)]
struct Sent {
    fixed: Vec<u8>,
    loose: Vec<u8>,
}

fn request(slot: u16, body: Vec<u8>) -> Sent {
    let mut header = Header::new(Kind::Request, Priority::Meta);
    (header.slot, header.bulk) = (slot, body.len() as u32);
    Sent { fixed: header.encode().to_vec(), loose: body }
}

fn write(region: u64, offset: usize, bytes: Vec<u8>) -> Sent {
    let mut header = Header::new(Kind::Write, Priority::Data);
    (header.head, header.bulk) = (ACCESS_BYTES as u32, bytes.len() as u32);
    let mut access = [0; ACCESS_BYTES];
    access[..8].copy_from_slice(&region.to_le_bytes());
    access[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
    access[32..40].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    Sent { fixed: [&header.encode()[..], &access].concat(), loose: bytes }
}

fn sent() -> impl Strategy<Value = Sent> {
    let bytes = |most: usize| prop::collection::vec(1u8.., 0..most);
    prop_oneof![
        (any::<u16>(), bytes(4000)).prop_map(|(slot, body)| request(slot, body)),
        (0u64..8, 0usize..1000, bytes(1000)).prop_map(|(region, offset, bytes)| write(region, offset, bytes)),
    ]
}

/// The messages of these frames, at most `most` bytes each, as a sender cuts them.
fn cut(all: &[Sent], most: usize) -> Vec<Vec<u8>> {
    let mut messages = vec![Vec::new()];
    for Sent { fixed, loose } in all {
        let last = messages.last_mut().expect("one at least");
        if last.len() + fixed.len() > most {
            messages.push(fixed.clone());
        } else {
            last.extend_from_slice(fixed);
        }
        for byte in loose {
            let last = messages.last_mut().expect("one at least");
            if last.len() == most { messages.push(vec![*byte]) } else { last.push(*byte) }
        }
    }
    messages
}

proptest! {
    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut(
        all in prop::collection::vec(sent(), 0..8), most in 80usize..3000,
    ) {
        let (mut incoming, mut ear) = (Incoming::new(PROMISED), Ear::new());
        let mut expected = vec![0; OPEN + 2 * FENCE];
        for message in cut(&all, most) {
            prop_assert_eq!(incoming.take(&message, &mut ear), Ok(()));
            incoming.tell();
        }
        let mut requests = ear.frames.iter();
        for Sent { fixed, loose } in &all {
            match fixed.len() {
                HEADER_BYTES => {
                    let (header, body) = requests.next().expect("it came");
                    prop_assert_eq!(&header.encode()[..], &fixed[..]);
                    prop_assert_eq!(body, loose);
                }
                _ if loose.is_empty() => drop(requests.next().expect("a write of nothing is a frame")),
                _ if fixed[HEADER_BYTES].is_multiple_of(4) => {}
                _ => {
                    let at = fixed[HEADER_BYTES + 24..HEADER_BYTES + 32].try_into().map(u64::from_le_bytes);
                    let at = FENCE + at.expect("eight bytes") as usize;
                    expected[at..at + loose.len()].copy_from_slice(loose);
                }
            }
        }
        prop_assert!(requests.next().is_none());
        prop_assert_eq!(ear.bytes(), expected);
        prop_assert_eq!(incoming.traffic().0, all.len() as u64);
    }

    #[test]
    fn whatever_comes_gives_frames_or_an_error(
        all in prop::collection::vec(sent(), 0..6), most in 80usize..3000,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..6),
        noise in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..4),
    ) {
        let mut messages: Vec<Vec<u8>> = cut(&all, most).into_iter().chain(noise).collect();
        for (message, byte, value) in flips {
            let message = message.index(messages.len());
            if !messages[message].is_empty() {
                let byte = byte.index(messages[message].len().min(200));
                messages[message][byte] = value;
            }
        }
        let (mut incoming, mut ear) = (Incoming::new(PROMISED), Ear::new());
        let count = messages.len() as u32;
        let whole = messages.iter().try_for_each(|message| incoming.take(message, &mut ear));
        prop_assert!(ear.is_fence_whole());
        prop_assert!(whole.is_err() || incoming.tell() <= count);
    }
}

#[test]
fn more_messages_than_were_promised_are_refused() {
    let (mut incoming, mut ear) = (Incoming::new(2), Ear::new());
    let message = request(1, vec![7; 10]);
    let message = [message.fixed, message.loose].concat();
    assert!(incoming.take(&message, &mut ear).is_ok() && incoming.must_tell());
    assert!(incoming.take(&message, &mut ear).is_ok());
    assert!(incoming.take(&message, &mut ear).is_err());
    assert_eq!(incoming.take(&[], &mut ear), Ok(()), "a word about buffers needs no promise");
}

#[test]
fn a_region_that_is_forsaken_in_the_midst_of_a_piece_gets_no_byte_more() {
    let (mut incoming, mut ear) = (Incoming::new(PROMISED), Ear::new());
    let Sent { fixed, loose } = write(1, 0, vec![9; 1000]);
    incoming.take(&[&fixed[..], &loose[..300]].concat(), &mut ear).unwrap();
    incoming.forsake(1);
    incoming.take(&loose[300..], &mut ear).unwrap();
    let bytes = ear.bytes();
    assert!(bytes[FENCE..FENCE + 300].iter().all(|byte| *byte == 9));
    assert!(bytes[FENCE + 300..].iter().all(|byte| *byte == 0) && ear.placed == 0);
}
