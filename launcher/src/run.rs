//! `ssirun`: from the options to the exit code.

use crate::shell::Shell;
use crate::{Error, Options};
use base::{JobId, NodeId};
use std::path::Path;

/// The exit code when the job could not be run at all, or our `ssid` was lost under it.
const NOT_RUN: u8 = 255;

/// Runs a job: rank r on `placement[r]` (a node and its name), through the `ssid` that listens at `socket`. Writes the
/// ranks' output and its own messages, forwards input and signals, and gives back the exit code by the table in the
/// crate's README. When it returns, every rank has ended or is being killed.
pub fn run(options: Options, placement: Vec<(NodeId, String)>, socket: &Path) -> i32 {
    let code = run_job(&options, placement, socket).unwrap_or_else(|error| {
        eprintln!("ssirun: {error}");
        NOT_RUN
    });
    i32::from(code)
}

fn run_job(options: &Options, placement: Vec<(NodeId, String)>, socket: &Path) -> Result<u8, Error> {
    let common = options.common_spec(placement.len())?;
    let mut shell = Shell::start(options, &common, job_id(), placement, socket)?;
    while !shell.step()? {}
    Ok(shell.finish())
}

/// Our pid is unique in the cluster; with the time of the start it is unique for good.
fn job_id() -> JobId {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    JobId((now.as_secs() & 0xffff_ffff) << 22 | u64::from(std::process::id() & 0x3f_ffff))
}
