//! The heartbeat receiver: a thread of its own (`ssi-heartbeat`) that does nothing but read the socket until it is
//! empty and say so with the time, at least once in [`Timings::tick`](crate::Timings). It decides nothing.

use crate::clock::Clock;
use crate::core::Event;
use crate::heartbeat::{HEARTBEAT_BYTES, Heartbeat};
use crate::shell::{Inbox, Input};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Datagrams read before the core is told.
const BATCH_MAX: usize = 1_024;

/// What the thread needs.
pub(crate) struct Receiver {
    pub(crate) socket: UdpSocket,
    pub(crate) key: [u8; 32],
    pub(crate) cluster: String,
    pub(crate) clock: Clock,
    pub(crate) tick: Duration,
    pub(crate) inbox: Inbox,
    pub(crate) stopping: Arc<AtomicBool>,
}

impl Receiver {
    /// Starts the thread. It ends within a tick after `stopping` is set.
    pub(crate) fn start(self) -> io::Result<()> {
        self.socket.set_nonblocking(true)?;
        std::thread::Builder::new().name("ssi-heartbeat".into()).spawn(move || self.run())?;
        Ok(())
    }

    fn run(self) {
        prefer_this_thread();
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(self.tick.subsec_nanos()) };
        while !self.stopping.load(Ordering::Relaxed) {
            let mut waiting = [PollFd::new(&self.socket, PollFlags::IN)];
            // An interrupted wait is as good as one that ran out: the socket is read in any case.
            let _ = poll(&mut waiting, Some(&timeout));
            let beats = self.drain();
            let heard = Event::Heard { beats, at: self.clock.now() };
            // A full inbox loses these beats; the next ones say the same.
            let _ = self.inbox.try_send(Input::Event(heard));
        }
    }

    fn drain(&self) -> Vec<Heartbeat> {
        let mut beats = Vec::new();
        // One byte more than a heartbeat has, so that a longer datagram is seen to be longer.
        let mut datagram = [0; HEARTBEAT_BYTES + 1];
        for _ in 0..BATCH_MAX {
            match self.socket.recv(&mut datagram) {
                Ok(length) => match Heartbeat::decode(&datagram[..length], &self.key, &self.cluster) {
                    Ok(beat) => beats.push(beat),
                    // Anybody can send datagrams: not worth a line each in the log.
                    Err(error) => tracing::debug!("{error}"),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // A pending ICMP error of another socket's doing; the next call reads on.
                Err(_) => {}
            }
        }
        beats
    }
}

/// Asks the kernel to run this thread before ordinary ones; without the right to it is as it was.
pub(crate) fn prefer_this_thread() {
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), -10);
}
