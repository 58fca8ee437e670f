//! A queue in front of a descriptor that output is written to.
//!
//! Invariant: a credit is given back when, and only when, every byte queued before it is written (or the descriptor is
//! broken and the bytes have nowhere to go). So what waits here is bounded by the windows of the streams it comes from.

use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes of a task's stream to acknowledge once they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// The task.
    pub index: u32,
    /// The stream.
    pub stream: u32,
    /// How many bytes of it.
    pub bytes: usize,
}

/// Output on its way to a descriptor.
#[derive(Debug)]
pub struct Outlet<Fd> {
    fd: Fd,
    queue: VecDeque<u8>,
    /// Bytes ever queued; a credit is due when the queue's front has passed its position.
    queued: u64,
    credits: VecDeque<(u64, Credit)>,
    chunk_bytes: usize,
    broken: bool,
}

impl<Fd: AsFd> Outlet<Fd> {
    /// An empty queue in front of `fd`.
    pub fn new(fd: Fd) -> Outlet<Fd> {
        let regular =
            fstat(&fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        // A pipe or terminal that poll(2) calls writable takes PIPE_BUF bytes without blocking, not more.
        let chunk_bytes = if regular { 128 << 10 } else { 4 << 10 };
        Outlet { fd, queue: VecDeque::new(), queued: 0, credits: VecDeque::new(), chunk_bytes, broken: false }
    }

    /// Queues `data`; `credit` is given back by [`Outlet::write`] behind it.
    pub fn push(&mut self, data: &[u8], credit: Option<Credit>) {
        if !self.broken {
            self.queue.extend(data);
            self.queued += data.len() as u64;
        }
        self.credits.extend(credit.map(|credit| (self.queued, credit)));
    }

    /// True while something waits: call [`Outlet::write`] when the descriptor is writable.
    pub fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Writes one chunk if any waits.
    ///
    /// # Errors
    /// The descriptor is broken (EPIPE, ENOSPC, ...): told once; what comes later is dropped and credited.
    pub fn write(&mut self) -> std::io::Result<()> {
        let (front, _) = self.queue.as_slices();
        if front.is_empty() {
            return Ok(());
        }
        match rustix::io::write(&self.fd, &front[..front.len().min(self.chunk_bytes)]) {
            Ok(written) => {
                self.queue.drain(..written);
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => {
                self.broken = true;
                self.queue.clear();
                Err(error.into())
            }
        }
    }

    /// The credits that are due: acknowledge them.
    pub fn take_credits(&mut self) -> Vec<Credit> {
        let done = self.queued - self.queue.len() as u64;
        let due = self.credits.iter().take_while(|(position, _)| self.broken || *position <= done).count();
        self.credits.drain(..due).map(|(_, credit)| credit).collect()
    }

    /// The descriptor, to be watched.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn credits_come_back_when_their_bytes_are_written() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut outlet = Outlet::new(writer);
        let credit = Credit { index: 1, stream: 1, bytes: 5_000 };
        outlet.push(&vec![7; 5_000], Some(credit));
        outlet.write().unwrap();
        assert!(outlet.is_waiting());
        assert_eq!(outlet.take_credits(), []);
        outlet.write().unwrap();
        assert_eq!(outlet.take_credits(), [credit]);
        drop(outlet);
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 5_000);
    }

    #[test]
    fn a_broken_pipe_is_told_once_and_drops_the_rest() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut outlet = Outlet::new(writer);
        let credit = Credit { index: 0, stream: 1, bytes: 1 };
        outlet.push(b"x", Some(credit));
        assert_eq!(outlet.write().unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
        outlet.push(b"y", Some(credit));
        assert!(!outlet.is_waiting());
        assert_eq!(outlet.take_credits(), [credit, credit]);
        outlet.write().unwrap();
    }
}
