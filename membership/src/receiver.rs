//! The heartbeat receiver: a thread of its own (`ssi-heartbeat`) that does nothing but read all that has come and say so
//! with the time, at least once in [`Timings::tick`](crate::Timings). It decides nothing. After a few datagrams it rests for half a tick, and
//! has what came meanwhile at once: the core is not woken for each.

use crate::Error;
use crate::clock;
use crate::core::Event;
use crate::heartbeat::{HEARTBEAT_BYTES, Heartbeat};
use crate::shell::{Inbox, Input};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::TrySendError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bytes of the socket's buffer as it is asked for; the kernel doubles them.
const BUFFER_BYTES: usize = 256 << 10;
/// The least that the kernel counts for a datagram in that buffer.
const DATAGRAM_COST_MIN: usize = 512;
/// Datagrams read before the core is told: as many as the buffer can hold. So whatever had arrived before the reading
/// began has been read after it, even while a flood keeps the socket from ever being empty.
const BATCH_MAX: usize = 2 * BUFFER_BYTES / DATAGRAM_COST_MIN;
/// After more datagrams at once than this there is no rest: the buffer must not overflow.
const CALM_MAX: usize = BATCH_MAX / 8;

/// What the thread needs.
pub(crate) struct Receiver {
    pub(crate) socket: UdpSocket,
    pub(crate) keys: Arc<Mutex<Vec<[u8; 32]>>>,
    pub(crate) cluster: String,
    pub(crate) tick: Duration,
    pub(crate) inbox: Inbox,
    pub(crate) stopping: Arc<AtomicBool>,
    pub(crate) on_thread_start: fn(),
}

impl Receiver {
    /// Starts the thread. It ends within a tick after `stopping` is set.
    pub(crate) fn start(self) -> io::Result<()> {
        self.socket.set_nonblocking(true)?;
        rustix::net::sockopt::set_socket_recv_buffer_size(&self.socket, BUFFER_BYTES)?;
        std::thread::Builder::new().name("ssi-heartbeat".into()).spawn(move || self.run())?;
        Ok(())
    }

    fn run(self) {
        prefer_this_thread();
        (self.on_thread_start)();
        let mut beats = Vec::new();
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(self.tick.subsec_nanos()) };
        while !self.stopping.load(Ordering::Relaxed) {
            let mut waiting = [PollFd::new(&self.socket, PollFlags::IN)];
            // An interrupted wait is as good as one that ran out: the socket is read in any case.
            let _ = poll(&mut waiting, Some(&timeout));
            // The time before reading: what comes while we are kept from the processor after it is not overlooked.
            let at = clock::now();
            let read = self.drain(&mut beats);
            let heard = Event::Heard { beats: std::mem::take(&mut beats), at };
            let told = self.inbox.try_send(Input::Event(heard));
            // The core is behind: it hears of these with the next ones.
            if let Err(TrySendError::Full(Input::Event(Event::Heard { beats: unheard, .. }))) = told {
                beats = unheard;
            }
            beats.truncate(BATCH_MAX);
            if (1..=CALM_MAX).contains(&read) {
                std::thread::park_timeout(self.tick / 2);
            }
        }
    }

    /// Reads what has come; gives how many datagrams that were, also those that are no heartbeats.
    fn drain(&self, beats: &mut Vec<Heartbeat>) -> usize {
        // One byte more than a heartbeat has, so that a longer datagram is seen to be longer.
        let mut datagram = [0; HEARTBEAT_BYTES + 1];
        for read in 0..BATCH_MAX {
            match self.socket.recv(&mut datagram) {
                Ok(length) => match self.decode(&datagram[..length]) {
                    Ok(beat) => beats.push(beat),
                    // Anybody can send datagrams: not worth a line each in the log.
                    Err(error) => tracing::debug!("{error}"),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return read,
                // A pending ICMP error of another socket's doing; the next call reads on.
                Err(_) => {}
            }
        }
        BATCH_MAX
    }
}

impl Receiver {
    /// While the cluster's key changes, a heartbeat may be signed with either.
    fn decode(&self, datagram: &[u8]) -> Result<Heartbeat, Error> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outcome = Err(Error::Heartbeat("there is no key"));
        for key in keys.iter() {
            outcome = Heartbeat::decode(datagram, key, &self.cluster);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}

/// Asks the kernel to run this thread before ordinary ones; without the right to it is as it was.
pub(crate) fn prefer_this_thread() {
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), -10);
}
