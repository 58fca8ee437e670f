//! Licences and advisories of everything that we build on, by cargo-deny and deny.toml.
//!
//! Invariant: never a part of `test`: it needs the network, and the world's advisories change under a commit.

use crate::args::Given;
use crate::error::Error;
use crate::place::cargo;

/// The verb `audit`.
pub fn verb(_given: &Given) -> Result<(), Error> {
    if cargo("deny --version").checked().is_err() {
        println!("audit: cargo-deny is missing; installing it, which takes some minutes");
        println!("audit: $ cargo install cargo-deny --locked");
        cargo("install cargo-deny --locked").on_terminal()?;
    }
    println!("audit: $ cargo deny --all-features check");
    cargo("deny --all-features check").on_terminal()
}
