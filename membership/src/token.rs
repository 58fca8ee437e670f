//! Join tokens: what lets one machine in, once, without the cluster key.
//!
//! ```text
//!   ssi addnode            a ticket {id, expires, uses} goes into the cluster table; the token is printed
//!   every member           takes, beside the cluster key, the joining key of each open ticket from who dials it ([`Tickets::keys`])
//!   ssi node join --token  dials a seed under the joining key; Join {row, ticket id, machine, proof}
//!   master                 checks proof, expiry and uses, spends the ticket and adds the row in one transition; answers with
//!                          the cluster key wrapped under the joining key
//! ```
//!
//! The joining key is HMAC-SHA256(cluster key, purpose, id, expiry): whoever holds the cluster key can make it from the ticket, so the table
//! holds no secret, and who reads the table cannot join. The cluster key cannot be made from it.
//!
//! What this is worth: a token that was used, has expired or was revoked opens nothing, unlike the key file. Until then who has it can
//! join and do nothing else: the fabric serves it membership only, and membership hears nothing but its entry. But a machine that has
//! joined has the cluster key. So a token must be carried like a password, for as long as it is open. A change of the cluster key voids all tokens.
//!
//! Invariant: a ticket lets in as many machines as it has uses, each as often as it asks; never one more.

mod text;
mod ticket;

pub use text::{PREFIX, TEXT_BYTES_MAX};
pub use ticket::{LIFE_SECONDS_MAX, TICKETS_MAX, Ticket, TicketChange, Tickets, USES_MAX, Use};

use fabric::{ClusterKey, KeyError};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use std::net::SocketAddr;

/// Seeds that a token may name.
pub const SEEDS_MAX: usize = 8;
/// Bytes of a cluster's name in a token.
pub const CLUSTER_BYTES_MAX: usize = 64;

const KEY_PURPOSE: &[u8] = b"ssi: the joining key of a ticket, 1";
const PROOF_PURPOSE: &[u8] = b"ssi: a machine joins with a ticket, 1";

/// Names a ticket. Random; not secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId(pub [u8; 16]);

impl TicketId {
    /// A new one, from the kernel's randomness.
    ///
    /// # Errors
    /// [`TokenError::NoRandomness`].
    pub fn generate() -> Result<TicketId, TokenError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|_| TokenError::NoRandomness)?;
        Ok(TicketId(bytes))
    }

    /// The id in the bytes of a message.
    pub fn read(bytes: &[u8]) -> Option<TicketId> {
        bytes.try_into().ok().map(TicketId)
    }
}

impl fmt::Display for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketId({self})")
    }
}

/// Why a token is none, or lets nobody in. It never quotes the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin as one.
    #[error("a join token begins with {PREFIX:?}")]
    Prefix,
    /// A character that no token has.
    #[error("character {0} of the token is none that a token has (a to z, 2 to 7)")]
    Character(usize),
    /// It is too long.
    #[error("the token has {0} characters, {TEXT_BYTES_MAX} are the maximum")]
    Length(usize),
    /// Its checksum is wrong.
    #[error("the token is mistyped, or a part of it is missing (its checksum is wrong)")]
    Checksum,
    /// It is of a later version of this software.
    #[error("the token is of version {0}, this software knows version 1")]
    Version(u8),
    /// Its fields make no sense, though its checksum is right.
    #[error("the token holds something that is no {0}")]
    Field(&'static str),
    /// There is no such ticket.
    #[error("ticket {0} is not known: it was used up and forgotten, or revoked, or is of another cluster")]
    Unknown(TicketId),
    /// Its time is over.
    #[error("ticket {0} has expired; make another one with `ssi addnode`")]
    Expired(TicketId),
    /// It has let in as many machines as it may.
    #[error("ticket {0} was used already; make another one with `ssi addnode`")]
    Used(TicketId),
    /// Who asks does not hold the joining key, or the request was changed.
    #[error("the proof for ticket {0} is wrong")]
    Proof(TicketId),
    /// There are too many.
    #[error("{TICKETS_MAX} tickets are open: wait until some expire, or revoke some")]
    TooMany,
    /// The machine gives no random bytes.
    #[error("the machine gives no random bytes for a ticket")]
    NoRandomness,
}

/// What a machine needs to join. It is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The ticket that it spends.
    pub id: TicketId,
    /// The joining key.
    pub key: ClusterKey,
    /// When it expires, seconds since 1970.
    pub expires: u64,
    /// The cluster's name.
    pub cluster: String,
    /// Where members listen.
    pub seeds: Vec<SocketAddr>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} of {:?}, secret)", self.id, self.cluster)
    }
}

/// A machine that joins names itself by this random number, so that it may ask again.
pub type MachineNumber = [u8; 16];

impl Token {
    /// The token of a ticket, for a machine that can reach one of `seeds`.
    ///
    /// # Errors
    /// [`TokenError::Field`]: no seed, too many, or a name that does not fit.
    pub fn new(
        key: &ClusterKey,
        ticket: &Ticket,
        cluster: &str,
        seeds: &[SocketAddr],
    ) -> Result<Token, TokenError> {
        let id = ticket.ticket_id().ok_or(TokenError::Field("ticket"))?;
        if seeds.is_empty() || seeds.len() > SEEDS_MAX {
            return Err(TokenError::Field("list of one to eight seeds"));
        }
        if cluster.is_empty() || cluster.len() > CLUSTER_BYTES_MAX {
            return Err(TokenError::Field("name of a cluster"));
        }
        let joining = joining_key(key, id, ticket.expires);
        Ok(Token {
            id,
            key: joining,
            expires: ticket.expires,
            cluster: cluster.into(),
            seeds: seeds.to_vec(),
        })
    }

    /// What proves to the master that the machine with this number, and this row, was let in by whoever made the ticket.
    pub fn proof(&self, machine: &MachineNumber, row: &[u8]) -> [u8; 32] {
        prove(&self.key, self.id, machine, row).finalize().into_bytes().into()
    }

    /// The cluster key in the master's answer.
    ///
    /// # Errors
    /// [`TokenError::Field`] if it was not wrapped for this token.
    pub fn open(&self, wrapped: &[u8]) -> Result<ClusterKey, TokenError> {
        self.key.unwrap_key(wrapped).ok_or(TokenError::Field("cluster key wrapped for this token"))
    }
}

/// The joining key of a ticket.
pub fn joining_key(key: &ClusterKey, id: TicketId, expires: u64) -> ClusterKey {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(KEY_PURPOSE);
    mac.update(&id.0);
    mac.update(&expires.to_le_bytes());
    ClusterKey::from_bytes(mac.finalize().into_bytes().into())
}

/// The answer to a machine that was let in: the cluster key for its eyes only.
///
/// # Errors
/// [`TokenError::NoRandomness`].
pub fn wrap_for(key: &ClusterKey, ticket: &Ticket) -> Result<Vec<u8>, TokenError> {
    let id = ticket.ticket_id().ok_or(TokenError::Field("ticket"))?;
    joining_key(key, id, ticket.expires).wrap(key).map_err(|error| match error {
        KeyError::NoRandomness => TokenError::NoRandomness,
        _ => TokenError::Field("cluster key"),
    })
}

fn prove(joining: &ClusterKey, id: TicketId, machine: &MachineNumber, row: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(joining.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(PROOF_PURPOSE);
    mac.update(&id.0);
    mac.update(machine);
    mac.update(row);
    mac
}
