//! The gate: accepts connections, lets in who proves the key, counts and names the others.
//!
//! Invariant: who has not proved the key costs one task and one socket for at most the handshake's time; there are at
//! most `Limits::half_open` of them, the oldest makes room for the newest, and each address is logged once per cause.

use crate::dialler::prepare;
use crate::handshake::{self, HandshakeError, Identity, Session};
use crate::inbound::Inbound;
use crate::serving::Services;
use crate::source::SourceError;
use crate::{Limits, Refusal, Refusals};
use parking_lot::Mutex;
use std::collections::{HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

/// Addresses and causes that are remembered as logged. Beyond it the memory starts anew.
const LOGGED_MAX: usize = 1_024;
/// The pause after accept(2) failed (no descriptors left): no event tells when it would succeed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A connection that has not proved the key; dropping the sender pushes it out.
struct Newcomer {
    number: u64,
    _stay: oneshot::Sender<()>,
}

#[derive(Default)]
struct HalfOpen {
    newcomers: VecDeque<Newcomer>,
    last: u64,
}

/// The accepting side of an endpoint.
pub struct Gate {
    identity: Arc<Identity>,
    services: Arc<Services>,
    limits: Limits,
    half_open: Mutex<HalfOpen>,
    refused: Mutex<Refusals>,
    logged: Mutex<HashSet<(IpAddr, Refusal)>>,
    accepted: AtomicUsize,
}

impl Gate {
    /// The gate to `services`.
    pub fn new(identity: Arc<Identity>, services: Arc<Services>, limits: Limits) -> Arc<Gate> {
        Arc::new(Gate {
            identity,
            services,
            limits,
            half_open: Mutex::default(),
            refused: Mutex::default(),
            logged: Mutex::default(),
            accepted: AtomicUsize::new(0),
        })
    }

    /// Connections that are let in now.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Relaxed)
    }

    /// Connections that have not proved the key yet.
    pub fn half_open(&self) -> usize {
        self.half_open.lock().newcomers.len()
    }

    /// Connections refused so far.
    pub fn refused(&self) -> Refusals {
        *self.refused.lock()
    }

    /// Accepts until the endpoint closes.
    pub async fn run(self: Arc<Self>, listener: TcpListener, mut closing: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = closing.wait_for(|closing| *closing) => return,
            };
            match accepted {
                Ok((stream, from)) => self.admit(stream, from, closing.clone()),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections for the moment");
                    tokio::select! {
                        () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                        _ = closing.wait_for(|closing| *closing) => return,
                    }
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, from: SocketAddr, mut closing: watch::Receiver<bool>) {
        let (number, pushed_out) = self.enter();
        let gate = self.clone();
        tokio::spawn(async move {
            let visit = gate.clone().visit(stream, from, number, pushed_out, closing.clone());
            tokio::select! {
                () = visit => {}
                _ = closing.wait_for(|closing| *closing) => gate.leave(number),
            }
        });
    }

    async fn visit(
        self: Arc<Self>,
        mut stream: TcpStream,
        from: SocketAddr,
        number: u64,
        pushed_out: oneshot::Receiver<()>,
        closing: watch::Receiver<bool>,
    ) {
        let proved = tokio::select! {
            proved = timeout(self.limits.handshake, self.prove(&mut stream)) => proved.unwrap_or(Err(Refusal::TooSlow)),
            _ = pushed_out => Err(Refusal::Crowded),
        };
        self.leave(number);
        let session = match proved {
            Ok(session) => session,
            Err(why) => return self.refuse(from, why),
        };
        let _counted = Accepted::new(&self.accepted);
        let peer = session.peer;
        let end = Inbound::run(Arc::new(stream), session, self.services.clone(), &self.limits, closing).await;
        match end {
            SourceError::Wire(error) => {
                tracing::warn!(%peer, %error, "a connection is closed");
                self.refuse(from, Refusal::Garbage);
            }
            SourceError::Io(error) => tracing::debug!(%peer, %error, "a connection ended"),
        }
    }

    async fn prove(&self, stream: &mut TcpStream) -> Result<Session, Refusal> {
        prepare(&*stream, &self.limits).map_err(|_| Refusal::Stranger)?;
        handshake::accept(stream, &self.identity).await.map_err(|error| match error {
            HandshakeError::Refused(why) => why,
            HandshakeError::Io(_) => Refusal::Stranger,
        })
    }

    /// A newcomer's number, and what ends when it is pushed out.
    fn enter(&self) -> (u64, oneshot::Receiver<()>) {
        let (stay, pushed_out) = oneshot::channel();
        let mut half_open = self.half_open.lock();
        half_open.last += 1;
        let number = half_open.last;
        half_open.newcomers.push_back(Newcomer { number, _stay: stay });
        if half_open.newcomers.len() > self.limits.half_open {
            half_open.newcomers.pop_front();
        }
        (number, pushed_out)
    }

    fn leave(&self, number: u64) {
        self.half_open.lock().newcomers.retain(|newcomer| newcomer.number != number);
    }

    fn refuse(&self, from: SocketAddr, why: Refusal) {
        self.refused.lock().count(why);
        let mut logged = self.logged.lock();
        if logged.len() >= LOGGED_MAX {
            logged.clear();
        }
        if logged.insert((from.ip(), why)) {
            tracing::warn!(%from, "a connection is refused: {why}; further ones like it are only counted");
        }
    }
}

/// Counts a connection while it lasts, however it ends.
struct Accepted<'a>(&'a AtomicUsize);

impl Accepted<'_> {
    fn new(count: &AtomicUsize) -> Accepted<'_> {
        count.fetch_add(1, Relaxed);
        Accepted(count)
    }
}

impl Drop for Accepted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
