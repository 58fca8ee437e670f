//! Registered memory: what other ends may be allowed to reach.
//!
//! Owns the memory of regions, who may reach it, and how long (epochs). Invariant: memory that a link or a device may still touch is
//! never given back to the system nor handed out for another use; a key is good for one peer, one region and one epoch.
//!
//! ```text
//!  Registrations --obtain--> Memory --register--> Regions --grant--> RemoteKey ==call==> the other end
//!       ^                                            |                                       |
//!       +------------- give (region dropped) --------+ <--check (each piece)-- Access <------+
//! ```

mod attachment;
mod cache;
mod key;
mod memory;
mod table;

pub use attachment::{ATTACHMENTS_MAX, Attachment, DeviceUse};
pub use cache::Registrations;
pub use key::{DeviceKey, KEY_BYTES, KEY_DEVICES_MAX, KeyError, RemoteKey, Rights};
pub use memory::{Memory, Span};
pub use table::{GRANTS_MAX, NotGranted, REGIONS_MAX, RegionId, Regions};
