//! The formatter and the linter, with warnings as errors.
//!
//! Invariant: what they need beyond cargo itself is named when it is missing.

use crate::args::Given;
use crate::error::Error;
use crate::place::cargo;

const CHECKS: [(&str, &str); 2] =
    [("rustfmt", "fmt --all --check"), ("clippy", "clippy --quiet --workspace --all-targets -- -D warnings")];

/// The verb `lint`.
pub fn verb(_given: &Given) -> Result<(), Error> {
    for (tool, words) in CHECKS {
        if !is_there(tool) {
            return Err(Error::Missing(format!("{tool} is missing: rustup component add {tool}")));
        }
        println!("lint: $ cargo {words}");
        cargo(words).on_terminal()?;
    }
    Ok(())
}

/// True if the formatter and the linter are both installed.
pub fn is_possible() -> bool {
    CHECKS.iter().all(|(tool, _)| is_there(tool))
}

fn is_there(tool: &str) -> bool {
    let words = if tool == "rustfmt" { "fmt --version" } else { "clippy --version" };
    cargo(words).checked().is_ok()
}
