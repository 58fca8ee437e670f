//! The verbs of the command line, one file each.

pub mod addnode;
pub mod api;
pub mod cluster;
pub mod config;
pub mod daemon;
pub mod fabric;
pub mod fs;
pub mod loads;
pub mod lock;
pub mod locks;
pub mod manual;
pub mod membership;
pub mod node;
pub mod nodes;
pub mod onnode;
pub mod shell;
pub mod ssirun;
pub mod transitions;
pub mod where_pid;

use crate::Error;
use admin::Place;
use admin::wire::View;
use admin::wire::{Answer, Ask, ChangeWanted, Wish};

/// What a verb ends with: the exit code, or the error that `ssi` prints.
pub type Outcome = Result<u8, Error>;

/// The cluster table, and the number of the node that we ask.
pub fn view(place: &Place) -> Result<(View, u32), Error> {
    let answer = place.ask(Ask::Nodes(()))?;
    let Answer { view, local, .. } = answer;
    Ok((view.ok_or_else(|| Error::Said("ssid has no view yet; ask again".into()))?, local))
}

/// The node that the user means by a name or number.
pub fn find_node<'a>(view: &'a View, name: &str) -> Result<&'a admin::wire::Node, Error> {
    view.find(name).ok_or_else(|| {
        let known: Vec<String> =
            view.nodes.iter().map(|node| format!("{} ({})", node.name, node.id)).collect();
        Error::Said(format!("no node {name:?} in cluster {}; there are {}", view.cluster, known.join(", ")))
    })
}

/// Has the cluster table changed.
///
/// # Errors
/// No daemon, or the cluster refuses.
pub fn change(place: &Place, wish: Wish) -> Result<(), Error> {
    place.ask(Ask::Change(ChangeWanted { wish: Some(wish) }))?;
    Ok(())
}

/// Prints rows in columns as wide as their widest cell.
pub fn print_table(head: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let print = |cells: Vec<&str>| {
        let line: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", line.join("  ").trim_end());
    };
    print(head.to_vec());
    rows.iter().for_each(|row| print(row.iter().map(String::as_str).collect()));
}

/// Prints a value as JSON.
pub fn print_json(value: &serde_json::Value) -> Outcome {
    println!("{}", serde_json::to_string_pretty(value).map_err(Error::said)?);
    Ok(0)
}

/// Bytes as people read them: `15.6G`.
pub fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["", "K", "M", "G", "T"] {
        if value < 1024.0 {
            return if unit.is_empty() { format!("{bytes}") } else { format!("{value:.1}{unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1}P")
}
