//! The local cluster's network: a bridge in ssi-local's namespace, a veth pair to each node. Made with ip(8).

use crate::error::Error;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

/// The address of node `k` of a local cluster: it exists in the cluster's own namespaces only.
pub fn address(k: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, k as u8))
}

/// The bridge, in the current namespace.
///
/// # Errors
/// ip(8) is missing or refuses.
pub fn make_bridge() -> Result<(), Error> {
    ip("link set lo up\nlink add br0 type bridge\nlink set br0 up\n")
}

/// A cable from the bridge to the network namespace of process `pid`, where it ends as `eth0`.
///
/// # Errors
/// ip(8) refuses.
pub fn plug_in(k: u32, pid: u32) -> Result<(), Error> {
    ip(&format!(
        "link add v{k} type veth peer name eth0 netns {pid}\nlink set v{k} master br0\nlink set v{k} up\n"
    ))
}

/// The node's end of the cable, in the node's namespace.
///
/// # Errors
/// ip(8) refuses.
pub fn set_address(k: u32) -> Result<(), Error> {
    ip(&format!("link set lo up\naddr add {}/24 dev eth0\nlink set eth0 up\n", address(k)))
}

/// Cuts (`up` false) or mends the cable of node `k`; in ssi-local's namespace.
///
/// # Errors
/// ip(8) refuses.
pub fn set_link(k: u32, up: bool) -> Result<(), Error> {
    ip(&format!("link set v{k} {}\n", if up { "up" } else { "down" }))
}

/// Runs a batch of ip(8) commands.
fn ip(batch: &str) -> Result<(), Error> {
    let failed = || Error::step("run ip(8) (Debian package iproute2)");
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed())?;
    child.stdin.take().expect("piped").write_all(batch.as_bytes()).map_err(failed())?;
    let output = child.wait_with_output().map_err(failed())?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Said(format!(
        "ip: {}(batch: {})",
        String::from_utf8_lossy(&output.stderr),
        batch.replace('\n', "; ")
    )))
}
