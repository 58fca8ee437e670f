//! RDMA devices: which there are, opening one, what it can do.
//!
//! Owns: an open device's context. Invariant: everything that is made on a device holds its `Arc<Device>`, so the context
//! is closed after the last of them is gone.
#![allow(unsafe_code)]

use super::Error;
use super::ffi::{self, Context, DeviceAttr, DeviceEntry};
use super::library::Library;
use std::ffi::{CStr, c_int};
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

/// An open RDMA device.
pub struct Device {
    context: NonNull<Context>,
    library: &'static Library,
    name: String,
    limits: Limits,
}

// SAFETY: the library's functions and the operations of a context may be used by any thread at any time (ibv_open_device(3));
// nothing else is reached through `context`, whose fields do not change once it is open.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

/// How well a device's atomic operations hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Atomics {
    /// It says that it has none.
    None,
    /// Atomic against other operations through the same device.
    WithinDevice,
    /// Atomic against the processor's, too.
    WithProcessor,
}

/// What a device says of itself. Numbers are the most there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Ports, numbered from 1.
    pub ports: u8,
    /// Queue pairs.
    pub queue_pairs: u32,
    /// Requests in one queue.
    pub queue_depth: u32,
    /// Segments of one request.
    pub segments: u32,
    /// Completions in one completion queue.
    pub completions: u32,
    /// Memory regions.
    pub regions: u32,
    /// Bytes of one region.
    pub region_length: u64,
    /// Memory windows; 0 where there are none.
    pub windows: u32,
    /// Shared receive queues.
    pub shared_queues: u32,
    /// Buffers in one shared receive queue.
    pub shared_queue_depth: u32,
    /// Reads and atomics that one queue pair answers at a time.
    pub reads_served: u8,
    /// Reads and atomics that one queue pair has under way at a time.
    pub reads_sent: u8,
    /// What it says of its atomics; only a trial shows whether it is true.
    pub atomics: Atomics,
}

impl Device {
    /// The kernel names of this machine's RDMA devices, such as `mlx5_0` or `rxe0`; perhaps none.
    ///
    /// # Errors
    /// `Unavailable` if there is no library or the kernel knows nothing of RDMA.
    pub fn names() -> Result<Vec<String>, Error> {
        let list = List::read(Library::of_this_machine()?)?;
        Ok(list.entries().iter().map(|entry| list.name(*entry)).collect())
    }

    /// Opens a device by its kernel name.
    ///
    /// # Errors
    /// `Unavailable` if there is no such device; `Device` if it does not open (often: no right to /dev/infiniband).
    pub fn open(name: &str) -> Result<Arc<Self>, Error> {
        let library = Library::of_this_machine()?;
        let list = List::read(library)?;
        let found = list.entries().iter().find(|entry| list.name(**entry) == name);
        let Some(entry) = found else {
            return Err(Error::Unavailable { why: format!("there is no device {name} (see `rdma link`)") });
        };
        // SAFETY: the entry is of a list that is not freed yet.
        let context = NonNull::new(unsafe { (library.open_device)(*entry) })
            .ok_or_else(|| device_error(name, "open it", io::Error::last_os_error()))?;
        // From here on, dropping it closes the context. The limits are filled in before anybody sees them.
        let mut device = Self { context, library, name: name.to_owned(), limits: Limits::NONE };
        device.limits = device.read_limits()?;
        device.make_events_nonblocking()?;
        Ok(Arc::new(device))
    }

    /// Its kernel name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it says of itself.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn context(&self) -> *mut Context {
        self.context.as_ptr()
    }

    pub(super) fn library(&self) -> &'static Library {
        self.library
    }

    pub(super) fn ops(&self) -> &ffi::ContextOps {
        // SAFETY: the context lives as long as `self`, and its operations do not change.
        unsafe { &(*self.context.as_ptr()).ops }
    }

    /// The descriptor that is readable when an event waits.
    pub(super) fn event_descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the context owns the descriptor and closes it when it is closed itself, after `self`'s last use.
        unsafe { BorrowedFd::borrow_raw((*self.context.as_ptr()).async_fd) }
    }

    /// Completion vectors: interrupts among which completion queues can be spread.
    pub fn completion_vectors(&self) -> u32 {
        // SAFETY: the context is open.
        let count = unsafe { (*self.context.as_ptr()).num_comp_vectors };
        count_of(count)
    }

    /// The error for something that was tried on this device and that set `errno`.
    pub(super) fn failed(&self, action: &'static str) -> Error {
        device_error(&self.name, action, io::Error::last_os_error())
    }

    /// The outcome of a function that returns 0 or the error's number.
    pub(super) fn outcome(&self, status: c_int, action: &'static str) -> Result<(), Error> {
        match status {
            0 => Ok(()),
            // A few providers return -1 and set errno in place of returning the number.
            -1 => Err(self.failed(action)),
            number => Err(device_error(&self.name, action, io::Error::from_raw_os_error(number.abs()))),
        }
    }

    fn make_events_nonblocking(&self) -> Result<(), Error> {
        let set = rustix::io::ioctl_fionbio(self.event_descriptor(), true);
        set.map_err(|error| device_error(&self.name, "make its events nonblocking", error.into()))
    }

    fn read_limits(&self) -> Result<Limits, Error> {
        // SAFETY: numbers only, for which zeros are values.
        let mut attr: DeviceAttr = unsafe { std::mem::zeroed() };
        // SAFETY: an open context and a structure of the header's size.
        let status = unsafe { (self.library.query_device)(self.context(), &mut attr) };
        self.outcome(status, "read its limits")?;
        Ok(Limits::of(&attr))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: whatever was made on the context held an `Arc` of `self`, so nothing is left of it.
        let status = unsafe { (self.library.close_device)(self.context.as_ptr()) };
        if let Err(error) = self.outcome(status, "close it") {
            tracing::warn!("{error}");
        }
    }
}

impl Limits {
    /// Of a device that has not been asked yet.
    const NONE: Self = Self {
        ports: 0,
        queue_pairs: 0,
        queue_depth: 0,
        segments: 0,
        completions: 0,
        regions: 0,
        region_length: 0,
        windows: 0,
        shared_queues: 0,
        shared_queue_depth: 0,
        reads_served: 0,
        reads_sent: 0,
        atomics: Atomics::None,
    };

    fn of(attr: &DeviceAttr) -> Self {
        Self {
            ports: attr.phys_port_cnt,
            queue_pairs: count_of(attr.max_qp),
            queue_depth: count_of(attr.max_qp_wr),
            segments: count_of(attr.max_sge),
            completions: count_of(attr.max_cqe),
            regions: count_of(attr.max_mr),
            region_length: attr.max_mr_size,
            windows: count_of(attr.max_mw),
            shared_queues: count_of(attr.max_srq),
            shared_queue_depth: count_of(attr.max_srq_wr),
            // More than a byte can say cannot be agreed upon: it is a byte in a queue pair's attributes.
            reads_served: u8::try_from(count_of(attr.max_qp_rd_atom)).unwrap_or(u8::MAX),
            reads_sent: u8::try_from(count_of(attr.max_qp_init_rd_atom)).unwrap_or(u8::MAX),
            atomics: match attr.atomic_cap {
                ffi::ATOMIC_NONE => Atomics::None,
                ffi::ATOMIC_GLOB => Atomics::WithProcessor,
                _ => Atomics::WithinDevice,
            },
        }
    }
}

/// The library's list of devices, freed when dropped.
struct List {
    first: NonNull<*mut DeviceEntry>,
    length: usize,
    library: &'static Library,
}

impl List {
    fn read(library: &'static Library) -> Result<Self, Error> {
        let mut length: c_int = 0;
        // SAFETY: a valid place for the length.
        let first = unsafe { (library.device_list)(&mut length) };
        let Some(first) = NonNull::new(first) else {
            let why = io::Error::last_os_error();
            let why = format!("the kernel lists no RDMA devices: {why}; is its module ib_uverbs loaded?");
            return Err(Error::Unavailable { why });
        };
        Ok(Self { first, length: count_of(length) as usize, library })
    }

    fn entries(&self) -> &[*mut DeviceEntry] {
        // SAFETY: the library gave so many entries, and the list is freed with `self`.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.length) }
    }

    fn name(&self, entry: *mut DeviceEntry) -> String {
        // SAFETY: an entry of this list; the library ends its name with a zero.
        let name = unsafe { CStr::from_ptr((*entry).name.as_ptr()) };
        name.to_string_lossy().into_owned()
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: freed once; devices that were opened from it stay valid (ibv_free_device_list(3)).
        unsafe { (self.library.free_device_list)(self.first.as_ptr()) };
    }
}

fn device_error(device: &str, action: &'static str, source: io::Error) -> Error {
    Error::Device { device: device.to_owned(), action, source }
}

/// A number that the library keeps in an `int` although it counts something.
fn count_of(number: c_int) -> u32 {
    u32::try_from(number).unwrap_or(0)
}
