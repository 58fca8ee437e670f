//! Where things are: the repository, the build's results, cargo.
//!
//! Invariant: every path is absolute, so no chore depends on where it was called.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::run::Run;

/// The root of the repository.
pub fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.parent().map_or(here.clone(), Path::to_path_buf)
}

/// Where the build that made this program puts its programs.
pub fn built(name: &str) -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(Error::io("find this program"))?;
    Ok(own.with_file_name(name))
}

/// The directory of everything that is built.
pub fn target() -> Result<PathBuf, Error> {
    // Programs stand in target/debug or target/release, those of tests one deeper.
    let own = built("")?;
    let target = own.ancestors().find(|path| path.join("CACHEDIR.TAG").exists());
    target
        .map(Path::to_path_buf)
        .ok_or_else(|| Error::check("this program stands in cargo's target", own.display().to_string()))
}

/// Cargo, at the root of the repository.
pub fn cargo(words: &str) -> Run {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Run::new([cargo]).args(words.split_whitespace()).directory(root())
}

/// Builds something; says how long it took.
pub fn build(words: &str) -> Result<Duration, Error> {
    let begin = Instant::now();
    cargo(words).on_terminal()?;
    Ok(begin.elapsed())
}
