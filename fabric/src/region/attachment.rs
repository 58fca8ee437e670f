//! What a device knows of a memory.
//!
//! Owns the registrations that hang on one memory, so that a memory which is handed out again need not be registered again.
//! Invariant: the memory is unmapped only after every attachment has ended; one that could not be ended keeps the mapping for ever.

use parking_lot::Mutex;
use std::any::Any;
use std::sync::Arc;

/// The most registrations of one memory: of eight devices, each for both uses.
pub const ATTACHMENTS_MAX: usize = 16;

/// A device's registration of a memory. It must not hold the memory itself (an `Arc<Memory>` or a `Span`): the memory holds it.
pub trait Attachment: Any + Send + Sync {
    /// Takes the memory away from the device. True once the device certainly touches it no more. Called again it says the same.
    fn end(&self) -> bool;
}

/// Which registration: whose, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceUse {
    /// The device's number in this process.
    pub device: u32,
    /// True if peers can reach the memory through it: it ends when the region is revoked or dropped. False if it serves this
    /// end's own transfers only: it stays with the memory.
    pub exposed: bool,
}

/// The registrations of one memory.
#[derive(Default)]
pub(super) struct Attachments(Mutex<Vec<(DeviceUse, Arc<dyn Attachment>)>>);

impl Attachments {
    pub(super) fn find(&self, which: DeviceUse) -> Option<Arc<dyn Attachment>> {
        self.0.lock().iter().find(|(known, _)| *known == which).map(|(_, attachment)| attachment.clone())
    }

    /// False if there is one for this use already, or too many.
    pub(super) fn add(&self, which: DeviceUse, attachment: Arc<dyn Attachment>) -> bool {
        let mut all = self.0.lock();
        if all.len() >= ATTACHMENTS_MAX || all.iter().any(|(known, _)| *known == which) {
            return false;
        }
        all.push((which, attachment));
        true
    }

    /// Ends those through which peers reach the memory. Those that would not end stay.
    pub(super) fn conceal(&self) -> bool {
        self.end(|which| which.exposed)
    }

    pub(super) fn end_all(&self) -> bool {
        self.end(|_| true)
    }

    fn end(&self, chosen: impl Fn(&DeviceUse) -> bool) -> bool {
        let mut all = self.0.lock();
        all.retain(|(which, attachment)| !chosen(which) || !attachment.end());
        !all.iter().any(|(which, _)| chosen(which))
    }
}
