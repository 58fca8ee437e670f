//! The open lockspaces of this process: by handle, by descriptor, and the default one.
//!
//! Invariant: a handle is the address of a space that is in here; everything else is no handle.

use crate::errno;
use crate::space::{Handle, Space};
use dlm::client::wire::Open;
use libc::c_int;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::sync::Arc;

/// The lockspace of `dlm_lock` and its like.
const DEFAULT_NAME: &[u8] = b"default";
/// Who may use it, if it is made here.
const DEFAULT_MODE: u32 = 0o600;

struct Registry {
    spaces: BTreeMap<usize, Arc<Space>>,
    default: Option<usize>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { spaces: BTreeMap::new(), default: None });

/// The open lockspace with this handle.
///
/// # Errors
/// ENOTCONN for none, EINVAL for what was never one.
pub fn find(handle: Handle) -> Result<Arc<Space>, c_int> {
    if handle.is_null() {
        return Err(libc::ENOTCONN);
    }
    REGISTRY.lock().spaces.get(&handle.addr()).cloned().ok_or(libc::EINVAL)
}

/// The open lockspace with this descriptor.
///
/// # Errors
/// EBADF.
pub fn find_fd(fd: RawFd) -> Result<Arc<Space>, c_int> {
    REGISTRY.lock().spaces.values().find(|space| space.fd() == fd).cloned().ok_or(libc::EBADF)
}

/// The handle of a newly opened lockspace.
pub fn add(space: Arc<Space>) -> Handle {
    let handle = Arc::as_ptr(&space);
    REGISTRY.lock().spaces.insert(handle.addr(), space);
    handle.cast_mut().cast()
}

/// Opens a lockspace; null, with `errno` set, if it cannot be.
pub fn open(open: Open) -> Handle {
    match Space::open(open) {
        Ok(space) => add(Arc::new(space)),
        Err(error) => {
            errno::set(error);
            std::ptr::null_mut()
        }
    }
}

fn opening(create: bool) -> Open {
    Open {
        name: DEFAULT_NAME.to_vec(),
        create,
        exclusive: false,
        mode: DEFAULT_MODE,
        pid: std::process::id(),
    }
}

/// The default lockspace, opened when it is first needed.
///
/// # Errors
/// An `errno`.
pub fn default_space() -> Result<Arc<Space>, c_int> {
    let mut registry = REGISTRY.lock();
    if let Some(space) = registry.default.and_then(|key| registry.spaces.get(&key)) {
        return Ok(Arc::clone(space));
    }
    let opened = Space::open(opening(false)).or_else(|error| match error {
        libc::ENOENT => Space::open(opening(true)),
        error => Err(error),
    });
    let space = Arc::new(opened?);
    let key = Arc::as_ptr(&space).addr();
    registry.spaces.insert(key, Arc::clone(&space));
    registry.default = Some(key);
    Ok(space)
}

/// The default lockspace's handle; it is opened when it is first needed.
///
/// # Errors
/// An `errno`.
pub fn default_handle() -> Result<Handle, c_int> {
    default_space().map(|space| Arc::as_ptr(&space).cast_mut().cast())
}

/// The default lockspace's handle, if it is open.
pub fn open_default() -> Option<Handle> {
    let registry = REGISTRY.lock();
    let space = registry.spaces.get(&registry.default?)?;
    Some(Arc::as_ptr(space).cast_mut().cast())
}

/// Takes the default lockspace out, if it is open.
pub fn take_default() -> Option<Arc<Space>> {
    let mut registry = REGISTRY.lock();
    let key = registry.default.take()?;
    registry.spaces.remove(&key)
}

/// Takes a lockspace out; its handle means nothing from now on.
///
/// # Errors
/// As [`find`].
pub fn close(handle: Handle) -> Result<Arc<Space>, c_int> {
    let space = find(handle)?;
    let mut registry = REGISTRY.lock();
    registry.spaces.remove(&handle.addr());
    if registry.default == Some(handle.addr()) {
        registry.default = None;
    }
    Ok(space)
}
