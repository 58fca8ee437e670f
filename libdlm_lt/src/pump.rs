//! Fetching notices: by `dlm_dispatch`, by a thread of ours, or by whoever waits for one of them.
//!
//! Invariant: one thread at a time reads the socket. With a thread for callbacks nobody else calls any.

use crate::space::Space;
use dlm::client::wire::Notice;
use libc::c_int;
use rustix::event::{PollFd, PollFlags, poll};
use std::sync::Arc;

/// What came of fetching.
enum Fetched {
    /// This.
    One(Notice),
    /// Nothing is there.
    Nothing,
    /// The connection is gone.
    End,
}

impl Space {
    /// Fetches one notice, if no other thread does just now. `wait`: sleeps until there is one.
    fn fetch(&self, wait: bool) -> Fetched {
        let mut notices = self.notices.lock();
        loop {
            match notices.poll() {
                Ok(Some(notice)) => return Fetched::One(notice),
                Ok(None) if !wait => return Fetched::Nothing,
                Ok(None) => {
                    let mut readable = [PollFd::new(&self.pollable, PollFlags::IN)];
                    match poll(&mut readable, None) {
                        Ok(_) | Err(rustix::io::Errno::INTR) => {}
                        Err(_) => return Fetched::End,
                    }
                }
                Err(_) => return Fetched::End,
            }
        }
    }

    /// True if this thread has become the one that reads.
    fn begin_reading(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().is_reading, true)
    }

    /// Fetches one notice and calls what it calls for; false if there was none.
    ///
    /// # Errors
    /// ENOTCONN: the lock manager is gone.
    fn pump(&self, wait: bool) -> Result<bool, c_int> {
        let fetched = self.fetch(wait);
        self.state.lock().is_reading = false;
        self.changed.notify_all();
        match fetched {
            Fetched::One(notice) => {
                self.deliver(notice);
                Ok(true)
            }
            Fetched::Nothing => Ok(false),
            Fetched::End => {
                self.break_off();
                Err(libc::ENOTCONN)
            }
        }
    }

    /// `dlm_dispatch`: all that is there.
    ///
    /// # Errors
    /// ENOTCONN: the lock manager is gone.
    pub(crate) fn dispatch(&self) -> Result<(), c_int> {
        loop {
            // Who reads already also delivers.
            if !self.begin_reading() || !self.pump(false)? {
                return Ok(());
            }
        }
    }

    /// Waits for the end of an awaited call.
    pub(crate) fn wait_for(&self, tag: u64) {
        let me = std::thread::current().id();
        let mut state = self.state.lock();
        while !state.ended.remove(&tag) {
            let is_others = state.is_reading || state.thread.is_some_and(|thread| thread != me);
            if is_others {
                self.changed.wait(&mut state);
                continue;
            }
            state.is_reading = true;
            drop(state);
            // What the end of the connection ends, it marks as ended.
            let _ = self.pump(true);
            state = self.state.lock();
        }
        let is_nobodys = state.thread.is_none();
        drop(state);
        if is_nobodys {
            // What came in one piece with the end is not to be seen at the descriptor any more.
            let _ = self.dispatch();
        }
    }

    /// Has a thread of its own call the callbacks from now on.
    ///
    /// # Errors
    /// EEXIST: there is one; or why there can be none.
    pub fn start_thread(self: &Arc<Space>) -> Result<(), c_int> {
        let mut worker = self.worker.lock();
        if worker.is_some() {
            return Err(libc::EEXIST);
        }
        let space = Arc::clone(self);
        let body = move || {
            space.state.lock().thread = Some(std::thread::current().id());
            while space.take_turn() && space.pump(true).is_ok() {}
        };
        let started = std::thread::Builder::new().name("dlm".into()).spawn(body);
        let started = started.map_err(|error| error.raw_os_error().unwrap_or(libc::EAGAIN))?;
        self.state.lock().thread = Some(started.thread().id());
        *worker = Some(started);
        Ok(())
    }

    /// Waits until nobody else reads; false if the connection is gone.
    fn take_turn(&self) -> bool {
        let mut state = self.state.lock();
        while state.is_reading && !state.is_broken {
            self.changed.wait(&mut state);
        }
        state.is_reading = true;
        !state.is_broken
    }
}
