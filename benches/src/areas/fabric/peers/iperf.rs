//! iperf3 itself, one stream on the loopback, beside our stream that touches its data.

use crate::Error;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

/// The client's words, for the reader of the figures.
pub const SHOWN: &str = "iperf3 -s -1 -A 0; iperf3 -c 127.0.0.1 -t 1 -A 1";

/// MiB a second of one run of a second.
pub fn once() -> Result<f64, Error> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let mut server = Server::start(&port)?;
    let client = Command::new("iperf3")
        .args(["-c", "127.0.0.1", "-p", &port, "-t", "1", "-A", "1", "-J"])
        .stdin(Stdio::null())
        .output()?;
    server.0.wait()?;
    let report: serde_json::Value = serde_json::from_slice(&client.stdout)?;
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
    let why = || format!("iperf3: {}", report["error"].as_str().unwrap_or("no figure in its report"));
    Ok(bits.ok_or_else(why)? / 8.0 / f64::from(1 << 20))
}

/// A server for one client; gone at the end.
struct Server(Child);

impl Server {
    fn start(port: &str) -> Result<Server, Error> {
        let mut command = Command::new("iperf3");
        command.args(["-s", "-1", "-p", port, "-A", "0", "--forceflush"]);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("iperf3 (Debian package iperf3): {error}"))?;
        let output = child.stdout.take().ok_or("iperf3 without output")?;
        let server = Server(child);
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        if !lines.any(|line| line.contains("listening")) {
            return Err("the server of iperf3 ended".into());
        }
        // What else it says is not wanted, but a closed pipe would end it.
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
