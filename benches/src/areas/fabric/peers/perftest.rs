//! perftest's programs, a server and a client on one device: the least that RDMA verbs cost.

use crate::Error;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

/// Which device and which of its addresses both ends use.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The index of the address (gid).
    pub gid: String,
}

/// The first device of this machine, if it has one; on RoCE its address 1 is the one of its IPv4 address.
pub fn first_device() -> Option<Device> {
    let mut names: Vec<String> = std::fs::read_dir("/sys/class/infiniband")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    Some(Device { name: names.into_iter().next()?, gid: "1".to_owned() })
}

/// Runs `program` over `iterations` operations of `bytes` bytes: the column of its report that is called `column`.
pub fn once(
    program: &str,
    bytes: usize,
    iterations: usize,
    device: &Device,
    column: &str,
) -> Result<f64, Error> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let command = || {
        // Its output comes by lines, so that it is seen when the server listens.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", program, "-F", "-d", &device.name, "-x", &device.gid, "-p", &port]);
        command.args(["-s", &bytes.to_string(), "-n", &iterations.to_string()]).stdin(Stdio::null());
        command
    };
    let mut server = Server::start(command())?;
    let client = command().arg("127.0.0.1").output()?;
    server.0.wait()?;
    let report = String::from_utf8_lossy(&client.stdout);
    let why = || format!("{program}: no {column}: {report}{}", String::from_utf8_lossy(&client.stderr));
    Ok(read(&report, column).ok_or_else(why)?)
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
