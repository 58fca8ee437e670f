//! Opens connections to other endpoints and looks after them until they end.

use crate::connection::{Connection, End};
use crate::handshake::{self, HandshakeError, Identity, Session};
use crate::source::Source;
use crate::status::Traffic;
use crate::wire::Lane;
use crate::{Error, Limits, LinkEvent, Peer, Refusal, Target};
use rustix::net::sockopt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{broadcast, watch};
use tokio::time::timeout;

/// What it takes to open a connection.
pub struct Dialler {
    /// Who this end is.
    pub identity: Arc<Identity>,
    /// The maximum of everything.
    pub limits: Limits,
    /// Where links report.
    pub events: broadcast::Sender<LinkEvent>,
    /// True when the endpoint closes. Every task of the endpoint holds a receiver, and nobody else does: when no
    /// receiver is left, no task is.
    pub closing: watch::Sender<bool>,
}

impl Dialler {
    /// Opens a connection to whoever listens at `address`, who must be `expected` if that is known.
    ///
    /// # Errors
    /// [`Error::Unreachable`] or [`Error::Refused`].
    pub async fn dial(
        &self,
        target: Target,
        address: SocketAddr,
        lane: Lane,
        traffic: &Arc<Traffic>,
    ) -> Result<(Arc<Connection>, Source), Error> {
        let unreachable = |source: io::Error| Error::Unreachable { target, source: Arc::new(source) };
        let late = |what| move |_| io::Error::new(io::ErrorKind::TimedOut, what);
        let connecting = timeout(self.limits.connect, TcpStream::connect(address));
        let mut stream = connecting
            .await
            .map_err(late("it does not accept"))
            .and_then(|stream| stream)
            .map_err(unreachable)?;
        prepare(&stream, &self.limits).map_err(unreachable)?;
        let shaking = timeout(self.limits.handshake, handshake::dial(&mut stream, &self.identity, lane));
        let session = match shaking.await.map_err(late("it does not answer the handshake")) {
            Ok(Ok(session)) => session,
            Ok(Err(HandshakeError::Refused(why))) => return Err(Error::Refused { target, why }),
            Ok(Err(HandshakeError::Io(error))) | Err(error) => return Err(unreachable(error)),
        };
        check(target, &session)?;
        Ok(Connection::new(Arc::new(stream), session, traffic.clone(), self.limits.queue_bytes))
    }

    /// Runs a connection until it ends, then calls `gone`.
    pub fn look_after(
        &self,
        connection: Arc<Connection>,
        source: Source,
        gone: impl FnOnce() + Send + 'static,
    ) {
        let mut closing = self.closing.subscribe();
        tokio::spawn(async move {
            let end = tokio::select! {
                error = connection.read(source) => lost(error.into_io()),
                result = connection.write() => lost(result.err().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())),
                () = connection.ended() => End::Closed,
                _ = closing.wait_for(|closing| *closing) => End::Closed,
            };
            connection.end(end);
            gone();
        });
    }
}

/// The end of a connection that broke.
pub fn lost(error: io::Error) -> End {
    End::Lost(Arc::new(error))
}

fn check(target: Target, session: &Session) -> Result<(), Error> {
    match target {
        Target::Peer(peer) if peer != session.peer => Err(Error::Refused { target, why: Refusal::WrongPeer }),
        _ => Ok(()),
    }
}

/// Sets a socket up: nothing waits for more to send, and an end that fell silent is noticed.
///
/// # Errors
/// The operating system's, when the connection is gone already.
pub fn prepare(socket: impl AsFd, limits: &Limits) -> io::Result<()> {
    const PROBES: u32 = 4;
    let socket = socket.as_fd();
    let silence_ms = u32::try_from(limits.silence.as_millis()).unwrap_or(u32::MAX);
    let probe = (limits.silence / (2 * PROBES)).max(Duration::from_secs(1));
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_tcp_keepidle(socket, (limits.silence / 2).max(Duration::from_secs(1)))?;
    sockopt::set_tcp_keepintvl(socket, probe)?;
    sockopt::set_tcp_keepcnt(socket, PROBES)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_user_timeout(socket, silence_ms)?;
    Ok(())
}

/// The peer's name as a call's target.
impl From<Peer> for Target {
    fn from(peer: Peer) -> Target {
        Target::Peer(peer)
    }
}
