//! libibverbs.so.1, opened while the program runs.
//!
//! Owns: the loaded library, for the life of the process. Invariant: it is never unloaded, so its functions may be called
//! at any time; a machine without it, or with one that is too old, gets one clear `Unavailable`.
#![allow(unsafe_code)]

use super::Error;
use super::ffi::{
    AsyncEvent, CompChannel, Context, Cq, DeviceAttr, DeviceEntry, GidEntry, Mr, Pd, PortAttr, Qp, QpAttr,
    QpInitAttr, Srq, SrqInitAttr,
};
use std::ffi::{CStr, c_int, c_uint, c_void};
use std::sync::OnceLock;

const NAME: &str = "libibverbs.so.1";

/// The functions of the library that are not inline functions of its header. Their contracts are those of its manual.
pub struct Library {
    pub device_list: unsafe extern "C" fn(*mut c_int) -> *mut *mut DeviceEntry,
    pub free_device_list: unsafe extern "C" fn(*mut *mut DeviceEntry),
    pub open_device: unsafe extern "C" fn(*mut DeviceEntry) -> *mut Context,
    pub close_device: unsafe extern "C" fn(*mut Context) -> c_int,
    pub query_device: unsafe extern "C" fn(*mut Context, *mut DeviceAttr) -> c_int,
    pub query_port: unsafe extern "C" fn(*mut Context, u8, *mut PortAttr) -> c_int,
    pub query_gid_table: unsafe extern "C" fn(*mut Context, *mut GidEntry, usize, u32, usize) -> isize,
    pub next_async_event: unsafe extern "C" fn(*mut Context, *mut AsyncEvent) -> c_int,
    pub ack_async_event: unsafe extern "C" fn(*mut AsyncEvent),
    pub alloc_pd: unsafe extern "C" fn(*mut Context) -> *mut Pd,
    pub dealloc_pd: unsafe extern "C" fn(*mut Pd) -> c_int,
    pub reg_mr: unsafe extern "C" fn(*mut Pd, *mut c_void, usize, c_int) -> *mut Mr,
    pub dereg_mr: unsafe extern "C" fn(*mut Mr) -> c_int,
    pub create_comp_channel: unsafe extern "C" fn(*mut Context) -> *mut CompChannel,
    pub destroy_comp_channel: unsafe extern "C" fn(*mut CompChannel) -> c_int,
    pub create_cq: unsafe extern "C" fn(*mut Context, c_int, *mut c_void, *mut CompChannel, c_int) -> *mut Cq,
    pub destroy_cq: unsafe extern "C" fn(*mut Cq) -> c_int,
    pub next_cq_event: unsafe extern "C" fn(*mut CompChannel, *mut *mut Cq, *mut *mut c_void) -> c_int,
    pub ack_cq_events: unsafe extern "C" fn(*mut Cq, c_uint),
    pub create_srq: unsafe extern "C" fn(*mut Pd, *mut SrqInitAttr) -> *mut Srq,
    pub destroy_srq: unsafe extern "C" fn(*mut Srq) -> c_int,
    pub create_qp: unsafe extern "C" fn(*mut Pd, *mut QpInitAttr) -> *mut Qp,
    pub modify_qp: unsafe extern "C" fn(*mut Qp, *mut QpAttr, c_int) -> c_int,
    pub query_qp: unsafe extern "C" fn(*mut Qp, *mut QpAttr, c_int, *mut QpInitAttr) -> c_int,
    pub destroy_qp: unsafe extern "C" fn(*mut Qp) -> c_int,
}

impl Library {
    /// The library of this machine, opened at the first call.
    ///
    /// # Errors
    /// `Unavailable`, with the same words at each call.
    pub fn of_this_machine() -> Result<&'static Self, Error> {
        static LOADED: OnceLock<Result<Library, String>> = OnceLock::new();
        let loaded = LOADED.get_or_init(|| Self::open(NAME));
        loaded.as_ref().map_err(|why| Error::Unavailable { why: why.clone() })
    }

    fn open(name: &str) -> Result<Self, String> {
        // SAFETY: running rdma-core's initialisers is what its users do; it has none that need anything from us.
        let library = unsafe { libloading::Library::new(name) }
            .map_err(|error| format!("{error}; install rdma-core (Debian: ibverbs-providers)"))?;
        // Functions point into the library, so it must never be unloaded. It is opened once in a process.
        let library: &'static libloading::Library = Box::leak(Box::new(library));
        // SAFETY: the types are those of the header, which the soname's major version guarantees.
        let loaded = unsafe { Self::functions(library) }
            .map_err(|error| format!("{name} is older than rdma-core 32: {error}"))?;
        loaded.allow_fork(library);
        Ok(loaded)
    }

    /// # Safety
    /// `library` is libibverbs.so.1.
    unsafe fn functions(library: &'static libloading::Library) -> Result<Self, libloading::Error> {
        // SAFETY: (all of them) the caller's promise: each name has the type of its field.
        unsafe {
            Ok(Self {
                device_list: function(library, c"ibv_get_device_list")?,
                free_device_list: function(library, c"ibv_free_device_list")?,
                open_device: function(library, c"ibv_open_device")?,
                close_device: function(library, c"ibv_close_device")?,
                query_device: function(library, c"ibv_query_device")?,
                query_port: function(library, c"ibv_query_port")?,
                query_gid_table: function(library, c"_ibv_query_gid_table")?,
                next_async_event: function(library, c"ibv_get_async_event")?,
                ack_async_event: function(library, c"ibv_ack_async_event")?,
                alloc_pd: function(library, c"ibv_alloc_pd")?,
                dealloc_pd: function(library, c"ibv_dealloc_pd")?,
                reg_mr: function(library, c"ibv_reg_mr")?,
                dereg_mr: function(library, c"ibv_dereg_mr")?,
                create_comp_channel: function(library, c"ibv_create_comp_channel")?,
                destroy_comp_channel: function(library, c"ibv_destroy_comp_channel")?,
                create_cq: function(library, c"ibv_create_cq")?,
                destroy_cq: function(library, c"ibv_destroy_cq")?,
                next_cq_event: function(library, c"ibv_get_cq_event")?,
                ack_cq_events: function(library, c"ibv_ack_cq_events")?,
                create_srq: function(library, c"ibv_create_srq")?,
                destroy_srq: function(library, c"ibv_destroy_srq")?,
                create_qp: function(library, c"ibv_create_qp")?,
                modify_qp: function(library, c"ibv_modify_qp")?,
                query_qp: function(library, c"ibv_query_qp")?,
                destroy_qp: function(library, c"ibv_destroy_qp")?,
            })
        }
    }

    /// Before Linux 5.12 a fork may move pinned pages away from their device; the library can prevent it if it is told
    /// before anything else. Newer kernels need nothing, and then it does nothing.
    fn allow_fork(&self, library: &'static libloading::Library) {
        // SAFETY: the header's type; called before any other function of the library.
        let status = unsafe {
            function::<unsafe extern "C" fn() -> c_int>(library, c"ibv_fork_init").map(|init| init())
        };
        if !matches!(status, Ok(0)) {
            tracing::warn!("libibverbs cannot protect registered memory from fork on this kernel");
        }
    }
}

/// # Safety
/// The symbol, if it is there, is of type `F`.
unsafe fn function<F: Copy>(
    library: &'static libloading::Library,
    name: &CStr,
) -> Result<F, libloading::Error> {
    // SAFETY: the caller's promise.
    unsafe { library.get::<F>(name.to_bytes_with_nul()) }.map(|symbol| *symbol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_the_library_says_what_to_install() {
        let why = Library::open("libibverbs-that-is-not-there.so.1").err();
        assert!(why.is_some_and(|why| why.contains("install rdma-core")));
    }

    #[test]
    fn a_library_that_is_another_one_is_refused() {
        let why = Library::open("libc.so.6").err();
        assert!(why.is_some_and(|why| why.contains("older than rdma-core 32")));
    }
}
