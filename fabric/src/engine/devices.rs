//! The RDMA devices of an endpoint: one for each rail whose address a device has, and the connections that are being set up through them.
//!
//! They are opened when the endpoint starts, if it may use verbs. A machine without library or device has none, which one line of the log
//! (debug) says; nothing else is different then.
//!
//! Invariant: a connection that is being set up belongs to a setup, and ends with it.

use super::links::{Linked, Links};
use super::remote::Place;
use super::setups::{Phase, Proved, Setup, SetupError};
use super::{Alarm, Engine, Entry};
use crate::provider::Provider;
use crate::reactor::Reactor;
use crate::region::{DeviceKey, Memory, RemoteKey};
use crate::session::{Lane, LinkId};
use crate::setup::{Open, QueuePair};
use crate::verbs::{Adapter, Pending, VerbsLink};
use base::time::Time;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// How long a device may go without ending one of several operations. It sends a packet for the last time after less.
const PATIENCE: Duration = Duration::from_millis(1500);

/// The devices of an endpoint.
#[derive(Default)]
pub struct Devices {
    /// By the number of their rail.
    rails: Vec<Arc<Adapter>>,
    /// By the number of their setup.
    pending: BTreeMap<u64, Pending>,
    /// Operations are looked after.
    watched: bool,
}

impl Devices {
    /// The rail with this address.
    fn at(&self, ip: IpAddr) -> Option<(u8, &Arc<Adapter>)> {
        let at = self.rails.iter().position(|rail| rail.ip() == ip.to_canonical())?;
        Some((u8::try_from(at).ok()?, &self.rails[at]))
    }

    /// True if a device has this address.
    pub fn has(&self, ip: IpAddr) -> bool {
        self.at(ip).is_some()
    }

    /// This end's address for a connection to there: that of the rail in the same network, which is the one whose address has
    /// most in common with it.
    pub fn toward(&self, ip: IpAddr) -> Option<IpAddr> {
        let ip = ip.to_canonical();
        let same = self.rails.iter().map(|rail| rail.ip()).filter(|ours| ours.is_ipv4() == ip.is_ipv4());
        same.max_by_key(|ours| common_bits(*ours, ip))
    }

    /// Where a connection that is to lead over devices begins; for any other the kernel chooses.
    ///
    /// # Errors
    /// There is no device any more.
    pub fn source(&self, place: &Place, provider: Provider) -> io::Result<Option<IpAddr>> {
        match place {
            Place::Inet(to) if provider == Provider::Verbs => {
                self.toward(to.ip()).map(Some).ok_or_else(|| io::Error::other("there is no RDMA device"))
            }
            _ => Ok(None),
        }
    }

    /// Lets devices reach a region for the holder of this key.
    pub fn expose(&self, key: &mut RemoteKey, memory: &Arc<Memory>) {
        for (rail, adapter) in (0..=u8::MAX).zip(&self.rails) {
            match adapter.expose(memory, key.length, key.rights) {
                // What finds no place goes by frames.
                Ok(at) => drop(key.add_device(DeviceKey { rail, at })),
                Err(error) => tracing::debug!(%error, "a region is reached by frames only"),
            }
        }
    }

    /// Drops what a setup had begun.
    pub fn end(&mut self, setup: u64, reactor: &mut Reactor) {
        if let Some(pending) = self.pending.remove(&setup) {
            // It may never have been watched.
            let _ = reactor.forget(&pending);
        }
    }
}

/// How many bits two addresses begin with in common.
fn common_bits(ours: IpAddr, theirs: IpAddr) -> u32 {
    match (ours, theirs) {
        (IpAddr::V4(ours), IpAddr::V4(theirs)) => (ours.to_bits() ^ theirs.to_bits()).leading_zeros(),
        (IpAddr::V6(ours), IpAddr::V6(theirs)) => (ours.to_bits() ^ theirs.to_bits()).leading_zeros(),
        _ => 0,
    }
}

impl Engine {
    /// Opens the devices of the addresses at which it listens.
    pub(super) fn open_devices(&mut self) {
        if !self.providers_allow(Provider::Verbs) {
            return;
        }
        for address in self.gate.inet_addresses() {
            let opened = match Adapter::open(address.ip().to_canonical()) {
                Ok(Some(adapter)) => adapter,
                Ok(None) => continue,
                Err(error) => {
                    tracing::debug!(%error, "no RDMA");
                    return;
                }
            };
            let token = self.token(Entry::Device(self.devices.rails.len()));
            match self.reactor.watch_level(&opened, token) {
                Ok(()) => {
                    tracing::info!(device = opened.device().name(), address = %opened.ip(), "RDMA carries a rail");
                    self.devices.rails.push(opened);
                }
                Err(error) => {
                    self.release(token);
                    tracing::warn!(%error, "an RDMA device cannot be watched, and is not used");
                }
            }
        }
    }

    /// A device has something to tell.
    pub(super) fn device_tells(&mut self, at: usize, now: Time) {
        let Some(adapter) = self.devices.rails.get(at).cloned() else { return };
        let news = match adapter.news() {
            Ok(news) => news,
            Err(error) => {
                tracing::error!(%error, "an RDMA device is gone");
                // It would be reported for ever.
                let _ = self.reactor.forget(&adapter);
                return;
            }
        };
        if news.failed {
            // Each link looks whether it is meant.
            for id in self.links.carried_by(Provider::Verbs) {
                self.receive(id, now);
            }
        }
    }

    /// Operations are under way: there is to be an end of them, whatever the device does.
    pub(super) fn watch_devices(&mut self, now: Time) {
        if !std::mem::replace(&mut self.devices.watched, true) {
            self.timers.set(now + PATIENCE, Alarm::Devices);
        }
    }

    /// Ends the links whose devices do not answer (Soft-RoCE does so now and then when a key has become bad).
    pub(super) fn look_after_devices(&mut self, now: Time) {
        let links = self.links.carried_by(Provider::Verbs);
        self.devices.watched = false;
        for id in &links {
            match self.links.look_after(*id) {
                None => {}
                Some(false) => self.watch_devices(now),
                Some(true) => {
                    let silent = io::Error::new(io::ErrorKind::TimedOut, "the RDMA device does not answer");
                    self.link_lost(*id, &silent.into(), now);
                }
            }
        }
    }

    /// This end's half of a connection through devices, if the setup that it dialled is for one.
    pub(super) fn offered(&mut self, setup: &Setup, open: &Open) -> Result<Option<QueuePair>, SetupError> {
        if open.provider != super::proving::provider_number(Provider::Verbs) {
            return Ok(None);
        }
        if !self.devices.pending.contains_key(&setup.number) {
            let pending = self.half(setup, open)?;
            self.devices.pending.insert(setup.number, pending);
        }
        Ok(self.devices.pending.get(&setup.number).map(Pending::terms))
    }

    /// This end's half of a connection that the other end has dialled, connected to the other half.
    pub(super) fn taken(&mut self, setup: &Setup, open: &Open) -> Result<QueuePair, io::Error> {
        let theirs =
            open.queue_pair.as_ref().ok_or(io::Error::other("there is no queue pair to connect to"))?;
        let mut pending = self.half(setup, open)?;
        pending.connect(theirs).map_err(io::Error::other)?;
        let terms = pending.terms();
        self.devices.pending.insert(setup.number, pending);
        Ok(terms)
    }

    fn half(&self, setup: &Setup, open: &Open) -> io::Result<Pending> {
        let stream = setup.stream.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let local = SocketAddr::try_from(rustix::net::getsockname(stream)?)?;
        let (rail, adapter) = self
            .devices
            .at(local.ip())
            .ok_or_else(|| io::Error::other(format!("no RDMA device has the address {}", local.ip())))?;
        let lane = if open.lane == 0 { Lane::Urgent } else { Lane::Bulk };
        Pending::new(adapter, rail, lane).map_err(io::Error::other)
    }

    /// True if this setup leads to a link through devices.
    pub(super) fn is_for_device(&self, setup: &Setup) -> bool {
        self.devices.pending.contains_key(&setup.number)
    }

    /// Both ends are proved: the accepting end has its link, the dialling end tries the path first.
    pub(super) fn raise_device(&mut self, mut setup: Setup, proved: Proved, now: Time) {
        let Some(pending) = self.devices.pending.get_mut(&setup.number) else { return };
        let Proved::Dialled(dialled) = &proved else { return self.link_device(setup, proved, now) };
        let Some(theirs) = &dialled.welcome.queue_pair else {
            let why = "the other end has no queue pair for it".to_owned();
            return self.setup_failed(setup, SetupError::Useless(why), now);
        };
        let trying = pending.connect(theirs).and_then(|()| pending.try_path()).map_err(io::Error::other);
        let trying = trying.and_then(|()| self.reactor.watch_level(&*pending, setup.token));
        match trying {
            Ok(()) => {
                setup.phase = Phase::Trying(Box::new(proved));
                self.try_device(setup, now);
            }
            Err(error) => self.setup_failed(setup, error.into(), now),
        }
    }

    /// Looks whether the path carries.
    pub(super) fn try_device(&mut self, mut setup: Setup, now: Time) {
        let Some(pending) = self.devices.pending.get_mut(&setup.number) else { return };
        let through = setup.receive().and_then(|()| pending.is_through().map_err(io::Error::other));
        match through {
            Ok(_) if setup.ended => {
                self.setup_failed(setup, io::Error::from(io::ErrorKind::ConnectionReset).into(), now);
            }
            Ok(false) => self.setups.insert(setup),
            Ok(true) => {
                // It is watched: `raise_device` saw to it. The link watches it anew.
                let _ = self.reactor.forget(&*pending);
                if let Phase::Trying(proved) = std::mem::replace(&mut setup.phase, Phase::Connecting) {
                    self.link_device(setup, *proved, now);
                }
            }
            Err(error) => self.setup_failed(setup, error.into(), now),
        }
    }

    fn link_device(&mut self, mut setup: Setup, proved: Proved, now: Time) {
        let (Some(stream), Some(pending)) = (setup.stream.take(), self.devices.pending.remove(&setup.number))
        else {
            return;
        };
        let lane = super::raising::lane_of(&mut self.remotes, &setup, &proved);
        let link = self
            .reactor
            .forget(&stream)
            .and_then(|()| VerbsLink::new(pending, stream, setup.token, &mut self.reactor));
        match link {
            Ok(link) => self.linked(setup, Box::new(link), proved, lane, now),
            Err(error) => self.setup_failed(setup, error.into(), now),
        }
    }
}

impl Links {
    /// Those that this provider carries.
    pub fn carried_by(&self, provider: Provider) -> Vec<LinkId> {
        let is_meant = |linked: &Linked| linked.link().is_some_and(|link| link.provider() == provider);
        self.links.iter().filter(|(_, linked)| is_meant(linked)).map(|(at, _)| LinkId(at as u32)).collect()
    }

    /// For a link with a device: whether its operations are stuck; `None` if there are none.
    pub fn look_after(&mut self, id: LinkId) -> Option<bool> {
        let device = self.links.get_mut(id.0 as usize)?.link.as_mut()?.one_sided()?;
        device.is_busy().then(|| device.is_stuck())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rail_in_the_same_network_has_most_bits_in_common() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(common_bits(ip("10.77.0.1"), ip("10.77.0.2")), 30);
        assert!(common_bits(ip("10.78.0.1"), ip("10.77.0.2")) < 16);
        assert_eq!(common_bits(ip("fe80::1"), ip("fe80::1")), 128);
        assert_eq!(common_bits(ip("fe80::1"), ip("10.0.0.1")), 0);
    }
}
