//! `ssi-benches AREA`: measures one area on a local cluster and prints a line a figure.
//!
//! The same binary is also what runs inside the views and on the host, so that both sides of a figure are measured by
//! the same code: `ssi-benches probe NAME ...` prints one number.

mod areas;
mod probe;

use std::process::ExitCode;

/// Why a measurement could not be made.
type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["probe", name, rest @ ..] => probe::run(name, rest),
        ["launch"] => areas::launch::run(),
        ["pm"] => areas::pm::run(),
        ["fs"] => areas::fs::run(),
        _ => Err("usage: ssi-benches launch|pm|fs".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ssi-benches: {error}");
            ExitCode::FAILURE
        }
    }
}
