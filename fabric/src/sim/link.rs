//! A link of the simulated network.

use super::wire::{End, Wire};
use crate::frame::{ACCESS_BYTES, HEADER_BYTES, Header};
use crate::provider::{Body, Frame, Link, LinkError, Place, Provider, Sink, Traffic};
use crate::reactor::Reactor;
use crate::region::Span;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

/// Frames that one receive takes.
const FRAMES_MAX: usize = 64;

/// One end of a simulated cable.
pub struct SimLink {
    wire: Arc<Mutex<Wire>>,
    end: End,
    pushed: Vec<Frame>,
    pushed_bytes: usize,
    traffic: Traffic,
}

impl SimLink {
    /// The link at this end of a cable.
    pub fn new(wire: Arc<Mutex<Wire>>, end: End) -> SimLink {
        SimLink { wire, end, pushed: Vec::new(), pushed_bytes: 0, traffic: Traffic::default() }
    }

    fn deliver(&mut self, frame: Frame, sink: &mut dyn Sink) -> Result<(), LinkError> {
        // As on every wire: what decodes is what was encoded.
        let header = Header::decode(&frame.header.encode())?;
        match frame.body {
            Body::Piece(access, span) => {
                if let Place::Span(place) = sink.place(&header, &access)? {
                    place.copy_from(&span);
                    sink.placed(&header, &access)?;
                }
            }
            Body::Message(head, bulk) if bulk.is_empty() => sink.frame(header, head)?,
            Body::Message(head, bulk) => {
                let mut body = BytesMut::with_capacity(head.len() + bulk.len());
                body.extend_from_slice(&head);
                body.extend_from_slice(&bulk);
                sink.frame(header, body.freeze())?;
            }
            Body::Access(access) => sink.frame(header, Bytes::copy_from_slice(&access.encode()))?,
            Body::Empty => sink.frame(header, Bytes::new())?,
        }
        Ok(())
    }
}

fn length(frame: &Frame) -> usize {
    HEADER_BYTES
        + match &frame.body {
            Body::Message(head, bulk) => head.len() + bulk.len(),
            Body::Piece(_, span) => ACCESS_BYTES + span.length(),
            Body::Access(_) => ACCESS_BYTES,
            Body::Empty => 0,
        }
}

/// The frame as it is now: the memory of a piece may change once it is on its way.
fn snapshot(frame: Frame) -> Frame {
    let Body::Piece(access, span) = &frame.body else { return frame };
    let copy =
        crate::region::Memory::new(span.length()).ok().and_then(|memory| Span::of(&memory, 0, span.length()));
    // Without memory for a copy the piece goes as it will be then, which the contract allows.
    let Some(copy) = copy else { return frame };
    copy.copy_from(span);
    Frame { header: frame.header, body: Body::Piece(*access, copy) }
}

impl Link for SimLink {
    fn provider(&self) -> Provider {
        Provider::Sim
    }

    fn room(&self) -> usize {
        self.wire.lock().room(self.end).saturating_sub(self.pushed_bytes)
    }

    fn push(&mut self, frame: Frame) {
        self.pushed_bytes += length(&frame);
        self.pushed.push(snapshot(frame));
    }

    fn flush(&mut self, _reactor: &mut Reactor) -> Result<(), LinkError> {
        self.pushed_bytes = 0;
        let mut wire = self.wire.lock();
        for frame in self.pushed.drain(..) {
            let bytes = length(&frame);
            self.traffic.frames_sent += 1;
            self.traffic.bytes_sent += bytes as u64;
            wire.send(self.end, frame, bytes);
        }
        Ok(())
    }

    fn receive(
        &mut self,
        _reactor: &mut Reactor,
        sink: &mut dyn Sink,
        most: usize,
    ) -> Result<bool, LinkError> {
        let begun = self.traffic.bytes_received;
        for _ in 0..FRAMES_MAX {
            if self.traffic.bytes_received - begun >= most as u64 {
                break;
            }
            let received = self.wire.lock().receive(self.end);
            let lost = || LinkError::from(io::Error::from(io::ErrorKind::ConnectionReset));
            match received.map_err(|()| lost())? {
                Some(frame) => {
                    self.traffic.frames_received += 1;
                    self.traffic.bytes_received += length(&frame) as u64;
                    self.deliver(frame, sink)?;
                }
                None if self.wire.lock().is_over(self.end) => return Err(lost()),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    fn always_rings(&self) -> bool {
        true
    }

    fn arm(&mut self, _reactor: &mut Reactor) -> Result<bool, LinkError> {
        Ok(false)
    }

    fn forsake(&mut self, _region: u64) {
        // A piece is placed whole within one receive.
    }

    fn traffic(&self) -> Traffic {
        self.traffic
    }

    fn close(&mut self, _reactor: &mut Reactor) {
        // Dropping it tells the other end.
    }
}

impl Drop for SimLink {
    fn drop(&mut self) {
        self.wire.lock().close(self.end);
    }
}
