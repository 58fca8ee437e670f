//! Simulated links: they delay, and they are cut, which each end learns at another time.

use crate::frame::Header;
use crate::provider::{Body, Frame};
use crate::session::{Lane, LinkId};
use base::Prng;
use bytes::Bytes;
use std::collections::VecDeque;

/// The two ends, as places in arrays.
pub const CALLER: usize = 0;
pub const CALLEE: usize = 1;

/// How links behave in a world.
pub struct Weather {
    /// Frames that one direction holds.
    pub room: usize,
    pub delay_max: u64,
    /// How long an end may not know that a link is cut.
    pub ignorance_max: u64,
    pub comes_back_max: u64,
}

/// Frames under way to one end.
#[derive(Default)]
struct Pipe {
    frames: VecDeque<(u64, Header, Bytes)>,
    /// Frames that went into a cut link.
    swallowed: usize,
}

/// One end's view of a link.
#[derive(Clone, Copy)]
struct End {
    up_at: u64,
    /// When it learns that the link is cut.
    down_at: Option<u64>,
    lost: bool,
}

pub struct Link {
    pub lane: Lane,
    pub rail: u64,
    ids: [LinkId; 2],
    ends: [End; 2],
    /// By where they go.
    pipes: [Pipe; 2],
}

impl Link {
    /// The callee is there before the caller knows.
    pub fn new(lane: Lane, rail: u64, number: u32, now: u64, wait: u64) -> Link {
        let end = |up_at| End { up_at, down_at: None, lost: false };
        // Each end has numbers of its own.
        let ids = [LinkId(number), LinkId(u32::MAX - 3 * number)];
        Link { lane, rail, ids, ends: [end(now + wait), end(now)], pipes: Default::default() }
    }

    pub fn id(&self, end: usize) -> LinkId {
        self.ids[end]
    }

    pub fn is_up(&self, end: usize, now: u64) -> bool {
        self.ends[end].up_at <= now && !self.ends[end].lost
    }

    pub fn is_cut(&self) -> bool {
        self.ends[CALLER].down_at.is_some()
    }

    /// True if both ends know that it is gone.
    pub fn is_gone(&self) -> bool {
        self.ends.iter().all(|end| end.lost)
    }

    pub fn is_idle(&self) -> bool {
        self.pipes.iter().all(|pipe| pipe.frames.is_empty())
    }

    /// True if this end may push a frame.
    pub fn has_room(&self, from: usize, now: u64, weather: &Weather) -> bool {
        let pipe = &self.pipes[1 - from];
        self.is_up(from, now) && pipe.frames.len() + pipe.swallowed < weather.room
    }

    pub fn push(&mut self, from: usize, frame: Frame, now: u64, weather: &Weather, prng: &mut Prng) {
        let pipe = &mut self.pipes[1 - from];
        if self.ends[CALLER].down_at.is_some() {
            pipe.swallowed += 1;
            return;
        }
        let body = match frame.body {
            Body::Message(head, bulk) if bulk.is_empty() => head,
            Body::Message(head, bulk) if head.is_empty() => bulk,
            Body::Message(head, bulk) => [head, bulk].concat().into(),
            _ => Bytes::new(),
        };
        pipe.frames.push_back((now + prng.below(weather.delay_max + 1), frame.header, body));
    }

    /// The next frame for this end, if it is there already.
    pub fn pop(&mut self, to: usize, now: u64) -> Option<(Header, Bytes)> {
        if !self.is_up(to, now) {
            return None;
        }
        let frames = &mut self.pipes[to].frames;
        let is_there = frames.front().is_some_and(|(due, ..)| *due <= now);
        let (_, header, body) = if is_there { frames.pop_front() } else { None }?;
        Some((header, body))
    }

    /// The end of each direction is lost; the ends learn of it some time.
    pub fn cut(&mut self, now: u64, weather: &Weather, prng: &mut Prng) {
        for (end, pipe) in self.ends.iter_mut().zip(&mut self.pipes) {
            let kept = prng.below(pipe.frames.len() as u64 + 1) as usize;
            pipe.frames.truncate(kept);
            end.down_at = Some(now.max(end.up_at) + prng.below(weather.ignorance_max + 1));
        }
    }

    /// True once: this end has just learnt that the link is cut.
    pub fn learns(&mut self, end: usize, now: u64) -> bool {
        let learns = !self.ends[end].lost && self.ends[end].down_at.is_some_and(|at| at <= now);
        if learns {
            self.ends[end].lost = true;
            self.pipes[end].frames.clear();
        }
        learns
    }
}
