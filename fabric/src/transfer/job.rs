//! One transfer at the end whose memory it is.
//!
//! Owns what has been placed or served of it, and its end. Invariant: once it has ended, nothing of it is placed; while a link is placing
//! a piece, it does not end, but by [`Job::forsake`].

use super::ranges::Ranges;
use super::{Placing, RANGES_MAX, take_placing};
use crate::frame::{Access, Verdict, WireError};
use crate::region::Span;
use crate::session::LinkId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// It ends so, when no link is placing a piece of it any more.
    Ending(Verdict),
    Ended(Verdict),
}

/// One transfer in its slot.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) write: bool,
    /// What it may touch; `at` is 0.
    pub(super) access: Access,
    state: State,
    /// What a running read is served from.
    span: Option<Span>,
    /// Where a read goes on.
    cursor: u64,
    /// Links that carried data of the read since it was asked for last.
    links: Vec<LinkId>,
    placed: Ranges,
    placing: Vec<Placing>,
    /// The link on which `Done` went last.
    done_on: Option<LinkId>,
    /// `Done` is to be said.
    pub(super) is_owed: bool,
    /// `Done` asks the initiator to ask again.
    pub(super) is_lossy: bool,
}

impl Job {
    /// A transfer that nothing is known of but what it claims.
    pub(super) fn new(write: bool, access: &Access) -> Job {
        Job {
            write,
            access: Access { at: 0, ..*access },
            state: State::Running,
            span: None,
            cursor: 0,
            links: Vec::new(),
            placed: Ranges::default(),
            placing: Vec::new(),
            done_on: None,
            is_owed: false,
            is_lossy: false,
        }
    }

    /// True if this is a frame of this transfer.
    pub(super) fn is_named(&self, write: bool, access: &Access) -> bool {
        self.write == write && self.access == Access { at: 0, ..*access }
    }

    pub(super) fn is_running(&self) -> bool {
        self.state == State::Running
    }

    pub(super) fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended(_))
    }

    /// How it ended; of one that runs, that it does.
    pub(super) fn verdict(&self) -> Verdict {
        match self.state {
            State::Ended(verdict) => verdict,
            State::Running | State::Ending(_) => Verdict::Answered,
        }
    }

    /// True while there is data to be sent.
    pub(super) fn is_serving(&self) -> bool {
        !self.write && self.is_running()
    }

    /// A piece of a running write comes. True if it goes where it belongs; false if it need not.
    ///
    /// The initiator sends a piece again only when it has lost the link that had it. So of two links that place the same
    /// bytes one is dead: the one without AGAIN, or else, as far as can be known, the elder. `given_up` gets it.
    pub(super) fn take(
        &mut self,
        piece: Placing,
        again: bool,
        given_up: &mut Vec<LinkId>,
    ) -> Result<bool, WireError> {
        let (at, end) = (piece.at, piece.at + piece.length);
        let same = |one: &&Placing| one.link != piece.link && one.at < end && at < one.at + one.length;
        let mut others = self.placing.iter().filter(same).map(|one| one.link).peekable();
        if self.placed.covers(at, end) || !again && others.peek().is_some() {
            if again {
                given_up.extend(others);
            }
            return Ok(false);
        }
        given_up.extend(others);
        if self.placed.count() + self.placing.len() >= RANGES_MAX {
            return Err(WireError("a write in too many pieces"));
        }
        self.placing.push(piece);
        Ok(true)
    }

    pub(super) fn placed(&mut self, link: LinkId, at: u64, length: u64) {
        if take_placing(&mut self.placing, link, at, length) {
            self.placed.insert(at, at + length);
        }
    }

    /// A read that was served is looked at once more.
    pub(super) fn restart(&mut self) {
        self.state = State::Running;
    }

    /// It shall end so.
    pub(super) fn end(&mut self, verdict: Verdict) {
        if self.is_running() {
            self.state = State::Ending(verdict);
            self.span = None;
        }
    }

    /// Ends it if it can end. True if a write is complete by this.
    pub(super) fn settle(&mut self) -> bool {
        if !self.placing.is_empty() {
            return false;
        }
        match self.state {
            State::Running if self.write && self.placed.covers(0, self.access.length) => {
                self.ended(Verdict::Answered);
                true
            }
            State::Ending(verdict) => {
                self.ended(verdict);
                false
            }
            State::Running | State::Ended(_) => false,
        }
    }

    fn ended(&mut self, verdict: Verdict) {
        self.state = State::Ended(verdict);
        self.is_owed = true;
        self.is_lossy = false;
        self.span = None;
        self.placed = Ranges::default();
    }

    /// Its region is gone: it ends now, and what links were placing does not count, for they have been told to stop.
    pub(super) fn forsake(&mut self) {
        if !self.is_ended() {
            self.placing.clear();
            self.ended(Verdict::Revoked);
        }
    }

    /// A read is served from `span`, from `at` on.
    pub(super) fn serve(&mut self, span: Span, at: u64) {
        self.state = State::Running;
        self.span = Some(span);
        self.cursor = at;
        self.links.clear();
        (self.is_owed, self.is_lossy) = (false, false);
        self.serve_end();
    }

    /// The next piece of a running read, of at most so many bytes, for this link, and where it belongs.
    pub(super) fn served(&mut self, link: LinkId, longest: u64) -> Option<(u64, Span)> {
        let at = self.cursor;
        let length = longest.min(self.access.length - at);
        // Below the length of a span of this process.
        let span = self.span.as_ref()?.part(at as usize, length as usize)?;
        self.cursor += length;
        if !self.links.contains(&link) {
            self.links.push(link);
        }
        self.serve_end();
        Some((at, span))
    }

    fn serve_end(&mut self) {
        if self.cursor >= self.access.length {
            self.ended(Verdict::Answered);
        }
    }

    /// `Done` was given to this link.
    pub(super) fn said(&mut self, link: LinkId) {
        self.done_on = Some(link);
        (self.is_owed, self.is_lossy) = (false, false);
    }

    /// What this link was carrying is lost, and it touches our memory no more. True if a write is complete by this.
    pub(super) fn link_lost(&mut self, link: LinkId) -> bool {
        self.placing.retain(|one| one.link != link);
        let complete = self.settle();
        let touched = self.done_on == Some(link) || self.links.contains(&link);
        if touched && (self.is_ended() || !self.write) {
            self.is_owed = true;
            self.is_lossy = !self.write && self.verdict() == Verdict::Answered;
        }
        complete
    }
}
