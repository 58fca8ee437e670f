//! The steps of the demo after the job: its files on every node, its picture, and the least loaded node.
//!
//! Invariant: what a step prints was checked; nothing is printed that was only hoped for.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::job::FOLDER;
use crate::cluster::{Cluster, NodeRow};
use crate::error::Error;
use crate::picture::Grey;
use crate::run::{self, Run};

/// How soon the loads must tell of a node that has become busy.
const LOADS_LIMIT: Duration = Duration::from_secs(20);

/// The files of the job, from every node; the result as a picture in `out`.
pub fn files(cluster: &Cluster, printed: &str, out: &Path) -> Result<Vec<String>, Error> {
    let last = cluster.nodes();
    let result = format!("{FOLDER}/result.pgm");
    let listed = cluster.says(1, &["onnode", &last.to_string(), "ls", "-l", FOLDER])?;
    let row = listed.lines().find(|line| line.ends_with(" result.pgm"));
    let row = row.ok_or_else(|| Error::check("`ls` must list result.pgm", listed.clone()))?.to_owned();
    let mut sums = Vec::new();
    for node in 1..=last {
        sums.push(cluster.says(node, &["sha256sum", &result])?);
    }
    let copy = out.join("result.pgm");
    let bytes = cluster.at(2, &["cat", &result])?.stdout;
    fs::write(&copy, &bytes).map_err(Error::io(format!("write {}", copy.display())))?;
    sums.push(Run::line("sha256sum").args([&copy]).checked()?.text());
    let digests: Vec<&str> = sums.iter().filter_map(|sum| sum.split_whitespace().next()).collect();
    if digests.len() != sums.len() || digests.iter().any(|digest| *digest != digests[0]) {
        return Err(Error::check("every node must read the same result", sums.join("\n")));
    }
    let picture = Grey::from_pgm(&bytes)?;
    let computed = format!("checksum {:016x}", picture.heat_checksum());
    if !printed.contains(&computed) {
        return Err(Error::check(
            format!("the ranks must have computed this very picture ({computed})"),
            printed,
        ));
    }
    let png = out.join("heat.png");
    picture.write_png(&png)?;
    fs::remove_file(&copy).map_err(Error::io(format!("remove {}", copy.display())))?;
    let digest: String = digests[0].chars().take(16).collect();
    Ok(vec![
        format!(
            "onnode {last} ls -l {FOLDER}: {} files, among them",
            listed.lines().count().saturating_sub(1)
        ),
        row,
        format!("sha256 on nodes 1 to {last}: {digest}.. each; {computed}, as the ranks computed it"),
        format!("copied out: {}", png.display()),
    ])
}

/// The least loaded node, before and while all its cores are kept busy.
pub fn loads(cluster: &Cluster, nodes: &[NodeRow]) -> Result<Vec<String>, Error> {
    let before = fastest(cluster)?;
    let cores = nodes.iter().find(|row| row.id == before).map(|row| row.cpus);
    let cores = cores.ok_or_else(|| Error::check("`fastnode` must name a node", before.to_string()))?;
    // `timeout` takes all its children along when it is told to end.
    let spin = format!("for core in $(seq {cores}); do while :; do :; done & done; wait");
    let words = ["onnode", &before.to_string(), "timeout", "100", "sh", "-c", &spin];
    let mut spinner = cluster.start(1, &words)?;
    let mut last = String::new();
    let after = run::until(LOADS_LIMIT, || {
        if spinner.has_ended()? {
            return Err(Error::check("the busy command must go on", spinner.text()));
        }
        last = cluster.at(1, &["loads"])?.text();
        let now = fastest(cluster)?;
        Ok((now != before && busiest(&last) == Some(before)).then_some(now))
    })?;
    spinner.stop();
    let why = format!("`fastnode` must name another node than {before} while that is the busiest");
    let after = after.ok_or_else(|| Error::check(why, last))?;
    Ok(vec![format!("fastnode: {before}; with {cores} busy cores on node {before}: {after}")])
}

fn fastest(cluster: &Cluster) -> Result<u32, Error> {
    let said = cluster.says(1, &["fastnode"])?;
    said.parse().map_err(|_| Error::check("`fastnode` must print the number of a node", said))
}

/// The node with the highest load in what `loads` prints.
fn busiest(text: &str) -> Option<u32> {
    let mut lines = text.lines().skip_while(|line| !line.split_whitespace().any(|word| word == "LOAD"));
    let header: Vec<&str> = lines.next()?.split_whitespace().collect();
    let column = |name: &str| header.iter().position(|word| *word == name);
    let (node, load) = (column("NODE")?, column("LOAD")?);
    let row = |line: &str| {
        let cells: Vec<&str> = line.split_whitespace().collect();
        Some((cells.get(node)?.parse::<u32>().ok()?, cells.get(load)?.parse::<f64>().ok()?))
    };
    lines.filter_map(row).max_by(|one, other| one.1.total_cmp(&other.1)).map(|(node, _)| node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_node_is_found_in_the_loads() {
        let text = "NODE LOAD CPUS\n1    0.10 2\n2    1.95 2\n3    0.00 2\n";
        assert_eq!(busiest(text), Some(2));
        assert_eq!(busiest("no daemon\n"), None);
    }
}
