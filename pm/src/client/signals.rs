//! Signals of this process as events on a descriptor.

use super::Error;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// Signals that are caught instead of acting. Their actions are the default ones again only when the process ends.
pub struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
}

impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signals")
    }
}

impl Signals {
    /// Catches `numbers`, except those that this process was started to ignore (`ignored`: bit n-1 for signal n).
    ///
    /// # Errors
    /// A signal that cannot be caught, or no descriptors.
    pub fn catch(numbers: &[i32], ignored: u64) -> Result<Signals, Error> {
        let (read, write) = UnixStream::pair().map_err(Error::system("socketpair for signals"))?;
        let wanted = numbers.iter().filter(|&&number| ignored >> (number - 1) & 1 == 0);
        let delivery =
            SignalDelivery::with_pipe(read, write, SignalOnly, wanted).map_err(Error::system("sigaction"))?;
        Ok(Signals { delivery })
    }

    /// The signals that came since the last call, each once.
    pub fn take(&mut self) -> Vec<i32> {
        self.delivery.pending().collect()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    #[test]
    fn a_signal_makes_the_descriptor_readable() {
        let mut signals = Signals::catch(&[libc::SIGURG, libc::SIGWINCH], 1 << (libc::SIGURG - 1)).unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::WINCH).unwrap();
        let deadline = Timespec { tv_sec: 5, tv_nsec: 0 };
        let fd = signals.as_fd();
        assert_eq!(poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&deadline)), Ok(1));
        assert_eq!(signals.take(), [libc::SIGWINCH]);
    }
}
