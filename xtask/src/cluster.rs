//! A local cluster that this program has started, and will end.
//!
//! Invariant: whatever happens after [`Cluster::up`] was called, the cluster is ended when the value is dropped, unless
//! it was given away by [`Cluster::keep`].

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::leftovers::{self, Trace};
use crate::run::{Background, Output, Run};

const UP_LIMIT: Duration = Duration::from_secs(60);
const DOWN_LIMIT: Duration = Duration::from_secs(30);

/// A local cluster.
pub struct Cluster {
    ssi: PathBuf,
    dir: PathBuf,
    nodes: u32,
    ours: bool,
}

/// One row of `ssi nodes`.
#[derive(Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// The node's number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: String,
    /// The cores that it gives.
    pub cpus: u32,
}

impl Cluster {
    /// Starts a cluster; returns when all its nodes are UP.
    pub fn up(ssi: PathBuf, dir: PathBuf, nodes: u32) -> Result<Self, Error> {
        if dir.exists() {
            return Err(Error::check(
                "the directory of the cluster must not exist yet",
                dir.display().to_string(),
            ));
        }
        let cluster = Self { ssi, dir, nodes, ours: true };
        let count = nodes.to_string();
        cluster
            .ssi(["cluster", "up", "--nodes", &count, "--dir"])
            .args([&cluster.dir])
            .limit(UP_LIMIT)
            .checked()?;
        Ok(cluster)
    }

    /// What would be left if it did not clean up.
    pub fn trace(&self) -> Trace {
        Trace::of(&self.ssi, &self.dir)
    }

    /// How many nodes it was started with.
    pub fn nodes(&self) -> u32 {
        self.nodes
    }

    fn ssi<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Run {
        Run::new([&self.ssi]).args(words)
    }

    fn shell(&self, node: u32, words: &[&str]) -> Run {
        let node = node.to_string();
        self.ssi(["shell", "--node", &node, "--"]).args(words).env("SSI_DIR", &self.dir)
    }

    /// A command in the view of a node, run to its end; anything but success is an error.
    pub fn at(&self, node: u32, words: &[&str]) -> Result<Output, Error> {
        self.shell(node, words).checked()
    }

    /// The standard output of a command in the view of a node, without the spaces around it.
    pub fn says(&self, node: u32, words: &[&str]) -> Result<String, Error> {
        Ok(self.at(node, words)?.text().trim().to_owned())
    }

    /// A command in the view of a node that runs beside us.
    pub fn start(&self, node: u32, words: &[&str]) -> Result<Background, Error> {
        self.shell(node, words).start()
    }

    /// What `ssi nodes` prints, and the rows in it.
    pub fn table(&self) -> Result<(String, Vec<NodeRow>), Error> {
        let text = self.ssi(["nodes"]).env("SSI_DIR", &self.dir).checked()?.text();
        match node_rows(&text) {
            Some(rows) => Ok((text, rows)),
            None => Err(Error::check("`ssi nodes` must print a table with ID, NAME, STATE and CPUS", text)),
        }
    }

    /// Ends it.
    pub fn down(&mut self) -> Result<(), Error> {
        self.ours = false;
        let run = self.ssi(["cluster", "down", "--dir"]).args([&self.dir]);
        run.limit(DOWN_LIMIT).uninterruptible().checked().map(|_| ())
    }

    /// Leaves it up; says how to enter and how to end it.
    pub fn keep(mut self) -> String {
        self.ours = false;
        let (ssi, dir) = (self.ssi.display(), self.dir.display());
        format!(
            "    enter it:  SSI_DIR={dir} {ssi} shell --node 2\n    end it:    {ssi} cluster down --dir {dir}"
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        if let Err(error) = self.down() {
            eprintln!("xtask: {error}");
        }
        // `cluster down` may be what is broken: nothing may stay even so.
        leftovers::end(&self.ssi, &self.dir);
    }
}

/// The rows of a table whose header names the columns.
fn node_rows(text: &str) -> Option<Vec<NodeRow>> {
    let mut lines = text.lines().skip_while(|line| !line.split_whitespace().any(|word| word == "STATE"));
    let header: Vec<&str> = lines.next()?.split_whitespace().collect();
    let column = |name: &str| header.iter().position(|word| *word == name);
    let (id, name, state, cpus) = (column("ID")?, column("NAME")?, column("STATE")?, column("CPUS")?);
    let row = |line: &str| {
        let cells: Vec<&str> = line.split_whitespace().collect();
        Some(NodeRow {
            id: cells.get(id)?.parse().ok()?,
            name: (*cells.get(name)?).to_owned(),
            state: (*cells.get(state)?).to_owned(),
            cpus: cells.get(cpus)?.parse().ok()?,
        })
    };
    lines.filter(|line| !line.trim().is_empty()).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_nodes_is_read_by_its_header() {
        let text = "cluster ssi  epoch 3  master 1\nID  NAME   STATE  ADDRESS        CPUS\n\
                    1   node1  UP     10.0.0.1:7100  2\n2   node2  DOWN   10.0.0.2:7100  4\n";
        let rows = node_rows(text).unwrap();
        assert_eq!(rows[1], NodeRow { id: 2, name: "node2".into(), state: "DOWN".into(), cpus: 4 });
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn another_text_is_no_table() {
        assert_eq!(node_rows("error: no daemon\n"), None);
        assert_eq!(node_rows("ID NAME STATE CPUS\nx y\n"), None);
    }

    #[test]
    fn a_directory_that_exists_is_refused() {
        assert!(Cluster::up("/bin/true".into(), std::env::temp_dir(), 3).is_err());
    }
}
