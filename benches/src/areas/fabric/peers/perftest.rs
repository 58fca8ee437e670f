//! perftest's programs, a server and a client on a device each: the least that RDMA verbs cost.

use crate::Error;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv6Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A device and its address that an end uses.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The index of the address (gid).
    pub gid: u32,
    /// The address.
    pub address: IpAddr,
}

/// The devices of this machine that have an IP address on their first port, by name.
pub fn devices() -> Vec<Device> {
    let entries = std::fs::read_dir("/sys/class/infiniband").into_iter().flatten().flatten();
    let mut devices: Vec<Device> =
        entries.filter_map(|entry| found(&entry.path(), entry.file_name().to_str()?)).collect();
    devices.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    devices
}

/// Its first IPv4 address for RoCE version 2, else any that others can reach.
fn found(path: &Path, name: &str) -> Option<Device> {
    let port = path.join("ports/1");
    let told = |part: &str, gid: u32| std::fs::read_to_string(port.join(part).join(gid.to_string())).ok();
    let table = (0..256).map_while(|gid| Some((gid, told("gids", gid)?)));
    let usable = table.filter_map(|(gid, text)| {
        let is_routed = told("gid_attrs/types", gid)?.trim() == "RoCE v2";
        let address = text.trim().parse::<Ipv6Addr>().ok()?.to_canonical();
        let is_own = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        (is_routed && !is_own).then(|| Device { name: name.to_owned(), gid, address })
    });
    usable.min_by_key(|device| (device.address.is_ipv6(), device.gid))
}

/// One of perftest's programs, and what is read of its report.
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// Its words, but for those that name the device.
    pub words: &'static str,
    /// The column.
    pub column: &'static str,
    /// What one of ours is in terms of it.
    pub times: f64,
}

impl Program {
    /// The command lines of both ends, for the reader.
    pub fn shown(&self, sleeps: bool, ends: &[Device; 2]) -> String {
        let [server, client] = ends.each_ref().map(|device| self.command(sleeps, device).join(" "));
        format!("{server}; {client} 127.0.0.1")
    }

    fn command(&self, sleeps: bool, device: &Device) -> Vec<String> {
        let mut words = vec![self.name.to_owned()];
        words.extend(self.words.split_whitespace().map(str::to_owned));
        words.extend(["-F", "-d", &device.name, "-x", &device.gid.to_string()].map(str::to_owned));
        // Who measures how fast bytes go looks without pause whatever one says.
        if sleeps && self.name.ends_with("_lat") {
            words.push("-e".to_owned());
        }
        words
    }

    /// Runs it once between two devices: the column, as one of ours is counted.
    pub fn once(&self, sleeps: bool, ends: &[Device; 2]) -> Result<f64, Error> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let command = |device: &Device| {
            // Its output comes by lines, so that it is seen when the server listens.
            let mut command = Command::new("stdbuf");
            command.arg("-oL").args(self.command(sleeps, device)).args(["-p", &port]).stdin(Stdio::null());
            command
        };
        let mut server = Server::start(command(&ends[0]))?;
        let client = command(&ends[1]).arg("127.0.0.1").output()?;
        server.0.wait()?;
        let report = String::from_utf8_lossy(&client.stdout);
        let said = String::from_utf8_lossy(&client.stderr);
        let why = || format!("{}: no {}: {report}{said}", self.name, self.column);
        Ok(read(&report, self.column).ok_or_else(why)? * self.times)
    }
}

/// The last value of a column, which is named by the line that begins with `#bytes`.
fn read(report: &str, column: &str) -> Option<f64> {
    let lines: Vec<&str> = report.lines().map(str::trim).collect();
    let title = lines.iter().rposition(|line| line.starts_with("#bytes"))?;
    // Units stand in brackets behind the names; `99% percentile[usec]` holds a space too.
    let titles = lines[title].replace("% percentile", "%");
    let place = titles.split_whitespace().position(|title| title.starts_with(column))?;
    // `BW peak[MB/sec]` and `BW average[MB/sec]` are two words each.
    let before = titles.split_whitespace().take(place).filter(|title| *title == "BW").count();
    lines.get(title + 1)?.split_whitespace().nth(place - before)?.parse().ok()
}

/// A server for one client; gone at the end.
struct Server(Child);

impl Server {
    fn start(mut command: Command) -> Result<Server, Error> {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{command:?} (Debian package perftest): {error}"))?;
        let output = child.stdout.take().ok_or("no output")?;
        let server = Server(child);
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        if !lines.any(|line| line.contains("Waiting for client")) {
            return Err(format!("{command:?} ended").into());
        }
        std::thread::spawn(move || lines.for_each(drop));
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_of_both_kinds_of_report_are_found() {
        let latency = "\
---
 #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]    t_stdev[usec]   99% percentile[usec]   99.9% percentile[usec]
 64      1000          360.10         900.50       370.25             372.00         11.00           420.75                 800.00
---";
        assert_eq!(read(latency, "t_typical"), Some(370.25));
        assert_eq!(read(latency, "99%"), Some(420.75));
        let bandwidth = "\
 #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]
 1048576    100              61.20              60.95              0.000061";
        assert_eq!(read(bandwidth, "average"), Some(60.95));
        assert_eq!(read("Couldn't connect", "average"), None);
    }
}
