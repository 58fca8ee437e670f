//! Measuring: our figures beside a peer's, in one run.
//!
//! Invariant: only what was built with all optimisations is measured.

use crate::args::Given;
use crate::error::Error;
use crate::place;
use crate::setup::{self, Purpose};

const AREAS: [&str; 6] = ["launch", "pm", "fs", "membership", "dlm", "fabric"];

/// The verb `bench`.
pub fn verb(given: &Given) -> Result<(), Error> {
    let areas = chosen(&given.operands)?;
    setup::ready_for(Purpose::Bench)?;
    let took = place::build("build --quiet --release --package node --package ssi-benches")?;
    println!("build {:.1} s", took.as_secs_f32());
    for area in areas {
        place::cargo("run --quiet --release --package ssi-benches --").args([area]).on_terminal()?;
    }
    Ok(())
}

fn chosen(operands: &[String]) -> Result<Vec<&str>, Error> {
    let known = || AREAS.join(", ");
    match operands {
        [] => Err(Error::Usage(format!("which area? One of {}, or all", known()))),
        [all] if all == "all" => Ok(AREAS.to_vec()),
        named => named
            .iter()
            .map(|name| {
                let area = AREAS.iter().find(|area| *area == name);
                area.copied()
                    .ok_or_else(|| Error::Usage(format!("no area `{name}`; there are {}, and all", known())))
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_named_or_all() {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(chosen(&words("all")).unwrap(), AREAS);
        assert_eq!(chosen(&words("fs pm")).unwrap(), ["fs", "pm"]);
        assert!(chosen(&words("")).is_err());
        assert!(chosen(&words("fs disk")).unwrap_err().to_string().contains("`disk`"));
    }
}
