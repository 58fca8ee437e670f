//! The records about deadlocks.
//!
//! ```text
//!  0      1         4      8
//!  | kind | 0 0 0   | 0    |
//!
//!  17 Wanted             -
//!  18 Gather             round (u64)
//!  19 Waits              round, count (u32), edges
//!  20 Confirm            as Waits
//!  21 StillWaits         as Waits
//!  22 Victim             lock, wait
//!
//!  edge     waiter | lock | wait | blocker | held
//!  waiter, blocker: 0 asker, 1 holder: node (u32), key as in a list; 2 owner: node (u32), holder; 3 transaction (u64)
//!  held     0 grant: lock, token; 1 wait: its number
//! ```

use super::reader::Reader;
use super::writer::Writer;
use crate::error::Error;
use crate::event::{Actor, LockId, Owner, Transaction};
use crate::message::Search;
use crate::table::{Edge, Held};
use base::NodeId;

pub const WANTED: u8 = 17;
const GATHER: u8 = 18;
const WAITS: u8 = 19;
const CONFIRM: u8 = 20;
const STILL_WAITS: u8 = 21;
pub const VICTIM: u8 = 22;

/// Adds the record of what is said.
pub fn put(writer: &mut Writer<'_>, said: &Search) {
    match said {
        Search::Wanted => {
            writer.head(WANTED, 0, None, None);
        }
        Search::Gather { round } => {
            writer.head(GATHER, 0, None, None).u64(*round);
        }
        Search::Waits { round, edges } => put_edges(writer, WAITS, *round, edges),
        Search::Confirm { round, edges } => put_edges(writer, CONFIRM, *round, edges),
        Search::StillWaits { round, edges } => put_edges(writer, STILL_WAITS, *round, edges),
        Search::Victim { lock, wait } => {
            writer.head(VICTIM, 0, None, None).u64(lock.0).u64(*wait);
        }
    }
}

fn put_edges(writer: &mut Writer<'_>, kind: u8, round: u64, edges: &[Edge]) {
    writer.head(kind, 0, None, None).u64(round).list(edges, |writer, edge| {
        put_actor(writer, &edge.waiter);
        writer.u64(edge.lock.0).u64(edge.wait);
        put_actor(writer, &edge.blocker);
        match edge.held {
            Held::Grant { lock, token } => writer.u8(0).u64(lock.0).u64(token),
            Held::Wait(wait) => writer.u8(1).u64(wait),
        };
    });
}

fn put_actor(writer: &mut Writer<'_>, actor: &Actor) {
    match actor {
        Actor::Asker(node, key) => writer.u8(0).u32(node.0).listed(key),
        Actor::Holder(node, key) => writer.u8(1).u32(node.0).listed(key),
        Actor::Owner(owner) => writer.u8(2).u32(owner.node.0).u64(owner.holder),
        Actor::Transaction(transaction) => writer.u8(3).u64(transaction.0),
    };
}

/// What a record of this kind says.
///
/// # Errors
/// [`Error::Wire`], or that of a name.
pub fn take(reader: &mut Reader<'_>, kind: u8) -> Result<Search, Error> {
    Ok(match kind {
        WANTED => Search::Wanted,
        GATHER => Search::Gather { round: reader.u64()? },
        WAITS => Search::Waits { round: reader.u64()?, edges: edges(reader)? },
        CONFIRM => Search::Confirm { round: reader.u64()?, edges: edges(reader)? },
        STILL_WAITS => Search::StillWaits { round: reader.u64()?, edges: edges(reader)? },
        VICTIM => Search::Victim { lock: LockId(reader.u64()?), wait: reader.u64()? },
        _ => return Err(Error::Wire("an unknown kind of record")),
    })
}

fn edges(reader: &mut Reader<'_>) -> Result<Vec<Edge>, Error> {
    let count = reader.u32()?;
    reader.list(count, |reader| {
        Ok(Edge {
            waiter: actor(reader)?,
            lock: LockId(reader.u64()?),
            wait: reader.u64()?,
            blocker: actor(reader)?,
            held: held(reader)?,
        })
    })
}

fn actor(reader: &mut Reader<'_>) -> Result<Actor, Error> {
    Ok(match reader.u8()? {
        0 => Actor::Asker(NodeId(reader.u32()?), reader.listed()?),
        1 => Actor::Holder(NodeId(reader.u32()?), reader.listed()?),
        2 => Actor::Owner(Owner { node: NodeId(reader.u32()?), holder: reader.u64()? }),
        3 => Actor::Transaction(Transaction(reader.u64()?)),
        _ => return Err(Error::Wire("an actor of an unknown kind")),
    })
}

fn held(reader: &mut Reader<'_>) -> Result<Held, Error> {
    Ok(match reader.u8()? {
        0 => Held::Grant { lock: LockId(reader.u64()?), token: reader.u64()? },
        1 => Held::Wait(reader.u64()?),
        _ => return Err(Error::Wire("a wait for something unknown")),
    })
}
