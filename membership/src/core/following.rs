//! A node's side: hearing the master, the lease that it gives, and asking for one where there is none.
//!
//! Invariant: a lease is counted from when this node said what the master answered, on this node's own clock.

use super::event::Effect;
use super::{Core, lives_in};
use crate::table::Feed;
use crate::talk::{Ask, Followed, Hello, Lead};
use base::{NodeId, Time};
use std::collections::BTreeSet;
use std::time::Duration;

/// After so many hellos without a master everybody is asked, not only the voters.
const HELLOS_TO_VOTERS: u32 = 5;

/// What is known of the master.
#[derive(Clone, Debug)]
pub(super) struct Following {
    pub(super) master: Option<NodeId>,
    pub(super) term: u64,
    /// When it was last heard.
    pub(super) heard: Time,
    pub(super) lease: Option<Time>,
    next_hello: Time,
    hellos: u32,
}

impl Following {
    pub(super) fn new(now: Time) -> Following {
        Following { master: None, term: 0, heard: now, lease: None, next_hello: now, hellos: 0 }
    }
}

impl Core {
    /// The master beats.
    pub(super) fn led(&mut self, now: Time, from: NodeId, lead: Lead) -> Followed {
        if lead.term >= self.following.term {
            self.following.term = lead.term;
            self.following.master = Some(from);
            self.following.heard = now;
            self.following.hellos = 0;
            self.learn(&lead.feed.unwrap_or_default());
            self.take_lease(now, lead.life, Time(lead.echo), Duration::from_micros(lead.grant_us));
        }
        let disk = self.config.member.disk.0;
        Followed {
            term: self.following.term,
            epoch: self.view().epoch,
            incarnation: self.config.row.incarnation,
            condition: Some(self.condition),
            sent: now.0,
            disk_low: disk as u64,
            disk_high: (disk >> 64) as u64,
        }
    }

    fn take_lease(&mut self, now: Time, life: u64, said: Time, grant: Duration) {
        let ours = life == self.config.row.incarnation && said > Time(0) && said <= now;
        if ours && !grant.is_zero() {
            let until = said + grant.min(self.config.timings.lease);
            self.following.lease = self.following.lease.max(Some(until));
        }
    }

    /// Takes in what another says is agreed.
    pub(super) fn learn(&mut self, feed: &Feed) {
        let cluster = feed.view.as_ref().map_or(&self.view().cluster, |view| &view.cluster);
        if *cluster == self.view().cluster && self.known.take(feed) {
            let view = self.known.view().clone();
            self.learn_end(&view);
            self.out.push(Effect::Publish(feed.clone()));
        }
    }

    /// A node that is not in the view as it should be, or hears no master, says hello until that is put right.
    pub(super) fn say_hello(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let master = self.master(now);
        let lives = lives_in(self.view(), self.me(), self.config.row.incarnation);
        let settled = master.is_some() && (lives || master == Some(self.me()));
        if settled || now < self.following.next_hello {
            return;
        }
        self.following.next_hello = now + self.config.timings.hello;
        self.following.hellos = self.following.hellos.saturating_add(1);
        let hello = Hello { row: Some(self.config.row.clone()), condition: Some(self.condition) };
        let request = self.request(Ask::Hello(hello));
        let to = self.whom_to_greet(master).into_iter().filter(|&id| id != self.me());
        effects.extend(to.map(|to| Effect::Ask { to, request: request.clone() }));
    }

    fn whom_to_greet(&self, master: Option<NodeId>) -> BTreeSet<NodeId> {
        if let Some(master) = master {
            return BTreeSet::from([master]);
        }
        let view = self.view();
        if view.voters.is_empty() || self.following.hellos.is_multiple_of(HELLOS_TO_VOTERS) {
            return view.nodes.iter().map(crate::Node::node_id).collect();
        }
        view.voters.iter().map(|&id| NodeId(id)).collect()
    }
}
