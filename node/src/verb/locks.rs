//! `ssi locks`: who holds what, who waits, who waits in a circle.

use super::{Outcome, print_json, print_table};
use crate::Error;
use admin::Place;
use clap::Args;
use dlm::Mode;
use dlm::client::Connection;
use dlm::client::wire::{Reply, Row, Wait, What};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// List locks: who holds them, who waits, who waits in a circle.
#[derive(Debug, Args)]
#[command(
    after_help = "STATE: granted; converting (has GRANTED, waits for WANTED); waiting; orphan (its program is gone and left it \
behind). With --deadlocks the exit code is 1 if there is one."
)]
pub struct Locks {
    /// Show only this lockspace.
    #[arg(long, value_name = "SPACE")]
    space: Option<String>,
    /// Show only locks that wait.
    #[arg(long, short)]
    waiting: bool,
    /// Show who waits for whom in a circle.
    #[arg(long, conflicts_with_all = ["waiting", "space"])]
    deadlocks: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Locks {
    /// Asks and prints.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let place = Place::find(dir)?;
        let mut connection = Connection::connect(&place.lock_socket()).map_err(Error::said)?;
        let mut ask = |what| -> Result<Reply, Error> {
            let tag = connection.calls.next_tag();
            connection.calls.call(tag, what).map_err(Error::said)
        };
        if self.deadlocks {
            return print_circles(&ask(What::Waits(()))?.waits, self.json);
        }
        let Reply { mut rows, silent, .. } = ask(What::List(()))?;
        for node in silent {
            eprintln!("ssi locks: node {node} does not answer: its locks are missing");
        }
        rows.retain(|row| self.space.as_ref().is_none_or(|space| row.space == space.as_bytes()));
        rows.retain(|row| !self.waiting || row.wanted.is_some());
        if self.json {
            return print_json(&Value::Array(rows.iter().map(as_json).collect()));
        }
        let head = ["SPACE", "NAME", "NODE", "PID", "LOCK", "STATE", "GRANTED", "WANTED", "SINCE"];
        print_table(&head, &rows.iter().map(cells).collect::<Vec<_>>());
        Ok(0)
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn mode(number: Option<u32>) -> Option<String> {
    number.and_then(Mode::from_number).map(|mode| format!("{mode:?}"))
}

fn state(row: &Row) -> &'static str {
    match (row.orphan, row.granted, row.wanted) {
        (true, ..) => "orphan",
        (_, Some(_), Some(_)) => "converting",
        (_, None, _) => "waiting",
        _ => "granted",
    }
}

/// A length of time as people read it: `850ms`, `12.3s`, `4m05s`, `2h10m`.
fn length(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}.{}s", ms % 1000 / 100),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
    }
}

fn cells(row: &Row) -> Vec<String> {
    vec![
        text(&row.space),
        text(&row.name),
        row.node.to_string(),
        row.pid.to_string(),
        row.lkid.to_string(),
        state(row).to_owned(),
        mode(row.granted).unwrap_or_else(|| "-".into()),
        mode(row.wanted).unwrap_or_else(|| "-".into()),
        length(row.since_ms),
    ]
}

fn as_json(row: &Row) -> Value {
    json!({
        "space": text(&row.space), "name": text(&row.name), "node": row.node, "pid": row.pid, "uid": row.uid,
        "lock": row.lkid, "state": state(row), "granted": mode(row.granted), "wanted": mode(row.wanted),
        "since_ms": row.since_ms, "token": row.token,
    })
}

/// Circle by circle; exit code 1 if there is one.
fn print_circles(waits: &[Wait], as_values: bool) -> Outcome {
    let mut circles: BTreeMap<u32, Vec<&Wait>> = BTreeMap::new();
    for wait in waits.iter().filter(|wait| wait.circle > 0) {
        circles.entry(wait.circle).or_default().push(wait);
    }
    let code = u8::from(!circles.is_empty());
    if as_values {
        let row = |row: &Option<Row>| row.as_ref().map(as_json);
        let wait = |wait: &&Wait| json!({ "waiter": row(&wait.waiter), "blocker": row(&wait.blocker) });
        let circles = circles.values().map(|waits| Value::Array(waits.iter().map(wait).collect()));
        return print_json(&Value::Array(circles.collect())).map(|_| code);
    }
    if circles.is_empty() {
        println!("nobody waits in a circle");
    }
    for (number, waits) in circles {
        println!("circle {number}:");
        for Wait { waiter, blocker, .. } in waits {
            if let (Some(waiter), Some(blocker)) = (waiter, blocker) {
                println!("  {}", sentence(waiter, blocker));
            }
        }
    }
    Ok(code)
}

fn sentence(waiter: &Row, blocker: &Row) -> String {
    let has = match mode(blocker.granted) {
        Some(mode) => format!("has it in {mode}"),
        None => "is ahead of it".to_owned(),
    };
    format!(
        "process {} on node {} waits for {}:{} in {} ({}); process {} on node {} {has}",
        waiter.pid,
        waiter.node,
        text(&waiter.space),
        text(&waiter.name),
        mode(waiter.wanted).unwrap_or_default(),
        length(waiter.since_ms),
        blocker.pid,
        blocker.node,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_read_well() {
        let read = [850, 12_345, 245_000, 7_800_000].map(length);
        assert_eq!(read, ["850ms", "12.3s", "4m05s", "2h10m"]);
    }

    #[test]
    fn a_lock_is_in_one_state() {
        let row = |granted, wanted, orphan| Row { granted, wanted, orphan, ..Row::default() };
        assert_eq!(state(&row(Some(5), None, false)), "granted");
        assert_eq!(state(&row(Some(3), Some(5), false)), "converting");
        assert_eq!(state(&row(None, Some(5), false)), "waiting");
        assert_eq!(state(&row(Some(5), None, true)), "orphan");
    }
}
