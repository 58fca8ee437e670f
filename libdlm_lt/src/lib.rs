//! `libdlm_lt.so.3`: the functions of Debian's `<libdlm.h>` for programs without threads, over the lock manager of the node.
//!
//! ```text
//!  C program --- dlm_lock, ... --> lock.rs, space_calls.rs --> Space (space.rs) --- dlm::client --> lock manager
//!            <-- AST, BAST ------- deliver.rs <--------------- pump.rs <-- second socket = dlm_get_fd
//! ```
//!
//! Only the binary interface is the other library's: names, numbers, layouts and what programs can see of its behaviour. `libdlm.so.3` has these functions
//! too, and those that need threads.
//!
//! Invariants: `sb_lkid` is set before the AST is called; `sb_status` is EINPROG from the call to just before its AST; an AST or BAST is called without any lock
//! of ours, so it may call everything.
//!
//! What differs from Debian's: `dlm_lock_wait` and its like also work in programs without a thread for callbacks (they dispatch themselves);
//! `parent` works; a lock manager that ends completes what waits with ENOTCONN.

mod deliver;
mod errno;
mod lksb;
mod lock;
mod pump;
mod registry;
mod space;
mod space_calls;

pub use errno::fail;
pub use lksb::Lksb;
pub use lock::{dlm_lock_wait, dlm_unlock_wait};
pub use registry::{default_space, find, open_default, take_default};
pub use space::{Handle, Space};
