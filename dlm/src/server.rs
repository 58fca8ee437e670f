//! The lock manager's end of the local socket: programs in, [`Event`](crate::Event)s out, and back.
//!
//! ```text
//!  program --- first socket ---> connection.rs --Call--> register.rs, session.rs --Event--> Locks (a Table, or the cluster)
//!          <-- Reply ----------/             <--Notice--                        <--Effect--
//!          <-- second socket -/
//! ```
//!
//! Invariant: what a program has said is checked before anything behind [`Locks`] hears of it; a connection's end is the end of its holder,
//! whatever it was doing. The register is pure; sockets and tasks are in `connection.rs` alone.

mod connection;
mod locks;
mod orphans;
mod register;
mod session;
mod single;
mod spaces;
mod told;

pub use connection::{listen, run};
pub use locks::{Listed, Lister, Listing, Locks, Surveying};
pub use single::Single;
pub use spaces::{OPEN_SPACE, lockspace};
