//! A device's ports and the addresses they carry.
//!
//! Owns: nothing; all of it is what the kernel says at the moment of asking.
//! Invariant: an address that a queue pair is given is a RoCEv2 address, or a port of InfiniBand proper.
#![allow(unsafe_code)]

use super::ffi::{self, GidEntry, PortAttr};
use super::{Device, Error};
use std::net::{IpAddr, Ipv6Addr};

/// Addresses of one device that are looked at.
const GIDS_MAX: usize = 1024;

/// A port as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortStatus {
    /// Packets can go out and come in.
    pub active: bool,
    /// RoCE: the link below is Ethernet, and addresses are IP addresses.
    pub ethernet: bool,
    /// InfiniBand's local address; 0 on Ethernet.
    pub lid: u16,
    /// The largest payload of a packet that the link carries now.
    pub mtu: Mtu,
    /// Bytes of the longest message.
    pub message_length_max: u32,
}

/// The payload of one packet. The number is the wire's and the library's code: 1 is 256 bytes, 5 is 4096.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtu(u8);

impl Mtu {
    /// The least that every device has.
    pub const LEAST: Self = Self(1);

    /// From its code.
    ///
    /// # Errors
    /// None if no such code is defined.
    pub fn from_code(code: u8) -> Option<Self> {
        (1..=5).contains(&code).then_some(Self(code))
    }

    /// Its code, 1 to 5.
    pub fn code(self) -> u8 {
        self.0
    }

    /// Bytes.
    pub fn bytes(self) -> usize {
        128 << self.0
    }
}

/// What addresses of a port mean on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// InfiniBand.
    InfiniBand,
    /// RoCE version 1: Ethernet frames, not routable.
    RoceV1,
    /// RoCE version 2: UDP over the IP address that it is.
    RoceV2,
}

/// One address of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAddress {
    /// The port, from 1.
    pub port: u8,
    /// Its place in the port's table.
    pub index: u8,
    /// The address itself, in network order; an IPv4 address stands in it as `::ffff:a.b.c.d`.
    pub gid: [u8; 16],
    /// What it means.
    pub kind: AddressKind,
    /// Index of the network interface behind it; 0 if there is none.
    pub interface: u32,
}

impl PortAddress {
    /// The IP address that it is, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        (self.kind == AddressKind::RoceV2).then(|| Ipv6Addr::from(self.gid).to_canonical())
    }

    fn of(entry: &GidEntry) -> Option<Self> {
        let kind = match entry.gid_type {
            ffi::GID_TYPE_IB => AddressKind::InfiniBand,
            ffi::GID_TYPE_ROCE_V1 => AddressKind::RoceV1,
            ffi::GID_TYPE_ROCE_V2 => AddressKind::RoceV2,
            _ => return None,
        };
        Some(Self {
            port: u8::try_from(entry.port_num).ok()?,
            index: u8::try_from(entry.gid_index).ok()?,
            gid: entry.gid.0,
            kind,
            interface: entry.ndev_ifindex,
        })
    }
}

impl Device {
    /// A port as it is now. Ports are numbered from 1.
    ///
    /// # Errors
    /// `Device` if there is no such port, or the device is gone.
    pub fn port(&self, port: u8) -> Result<PortStatus, Error> {
        // SAFETY: numbers only, for which zeros are values.
        let mut attr: PortAttr = unsafe { std::mem::zeroed() };
        // SAFETY: an open context and a structure of the header's size (the function fills at most that much).
        let status = unsafe { (self.library().query_port)(self.context(), port, &mut attr) };
        self.outcome(status, "read the state of a port")?;
        Ok(PortStatus {
            active: attr.state == ffi::PORT_ACTIVE,
            ethernet: attr.link_layer == ffi::LINK_LAYER_ETHERNET,
            lid: attr.lid,
            mtu: u8::try_from(attr.active_mtu).ok().and_then(Mtu::from_code).unwrap_or(Mtu::LEAST),
            message_length_max: attr.max_msg_sz,
        })
    }

    /// All addresses of all ports.
    ///
    /// # Errors
    /// `Device` if the device is gone.
    pub fn addresses(&self) -> Result<Vec<PortAddress>, Error> {
        let empty =
            GidEntry { gid: ffi::Gid([0; 16]), gid_index: 0, port_num: 0, gid_type: 0, ndev_ifindex: 0 };
        let mut table = vec![empty; GIDS_MAX];
        // SAFETY: an open context, and room for as many entries as is said, each of the size that is said.
        let count = unsafe {
            (self.library().query_gid_table)(
                self.context(),
                table.as_mut_ptr(),
                table.len(),
                0,
                size_of::<GidEntry>(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            // The function returns the negative error's number.
            let number = i32::try_from(count).unwrap_or(-1);
            return self.outcome(number, "read its addresses").map(|()| Vec::new());
        };
        Ok(table.iter().take(count).filter_map(PortAddress::of).collect())
    }

    /// The RoCEv2 address of the device that is this IP address. Where several are, the first port's.
    ///
    /// # Errors
    /// `NoAddress` if no port carries it; `Device` if the device is gone.
    pub fn address_of(&self, ip: IpAddr) -> Result<PortAddress, Error> {
        let wanted = ip.to_canonical();
        let found = self.addresses()?.into_iter().find(|address| address.ip() == Some(wanted));
        found.ok_or_else(|| Error::NoAddress { device: self.name().to_owned(), address: ip })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn entry(gid: Ipv6Addr, kind: u32) -> GidEntry {
        GidEntry { gid: ffi::Gid(gid.octets()), gid_index: 3, port_num: 1, gid_type: kind, ndev_ifindex: 7 }
    }

    #[test]
    fn an_ipv4_address_is_found_in_its_mapped_form() {
        let mapped = Ipv4Addr::new(10, 77, 0, 1).to_ipv6_mapped();
        let address = PortAddress::of(&entry(mapped, ffi::GID_TYPE_ROCE_V2)).expect("a known kind");
        assert_eq!(address.ip(), Some(IpAddr::from([10, 77, 0, 1])));
        assert_eq!((address.port, address.index, address.interface), (1, 3, 7));
    }

    #[test]
    fn only_roce_v2_addresses_are_ip_addresses() {
        let address = PortAddress::of(&entry(Ipv6Addr::LOCALHOST, ffi::GID_TYPE_ROCE_V1));
        assert_eq!(address.and_then(|address| address.ip()), None);
        assert_eq!(PortAddress::of(&entry(Ipv6Addr::LOCALHOST, 9)), None);
    }

    #[test]
    fn an_mtu_knows_its_bytes() {
        let bytes: Vec<_> = (0..=6).map(|code| Mtu::from_code(code).map(Mtu::bytes)).collect();
        assert_eq!(bytes, [None, Some(256), Some(512), Some(1024), Some(2048), Some(4096), None]);
    }
}
