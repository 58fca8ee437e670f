//! What leaves the core: writes, messages that wait for writes, and news.
//!
//! Invariant: a message that is held is released when every write ordered before it is on disk.

use super::{Core, Part};
use crate::entry::{Entry, Write};
use crate::event::Effect;
use crate::ids::{Index, Member, Ticket};
use crate::message::{Envelope, Message};
use base::Time;

/// What has changed and is in no write yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Unsaved {
    pub(super) hard: bool,
    pub(super) truncate: Option<Index>,
    pub(super) from: Option<Index>,
}

impl Core {
    pub(super) fn envelope(&self, to: Member, body: Message) -> Envelope {
        Envelope { from: self.config.me, to, term: self.hard.term, body }
    }

    /// Says it now.
    pub(super) fn send(&mut self, to: Member, body: Message) {
        let envelope = self.envelope(to, body);
        self.out.push(Effect::Send(envelope));
    }

    /// Says it when everything that is promised so far is on disk.
    pub(super) fn hold(&mut self, to: Member, body: Message) {
        let envelope = self.envelope(to, body);
        self.holding.push(envelope);
    }

    /// Orders one write for all that has changed.
    pub(super) fn seal(&mut self) {
        let Unsaved { hard, truncate, from } = std::mem::take(&mut self.unsaved);
        if hard || truncate.is_some() || from.is_some() {
            let last = self.log.last().index;
            let entries: Vec<Entry> = from.map_or(Vec::new(), |from| self.log.slice(from, last, usize::MAX));
            let ticket = self.writes.order(last);
            // What this write brings is not yet there when its promises are read back without it.
            self.hard.commit = from.map_or(self.commit, |from| self.commit.min(from.before()));
            self.out.push(Effect::Persist(Write { ticket, truncate, entries, hard: Some(self.hard) }));
        }
        let ticket = self.writes.last();
        self.held.extend(self.holding.drain(..).map(|envelope| (ticket, envelope)));
    }

    /// A write is on disk.
    pub(super) fn persisted(&mut self, now: Time, ticket: Ticket) {
        self.writes.finished(ticket);
        let installed = self.restoring.take_if(|(waited, _)| *waited <= ticket);
        if let Some((_, meta)) = installed {
            self.delivered = meta.stamp.index;
            self.out.push(Effect::Restore(meta));
        }
        self.release(now);
        self.report_safe();
    }

    /// Says what was held for writes that are on disk now.
    pub(super) fn release(&mut self, now: Time) {
        let done = if self.canary.speaks_too_soon() { self.writes.last() } else { self.writes.done() };
        // What a released vote sets off may hold more; that waits for a later write.
        let ready: Vec<Envelope> =
            self.held.extract_if(.., |(ticket, _)| *ticket <= done).map(|(_, envelope)| envelope).collect();
        for envelope in ready {
            match envelope {
                Envelope { to, term, body: Message::Vote { trial, granted }, .. } if to == self.config.me => {
                    self.voted(now, to, term, trial, granted);
                }
                envelope => self.out.push(Effect::Send(envelope)),
            }
        }
    }

    /// Tells of a new leader and of new voters.
    pub(super) fn tell(&mut self) {
        let leader = match &self.part {
            Part::Leader(_) => Some(self.config.me),
            _ => self.leader,
        };
        let news = (leader, self.hard.term);
        if self.told_leader != news {
            self.told_leader = news;
            self.out.push(Effect::Leadership { leader, term: self.hard.term });
        }
        if self.told_voters.as_ref() != Some(self.log.voters()) {
            let voters = self.log.voters().clone();
            self.told_voters = Some(voters.clone());
            self.out.push(Effect::Voters(voters));
        }
    }
}
