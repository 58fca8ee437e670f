//! What a link is given to carry: frames of the cores, and pieces of transfers for its device.
//!
//! Invariant: while a remote's best links are up, transfers go over these only; what a device can carry out by itself is left to it.

use super::Engine;
use super::guest::Guest;
use super::links::Side;
use super::remote::Remote;
use crate::provider::{Link, LinkError};
use crate::session::{Lane, LinkId};
use base::time::Time;

impl Engine {
    /// Fills the links that may have something to send, urgent ones first. Of bulk ones it sends a bounded amount; the others stay dirty.
    pub fn pump(&mut self, now: Time) {
        if !self.awaiting.is_empty() {
            self.tell_arrivals();
        }
        while let Some(id) = self.links.next_lost() {
            self.link_lost(id, &LinkError::from(std::io::Error::other("it was given up")), now);
        }
        while let Some(id) = self.links.next_dirty(Lane::Urgent) {
            self.fill(id, now);
        }
        while self.links.may_send() > 0
            && let Some(id) = self.links.next_dirty(Lane::Bulk)
        {
            self.fill(id, now);
        }
    }

    /// Fills a link once, and hands it what it was given to send.
    fn fill(&mut self, id: LinkId, now: Time) {
        let Some((mut link, side, lane)) = self.links.take(id) else { return };
        let most = self.links.quantum();
        let filled = match side {
            Side::Out(at) => fill_out(&mut *link, &mut self.remotes[at], lane, id, most),
            Side::In(at) => {
                Ok(self.guests.at(at).is_some_and(|guest| fill_in(&mut *link, guest, lane, id, most)))
            }
        };
        let flushed = filled.and_then(|more| link.flush(&mut self.reactor).map(|()| more));
        let posted = link.one_sided().is_some_and(|device| device.is_busy());
        if posted {
            self.watch_devices(now);
        }
        self.links.moved(id, &*link);
        // Where the wire took it all no readiness will come, so the cores are asked for more.
        let open = link.room() > 0;
        self.links.give_back(id, link);
        match flushed {
            Err(error) => self.link_lost(id, &error, now),
            Ok(more) if more && open => self.links.mark(id),
            Ok(_) => {}
        }
    }
}

/// Fills a link that this end dialled, with about so many bytes at most. True if there may be more.
fn fill_out(
    link: &mut dyn Link,
    remote: &mut Remote,
    lane: Lane,
    id: LinkId,
    most: u64,
) -> Result<bool, LinkError> {
    let home = remote.home[lane as usize] == Some(id);
    let carries =
        lane == Lane::Bulk && remote.initiator.count() > 0 && remote.carrying(lane).any(|up| up == id);
    let rail = if carries { post_out(link, remote, id)? } else { None };
    remote.initiator.cut_at(most);
    let mut pushed = 0;
    while link.room() > 0 && pushed < most {
        let call = if home { remote.caller.next(lane, id) } else { remote.caller.next_rest(lane, id) };
        let frame = match call {
            None if carries => remote.initiator.next_beside(id, rail),
            call => call,
        };
        let Some(frame) = frame else { return Ok(false) };
        pushed += frame.header.carried() as u64;
        link.push(frame);
    }
    Ok(true)
}

/// Gives its device what it can take. Yields the rail that the device leads to.
fn post_out(link: &mut dyn Link, remote: &mut Remote, id: LinkId) -> Result<Option<u8>, LinkError> {
    let Some(device) = link.one_sided() else { return Ok(None) };
    let rail = device.rail();
    while device.room() > 0 {
        let Some(piece) = remote.initiator.take_native(id, rail) else { break };
        if piece.write {
            device.write(piece.work, &piece.span, piece.remote, None)?;
        } else {
            device.read(piece.work, piece.remote, &piece.span)?;
        }
    }
    Ok(Some(rail))
}

/// Fills a link that a guest dialled, with about so many bytes at most. True if there may be more.
fn fill_in(link: &mut dyn Link, guest: &mut Guest, lane: Lane, id: LinkId, most: u64) -> bool {
    guest.target.cut_at(most);
    let mut pushed = 0;
    while link.room() > 0 && pushed < most {
        let frame = match guest.callee.next(lane, id) {
            None if lane == Lane::Bulk => guest.target.next(id),
            reply => reply,
        };
        let Some(frame) = frame else { return false };
        pushed += frame.header.carried() as u64;
        link.push(frame);
    }
    true
}
