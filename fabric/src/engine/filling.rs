//! What a link is given to carry: frames of the cores, and pieces of transfers for its device.
//!
//! Invariant: while a remote's best links are up, transfers go over these only; what a device can carry out by itself is left to it.

use super::guest::Guest;
use super::remote::Remote;
use crate::provider::{Link, LinkError};
use crate::session::{Lane, LinkId};

/// Fills a link that this end dialled.
pub fn fill_out(link: &mut dyn Link, remote: &mut Remote, lane: Lane, id: LinkId) -> Result<(), LinkError> {
    let home = remote.home[lane as usize] == Some(id);
    let carries =
        lane == Lane::Bulk && remote.initiator.count() > 0 && remote.carrying(lane).any(|up| up == id);
    let rail = if carries { post_out(link, remote, id)? } else { None };
    while link.room() > 0 {
        let call = if home { remote.caller.next(lane, id) } else { remote.caller.next_rest(lane, id) };
        let frame = match call {
            None if carries => remote.initiator.next_beside(id, rail),
            call => call,
        };
        let Some(frame) = frame else { break };
        link.push(frame);
    }
    Ok(())
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

/// Fills a link that a guest dialled.
pub fn fill_in(link: &mut dyn Link, guest: &mut Guest, lane: Lane, id: LinkId) {
    while link.room() > 0 {
        let frame = match guest.callee.next(lane, id) {
            None if lane == Lane::Bulk => guest.target.next(id),
            reply => reply,
        };
        let Some(frame) = frame else { break };
        link.push(frame);
    }
}
