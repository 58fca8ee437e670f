//! Files: the cluster's filesystem beside the host's disk below it.

use super::cluster::{cluster, in_view, on_host};
use super::print;
use crate::Error;
use ssi_benches::{Target, Unit, alternate};

const BLOCKS: usize = 5;

/// Measures and prints.
pub fn run() -> Result<(), Error> {
    let cluster = cluster(3, &[])?;
    let disk = tempfile::tempdir_in(std::env::current_dir()?)?;
    let disk = disk.path().display().to_string();
    for (figure, unit) in [
        ("create", Unit::PerSecond),
        ("stat", Unit::PerSecond),
        ("unlink", Unit::PerSecond),
        ("write1m", Unit::MibPerSecond),
        ("read1m", Unit::MibPerSecond),
    ] {
        let blocks = alternate(
            BLOCKS,
            || in_view(&cluster, 1, &["files", figure, "/ssi"]),
            || on_host(&["files", figure, &disk]),
        )?;
        print(&format!("fs.{figure}"), &blocks, "host-disk", unit, Target::None);
    }
    Ok(())
}
