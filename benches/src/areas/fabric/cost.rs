//! What calls and peers cost beside time: requests for memory, system calls, memory of peers that do nothing.
//!
//! Invariant: counted in runs of their own, because counting slows them.

use super::pair::Pair;
use crate::Error;
use ssi_benches::{BLOCKS_MIN, Figure, Target, Unit};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Calls of the shorter of two runs whose system calls are counted; the longer one makes twice as many, so that all but the calls
/// cancels out.
const TRACED: u32 = 4_000;
/// The same where requests for memory are counted.
const COUNTED: u32 = 20_000;

/// Requests for memory of each call. `pair` makes a pair that does so many calls.
pub fn allocations(name: &str, pair: impl Fn(u32) -> Pair) -> Result<(), Error> {
    let all = |count: u32| Ok::<f64, Error>(pair(count).counted()?.value("allocations")? * f64::from(count));
    let each = |_| Ok::<f64, Error>((all(2 * COUNTED)? - all(COUNTED)?) / f64::from(COUNTED));
    let values: Vec<f64> = (0..BLOCKS_MIN).map(each).collect::<Result<_, _>>()?;
    if let Some(figure) = Figure::alone(name, &values, Unit::Count) {
        println!("{}   {}", figure.clone().with_target(Target::Limit(0.001)), figure.spread());
    }
    Ok(())
}

/// Memory of each of 1,000 idle peers, by how much the process grew that has them.
pub fn idle_peers(name: &str, pair: &Pair, target: Target) -> Result<(), Error> {
    let each = |_| {
        let sample = pair.block()?;
        Ok::<f64, Error>(sample.value("server_rss")? / sample.value("count")?)
    };
    let values: Vec<f64> = (0..BLOCKS_MIN).map(each).collect::<Result<_, _>>()?;
    if let Some(figure) = Figure::alone(name, &values, Unit::Kib) {
        println!("{}   {}", figure.clone().with_target(target), figure.spread());
    }
    Ok(())
}

/// System calls of each call, by name. `pair` makes a pair that does so many calls.
pub fn system_calls(name: &str, peer: &str, pair: impl Fn(u32) -> Pair) -> Result<(), Error> {
    let dir = tempfile::tempdir()?;
    let run = |count: u32| -> Result<[Counts; 2], Error> {
        let logs = ["server", "driver"].map(|side| dir.path().join(format!("{side}.{count}")));
        pair(count).traced(&logs[0], &logs[1])?;
        Ok([counts(&logs[0])?, counts(&logs[1])?])
    };
    let (less, more) = (run(TRACED)?, run(2 * TRACED)?);
    for (side, (less, more)) in ["server", "driver"].iter().zip(less.iter().zip(&more)) {
        let mut line = format!("{name}.{side}   {peer}");
        let mut all = 0.0;
        for (call, count) in more {
            let each = count - less.get(call).copied().unwrap_or(0.0);
            let each = each / f64::from(TRACED);
            all += each;
            if each.abs() >= 0.005 {
                write!(line, "   {call} {each:.2}")?;
            }
        }
        println!("{line}   all {all:.2}");
    }
    Ok(())
}

type Counts = BTreeMap<String, f64>;

/// How often each call was made, from a summary of strace -c.
fn counts(log: &Path) -> Result<Counts, Error> {
    let text = std::fs::read_to_string(log)?;
    Ok(text.lines().filter_map(counted).collect())
}

/// `% time, seconds, usecs/call, calls, [errors], name`.
fn counted(line: &str) -> Option<(String, f64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    words.first()?.parse::<f64>().ok()?;
    let name = *words.last()?;
    (name != "total").then_some(())?;
    Some((name.to_owned(), words.get(3)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_summary_are_read() {
        let told = |line| counted(line);
        let with_errors = " 93.20    0.042060           4      8017      4001 recvfrom";
        assert_eq!(told(with_errors), Some(("recvfrom".to_owned(), 8017.0)));
        let without = "  6.60    0.002980           0      6009           sendto";
        assert_eq!(told(without), Some(("sendto".to_owned(), 6009.0)));
        assert_eq!(told("100.00    0.045130           3     14141      4013 total"), None);
        assert_eq!(told("% time     seconds  usecs/call     calls    errors syscall"), None);
        assert_eq!(told("------ ----------- ----------- --------- --------- ----------------"), None);
    }
}
