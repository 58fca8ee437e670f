//! An open lockspace: its connection, what is under way on it, and the callbacks of its locks.
//!
//! Invariant: `calls` has each accepted call until its completion is delivered, or the connection is gone. Locks are taken in the order: link, state.

#![allow(unsafe_code)]

use crate::errno;
use crate::lksb::Block;
use dlm::client::wire::{Open, Release, What};
use dlm::client::{Calls, Connection, Notices, default_socket};
use libc::{c_int, c_void};
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::thread::{JoinHandle, ThreadId};

/// `dlm_lshandle_t`.
pub type Handle = *mut c_void;
/// An AST or a BAST.
pub type Callback = unsafe extern "C" fn(*mut c_void);

/// A program's argument for its callback; nobody here looks at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place(pub *mut c_void);

// SAFETY: it is only handed back to the program.
unsafe impl Send for Place {}

/// What is called when something becomes of a lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Callbacks {
    /// At a completion.
    pub ast: Option<Callback>,
    /// For `ast`.
    pub ast_argument: Place,
    /// When the lock is in somebody's way.
    pub bast: Option<Callback>,
    /// For `bast`.
    pub bast_argument: Place,
    /// Where the status goes.
    pub block: Option<Block>,
}

/// A call under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Under {
    pub kind: Ask,
    /// The lock; 0 until a new one has its number.
    pub lkid: u32,
    pub callbacks: Callbacks,
    /// Somebody waits for it in [`Space::wait_for`].
    pub is_awaited: bool,
}

/// What a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A new lock, or another mode: the callbacks become the lock's.
    Lock,
    /// The lock goes; its AST stays what it was, its argument may change.
    Unlock,
    /// A wait is to end; that wait's own completion tells of it.
    Cancel,
}

#[derive(Default)]
pub(crate) struct State {
    pub calls: BTreeMap<u64, Under>,
    pub locks: BTreeMap<u32, Callbacks>,
    /// Awaited calls that have come to their end.
    pub ended: BTreeSet<u64>,
    /// Somebody reads the second socket.
    pub is_reading: bool,
    /// The connection is gone.
    pub is_broken: bool,
    /// The thread that calls callbacks, if the program has asked for one.
    pub thread: Option<ThreadId>,
}

/// An open lockspace.
pub struct Space {
    pub(crate) link: Mutex<Option<Calls>>,
    pub(crate) notices: Mutex<Notices>,
    pub(crate) state: Mutex<State>,
    pub(crate) changed: Condvar,
    pub(crate) worker: Mutex<Option<JoinHandle<()>>>,
    /// A second name for the socket of the notices: to poll it, and to shut it while somebody reads.
    pub(crate) pollable: OwnedFd,
}

impl Space {
    /// Connects and opens, or makes and opens.
    ///
    /// # Errors
    /// An `errno`.
    pub(crate) fn open(open: Open) -> Result<Space, c_int> {
        let space = Space::connect()?;
        space.ask(What::Open(open))?;
        Ok(space)
    }

    /// Connects, and opens nothing yet.
    ///
    /// # Errors
    /// An `errno`.
    pub(crate) fn connect() -> Result<Space, c_int> {
        let connection = Connection::connect(&default_socket()).map_err(|error| errno::of(&error))?;
        let Connection { calls, notices } = connection;
        let copied = notices.as_fd().try_clone_to_owned();
        let pollable = copied.map_err(|error| error.raw_os_error().unwrap_or(libc::EMFILE))?;
        Ok(Space {
            link: Mutex::new(Some(calls)),
            notices: Mutex::new(notices),
            state: Mutex::default(),
            changed: Condvar::new(),
            worker: Mutex::new(None),
            pollable,
        })
    }

    /// What `dlm_get_fd` gives.
    pub fn fd(&self) -> RawFd {
        self.pollable.as_raw_fd()
    }

    /// Asks the lock manager, which answers at once.
    ///
    /// # Errors
    /// An `errno`.
    pub(crate) fn ask(&self, what: What) -> Result<u32, c_int> {
        let mut link = self.link.lock();
        let calls = link.as_mut().ok_or(libc::ENOTCONN)?;
        let tag = calls.next_tag();
        Ok(calls.call(tag, what).map_err(|error| errno::of(&error))?.lkid)
    }

    /// Asks for something that will come to an end later; gives its tag and the lock's number.
    ///
    /// # Errors
    /// An `errno`: nothing will come.
    pub(crate) fn begin(&self, what: What, under: Under) -> Result<(u64, u32), c_int> {
        let mut link = self.link.lock();
        let calls = link.as_mut().ok_or(libc::ENOTCONN)?;
        let tag = calls.next_tag();
        {
            let mut state = self.state.lock();
            if state.is_broken {
                return Err(libc::ENOTCONN);
            }
            // Its end may be told to another thread before the call returns here.
            state.calls.insert(tag, under);
        }
        match calls.call(tag, what) {
            Ok(reply) => {
                if let Some(under) = self.state.lock().calls.get_mut(&tag) {
                    under.lkid = reply.lkid;
                }
                Ok((tag, reply.lkid))
            }
            Err(error) => {
                self.state.lock().calls.remove(&tag);
                Err(errno::of(&error))
            }
        }
    }

    /// Has the lock manager take a lockspace away, by this connection.
    ///
    /// # Errors
    /// An `errno`.
    pub(crate) fn release(&self, name: Vec<u8>, force: bool) -> Result<(), c_int> {
        self.ask(What::Release(Release { name, force })).map(drop)
    }

    /// Ends the connection, and the thread if there is one: when this returns, the locks are gone.
    pub fn end(&self) {
        let calls = self.link.lock().take();
        {
            // What is under way ends without a word.
            let mut state = self.state.lock();
            state.is_broken = true;
            let under = std::mem::take(&mut state.calls);
            state.ended.extend(under.iter().filter(|(_, under)| under.is_awaited).map(|(tag, _)| *tag));
        }
        self.changed.notify_all();
        let _ = rustix::net::shutdown(&self.pollable, rustix::net::Shutdown::Both);
        if let Some(calls) = calls {
            calls.close();
        }
        let own = self.state.lock().thread == Some(std::thread::current().id());
        let worker = self.worker.lock().take();
        if let Some(worker) = worker.filter(|_| !own) {
            // It has been told to end; that it has panicked is nothing that can be helped here.
            let _ = worker.join();
        }
    }
}
