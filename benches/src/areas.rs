//! What is measured, one file an area.

#[cfg(feature = "cluster")]
mod cluster;
pub mod dlm;
pub mod fabric;
#[cfg(feature = "cluster")]
pub mod fs;
#[cfg(feature = "cluster")]
pub mod launch;
#[cfg(feature = "cluster")]
pub mod membership;
#[cfg(feature = "cluster")]
pub mod pm;

use crate::Error;
use ssi_benches::{Blocks, Figure, Target, Unit};

/// Our own path, to be called again as a probe or a side.
pub fn own_path() -> Result<String, Error> {
    Ok(std::env::current_exe()?.display().to_string())
}

/// Prints a figure and how far its blocks lie apart.
pub fn print(name: &str, blocks: &Blocks, peer: &str, unit: Unit, target: Target) {
    if let Some(figure) = Figure::of(name, blocks, peer, unit, target) {
        println!("{figure}   {}", figure.spread());
    }
}
