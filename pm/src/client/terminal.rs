//! The user's terminal.

use crate::wire::WindowSize;
use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr};
use std::os::fd::{AsFd, BorrowedFd};

/// Raw mode: what is typed goes to the task's pty as it is. Dropping it restores the terminal.
#[derive(Debug)]
pub struct RawMode<'fd> {
    fd: BorrowedFd<'fd>,
    before: Termios,
}

impl<'fd> RawMode<'fd> {
    /// Sets raw mode; `None` if `fd` is no terminal or we are not in its foreground.
    pub fn enter(fd: BorrowedFd<'fd>) -> Option<RawMode<'fd>> {
        // From the background, tcsetattr would stop us with SIGTTOU.
        if !in_foreground(fd) {
            return None;
        }
        let before = tcgetattr(fd).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(fd, OptionalActions::Now, &raw).ok()?;
        Some(RawMode { fd, before })
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        if in_foreground(self.fd) {
            // A terminal that is gone needs no restoring.
            let _ = tcsetattr(self.fd, OptionalActions::Now, &self.before);
        }
    }
}

/// True if this process may read the terminal `fd` without being stopped; also true if it is no controlling terminal.
pub fn in_foreground<Fd: AsFd>(fd: Fd) -> bool {
    isatty(&fd) && tcgetpgrp(&fd).map_or(true, |group| group == getpgrp())
}

/// The terminal's size; `None` if it is none.
pub(crate) fn window_size<Fd: AsFd>(fd: Fd) -> Option<WindowSize> {
    let size = tcgetwinsize(fd).ok()?;
    Some(WindowSize { rows: u32::from(size.ws_row), columns: u32::from(size.ws_col) })
}
