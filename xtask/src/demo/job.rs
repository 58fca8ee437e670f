//! The main job: an MPI program that is run, seen from every node, stopped, continued and killed.
//!
//! Invariant: each finding is checked against a second source: one node's `ps` against another's, `where_pid` against
//! what each node alone sees, the state in `ps` against whether the job goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::rows::{self, Row};
use crate::cluster::Cluster;
use crate::error::Error;
use crate::run::{self, Background};

/// Where the job's files are, in every view.
pub const FOLDER: &str = "/ssi/demo";
/// The job's program.
const PROGRAM: &str = "/ssi/demo/heat";
/// How its processes are called in `ps`.
const NAME: &str = "heat";
/// How long anything that should happen at once may take on a busy machine.
const SOON: Duration = Duration::from_secs(15);
/// A job that writes nothing for so long, and for several times the pace at which it wrote before, stands still.
const STILL: Duration = Duration::from_millis(1_200);

/// A running job.
pub struct Job<'a> {
    cluster: &'a Cluster,
    running: Background,
    ranks: usize,
}

/// What was seen of a running job.
pub struct Seen {
    /// Pid and node of each rank.
    pub places: BTreeMap<u32, u32>,
    /// The rows of the ranks in `ps -ef` on node 2.
    pub rows: Vec<String>,
    /// How many other processes that `ps` shows.
    pub others: usize,
}

impl<'a> Job<'a> {
    /// Starts `ranks` ranks from node 1.
    pub fn start(cluster: &'a Cluster, ranks: usize, steps: u32, every: u32) -> Result<Self, Error> {
        let (count, steps, every) = (ranks.to_string(), steps.to_string(), every.to_string());
        let (result, plate) = (format!("{FOLDER}/result"), format!("{FOLDER}/plate.pgm"));
        let words =
            ["ssirun", "-n", &count, "-ppn", "2", PROGRAM, "-s", &steps, "-k", &every, "-o", &result, &plate];
        Ok(Self { cluster, running: cluster.start(1, &words)?, ranks })
    }

    /// True if it has ended, with success.
    pub fn has_succeeded(&mut self) -> Result<bool, Error> {
        Ok(self.running.has_ended()? && self.running.wait(Duration::ZERO)?.success())
    }

    /// Its end, which must be success; gives what it printed.
    pub fn finish(mut self, limit: Duration) -> Result<String, Error> {
        let status = self.running.wait(limit)?;
        let text = self.running.text();
        match status.success() {
            true => Ok(text),
            false => Err(self.failed(run::ended(status), text)),
        }
    }

    fn failed(&self, why: String, output: String) -> Error {
        Error::Command { why, command: self.running.shown(), output }
    }

    /// Waits until a node's `ps -ef` shows every rank.
    fn appears(&mut self, node: u32) -> Result<Vec<Row>, Error> {
        let mut last = String::new();
        let shown = run::until(SOON, || {
            if self.running.has_ended()? {
                return Err(self.failed("the job ended before it was seen".to_owned(), self.running.text()));
            }
            last = self.cluster.at(node, &["ps", "-ef"])?.text();
            let all = rows::rows(&last);
            Ok((rows::of(&all, NAME).len() == self.ranks).then_some(all))
        })?;
        let why = format!("`ps -ef` on node {node} must show exactly {} processes {NAME}", self.ranks);
        shown.ok_or_else(|| Error::check(why, last))
    }

    /// Looks at the job from every node.
    pub fn look(&mut self) -> Result<Seen, Error> {
        let all = self.appears(2)?;
        let ranks = rows::of(&all, NAME);
        let pids: BTreeSet<u32> = ranks.iter().map(|row| row.pid).collect();
        for node in (1..=self.cluster.nodes()).filter(|node| *node != 2) {
            let there = self.appears(node)?;
            let same: BTreeSet<u32> = rows::of(&there, NAME).iter().map(|row| row.pid).collect();
            if same != pids || same.len() != self.ranks {
                let why = format!("nodes 2 and {node} must see the same {} pids", self.ranks);
                return Err(Error::check(why, format!("{pids:?}\n{same:?}")));
            }
        }
        if rows::of(&all, "ssirun").is_empty() {
            let seen: Vec<&str> = all.iter().map(|row| row.line.as_str()).collect();
            return Err(Error::check(
                "`ps -ef` on node 2 must show ssirun, which runs on node 1",
                seen.join("\n"),
            ));
        }
        let places = self.places(&pids)?;
        let rows = ranks.iter().map(|row| row.line.clone()).collect();
        Ok(Seen { places, rows, others: all.len() - ranks.len() })
    }

    /// Where each rank runs: what `where_pid` says must be what each node alone sees.
    fn places(&self, pids: &BTreeSet<u32>) -> Result<BTreeMap<u32, u32>, Error> {
        let words: Vec<String> = pids.iter().map(u32::to_string).collect();
        let words: Vec<&str> = ["where_pid"].into_iter().chain(words.iter().map(String::as_str)).collect();
        let said = self.cluster.says(2, &words)?;
        let nodes: Vec<u32> = said.lines().filter_map(|line| line.trim().parse().ok()).collect();
        if nodes.len() != pids.len() {
            return Err(Error::check("`where_pid` must name one node for each pid", said));
        }
        let places: BTreeMap<u32, u32> = pids.iter().copied().zip(nodes).collect();
        let share = self.ranks / self.cluster.nodes() as usize;
        for node in 1..=self.cluster.nodes() {
            let text = self.cluster.at(node, &["localview", "ps", "-ef"])?.text();
            let local: BTreeSet<u32> = rows::of(&rows::rows(&text), NAME).iter().map(|row| row.pid).collect();
            let said: BTreeSet<u32> =
                places.iter().filter(|(_, at)| **at == node).map(|(pid, _)| *pid).collect();
            if local != said || local.len() != share {
                let why = format!(
                    "node {node} must hold {share} ranks, and `where_pid` must agree with its localview"
                );
                return Err(Error::check(
                    why,
                    format!("where_pid: {said:?}\nlocalview ps: {local:?}\n{text}"),
                ));
            }
        }
        Ok(places)
    }

    /// Stops a rank from another node, sees the job stand still, continues it, sees it go on.
    pub fn stop_and_continue(&mut self, rank: u32, from: u32) -> Result<(), Error> {
        // The first only takes what was written long ago; the second begins a turn, the third shows how long it is.
        self.goes_on("before the stop")?;
        self.goes_on("before the stop")?;
        let begin = Instant::now();
        self.goes_on("before the stop")?;
        let still = STILL.max(begin.elapsed() * 3);
        let pid = rank.to_string();
        self.cluster.at(from, &["kill", "-STOP", &pid])?;
        self.state_becomes(&pid, |state| state == 'T', "T (stopped)")?;
        let limit = Instant::now() + SOON + still;
        while self.running.writes_within(still)? {
            if Instant::now() > limit || self.running.has_ended()? {
                let why = format!("the job must stand still while its process {pid} is stopped");
                return Err(Error::check(why, self.running.text()));
            }
        }
        self.cluster.at(from, &["kill", "-CONT", &pid])?;
        self.state_becomes(&pid, |state| state != 'T', "other than T")?;
        self.goes_on("after the continue")
    }

    fn goes_on(&mut self, when: &str) -> Result<(), Error> {
        match self.running.writes_within(SOON)? {
            true => Ok(()),
            false => Err(Error::check(format!("the job must go on {when}"), self.running.text())),
        }
    }

    /// The state that a third node's `ps` shows.
    fn state_becomes(&mut self, pid: &str, wanted: fn(char) -> bool, name: &str) -> Result<(), Error> {
        let mut last = String::new();
        let reached = run::until(SOON, || {
            last = self.cluster.says(2, &["ps", "-o", "stat=", "-p", pid])?;
            Ok(last.starts_with(wanted).then_some(()))
        })?;
        reached.ok_or_else(|| {
            Error::check(format!("`ps` on node 2 must show process {pid} in a state {name}"), last)
        })
    }

    /// Kills a rank of node 1 from another node; the job must end at once and say why. Gives the message and the time.
    pub fn kill_one(mut self, from: u32) -> Result<(String, Duration), Error> {
        let all = self.appears(from)?;
        let pids: BTreeSet<u32> = rows::of(&all, NAME).iter().map(|row| row.pid).collect();
        let places = self.places(&pids)?;
        let victim = places.iter().rfind(|(_, node)| **node == 1).map(|(pid, _)| *pid);
        let victim =
            victim.ok_or_else(|| Error::check("a rank must run on node 1", format!("{places:?}")))?;
        let rank = self.rank_of(victim, from)?;
        self.cluster.at(from, &["kill", "-KILL", &victim.to_string()])?;
        let begin = Instant::now();
        let status = self.running.wait(SOON)?;
        let took = begin.elapsed();
        let text = self.running.text();
        if status.code() != Some(137) {
            return Err(self.failed(format!("{}, but must with exit code 137", run::ended(status)), text));
        }
        let wanted = [format!("rank {rank} "), "node1".to_owned(), "signal 9".to_owned()];
        let message = text.lines().find(|line| wanted.iter().all(|part| line.contains(part.as_str())));
        let Some(message) = message else {
            return Err(self.failed(format!("ssirun must name {}", wanted.join(", ")), text));
        };
        self.vanishes()?;
        Ok((message.trim().to_owned(), took))
    }

    /// The rank that a process is, from its environment, read on another node.
    fn rank_of(&self, pid: u32, from: u32) -> Result<u32, Error> {
        let environ = self.cluster.at(from, &["cat", &format!("/proc/{pid}/environ")])?.text();
        let rank = environ.split('\0').find_map(|variable| variable.strip_prefix("PMI_RANK=")?.parse().ok());
        rank.ok_or_else(|| {
            Error::check("the environment of a rank must tell its rank", environ.replace('\0', "\n"))
        })
    }

    /// No rank is left on any node.
    fn vanishes(&self) -> Result<(), Error> {
        let mut last = String::new();
        let gone = run::until(SOON, || {
            last = self.cluster.at(1, &["ps", "-ef"])?.text();
            Ok(rows::of(&rows::rows(&last), NAME).is_empty().then_some(()))
        })?;
        gone.ok_or_else(|| Error::check("no rank may outlive the job", last))
    }
}
