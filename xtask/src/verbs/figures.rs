//! The figures of perftest between two nodes of the machine.
//!
//! Invariant: a figure is the median of its rounds, and all rounds of all figures take turns, in one boot.

use std::time::Duration;

use super::{ended, one_test};
use crate::error::Error;
use crate::tally::Tally;
use crate::vm::{Machine, Outcome, Part};

/// Of a figure in time; an odd number.
const ROUNDS: usize = 5;
/// Of a figure in instructions.
const ROUNDS_COUNTED: usize = 3;

/// One program of perftest.
struct Figure {
    name: &'static str,
    unit: &'static str,
    command: &'static str,
    /// Which word of its table's last row it is.
    column: usize,
}

/// In time: noisy, for the processors are emulated.
const TIMED: [Figure; 3] = [
    Figure { name: "64 B send", unit: "us", command: "ib_send_lat -s 64 -n 1000", column: 4 },
    Figure { name: "8 B read", unit: "us", command: "ib_read_lat -s 8 -n 1000", column: 4 },
    Figure { name: "1 MiB write", unit: "MB/s", command: "ib_write_bw -s 1048576 -n 40", column: 3 },
];

/// By the count of the processor's instructions, kernel and all: hardly any noise.
const COUNTED: [Figure; 3] = [
    Figure {
        name: "64 B send, sleeping",
        unit: "k instr.",
        command: "ib_send_lat -e -s 64 -n 300",
        column: 4,
    },
    Figure { name: "8 B read, sleeping", unit: "k instr.", command: "ib_read_lat -e -s 8 -n 300", column: 4 },
    Figure { name: "1 MiB write", unit: "MB/G instr.", command: "ib_write_bw -s 1048576 -n 20", column: 3 },
];

/// Measures, prints a line a figure; a figure that cannot be measured is a failed test.
pub fn measured(machine: &Machine, limit: Duration) -> Result<Tally, Error> {
    let mut all = rounds(machine, &TIMED, ROUNDS, limit)?;
    all += rounds(&machine.counting(), &COUNTED, ROUNDS_COUNTED, limit)?;
    Ok(all)
}

fn rounds(machine: &Machine, figures: &[Figure], rounds: usize, limit: Duration) -> Result<Tally, Error> {
    let parts: Vec<Part> =
        (0..rounds).flat_map(|_| figures.iter().map(|figure| figure.part(limit))).collect();
    let outcomes = machine.run(&parts, limit, &mut |_, _| {})?;
    let mut all = Tally::default();
    for (at, figure) in figures.iter().enumerate() {
        let rounds: Vec<(&Part, &Outcome)> =
            parts.iter().zip(&outcomes).skip(at).step_by(figures.len()).collect();
        all += figure.told(&rounds);
    }
    Ok(all)
}

impl Figure {
    fn part(&self, limit: Duration) -> Part {
        let line = format!(
            "{command} -d rxe1a -x 1 -F > /dev/null 2>&1 & server=$!
until {command} -d rxe2a -x 1 -F 127.0.0.1; do kill -0 $server || exit 1; done
wait $server",
            command = self.command
        );
        Part { title: format!("perftest {}", self.name), line, limit }
    }

    /// Prints the figure.
    fn told(&self, rounds: &[(&Part, &Outcome)]) -> Tally {
        if let Some((part, outcome)) = rounds.iter().find(|(_, outcome)| outcome.code != Some(0)) {
            return one_test(part, outcome);
        }
        let values = rounds.iter().filter_map(|(_, outcome)| self.value(&outcome.text));
        // perftest divides by times that may be nothing.
        let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (values.first(), values.last()) else {
            let seen = rounds.first().map_or("", |(_, outcome)| outcome.text.as_str());
            return Tally::broken(self.name, &format!("no figure in: {seen}{}", ended(Some(0))));
        };
        let (name, unit, median) = (self.name, self.unit, values[values.len() / 2]);
        println!("{name:<22} {median:>9.2} {unit:<11} ({least:.2} to {most:.2}; {})", self.command);
        Tally { passed: 1, ..Tally::default() }
    }

    /// The figure in the table that perftest prints.
    fn value(&self, text: &str) -> Option<f64> {
        let rows = text.lines().skip_while(|line| !line.trim_start().starts_with("#bytes")).skip(1);
        rows.filter_map(|row| row.split_whitespace().nth(self.column)?.parse().ok()).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = " local address: LID 0000 QPN 0x0011
 #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]
 64      1000          47.95          853.96       86.79    \t       89.96
---------------------------------------------------------------------------------------
";

    #[test]
    fn the_figure_stands_in_the_row_under_the_headings() {
        assert_eq!(TIMED[0].value(TABLE), Some(86.79));
        assert_eq!(TIMED[0].value("Couldn't connect\n"), None);
    }

    #[test]
    fn a_figure_that_is_not_there_is_a_failure() {
        let part = TIMED[0].part(Duration::from_secs(10));
        let told = |text: &str, code| TIMED[0].told(&[(&part, &Outcome { text: text.to_owned(), code })]);
        assert_eq!(told(TABLE, Some(0)).passed, 1);
        assert_eq!(told("", Some(0)).failed, 1);
        assert_eq!(told(TABLE, Some(1)).failed, 1);
    }
}
