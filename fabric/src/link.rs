//! The link to one peer: two lanes, each with at most one dialled connection, and what is wanted of them.
//!
//! ```text
//!             set_address, keep_connected, first call
//!   no connection ----------------------------------> dialling --- handshake ok ---> connected
//!        ^                                               |                              |
//!        +---- failed: its calls are told ---------------+                              |
//!        +---- ended: its calls fail, LinkEvent::Lost ----------------------------------+
//!   set_down(true) from anywhere: no connection, no dialling, calls fail with NodeDown until set_down(false)
//! ```
//!
//! Invariant: `LinkEvent`s of a peer alternate, because they are sent under the lock of the urgent lane's slot.

use crate::connection::{Connection, End, Request};
use crate::dialler::{Dialler, lost};
use crate::status::Traffic;
use crate::wire::{Lane, Verdict};
use crate::{Error, LinkEvent, Message, Peer, PeerStatus, Refusal, Stage, Target};
use parking_lot::Mutex;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

/// What the crates above want of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wanted {
    address: Option<SocketAddr>,
    down: bool,
    kept: bool,
    over: Option<Over>,
}

/// Why a link is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The endpoint closes.
    Closed,
    /// The peer was forgotten.
    Forgotten,
}

struct LaneSlot {
    connection: Mutex<Option<Arc<Connection>>>,
    /// Held by whoever dials; remembers when and how the last attempt failed, for those who waited for it.
    dialling: tokio::sync::Mutex<Option<(Instant, Error)>>,
    turns: Semaphore,
}

impl LaneSlot {
    fn live(&self) -> Option<Arc<Connection>> {
        self.connection.lock().as_ref().filter(|connection| !connection.has_ended()).cloned()
    }
}

/// The link to one peer.
pub struct Link {
    peer: Peer,
    dialler: Arc<Dialler>,
    wanted: watch::Sender<Wanted>,
    lanes: [LaneSlot; 2],
    in_flight: AtomicUsize,
    traffic: Arc<Traffic>,
}

/// What a call waits for, so that its deadline can say what was missing.
#[derive(Default)]
struct Progress(AtomicU8);

impl Progress {
    const TURN: u8 = 0;
    const CONNECTION: u8 = 1;
    const REPLY: u8 = 2;

    fn error(&self, target: Target, request: crate::ServiceId, after: Duration) -> Error {
        let stage = match self.0.load(Relaxed) {
            Progress::TURN => return Error::Busy(target),
            Progress::CONNECTION => Stage::Connecting,
            _ => Stage::Reply,
        };
        Error::Deadline { target, service: request, stage, after }
    }
}

/// Counts a call while it lasts, however it ends.
struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Link {
    /// The link to `peer`, of which nothing is known yet.
    pub fn new(peer: Peer, dialler: Arc<Dialler>) -> Arc<Link> {
        let slot = || LaneSlot {
            connection: Mutex::default(),
            dialling: tokio::sync::Mutex::new(None),
            turns: Semaphore::new(dialler.limits.calls_in_flight),
        };
        let lanes = [slot(), slot()];
        Arc::new(Link {
            peer,
            wanted: watch::Sender::default(),
            lanes,
            in_flight: AtomicUsize::new(0),
            traffic: Arc::default(),
            dialler,
        })
    }

    /// Where the peer is dialled from now on. Connections to another address end.
    pub fn set_address(&self, address: SocketAddr) {
        let mut moved = false;
        self.wanted.send_if_modified(|wanted| {
            let before = wanted.address.replace(address);
            moved = before.is_some_and(|before| before != address);
            before != wanted.address
        });
        if moved {
            self.drop_connections(&lost(io::Error::other("the peer has another address now")));
        }
    }

    /// Declares the peer down, or no longer down.
    pub fn set_down(&self, down: bool) {
        self.wanted.send_if_modified(|wanted| std::mem::replace(&mut wanted.down, down) != down);
        if down {
            self.drop_connections(&End::Down(self.peer));
        }
    }

    /// Keeps the link up from now on.
    pub fn keep(self: &Arc<Self>) {
        let newly = self.wanted.send_if_modified(|wanted| !std::mem::replace(&mut wanted.kept, true));
        if newly {
            tokio::spawn(self.clone().stay_connected());
        }
    }

    /// Ends the link for good.
    pub fn finish(&self, over: Over) {
        self.wanted.send_modify(|wanted| wanted.over = Some(over));
        self.drop_connections(&match over {
            Over::Closed => End::Closed,
            Over::Forgotten => lost(io::Error::other("the peer was forgotten")),
        });
    }

    /// A snapshot.
    pub fn status(&self) -> PeerStatus {
        let wanted = *self.wanted.borrow();
        PeerStatus {
            peer: self.peer,
            address: wanted.address,
            connected: self.lanes[Lane::Urgent as usize].live().is_some(),
            down: wanted.down,
            in_flight: self.in_flight.load(Relaxed),
            calls: self.traffic.calls.load(Relaxed),
            bytes_sent: self.traffic.sent.load(Relaxed),
            bytes_received: self.traffic.received.load(Relaxed),
        }
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    /// As [`crate::Endpoint::call`].
    pub async fn call(self: &Arc<Self>, request: Request, after: Duration) -> Result<Message, Error> {
        self.traffic.calls.fetch_add(1, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
        let _counted = InFlight(&self.in_flight);
        let (service, until, progress) = (request.service, Instant::now() + after, Progress::default());
        let mut wanted = self.wanted.subscribe();
        // Unconstrained: tokio would make a call that finds everything free wait all the same when its task has used up
        // its budget, and calls that the task makes after it would overtake it.
        tokio::task::unconstrained(async {
            tokio::select! {
                biased;
                error = self.cannot_go_on(&mut wanted) => Err(error),
                outcome = timeout_at(until, self.attempt(request, until, &progress)) => {
                    outcome.unwrap_or_else(|_| Err(progress.error(self.peer.into(), service, after)))
                }
            }
        })
        .await
    }

    /// Waits until no call can go on, and says why.
    async fn cannot_go_on(&self, wanted: &mut watch::Receiver<Wanted>) -> Error {
        let wanted =
            wanted.wait_for(|wanted| wanted.down || wanted.over.is_some()).await.map(|wanted| *wanted);
        match wanted {
            Ok(Wanted { over: Some(Over::Forgotten), .. }) => self.unreachable("the peer was forgotten"),
            Ok(Wanted { over: None, .. }) => Error::NodeDown(self.peer),
            _ => Error::Closed,
        }
    }

    async fn attempt(
        self: &Arc<Self>,
        request: Request,
        until: Instant,
        progress: &Progress,
    ) -> Result<Message, Error> {
        let lane = Lane::of(request.priority);
        let _turn = self.lanes[lane as usize].turns.acquire().await.map_err(|_| Error::Closed)?;
        progress.0.store(Progress::CONNECTION, Relaxed);
        let connection = self.connection(lane).await?;
        progress.0.store(Progress::TURN, Relaxed);
        let room = connection.room_for(&request).await;
        progress.0.store(Progress::REPLY, Relaxed);
        let left = until.saturating_duration_since(Instant::now());
        judge(self.peer.into(), connection.call(request, room, left).await)
    }

    /// The lane's connection; dials if there is none. Who finds another dialling shares what comes of it.
    async fn connection(self: &Arc<Self>, lane: Lane) -> Result<Arc<Connection>, Error> {
        let slot = &self.lanes[lane as usize];
        if let Some(connection) = slot.live() {
            return Ok(connection);
        }
        let arrived = Instant::now();
        let mut dialling = slot.dialling.lock().await;
        if let Some(connection) = slot.live() {
            return Ok(connection);
        }
        if let Some((failed, error)) = &*dialling
            && *failed > arrived
        {
            return Err(error.clone());
        }
        let result = self.dial(lane).await;
        *dialling = result.as_ref().err().map(|error| (Instant::now(), error.clone()));
        result
    }

    async fn dial(self: &Arc<Self>, lane: Lane) -> Result<Arc<Connection>, Error> {
        let address = self.wanted.borrow().address;
        let address = address.ok_or_else(|| self.unreachable("its address is not known"))?;
        let (connection, source) = self.dialler.dial(self.peer.into(), address, lane, &self.traffic).await?;
        self.install(lane, address, &connection)?;
        let (link, ended) = (self.clone(), connection.clone());
        self.dialler.look_after(connection.clone(), source, move || link.gone(lane, &ended));
        Ok(connection)
    }

    fn install(&self, lane: Lane, address: SocketAddr, connection: &Arc<Connection>) -> Result<(), Error> {
        let mut slot = self.lanes[lane as usize].connection.lock();
        let wanted = *self.wanted.borrow();
        let unwanted = match wanted {
            Wanted { over: Some(_), .. } => Some(End::Closed),
            Wanted { down: true, .. } => Some(End::Down(self.peer)),
            _ if wanted.address != Some(address) => {
                Some(lost(io::Error::other("the peer has another address now")))
            }
            _ => None,
        };
        if let Some(end) = unwanted {
            connection.end(end.clone());
            return Err(end.error(self.peer.into()));
        }
        if slot.replace(connection.clone()).is_some() {
            self.tell(lane, LinkEvent::Lost(self.peer));
        }
        self.tell(lane, LinkEvent::Connected(self.peer));
        Ok(())
    }

    /// A connection has ended.
    fn gone(&self, lane: Lane, connection: &Arc<Connection>) {
        let mut slot = self.lanes[lane as usize].connection.lock();
        if slot.take_if(|current| Arc::ptr_eq(current, connection)).is_some() {
            self.tell(lane, LinkEvent::Lost(self.peer));
        }
    }

    fn drop_connections(&self, end: &End) {
        for lane in [Lane::Urgent, Lane::Bulk] {
            let mut slot = self.lanes[lane as usize].connection.lock();
            if let Some(connection) = slot.take() {
                connection.end(end.clone());
                self.tell(lane, LinkEvent::Lost(self.peer));
            }
        }
    }

    fn tell(&self, lane: Lane, event: LinkEvent) {
        if lane == Lane::Urgent {
            // Nobody may be listening.
            let _ = self.dialler.events.send(event);
        }
    }

    fn unreachable(&self, why: &'static str) -> Error {
        Error::Unreachable { target: self.peer.into(), source: Arc::new(io::Error::other(why)) }
    }

    /// Dials again and again while the link is kept.
    async fn stay_connected(self: Arc<Self>) {
        let _open = self.dialler.closing.subscribe();
        let (shortest, longest) = (self.dialler.limits.reconnect_min, self.dialler.limits.reconnect_max);
        let (mut wanted, mut pause) = (self.wanted.subscribe(), shortest);
        loop {
            let now = *wanted.borrow_and_update();
            if now.over.is_some() {
                return;
            }
            if now.down || now.address.is_none() {
                // The sender lives in self.
                let _ = wanted.changed().await;
                pause = shortest;
                continue;
            }
            let connected = tokio::select! {
                result = self.connection(Lane::Urgent) => result,
                _ = wanted.changed() => continue,
            };
            pause = match connected {
                Ok(connection) => {
                    tokio::select! { () = connection.ended() => {}, _ = wanted.changed() => continue }
                    shortest
                }
                Err(error) => {
                    tracing::debug!(peer = %self.peer, %error, "no link yet");
                    (pause * 2).min(longest)
                }
            };
            tokio::select! { () = tokio::time::sleep(pause) => {}, _ = wanted.changed() => {} }
        }
    }
}

/// What the outcome on a connection means to the caller.
///
/// # Errors
/// As [`crate::Endpoint::call`].
pub fn judge(target: Target, outcome: Result<(Verdict, Message), End>) -> Result<Message, Error> {
    match outcome {
        Ok((Verdict::Answered, reply)) => Ok(reply),
        Ok((Verdict::NoService, _)) => Err(Error::Refused { target, why: Refusal::NoService }),
        Ok((Verdict::Crashed, _)) => Err(Error::Refused { target, why: Refusal::Crashed }),
        Err(end) => Err(end.error(target)),
    }
}
