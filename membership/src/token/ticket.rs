//! Tickets: what the cluster table knows of tokens. No secret is in them.
//!
//! Invariant: what may be done with a ticket is a function of the table and of the time that the master gives; so every node that
//! applies the same transitions has the same tickets.

use super::{MachineNumber, TicketId, TokenError, joining_key, prove};
use fabric::ClusterKey;
use hmac::Mac;
use std::collections::{BTreeMap, BTreeSet};

/// Tickets that may be open at a time.
pub const TICKETS_MAX: usize = 256;
/// Machines that one ticket may let in.
pub const USES_MAX: u32 = 64;
/// How long a ticket may be open, seconds: a week.
pub const LIFE_SECONDS_MAX: u64 = 7 * 86_400;
/// By so much the clocks of who makes a ticket and of the master may differ.
const SKEW_SECONDS_MAX: u64 = 3_600;

/// A machine that a ticket has let in.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Use {
    /// The machine's number for itself.
    #[prost(bytes = "vec", tag = "1")]
    pub machine: Vec<u8>,
    /// The node that it became.
    #[prost(uint32, tag = "2")]
    pub node: u32,
}

/// One ticket.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Ticket {
    /// Its name, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// When it expires, seconds since 1970.
    #[prost(uint64, tag = "2")]
    pub expires: u64,
    /// Machines that it lets in, all in all.
    #[prost(uint32, tag = "3")]
    pub uses: u32,
    /// Those that it has let in.
    #[prost(message, repeated, tag = "4")]
    pub used: Vec<Use>,
}

impl Ticket {
    /// A ticket that nobody has used.
    pub fn new(id: TicketId, expires: u64, uses: u32) -> Ticket {
        Ticket { id: id.0.to_vec(), expires, uses, used: Vec::new() }
    }

    /// Its name; none if the table holds something else there.
    pub fn ticket_id(&self) -> Option<TicketId> {
        TicketId::read(&self.id)
    }

    /// True if it can let one more machine in.
    pub fn is_open(&self, now: u64) -> bool {
        now < self.expires && self.used.len() < self.uses as usize
    }
}

/// What happened to one ticket in one transition.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TicketChange {
    /// It as it was; `None`: it is new.
    #[prost(message, optional, tag = "1")]
    pub before: Option<Ticket>,
    /// It as it is; `None`: it is forgotten.
    #[prost(message, optional, tag = "2")]
    pub after: Option<Ticket>,
}

/// All tickets of the cluster.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Tickets {
    /// In the order of their names.
    #[prost(message, repeated, tag = "1")]
    pub tickets: Vec<Ticket>,
}

impl Tickets {
    /// Adds a ticket. Those that have expired by `now` (seconds since 1970) are forgotten.
    ///
    /// # Errors
    /// [`TokenError::TooMany`], or [`TokenError::Field`] if it makes no sense.
    pub fn add(&mut self, ticket: Ticket, now: u64) -> Result<(), TokenError> {
        self.forget_expired(now);
        let id = ticket.ticket_id().ok_or(TokenError::Field("ticket"))?;
        if !(1..=USES_MAX).contains(&ticket.uses) {
            return Err(TokenError::Field("number of uses"));
        }
        if now >= ticket.expires {
            return Err(TokenError::Expired(id));
        }
        if ticket.expires - now > LIFE_SECONDS_MAX + SKEW_SECONDS_MAX {
            return Err(TokenError::Field("time within a week"));
        }
        if self.ticket(id).is_some() {
            return Err(TokenError::Field("new ticket"));
        }
        if self.tickets.len() >= TICKETS_MAX {
            return Err(TokenError::TooMany);
        }
        self.set(None, Some(&ticket));
        Ok(())
    }

    /// Forgets those that have expired by `now`.
    pub fn forget_expired(&mut self, now: u64) {
        self.tickets.retain(|known| now < known.expires);
    }

    /// When the next of those expires that are good at `now`.
    pub fn next_expiry(&self, now: u64) -> Option<u64> {
        self.tickets.iter().map(|ticket| ticket.expires).filter(|at| now < *at).min()
    }

    /// The steps from these to `after`.
    pub fn changes_to(&self, after: &Tickets) -> Vec<TicketChange> {
        let (old, new) = (self.by_name(), after.by_name());
        let names: BTreeSet<&[u8]> = old.keys().chain(new.keys()).copied().collect();
        let change = |name: &[u8]| {
            let (before, after) = (old.get(name).copied(), new.get(name).copied());
            (before != after).then(|| TicketChange { before: before.cloned(), after: after.cloned() })
        };
        names.into_iter().filter_map(change).collect()
    }

    fn by_name(&self) -> BTreeMap<&[u8], &Ticket> {
        self.tickets.iter().map(|ticket| (ticket.id.as_slice(), ticket)).collect()
    }

    /// Puts `new` in the place of `old`.
    pub fn set(&mut self, old: Option<&Ticket>, new: Option<&Ticket>) {
        let Some(id) = old.or(new).map(|ticket| ticket.id.as_slice()) else { return };
        match (self.tickets.binary_search_by(|known| known.id.as_slice().cmp(id)), new) {
            (Ok(at), Some(ticket)) => self.tickets[at] = ticket.clone(),
            (Err(at), Some(ticket)) => self.tickets.insert(at, ticket.clone()),
            (Ok(at), None) => drop(self.tickets.remove(at)),
            (Err(_), None) => {}
        }
    }

    /// The node that this machine became by this ticket; `None`: it may become one now.
    ///
    /// # Errors
    /// [`TokenError::Unknown`], [`TokenError::Expired`], [`TokenError::Used`].
    pub fn admits(&self, id: TicketId, machine: &MachineNumber, now: u64) -> Result<Option<u32>, TokenError> {
        let ticket = self.ticket(id).ok_or(TokenError::Unknown(id))?;
        if now >= ticket.expires {
            return Err(TokenError::Expired(id));
        }
        if let Some(used) = ticket.used.iter().find(|used| used.machine == machine) {
            return Ok(Some(used.node));
        }
        if ticket.is_open(now) { Ok(None) } else { Err(TokenError::Used(id)) }
    }

    /// The ticket of this name.
    pub fn ticket(&self, id: TicketId) -> Option<&Ticket> {
        self.tickets.iter().find(|ticket| ticket.id == id.0)
    }

    /// Forgets a ticket; false if there was none.
    pub fn revoke(&mut self, id: TicketId) -> bool {
        let before = self.tickets.len();
        self.tickets.retain(|ticket| ticket.id != id.0);
        self.tickets.len() < before
    }

    /// Joining keys of all tickets that are open at `now`, or whose machines may still ask again: what members take beside the
    /// cluster key.
    pub fn keys(&self, key: &ClusterKey, now: u64) -> Vec<ClusterKey> {
        let valid = self.tickets.iter().filter(|ticket| now < ticket.expires);
        valid.filter_map(|ticket| Some(joining_key(key, ticket.ticket_id()?, ticket.expires))).collect()
    }

    /// May this machine come in with this ticket? `Some(node)`: it did already, as that node; the answer may have been lost.
    ///
    /// # Errors
    /// Why not.
    pub fn check(
        &self,
        key: &ClusterKey,
        id: TicketId,
        machine: &MachineNumber,
        row: &[u8],
        proof: &[u8],
        now: u64,
    ) -> Result<Option<u32>, TokenError> {
        let ticket = self.ticket(id).ok_or(TokenError::Unknown(id))?;
        let joining = joining_key(key, id, ticket.expires);
        prove(&joining, id, machine, row).verify_slice(proof).map_err(|_| TokenError::Proof(id))?;
        self.admits(id, machine, now)
    }

    /// The machine has become `node`: in the same transition that adds its row. A ticket that has nothing left is not changed.
    ///
    /// # Errors
    /// [`TokenError::Unknown`], [`TokenError::Used`]: two machines asked at once, and this one comes second.
    pub fn spend(&mut self, id: TicketId, machine: &MachineNumber, node: u32) -> Result<(), TokenError> {
        let ticket =
            self.tickets.iter_mut().find(|ticket| ticket.id == id.0).ok_or(TokenError::Unknown(id))?;
        if ticket.used.iter().any(|used| used.machine == machine && used.node == node) {
            return Ok(());
        }
        if ticket.used.len() >= ticket.uses as usize {
            return Err(TokenError::Used(id));
        }
        ticket.used.push(Use { machine: machine.to_vec(), node });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Token, wrap_for};
    use super::*;
    use proptest::prelude::*;
    use prost::Message as _;

    const ID: TicketId = TicketId([3; 16]);
    const NOW: u64 = 1_800_000_000;

    fn key() -> ClusterKey {
        ClusterKey::from_bytes([9; 32])
    }

    fn cluster(uses: u32) -> (Tickets, Token) {
        let mut tickets = Tickets::default();
        let ticket = Ticket::new(ID, NOW + 3_600, uses);
        tickets.add(ticket.clone(), NOW).unwrap();
        let token = Token::new(&key(), &ticket, "blue", &["10.0.0.1:7100".parse().unwrap()]).unwrap();
        (tickets, token)
    }

    fn ask(tickets: &Tickets, token: &Token, machine: u8, now: u64) -> Result<Option<u32>, TokenError> {
        let machine = [machine; 16];
        let proof = token.proof(&machine, b"row");
        tickets.check(&key(), token.id, &machine, b"row", &proof, now)
    }

    #[test]
    fn a_token_lets_one_machine_in_and_that_one_may_ask_again() {
        let (mut tickets, token) = cluster(1);
        assert_eq!(ask(&tickets, &token, 1, NOW), Ok(None));
        tickets.spend(ID, &[1; 16], 7).unwrap();
        assert_eq!(ask(&tickets, &token, 1, NOW), Ok(Some(7)), "its answer was lost");
        assert_eq!(ask(&tickets, &token, 2, NOW), Err(TokenError::Used(ID)));
        assert_eq!(tickets.spend(ID, &[2; 16], 8), Err(TokenError::Used(ID)));
        assert_eq!(tickets.spend(ID, &[1; 16], 7), Ok(()));
        assert_eq!(
            tickets.spend(ID, &[1; 16], 8),
            Err(TokenError::Used(ID)),
            "nor twice under other numbers"
        );
    }

    #[test]
    fn the_cluster_key_comes_with_the_answer_for_this_token_only() {
        let (tickets, token) = cluster(1);
        let wrapped = wrap_for(&key(), tickets.ticket(ID).unwrap()).unwrap();
        assert_eq!(token.open(&wrapped), Ok(key()));
        let other = Ticket::new(TicketId([4; 16]), NOW + 3_600, 1);
        let other = Token::new(&key(), &other, "blue", &token.seeds).unwrap();
        assert!(other.open(&wrapped).is_err());
        assert_ne!(token.key, key(), "the token does not hold the cluster key");
        assert_eq!(tickets.keys(&key(), NOW), vec![token.key]);
    }

    #[test]
    fn an_expired_a_revoked_and_a_foreign_token_are_refused() {
        let (mut tickets, token) = cluster(1);
        assert_eq!(ask(&tickets, &token, 1, NOW + 3_600), Err(TokenError::Expired(ID)));
        assert!(tickets.keys(&key(), NOW + 3_600).is_empty());
        let other_key = ClusterKey::from_bytes([8; 32]);
        let foreign = Token::new(&other_key, tickets.ticket(ID).unwrap(), "blue", &token.seeds).unwrap();
        assert_eq!(ask(&tickets, &foreign, 1, NOW), Err(TokenError::Proof(ID)));
        let proof = token.proof(&[1; 16], b"row");
        let changed = tickets.check(&key(), ID, &[1; 16], b"row of another", &proof, NOW);
        assert_eq!(changed, Err(TokenError::Proof(ID)));
        assert!(tickets.revoke(ID) && !tickets.revoke(ID));
        assert_eq!(ask(&tickets, &token, 1, NOW), Err(TokenError::Unknown(ID)));
    }

    #[test]
    fn a_longer_life_cannot_be_written_into_a_token() {
        let (tickets, mut token) = cluster(1);
        token.expires += 1_000;
        assert_eq!(ask(&tickets, &token, 1, NOW + 3_600), Err(TokenError::Expired(ID)));
    }

    #[test]
    fn tickets_are_bounded_and_the_expired_make_room() {
        let mut tickets = Tickets::default();
        for number in 0..TICKETS_MAX {
            let id = TicketId((number as u128).to_le_bytes());
            tickets.add(Ticket::new(id, NOW + 10, 1), NOW).unwrap();
        }
        let one_more = Ticket::new(TicketId([255; 16]), NOW + 100, 1);
        assert_eq!(tickets.add(one_more.clone(), NOW), Err(TokenError::TooMany));
        assert_eq!(tickets.add(one_more.clone(), NOW + 10), Ok(()));
        assert_eq!(tickets.tickets.len(), 1);
        assert!(tickets.add(one_more, NOW + 10).is_err(), "one name, one ticket");
        assert!(tickets.add(Ticket::new(ID, NOW + 100, 0), NOW).is_err());
        assert!(tickets.add(Ticket::new(ID, NOW, 1), NOW).is_err());
    }

    proptest! {
        #[test]
        fn never_more_machines_than_uses(uses in 1u32..6, machines in prop::collection::vec(0u8..10, 0..60)) {
            let (mut tickets, token) = cluster(uses);
            let mut inside = std::collections::BTreeMap::new();
            for machine in machines {
                match ask(&tickets, &token, machine, NOW) {
                    Ok(Some(node)) => prop_assert_eq!(inside.get(&machine), Some(&node)),
                    Ok(None) => {
                        let node = inside.len() as u32 + 1;
                        tickets.spend(ID, &[machine; 16], node).unwrap();
                        prop_assert_eq!(inside.insert(machine, node), None);
                    }
                    Err(error) => prop_assert_eq!(error, TokenError::Used(ID)),
                }
            }
            prop_assert!(inside.len() <= uses as usize);
        }

        #[test]
        fn any_bytes_are_tickets_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(tickets) = Tickets::decode(bytes.as_slice()) {
                tickets.keys(&key(), NOW);
                let _ = tickets.check(&key(), ID, &[1; 16], b"row", b"proof", NOW);
            }
        }
    }
}
