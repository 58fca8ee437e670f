//! What happens inside the machine: its first file system, its network, the parts of a job and their report.
//!
//! Invariant: whatever a part prints, a line of ours is told from it by its first word, and a part that was not told to
//! have ended has no exit code.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::cpio::Archive;
use crate::error::Error;

const INIT: &str = include_str!("init.sh");
/// How a line of ours begins.
const MARK: &str = "ssi-vm: ";
/// Rails a node: its name, and the second byte of its addresses.
const RAILS: [(char, u32); 2] = [('a', 77), ('b', 78)];
/// What fits a packet of 4096 bytes with all its headers.
const MTU: u32 = 4_200;

/// One command of a job.
#[derive(Debug, Clone)]
pub struct Part {
    /// What it shows.
    pub title: String,
    /// A line for the host's shell.
    pub line: String,
    /// How long it may take.
    pub limit: Duration,
}

/// What became of a part.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What it wrote to both its outputs.
    pub text: String,
    /// Its exit code (137: its time was over). `None`: the machine ended before it did.
    pub code: Option<i32>,
}

/// The first file system: programs and modules of `kernel`, and the job.
pub fn first_files(kernel: &Path, nodes: u32, parts: &[Part], kept: &[&Path]) -> Result<Vec<u8>, Error> {
    let read = |path: &Path| fs::read(path).map_err(Error::io(format!("read {}", path.display())));
    let mut archive = Archive::new();
    for directory in ["bin", "dev", "host", "job", "modules", "proc", "sys"] {
        archive.directory(directory);
    }
    archive.file("init", INIT.as_bytes());
    archive.file("bin/busybox", &read(&kernel.join("busybox"))?);
    let order = read(&kernel.join("order"))?;
    for module in String::from_utf8_lossy(&order).lines() {
        archive.file(&format!("modules/{module}"), &read(&kernel.join(module))?);
    }
    archive.file("modules/order", &order);
    archive.file("job/nodes", format!("{nodes}\n").as_bytes());
    archive.file("job/network", network(nodes).as_bytes());
    archive.file("job/devices", devices(nodes).as_bytes());
    let kept: String = kept.iter().map(|path| format!("{}\n", path.display())).collect();
    archive.file("job/kept", kept.as_bytes());
    let mut list = String::new();
    for (at, part) in parts.iter().enumerate() {
        let _ = writeln!(list, "{at} {}", part.limit.as_secs().max(1));
        archive.file(&format!("job/part{at}"), part.line.as_bytes());
    }
    archive.file("job/parts", list.as_bytes());
    Ok(archive.finish())
}

/// For `ip -batch`: a switch a rail, and a cable from it to each node.
///
/// All nodes live in one network namespace, because rxe knows no other. A packet to an address of this machine would
/// never leave it: so what is bound to a device (and only rxe binds) looks its route up in that device's table, before
/// the table of local addresses.
fn network(nodes: u32) -> String {
    let mut batch = String::from("link set lo up\nrule add pref 100 lookup local\nrule del pref 0\n");
    for (rail, net) in RAILS {
        let _ = writeln!(batch, "link add sw{rail} type bridge\nlink set sw{rail} up");
        for node in 1..=nodes {
            let (device, table) = (format!("e{node}{rail}"), net * 10 + node);
            let _ = writeln!(
                batch,
                "link add {device} address {mac} mtu {MTU} type veth peer name p{node}{rail} mtu {MTU}\n\
                 link set p{node}{rail} master sw{rail} up\n\
                 addr add 10.{net}.0.{node}/24 dev {device}\n\
                 link set {device} up\n\
                 route add 10.{net}.0.0/24 dev {device} table {table}\n\
                 rule add pref {pref} oif {device} ipproto udp lookup {table}",
                mac = hardware_address(net, node),
                pref = net - 70 + node * 2,
            );
            for other in (1..=nodes).filter(|other| *other != node) {
                let mac = hardware_address(net, other);
                let _ =
                    writeln!(batch, "neigh add 10.{net}.0.{other} lladdr {mac} dev {device} nud permanent");
            }
        }
    }
    batch
}

fn hardware_address(net: u32, node: u32) -> String {
    format!("02:00:00:00:{net}:{node:02}")
}

/// For `rdma -b`: a device for each cable.
fn devices(nodes: u32) -> String {
    let cables = RAILS.iter().flat_map(|(rail, _)| (1..=nodes).map(move |node| format!("{node}{rail}")));
    cables.map(|cable| format!("link add rxe{cable} type rxe netdev e{cable}\n")).collect()
}

/// A word as the shell reads it back.
pub fn quoted(word: impl AsRef<OsStr>) -> String {
    format!("'{}'", word.as_ref().to_string_lossy().replace('\'', r"'\''"))
}

/// Makes the outcomes of a job out of the lines that come from it.
pub struct Report {
    outcomes: Vec<Outcome>,
    current: Option<usize>,
    /// What was printed outside of every part.
    pub stray: String,
}

impl Report {
    /// Of so many parts.
    pub fn new(parts: usize) -> Self {
        Self { outcomes: vec![Outcome::default(); parts], current: None, stray: String::new() }
    }

    /// Takes one line in. Gives it back with its part if the part printed it.
    pub fn line<'a>(&mut self, line: &'a str) -> Option<(usize, &'a str)> {
        if let Some(ours) = line.strip_prefix(MARK) {
            self.note(ours);
            return None;
        }
        let text = match self.current {
            Some(at) => &mut self.outcomes[at].text,
            None => &mut self.stray,
        };
        text.push_str(line);
        text.push('\n');
        self.current.map(|at| (at, line))
    }

    fn note(&mut self, ours: &str) {
        let words: Vec<&str> = ours.split_whitespace().collect();
        let part = words.get(1).and_then(|at| at.parse().ok()).filter(|at| *at < self.outcomes.len());
        match (words.first().copied(), part) {
            (Some("begin"), part) => self.current = part,
            (Some("end"), Some(part)) => {
                let outcome = &mut self.outcomes[part];
                outcome.code = words.get(2).and_then(|code| code.parse().ok());
                // The line end that stands before our line in any case.
                if outcome.text.ends_with("\n\n") || outcome.text == "\n" {
                    outcome.text.pop();
                }
                self.current = None;
            }
            _ => {}
        }
    }

    /// What became of every part.
    pub fn outcomes(self) -> Vec<Outcome> {
        self.outcomes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(parts: usize, text: &str) -> Vec<Outcome> {
        let mut report = Report::new(parts);
        text.lines().for_each(|line| {
            report.line(line);
        });
        report.outcomes()
    }

    #[test]
    fn outputs_and_exit_codes_find_their_parts() {
        let text = "qemu: a warning\nssi-vm: begin 0\none\ntwo\n\nssi-vm: end 0 0\nssi-vm: begin 1\nhalf\nssi-vm: end 1 7\n";
        let outcomes = report(2, text);
        assert_eq!(outcomes[0], Outcome { text: "one\ntwo\n".into(), code: Some(0) });
        assert_eq!(outcomes[1], Outcome { text: "half\n".into(), code: Some(7) });
    }

    #[test]
    fn a_part_that_did_not_end_has_no_code() {
        let outcomes = report(2, "ssi-vm: begin 0\nxyz\n");
        assert_eq!(outcomes[0], Outcome { text: "xyz\n".into(), code: None });
        assert_eq!(outcomes[1].code, None);
        assert_eq!(report(1, "ssi-vm: end 9 0\nssi-vm: begin\nssi-vm:\n")[0].code, None);
    }

    #[test]
    fn what_a_part_prints_is_passed_on_with_its_part() {
        let mut report = Report::new(1);
        assert_eq!(report.line("early"), None);
        assert_eq!(report.line("ssi-vm: begin 0"), None);
        assert_eq!(report.line("text"), Some((0, "text")));
        assert_eq!(report.stray, "early\n");
    }

    #[test]
    fn every_cable_has_its_own_address_table_and_device() {
        let (network, devices) = (network(3), devices(3));
        assert_eq!(devices.lines().count(), 6);
        assert!(devices.contains("link add rxe3b type rxe netdev e3b\n"), "{devices}");
        for part in ["addr add 10.78.0.3/24 dev e3b", "oif e3b ipproto udp lookup 783", "table 783"] {
            assert!(network.contains(part), "{part} in {network}");
        }
        let rules: Vec<&str> = network.lines().filter(|line| line.starts_with("rule add")).collect();
        let preferences: std::collections::BTreeSet<&str> =
            rules.iter().filter_map(|rule| rule.split(' ').nth(3)).collect();
        assert_eq!(preferences.len(), rules.len(), "{rules:?}");
    }

    #[test]
    fn a_word_with_a_quote_is_one_word() {
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
