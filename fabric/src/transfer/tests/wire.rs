//! A simulated link: two queues of encoded frames, two ends that learn of a break at different times, and pieces that are placed in
//! two halves, so that anything may happen while one is being placed.

use crate::frame::{ACCESS_BYTES, Access, HEADER_BYTES, Header};
use crate::provider::{Body, Frame};
use crate::region::Span;
use crate::session::LinkId;
use crate::transfer::NativePiece;
use std::collections::VecDeque;

/// A frame under way, as bytes.
pub struct Wire {
    header: [u8; HEADER_BYTES],
    access: Option<[u8; ACCESS_BYTES]>,
    pub bytes: Vec<u8>,
}

impl Wire {
    pub fn of(frame: &Frame) -> Wire {
        let (access, bytes) = match &frame.body {
            Body::Piece(access, span) => {
                let mut bytes = vec![0; span.length()];
                span.copy_to(&mut bytes);
                (Some(access.encode()), bytes)
            }
            Body::Access(access) => (Some(access.encode()), Vec::new()),
            Body::Message(..) | Body::Empty => (None, Vec::new()),
        };
        let carried = access.map_or(0, |access| access.len()) + bytes.len();
        assert_eq!(frame.header.carried(), carried, "a header says what follows it");
        Wire { header: frame.header.encode(), access, bytes }
    }

    pub fn header(&self) -> Header {
        Header::decode(&self.header).expect("a header of ours is good")
    }

    pub fn access(&self) -> Option<Access> {
        self.access.map(|access| Access::decode(&access).expect("an access of ours is good"))
    }
}

/// A piece that is being placed.
pub struct Piece {
    pub header: Header,
    pub access: Access,
    pub span: Span,
    pub bytes: Vec<u8>,
    pub is_half_done: bool,
}

impl Piece {
    /// Places the first half, then the second. True when all is placed.
    pub fn advance(&mut self) -> bool {
        let half = self.bytes.len() / 2;
        let (from, to) = if self.is_half_done { (half, self.bytes.len()) } else { (0, half) };
        let part = self.span.part(from, to - from).expect("a place as long as the piece");
        part.fill(&self.bytes[from..to]);
        std::mem::replace(&mut self.is_half_done, true)
    }
}

/// One end of a link.
#[derive(Default)]
pub struct End {
    pub is_lost: bool,
    /// What comes to this end.
    pub coming: VecDeque<Wire>,
    pub placing: Option<Piece>,
}

impl End {
    pub fn lose(&mut self) {
        *self = End { is_lost: true, ..End::default() };
    }
}

pub struct SimLink {
    pub id: LinkId,
    pub has_device: bool,
    pub asker: End,
    pub owner: End,
    pub works: VecDeque<NativePiece>,
}

impl SimLink {
    pub fn new(id: LinkId, has_device: bool) -> SimLink {
        SimLink { id, has_device, asker: End::default(), owner: End::default(), works: VecDeque::new() }
    }

    pub fn is_quiet(&self) -> bool {
        let quiet = |end: &End| end.coming.is_empty() && end.placing.is_none();
        quiet(&self.asker) && quiet(&self.owner) && self.works.is_empty()
    }
}
