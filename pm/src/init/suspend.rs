//! ^Z on a task's terminal.
//!
//! A task leads its terminal's session and its parent, `ssi-init`, is outside of it. So its process group is an orphaned
//! one, for which the kernel discards SIGTSTP: `onnode 2 sleep 100` could not be put aside as `sleep 100` can. What is
//! discarded is made good with SIGSTOP, here; a group that a shell inside of the session made is the kernel's business.

use rustix::termios::{LocalModes, SpecialCodeIndex, tcgetattr, tcgetpgrp};
use std::os::fd::AsFd;

/// True if `typed` asks the terminal whose master this is to suspend the process group that `leader` leads.
pub fn asks_to_suspend(master: impl AsFd, typed: &[u8], leader: u32) -> bool {
    let Ok(modes) = tcgetattr(&master) else { return false };
    let key = modes.special_codes[SpecialCodeIndex::VSUSP];
    // A key of 0 is none.
    let suspends = modes.local_modes.contains(LocalModes::ISIG) && key != 0 && typed.contains(&key);
    suspends && tcgetpgrp(&master).is_ok_and(|group| group.as_raw_nonzero().get() as u32 == leader)
}
