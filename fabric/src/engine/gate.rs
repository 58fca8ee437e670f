//! The gate: accepts connections, lets in who proves the key, counts and names the others.
//!
//! Invariant: who has not proved the key costs one socket for at most the handshake's time; there are at most
//! `Limits::half_open` of them, the oldest makes room for the newest; each address is logged once per cause; and a crowd of
//! strangers gets a bounded share of the engine's time.

use super::devices::Devices;
use super::setups::{Phase, Setup, SetupError, Whose};
use super::{Alarm, Engine, Entry};
use crate::provider::Provider;
use crate::reactor::Token;
use crate::setup::Rail;
use crate::{Error, Refusal, Refusals};
use base::time::Time;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Addresses and causes that are remembered as logged. Beyond it the memory starts anew.
const LOGGED_MAX: usize = 1_024;
/// Connections that one turn accepts.
const ACCEPTS_MAX: usize = 8;
/// The pause after a full turn, so that the crowd before the gate does not take the time of those inside.
const ACCEPT_PAUSE: Duration = Duration::from_millis(2);
/// The pause after accept(2) failed (no descriptors left): no event tells when it would succeed.
const FAILED_PAUSE: Duration = Duration::from_millis(20);
const BACKLOG: i32 = 1_024;

struct Listener {
    socket: OwnedFd,
    token: Token,
    at: At,
    pausing: bool,
}

enum At {
    Inet(SocketAddr),
    Unix(PathBuf),
}

/// The accepting side of an endpoint.
#[derive(Default)]
pub struct Gate {
    listeners: Vec<Listener>,
    refused: Refusals,
    logged: HashSet<(String, Refusal)>,
}

impl Gate {
    /// Where it listens first.
    pub fn address(&self) -> SocketAddr {
        let first = self.listeners.iter().find_map(|listener| match listener.at {
            At::Inet(address) => Some(address),
            At::Unix(_) => None,
        });
        first.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// The socket for processes of this host; empty if there is none.
    pub fn shm_path(&self) -> String {
        let path = self.listeners.iter().find_map(|listener| match &listener.at {
            At::Unix(path) => path.to_str(),
            At::Inet(_) => None,
        });
        path.unwrap_or_default().to_owned()
    }

    /// The addresses that it listens at, except where that says nothing (any address).
    pub fn inet_addresses(&self) -> Vec<SocketAddr> {
        let inet = self.listeners.iter().filter_map(|listener| match listener.at {
            At::Inet(address) if !address.ip().is_unspecified() => Some(address),
            _ => None,
        });
        inet.collect()
    }

    /// The rails that it listens on, and which of them have a device.
    pub fn rails(&self, devices: &Devices) -> Vec<Rail> {
        let rail =
            |address: SocketAddr| Rail { address: address.to_string(), verbs: devices.has(address.ip()) };
        let rails: Vec<Rail> = self.inet_addresses().into_iter().map(rail).collect();
        // One rail is where the other end is already.
        if rails.len() > 1 || rails.iter().any(|rail| rail.verbs) { rails } else { Vec::new() }
    }

    /// Connections refused so far.
    pub fn refused(&self) -> Refusals {
        self.refused
    }

    /// Counts a refusal.
    pub fn count(&mut self, why: Refusal) {
        self.refused.count(why);
    }

    /// Counts a refusal, and logs the first of its kind from there.
    pub fn refuse(&mut self, from: &str, why: Refusal) {
        self.count(why);
        if self.logged.len() >= LOGGED_MAX {
            self.logged.clear();
        }
        let host = from.rsplit_once(':').map_or(from, |(host, _)| host);
        if self.logged.insert((host.to_owned(), why)) {
            tracing::warn!(%from, "a connection is refused: {why}; further ones like it are only counted");
        }
    }
}

impl Engine {
    /// Listens at one more address.
    pub(super) fn listen(&mut self, address: SocketAddr) -> Result<(), Error> {
        let cannot = |source| Error::Listen { address, source: Arc::new(source) };
        let listening = || {
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
            rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
            rustix::net::bind(&socket, &address)?;
            rustix::net::listen(&socket, BACKLOG)?;
            let listener = TcpListener::from(socket);
            let address = listener.local_addr()?;
            Ok::<_, io::Error>((OwnedFd::from(listener), address))
        };
        let (socket, address) = listening().map_err(cannot)?;
        self.add_listener(socket, At::Inet(address)).map_err(cannot)
    }

    /// Listens at a Unix socket in this directory, for processes of this host.
    pub(super) fn listen_locally(&mut self, directory: Option<PathBuf>) -> Result<(), Error> {
        let Some(directory) = directory.filter(|_| self.providers_allow(Provider::Shm)) else {
            return Ok(());
        };
        let path = directory.join(format!("fabric-{:016x}.sock", self.random()));
        let address = self.gate.address();
        let listening = || {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            rustix::net::bind(&socket, &SocketAddrUnix::new(&path)?)?;
            rustix::net::listen(&socket, BACKLOG)?;
            Ok::<_, io::Error>(socket)
        };
        let cannot = |error: io::Error| Error::Listen {
            address,
            source: Arc::new(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        };
        let socket = listening().map_err(cannot)?;
        self.add_listener(socket, At::Unix(path.clone())).map_err(cannot)
    }

    fn add_listener(&mut self, socket: OwnedFd, at: At) -> io::Result<()> {
        let token = self.token(Entry::Listener(self.gate.listeners.len()));
        self.reactor.watch_level(&socket, token)?;
        self.gate.listeners.push(Listener { socket, token, at, pausing: false });
        Ok(())
    }

    /// Accepts who waits at a listener.
    pub(super) fn accept(&mut self, at: usize, now: Time) {
        for _ in 0..ACCEPTS_MAX {
            let Some(listener) = self.gate.listeners.get(at) else { return };
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match rustix::net::acceptfrom_with(&listener.socket, flags) {
                Ok((stream, from)) => {
                    let local = matches!(listener.at, At::Unix(_));
                    let from = from.and_then(|from| SocketAddr::try_from(from).ok());
                    let from = from.map_or_else(|| "this host".to_owned(), |from| from.to_string());
                    self.admit(stream, from, local, now);
                }
                Err(rustix::io::Errno::AGAIN) => return,
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections for the moment");
                    return self.pause(at, now + FAILED_PAUSE);
                }
            }
        }
        self.pause(at, now + ACCEPT_PAUSE);
    }

    fn pause(&mut self, at: usize, until: Time) {
        let Some(listener) = self.gate.listeners.get_mut(at) else { return };
        if !std::mem::replace(&mut listener.pausing, true) {
            // It is watched: `add_listener` saw to it.
            let _ = self.reactor.forget(&listener.socket);
            self.timers.set(until, Alarm::Accept);
        }
    }

    /// Goes on accepting after a pause.
    pub(super) fn accept_again(&mut self, now: Time) {
        for at in 0..self.gate.listeners.len() {
            let listener = &mut self.gate.listeners[at];
            if std::mem::take(&mut listener.pausing)
                && let Err(error) = self.reactor.watch_level(&listener.socket, listener.token)
            {
                tracing::warn!(%error, "cannot watch for connections for the moment");
                listener.pausing = true;
                self.timers.set(now + FAILED_PAUSE, Alarm::Accept);
            }
        }
    }

    fn admit(&mut self, stream: OwnedFd, from: String, local: bool, now: Time) {
        let number = self.setups.number();
        let token = self.token(Entry::Setup(number));
        let late = now + self.limits.handshake;
        let setup = Setup {
            number,
            token,
            stream: Some(stream),
            late,
            phase: Phase::Accepting(Box::default()),
            whose: Whose::Theirs { from, local },
            input: Vec::new(),
            output: Vec::new(),
            ended: false,
        };
        let watched =
            setup.stream.as_ref().map_or(Ok(()), |stream| self.reactor.watch(stream.as_fd(), token));
        if let Err(error) = watched {
            return self.setup_failed(setup, SetupError::Io(error), now);
        }
        self.setups.insert(setup);
        self.timers.set(late, Alarm::Setup(number));
        if self.setups.half_open() > self.limits.half_open
            && let Some(oldest) = self.setups.oldest_half_open().and_then(|oldest| self.setups.take(oldest))
        {
            self.setup_failed(oldest, SetupError::Refused(Refusal::Crowded), now);
        }
    }

    /// Listens no more.
    pub(super) fn unlisten(&mut self) {
        for listener in std::mem::take(&mut self.gate.listeners) {
            if !listener.pausing {
                // It is closed right after.
                let _ = self.reactor.forget(&listener.socket);
            }
            self.release(listener.token);
            if let At::Unix(path) = &listener.at {
                // Somebody may have cleaned the directory.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}
