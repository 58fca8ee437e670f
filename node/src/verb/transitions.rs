//! `ssi transitions`: what changed in the cluster, as every node saw it.

use super::{Outcome, print_json, view};
use crate::Error;
use admin::wire::View;
use admin::{Change, Cluster, Place, TransId};
use clap::Args;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// Changes that are asked for at once.
const PAGE: usize = 256;

/// List the transitions of the cluster table.
#[derive(Debug, Args)]
#[command(
    after_help = "Columns: the number of the transition (42.1, 42.2, 42 where it changed several nodes at once), when (UTC), the node, its state before and \
after, the cause, and more in words. The last 4,096 transitions are kept. With --follow and --json there is one object a line."
)]
pub struct Transitions {
    /// Go on with what happens, until interrupted.
    #[arg(long, short)]
    follow: bool,
    /// Begin after this transition [default: with the last ones].
    #[arg(long, value_name = "N")]
    since: Option<TransId>,
    /// How many of the last ones.
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 20, conflicts_with = "since")]
    last: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Transitions {
    /// Asks and prints.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let place = Place::find(dir)?;
        let (table, _) = view(&place)?;
        let cluster = Cluster::at(place);
        let mut known = all_after(&cluster, self.since.unwrap_or(TransId::BEGINNING))?;
        let mut position = known.last().map_or(self.since.unwrap_or_default(), |change| change.id);
        if self.since.is_none() {
            known.drain(..known.len().saturating_sub(self.last));
        }
        if !self.follow && self.json {
            return print_json(&Value::Array(known.iter().map(as_json).collect()));
        }
        known.iter().try_for_each(|change| self.show(change, &table))?;
        if !self.follow {
            return Ok(0);
        }
        loop {
            for change in cluster.wait(position, false, PAGE, None)? {
                self.show(&change, &table)?;
                position = change.id;
            }
        }
    }

    fn show(&self, change: &Change, table: &View) -> Result<(), Error> {
        if self.json {
            println!("{}", serde_json::to_string(&as_json(change)).map_err(Error::said)?);
        } else {
            println!("{}", line(change, table));
        }
        Ok(())
    }
}

/// Everything after a change, up to now.
fn all_after(cluster: &Cluster, id: TransId) -> Result<Vec<Change>, Error> {
    let mut all: Vec<Change> = Vec::new();
    loop {
        let position = all.last().map_or(id, |change| change.id);
        let page = cluster.wait(position, false, PAGE, Some(Duration::ZERO))?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// A change in a line, for people.
pub fn line(change: &Change, table: &View) -> String {
    let subject = match change.node {
        0 => "cluster".to_owned(),
        node => table.name_of(node),
    };
    let states = match (change.from, change.to) {
        (from, to) if from == to => "-".to_owned(),
        (from, to) => format!("{} -> {}", from.name(), to.name()),
    };
    let line = format!(
        "{:<7} {}  {subject:<12} {states:<20} {:<9} {}",
        change.id.to_string(),
        utc(change.at_ms),
        change.cause.name(),
        change.text
    );
    line.trim_end().to_owned()
}

/// A change for programs.
pub fn as_json(change: &Change) -> Value {
    json!({
        "transition": change.id.number(), "id": change.id.to_string(), "transid": change.id.0, "at_ms": change.at_ms,
        "node": change.node, "from": change.from.name(), "to": change.to.name(), "cause": change.cause.name(),
        "text": change.text,
    })
}

/// Milliseconds since 1970 as a date and a time of day, UTC.
fn utc(at_ms: u64) -> String {
    let (seconds, ms) = (at_ms / 1_000, at_ms % 1_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{ms:03}")
}

/// The Gregorian date of a day, counted from 1970. Years begin in March here, so that the leap day is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year_of_era + carry, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_utc() {
        for (at_ms, text) in [
            (0, "1970-01-01 00:00:00.000"),
            (951_782_400_000, "2000-02-29 00:00:00.000"),
            (1_709_251_199_999, "2024-02-29 23:59:59.999"),
            (1_798_761_600_001, "2027-01-01 00:00:00.001"),
            (4_107_542_400_000, "2100-03-01 00:00:00.000"),
        ] {
            assert_eq!(utc(at_ms), text);
        }
    }
}
