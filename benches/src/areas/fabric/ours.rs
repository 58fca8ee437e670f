//! Our own sides: an endpoint that serves, and one that drives.
//!
//! Invariant: the driver's clock starts when the links that are to be measured carry and its buffers are warm, as the peers' are.

mod calling;
mod crowd;
mod moving;
mod siege;

use super::side::serving;
use crate::Error;
use base::NodeId;
use fabric::session::Lane;
use fabric::{
    ClusterKey, Config, Endpoint, Message, Peer, Priority, Provider, RailState, Region, RemoteKey, Reply,
    Rights, Role, Security, Service, ServiceId, Wait,
};
use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of a call's message.
const BYTES: usize = 64;
const ECHO: ServiceId = ServiceId(100);
/// No call and no transfer takes so long.
const WITHIN: Duration = Duration::from_secs(30);
/// The server's region, of which a driver uses as much as it likes.
const REGION: usize = 64 * MIB;
const MIB: usize = 1 << 20;

/// `ours.NAME PROVIDER[@ADDRESS] SECURITY WAIT ..`.
pub fn run(name: &str, words: &[&str]) -> Result<(), Error> {
    let [provider, security, wait, rest @ ..] = words else { return Err("which setting?".into()) };
    let setting = Setting::parse(provider, security, wait)?;
    match (name, rest) {
        ("ours.serve", []) => serve(&setting),
        ("ours.call", [count, outstanding, batch, at, _]) => {
            calling::calls(&setting, at, count.parse()?, outstanding.parse()?, batch.parse()?)
        }
        ("ours.beside", [count, streams, at, key]) => {
            moving::beside(&setting, at, key, count.parse()?, streams.parse()?)
        }
        ("ours.besieged", [count, rate, at, _]) => {
            siege::besieged(&setting, at, count.parse()?, rate.parse()?)
        }
        ("ours.write" | "ours.read", [mib, outstanding, buffers, at, key]) => {
            let way = if name == "ours.write" { moving::Way::Write } else { moving::Way::Read };
            moving::stream(&setting, at, key, way, [mib, outstanding, buffers])
        }
        ("ours.read8", [count, at, key]) => moving::read8(&setting, at, key, count.parse()?),
        ("ours.hub", []) => crowd::hub(&setting),
        ("ours.crowd", [peers, lanes, at]) => crowd::crowd(&setting, at, peers.parse()?, lanes.parse()?),
        _ => Err(format!("no side {name} {rest:?}").into()),
    }
}

/// How both ends of a figure are set up.
#[derive(Clone, Debug)]
struct Setting {
    provider: Provider,
    /// Where this side listens: a device carries only what is set up at its own address.
    address: IpAddr,
    security: Security,
    wait: Wait,
}

impl Setting {
    fn parse(provider: &str, security: &str, wait: &str) -> Result<Setting, Error> {
        let (provider, address) = provider.split_once('@').unwrap_or((provider, "127.0.0.1"));
        Ok(Setting {
            address: address.parse()?,
            provider: match provider {
                "tcp" => Provider::Tcp,
                "shm" => Provider::Shm,
                "verbs" => Provider::Verbs,
                _ => return Err(format!("no provider {provider}").into()),
            },
            security: match security {
                "encrypted" => Security::Encrypted,
                "authenticated" => Security::Authenticated,
                _ => return Err(format!("no security {security}").into()),
            },
            wait: match wait {
                "poll" => Wait::Poll,
                "sleep" => Wait::Sleep,
                _ => return Err(format!("no wait {wait}").into()),
            },
        })
    }

    /// The endpoint of this node. The others are found over TCP, whatever carries then.
    fn config(&self, node: u32) -> Result<Config, Error> {
        let key = ClusterKey::from_bytes([7; 32]);
        let mut config = Config::new(peer(node), SocketAddr::new(self.address, 0), key, "bench");
        config.security = self.security;
        config.providers = vec![Provider::Tcp];
        if self.provider != Provider::Tcp {
            config.providers.insert(0, self.provider);
        }
        if self.provider == Provider::Shm {
            // A side has a directory of its own, which goes with it.
            config.shm = Some(std::env::current_dir()?);
        }
        Ok(config)
    }
}

struct Echo;

impl Service for Echo {
    fn handle(self: Arc<Self>, _from: Peer, request: Message) -> Reply {
        Reply::Now(request)
    }
}

fn serve(setting: &Setting) -> Result<(), Error> {
    let endpoint = Endpoint::driven(setting.config(1)?)?;
    endpoint.serve(ECHO, Arc::new(Echo));
    let region = endpoint.register(REGION)?;
    let key: String =
        region.grant(peer(2), Rights::ALL)?.encode().iter().map(|byte| format!("{byte:02x}")).collect();
    serving(&format!("{} {key}", endpoint.address()))?;
    endpoint.block_on(setting.wait, pending())
}

/// The driver's end: an endpoint whose links to the server are up.
struct Driver {
    endpoint: Endpoint,
    wait: Wait,
}

impl Driver {
    /// Connects, and waits until the wanted provider carries the calls of both lanes.
    fn connect(setting: &Setting, at: &str) -> Result<Driver, Error> {
        let endpoint = Endpoint::driven(setting.config(2)?)?;
        endpoint.set_address(peer(1), at.parse()?);
        let driver = Driver { endpoint, wait: setting.wait };
        let begun = Instant::now();
        while !driver.is_carried_by(setting.provider) {
            if begun.elapsed() > Duration::from_secs(10) {
                let links = driver.endpoint.status().peers.into_iter().flat_map(|peer| peer.links);
                let links: Vec<String> =
                    links.map(|link| format!("{} {:?} {:?}", link.provider, link.lane, link.state)).collect();
                return Err(format!("{} does not carry: {}", setting.provider, links.join(", ")).into());
            }
            driver.run(async |endpoint| {
                for priority in [Priority::Control, Priority::Data].repeat(16) {
                    calling::call(endpoint, priority).await?;
                }
                Ok(())
            })?;
        }
        Ok(driver)
    }

    /// Waits for what `work` does with the endpoint.
    fn run<T>(&self, work: impl AsyncFnOnce(&Endpoint) -> Result<T, Error>) -> Result<T, Error> {
        self.endpoint.block_on(self.wait, work(&self.endpoint))
    }

    fn region(&self, length: usize) -> Result<Region, Error> {
        Ok(self.endpoint.register(length)?)
    }

    fn is_carried_by(&self, provider: Provider) -> bool {
        let status = self.endpoint.status();
        let links: Vec<_> = status.peers.iter().flat_map(|peer| &peer.links).collect();
        [Lane::Urgent, Lane::Bulk].into_iter().all(|lane| {
            let mut of_lane = links.iter().filter(|link| link.lane == lane);
            of_lane.any(|link| link.state == RailState::Calls && link.provider == provider)
        })
    }
}

/// The key that the server told.
fn remote_key(hex: &str) -> Result<RemoteKey, Error> {
    let digits = |k: usize| hex.get(2 * k..2 * k + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = (0..hex.len() / 2).map(digits).collect();
    let bytes: Option<_> = bytes.and_then(|bytes| bytes.try_into().ok());
    Ok(RemoteKey::decode(&bytes.ok_or("the server told no key")?)?)
}

fn peer(node: u32) -> Peer {
    Peer { node: NodeId(node), role: Role::Control }
}
