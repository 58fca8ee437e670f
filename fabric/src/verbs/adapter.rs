//! One RDMA device at one of its addresses, as an endpoint uses it.
//!
//! Owns: the open device, its protection domain, the pools of receive buffers, the registrations that it hangs on memory, and which of
//! its connections the device has declared failed. Invariant: memory that peers may reach is known to the device only as an exposed
//! attachment, one for each set of rights, so that taking those away is all it takes to conceal it.
//!
//! Whom a device key was given to is not known to the device: any connected peer that knew it could use it. So it is told to one peer only,
//! over a channel that is authenticated and sealed, and closed for every other name (`RemoteKey::turned`).

use super::attached::Attached;
use super::memory::{Access, ProtectionDomain};
use super::pool::{Pools, Promise};
use super::port::PortAddress;
use super::{Device, DeviceEvent, Error};
use crate::provider::DeviceAddress;
use crate::region::{Attachment, DeviceUse, Memory, Rights};
use parking_lot::Mutex;
use std::any::Any;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};

/// The next adapter's number in this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A device at one address.
pub struct Adapter {
    device: Arc<Device>,
    domain: Arc<ProtectionDomain>,
    ip: IpAddr,
    port: u8,
    number: u32,
    pools: Pools,
    /// Its connections, by the number of their queue pair, and whether they have failed.
    connections: Mutex<Vec<(u32, Weak<AtomicBool>)>>,
    dead: AtomicBool,
}

/// What a device's events come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Some connections have failed: their links know it at the next look.
    pub failed: bool,
    /// The port carries packets again.
    pub up: bool,
}

impl Adapter {
    /// The device of this machine that has this address, if there is one.
    ///
    /// # Errors
    /// `Unavailable` if there is no library or kernel support; `Device` if a device does not open.
    pub fn open(ip: IpAddr) -> Result<Option<Arc<Adapter>>, Error> {
        for name in Device::names()? {
            let device = Device::open(&name)?;
            let address = match device.address_of(ip) {
                Ok(address) => address,
                Err(Error::NoAddress { .. }) => continue,
                Err(error) => return Err(error),
            };
            let domain = ProtectionDomain::create(&device)?;
            return Ok(Some(Arc::new(Adapter {
                device,
                domain,
                ip,
                port: address.port,
                number: NEXT.fetch_add(1, Relaxed),
                pools: Pools::default(),
                connections: Mutex::default(),
                dead: AtomicBool::new(false),
            })));
        }
        Ok(None)
    }

    /// The address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The device.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    pub(super) fn domain(&self) -> &Arc<ProtectionDomain> {
        &self.domain
    }

    /// Where new connections begin: the address as the device has it now.
    ///
    /// # Errors
    /// `NoAddress` if it has it no more, `Unavailable` if its port is down.
    pub(super) fn address(&self) -> Result<PortAddress, Error> {
        let address = self.device.address_of(self.ip)?;
        if self.dead.load(Relaxed) || !self.device.port(address.port)?.active {
            let why = format!("the port of {} with the address {} is down", self.device.name(), self.ip);
            return Err(Error::Unavailable { why });
        }
        Ok(address)
    }

    pub(super) fn promise(&self, slots: u32) -> Result<Promise, Error> {
        self.pools.promise(&self.domain, slots)
    }

    /// Remembers a connection: what the device says of it is found in the flag.
    pub(super) fn enter(&self, queue_pair: u32) -> Arc<AtomicBool> {
        let failed = Arc::new(AtomicBool::new(false));
        let mut connections = self.connections.lock();
        connections.retain(|(_, other)| other.strong_count() > 0);
        connections.push((queue_pair, Arc::downgrade(&failed)));
        failed
    }

    /// Takes the events that wait.
    ///
    /// # Errors
    /// `Device` if the device is gone.
    pub fn news(&self) -> Result<News, Error> {
        let mut news = News::default();
        while let Some(event) = self.device.next_event()? {
            tracing::debug!(device = self.device.name(), ?event, "an RDMA device tells");
            match event {
                DeviceEvent::PortUp { port } => news.up |= port == self.port,
                DeviceEvent::PortDown { port } if port == self.port => {
                    tracing::warn!(device = self.device.name(), address = %self.ip, "an RDMA port is down");
                    news.failed |= self.fail(|_| true);
                }
                DeviceEvent::QueuePairFailed { queue_pair }
                | DeviceEvent::QueuePairDrained { queue_pair } => {
                    news.failed |= self.fail(|other| other == queue_pair);
                }
                DeviceEvent::Fatal => {
                    tracing::error!(device = self.device.name(), "an RDMA device has failed");
                    self.dead.store(true, Relaxed);
                    news.failed |= self.fail(|_| true);
                }
                DeviceEvent::CompletionQueueFailed | DeviceEvent::SharedReceiveQueueFailed => {
                    news.failed |= self.fail(|_| true);
                }
                DeviceEvent::PortDown { .. }
                | DeviceEvent::AddressesChanged { .. }
                | DeviceEvent::Other { .. } => {}
            }
        }
        Ok(news)
    }

    fn fail(&self, is_meant: impl Fn(u32) -> bool) -> bool {
        let connections = self.connections.lock();
        let meant = connections.iter().filter(|(number, _)| is_meant(*number));
        let failed: Vec<_> = meant.filter_map(|(_, failed)| failed.upgrade()).collect();
        failed.iter().for_each(|failed| failed.store(true, Relaxed));
        !failed.is_empty()
    }

    /// Lets peers reach the first bytes of a memory in these ways, until it is concealed: where it begins for them.
    ///
    /// # Errors
    /// `Device` if the device takes no more.
    pub fn expose(&self, memory: &Arc<Memory>, length: u64, rights: Rights) -> Result<DeviceAddress, Error> {
        let access = Access { read: rights.read, write: rights.write, ..Access::LOCAL };
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(memory.length());
        let (address, rkey) = self.attached(memory, length, access, true)?.place();
        Ok(DeviceAddress { address, rkey })
    }

    /// What requests of this end need of a memory.
    pub(super) fn known(&self, memory: &Arc<Memory>) -> Result<Arc<Attached>, Error> {
        self.attached(memory, memory.length(), Access::LOCAL, false)
    }

    fn attached(
        &self,
        memory: &Arc<Memory>,
        length: usize,
        access: Access,
        exposed: bool,
    ) -> Result<Arc<Attached>, Error> {
        // A device counts once for each set of rights.
        let ways = u32::from(access.read) | u32::from(access.write) << 1;
        let which = DeviceUse { device: self.number << 2 | ways, exposed };
        if let Some(attached) = memory.attached(which) {
            let attached: Arc<dyn Any + Send + Sync> = attached;
            // One that could not be ended must not be used again, though it may still be there.
            return attached
                .downcast::<Attached>()
                .ok()
                .filter(|known| known.is_known())
                .ok_or(Error::Revoked);
        }
        let attached = Attached::register(&self.domain, memory, length, access)?;
        if !memory.attach(which, attached.clone()) {
            if !attached.end() {
                // The device may still know it: it must never be unmapped.
                std::mem::forget(memory.clone());
            }
            return Err(Error::TooMuch { what: "registrations of one memory", value: 1, limit: 0 });
        }
        Ok(attached)
    }
}

impl AsFd for Adapter {
    /// Readable when the device tells something.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}
