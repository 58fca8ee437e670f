//! The grounds that tests stand on: what carries the links of a world, and who drives its endpoints.
//!
//! Invariant: a ground that this machine does not have is named, and its tests are skipped with the reason.

use fabric::verbs::Device;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What carries the links of a world, and who drives its endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    Tcp,
    TcpAuthenticated,
    TcpIpv6,
    /// TCP, moved by io_uring; by epoll where that is forbidden.
    TcpUring,
    Shm,
    /// RDMA devices.
    Verbs,
    /// RDMA devices; a thread of its own drives each endpoint.
    DrivenVerbs,
    /// TCP; a thread of its own drives each endpoint.
    Driven,
    /// Shared memory; a thread of its own drives each endpoint.
    DrivenShm,
}

impl Ground {
    pub fn named(name: &str) -> Ground {
        match name {
            "tcp" => Ground::Tcp,
            "tcp_authenticated" => Ground::TcpAuthenticated,
            "tcp_ipv6" => Ground::TcpIpv6,
            "tcp_uring" => Ground::TcpUring,
            "shm" => Ground::Shm,
            "verbs" => Ground::Verbs,
            "driven_verbs" => Ground::DrivenVerbs,
            "driven" => Ground::Driven,
            "driven_shm" => Ground::DrivenShm,
            other => panic!("there is no ground {other}"),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Ground::Tcp => "tcp",
            Ground::TcpAuthenticated => "tcp_authenticated",
            Ground::TcpIpv6 => "tcp_ipv6",
            Ground::TcpUring => "tcp_uring",
            Ground::Shm => "shm",
            Ground::Verbs => "verbs",
            Ground::DrivenVerbs => "driven_verbs",
            Ground::Driven => "driven",
            Ground::DrivenShm => "driven_shm",
        }
    }

    pub fn is_shm(self) -> bool {
        matches!(self, Ground::Shm | Ground::DrivenShm)
    }

    pub fn is_driven(self) -> bool {
        matches!(self, Ground::Driven | Ground::DrivenShm | Ground::DrivenVerbs)
    }

    pub fn is_verbs(self) -> bool {
        matches!(self, Ground::Verbs | Ground::DrivenVerbs)
    }

    /// Where the endpoint of a node listens.
    pub fn listen(self, node: u32) -> SocketAddr {
        match self {
            Ground::Verbs | Ground::DrivenVerbs => {
                let all = rdma_addresses();
                let ip = all[(node as usize).saturating_sub(1) % all.len()];
                SocketAddr::new(ip, 0)
            }
            Ground::TcpIpv6 => SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0)),
            _ => SocketAddr::from(([127, 0, 0, 1], 0)),
        }
    }

    /// Why this machine cannot carry it.
    pub fn missing(self) -> Option<&'static str> {
        if self.is_verbs() && rdma_addresses().is_empty() {
            assert!(std::env::var_os("SSI_VERBS_VM").is_none(), "the virtual machine has RDMA devices");
            return Some("this machine has no RDMA device");
        }
        let bound = std::net::TcpListener::bind(self.listen(1));
        bound.is_err().then_some("this machine has no such loopback address")
    }
}

/// The addresses of this machine's RDMA devices in one network.
fn rdma_addresses() -> Vec<IpAddr> {
    let names = Device::names().unwrap_or_default();
    let devices: Vec<_> = names.iter().filter_map(|name| Device::open(name).ok()).collect();
    let all = devices.iter().filter_map(|device| device.addresses().ok()).flatten();
    let mut ips: Vec<Ipv4Addr> = all
        .filter_map(|address| match address.ip() {
            Some(IpAddr::V4(ip)) => Some(ip),
            _ => None,
        })
        .collect();
    ips.sort_unstable();
    ips.dedup();
    let network = ips.first().map(|ip| ip.to_bits() >> 8);
    ips.into_iter().filter(|ip| Some(ip.to_bits() >> 8) == network).map(IpAddr::V4).collect()
}
