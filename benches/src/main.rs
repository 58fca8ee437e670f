//! `ssi-benches AREA`: measures one area on a local cluster and prints a line a figure.
//!
//! The same binary is also what runs inside the views and on the host, so that both sides of a figure are measured by
//! the same code: `ssi-benches probe NAME ...` prints one number, `ssi-benches side ...` is one side of a pair.

mod allocations;
mod areas;
#[cfg(feature = "cluster")]
mod probe;

use std::process::ExitCode;

const USAGE: &str = "usage: ssi-benches launch|pm|fs|membership [PART]|dlm [PART]|fabric [PART]|fabric-peers|\
    fabric-verbs poll|sleep [DEVICE [DEVICE [PART]]]";

/// Why a measurement could not be made.
type Error = Box<dyn std::error::Error>;

#[global_allocator]
static ALLOCATOR: allocations::Counted = allocations::Counted;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        #[cfg(feature = "cluster")]
        ["probe", name, rest @ ..] => probe::run(name, rest),
        ["side", words @ ..] => areas::fabric::run_side(words),
        ["fabric"] => areas::fabric::run(""),
        ["fabric", part] => areas::fabric::run(part),
        ["dlm"] => areas::dlm::run(""),
        ["dlm", part] => areas::dlm::run(part),
        ["fabric-peers"] => areas::fabric::run_peers(),
        ["fabric-verbs", words @ ..] => areas::fabric::run_verbs(words),
        #[cfg(feature = "cluster")]
        ["membership"] => areas::membership::run(""),
        #[cfg(feature = "cluster")]
        ["membership", part] => areas::membership::run(part),
        #[cfg(feature = "cluster")]
        ["launch"] => areas::launch::run(),
        #[cfg(feature = "cluster")]
        ["pm"] => areas::pm::run(),
        #[cfg(feature = "cluster")]
        ["fs"] => areas::fs::run(),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ssi-benches: {error}");
            ExitCode::FAILURE
        }
    }
}
