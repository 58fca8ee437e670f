//! One line a figure: `fabric.tcp.call64.p50   ours 21.3us   peer bare-tcp 18.9us   ratio 1.13   target <=1.30   ok`.
//!
//! Invariant: the ratio is always ours / peer's, whatever the unit; a figure without a peer may have a limit instead.

use std::fmt;

use crate::blocks::{Blocks, Spread};

/// What a figure is measured in. Values are kept in the base unit and printed in a fitting one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Durations: values are microseconds.
    Micros,
    /// Operations a second.
    PerSecond,
    /// Throughput: values are MiB a second.
    MibPerSecond,
    /// How many of something, of each call for example.
    Count,
    /// Memory: values are KiB.
    Kib,
}

/// What the ratio, or the value itself, should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// None: the figure is printed for its own sake.
    None,
    /// Ours is at most so many times the peer's: durations.
    AtMost(f64),
    /// Ours is at least so many times the peer's: rates.
    AtLeast(f64),
    /// Ours itself is at most this, in the figure's unit: where there is no peer.
    Limit(f64),
    /// Ours itself is at least this, in the figure's unit.
    Least(f64),
}

/// A figure beside a peer's.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Its name: area, thing, statistic.
    pub name: String,
    /// Ours.
    pub ours: Spread,
    /// The peer's name and values; `None` where there is nothing to compare with.
    pub peer: Option<(String, Spread)>,
    /// What both are measured in.
    pub unit: Unit,
    /// What the ratio should be.
    pub target: Target,
}

impl Figure {
    /// A figure of blocks that were taken by turns; `None` if there are none.
    pub fn of(name: &str, blocks: &Blocks, peer: &str, unit: Unit, target: Target) -> Option<Self> {
        let (ours, theirs) = (Spread::of(&blocks.ours)?, Spread::of(&blocks.peer)?);
        Some(Self { name: name.to_owned(), ours, peer: Some((peer.to_owned(), theirs)), unit, target })
    }

    /// A figure without a peer.
    pub fn alone(name: &str, values: &[f64], unit: Unit) -> Option<Self> {
        let ours = Spread::of(values)?;
        Some(Self { name: name.to_owned(), ours, peer: None, unit, target: Target::None })
    }

    /// The same figure with another target.
    pub fn with_target(self, target: Target) -> Self {
        Self { target, ..self }
    }

    /// Ours / the peer's, of the medians; `None` without a peer or if its median is 0.
    pub fn ratio(&self) -> Option<f64> {
        let (_, peer) = self.peer.as_ref()?;
        (peer.median != 0.0).then(|| self.ours.median / peer.median)
    }

    /// Whether the target is met; `None` if there is none, or no ratio for it.
    pub fn is_met(&self) -> Option<bool> {
        match self.target {
            Target::None => None,
            Target::AtMost(limit) => Some(self.ratio()? <= limit),
            Target::AtLeast(limit) => Some(self.ratio()? >= limit),
            Target::Limit(limit) => Some(self.ours.median <= limit),
            Target::Least(limit) => Some(self.ours.median >= limit),
        }
    }

    /// How far the blocks lay apart, for the line under the figure.
    pub fn spread(&self) -> String {
        let range = |spread: &Spread| {
            let (least, greatest) = (self.unit.shown(spread.least), self.unit.shown(spread.greatest));
            format!("{least}..{greatest} ({:.0} %)", spread.relative() * 100.0)
        };
        match &self.peer {
            Some((name, peer)) => format!("spread ours {}   {name} {}", range(&self.ours), range(peer)),
            None => format!("spread ours {}", range(&self.ours)),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}   ours {}", self.name, self.unit.shown(self.ours.median))?;
        if let Some((name, peer)) = &self.peer {
            write!(out, "   peer {name} {}", self.unit.shown(peer.median))?;
        }
        if let Some(ratio) = self.ratio() {
            write!(out, "   ratio {ratio:.2}")?;
        }
        match self.target {
            Target::None => {}
            Target::AtMost(limit) => write!(out, "   target <={limit:.2}")?,
            Target::AtLeast(limit) => write!(out, "   target >={limit:.2}")?,
            Target::Limit(limit) => write!(out, "   target <={}", self.unit.shown(limit))?,
            Target::Least(limit) => write!(out, "   target >={}", self.unit.shown(limit))?,
        }
        match self.is_met() {
            Some(true) => write!(out, "   ok"),
            Some(false) => write!(out, "   short"),
            None => Ok(()),
        }
    }
}

impl Unit {
    /// A value with a unit in which it is easy to read.
    pub fn shown(self, value: f64) -> String {
        match self {
            Self::Micros if value.abs() >= 1e6 => format!("{:.2}s", value / 1e6),
            Self::Micros if value.abs() >= 1e4 => format!("{:.1}ms", value / 1e3),
            Self::Micros if value.abs() >= 1.0 => format!("{value:.1}us"),
            Self::Micros => format!("{:.1}ns", value * 1e3),
            Self::PerSecond if value.abs() >= 100.0 => format!("{value:.0}/s"),
            Self::PerSecond => format!("{value:.1}/s"),
            Self::MibPerSecond => format!("{value:.0}MiB/s"),
            Self::Count => format!("{value:.3}"),
            Self::Kib => format!("{value:.1}KiB"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(ours: f64, peer: f64, unit: Unit, target: Target) -> Figure {
        let blocks = Blocks { ours: vec![ours; 5], peer: vec![peer; 5] };
        Figure::of("fabric.tcp.call64.p50", &blocks, "bare-tcp", unit, target).unwrap()
    }

    #[test]
    fn the_line_reads_exactly_so() {
        let line = figure(21.3, 18.9, Unit::Micros, Target::AtMost(1.3)).to_string();
        let wanted =
            "fabric.tcp.call64.p50   ours 21.3us   peer bare-tcp 18.9us   ratio 1.13   target <=1.30   ok";
        assert_eq!(line, wanted);
    }

    #[test]
    fn a_missed_target_is_short_in_both_directions() {
        assert!(
            figure(30.0, 10.0, Unit::Micros, Target::AtMost(1.3))
                .to_string()
                .ends_with("target <=1.30   short")
        );
        assert!(figure(5.0, 10.0, Unit::PerSecond, Target::AtLeast(0.8)).to_string().ends_with("short"));
        assert!(figure(9.0, 10.0, Unit::PerSecond, Target::AtLeast(0.8)).to_string().ends_with("ok"));
    }

    #[test]
    fn the_verdict_is_on_the_ratio_and_not_on_its_rounding() {
        assert_eq!(figure(130.4, 100.0, Unit::Micros, Target::AtMost(1.3)).is_met(), Some(false));
        assert_eq!(figure(1.0, 0.0, Unit::Micros, Target::AtMost(1.3)).is_met(), None);
    }

    #[test]
    fn a_figure_without_target_or_peer_has_no_verdict() {
        let line = figure(2_000.0, 1_000.0, Unit::MibPerSecond, Target::None).to_string();
        assert!(line.ends_with("ours 2000MiB/s   peer bare-tcp 1000MiB/s   ratio 2.00"), "{line}");
        let alone = Figure::alone("pm.kill.remote.p50", &[120.0, 130.0, 140.0], Unit::Micros).unwrap();
        assert_eq!(alone.to_string(), "pm.kill.remote.p50   ours 130.0us");
        assert_eq!(alone.spread(), "spread ours 120.0us..140.0us (15 %)");
    }

    #[test]
    fn a_figure_without_a_peer_may_have_a_limit() {
        let alone = |value: f64| Figure::alone("fabric.idle_peer.kib", &[value; 5], Unit::Kib).unwrap();
        let line = alone(31.24).with_target(Target::Limit(48.0)).to_string();
        assert_eq!(line, "fabric.idle_peer.kib   ours 31.2KiB   target <=48.0KiB   ok");
        assert_eq!(alone(48.1).with_target(Target::Limit(48.0)).is_met(), Some(false));
        assert_eq!(alone(1.0).with_target(Target::AtMost(2.0)).is_met(), None);
    }

    #[test]
    fn values_are_printed_in_a_fitting_unit() {
        let shown = [0.05, 21.3, 19_000.0, 2_500_000.0].map(|value| Unit::Micros.shown(value));
        assert_eq!(shown, ["50.0ns", "21.3us", "19.0ms", "2.50s"]);
    }
}
