//! What the user asked for, and what each rank is told.

use crate::Error;
use base::limits::TASKS_PER_CLIENT_MAX;
use base::{JobId, NodeId};
use pm::wire::{Stdio, TaskSpec};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// A job as it stands on the command line of `ssirun`, except where its ranks run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Variables set in every rank's environment, over what `ssirun` itself has.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory of the ranks; `None`: that of `ssirun`.
    pub wdir: Option<PathBuf>,
    /// Put `[rank] ` in front of each line of output.
    pub prepend_rank: bool,
    /// The program and its arguments.
    pub command: Vec<OsString>,
}

/// The variable that carries the descriptor of a rank's wire-up channel.
pub(crate) const CHANNEL_VARIABLE: &str = "PMI_FD";

impl Options {
    /// What all ranks have in common.
    ///
    /// # Errors
    /// The command or a variable makes no sense, or this process has no working directory.
    pub(crate) fn common_spec(&self, ranks: usize) -> Result<TaskSpec, Error> {
        if self.command.first().is_none_or(|program| program.is_empty()) {
            return Err(Error::NoProgram);
        }
        match ranks {
            0 => return Err(Error::NoRanks),
            1..=TASKS_PER_CLIENT_MAX => {}
            _ => return Err(Error::TooManyRanks { asked: ranks, max: TASKS_PER_CLIENT_MAX }),
        }
        let mut spec = TaskSpec::from_here(self.command.iter().cloned().map(OsString::into_vec).collect())?;
        if spec.stdio() == Stdio::Pty {
            // One terminal cannot belong to many ranks; its two streams are one file.
            spec.set_stdio(Stdio::Merged);
        }
        if let Some(wdir) = &self.wdir {
            spec.cwd = wdir_bytes(wdir, &spec.cwd);
            set(&mut spec.env, "PWD", &spec.cwd.clone());
        }
        for (name, value) in &self.env {
            if name.is_empty() || name.as_bytes().contains(&b'=') {
                return Err(Error::Variable(name.to_string_lossy().into_owned()));
            }
            set(&mut spec.env, name, value.as_bytes());
        }
        spec.channel_env = CHANNEL_VARIABLE.to_owned();
        Ok(spec)
    }
}

/// A relative working directory is relative to ours.
fn wdir_bytes(wdir: &std::path::Path, here: &[u8]) -> Vec<u8> {
    PathBuf::from(OsStr::from_bytes(here)).join(wdir).into_os_string().into_vec()
}

/// What only this rank is told: its place in the job and on its node.
pub(crate) fn rank_spec(
    common: &TaskSpec,
    job: JobId,
    rank: usize,
    placement: &[(NodeId, String)],
) -> TaskSpec {
    let node = placement[rank].0;
    let on_node = |ranks: &[(NodeId, String)]| ranks.iter().filter(|(other, _)| *other == node).count();
    let mut spec = common.clone();
    let variables = [
        ("PMI_RANK", rank.to_string()),
        ("PMI_SIZE", placement.len().to_string()),
        ("MPI_LOCALNRANKS", on_node(placement).to_string()),
        ("MPI_LOCALRANKID", on_node(&placement[..rank]).to_string()),
        ("SSI_JOB_ID", job.to_string()),
    ];
    // Left over from a job that this job was started in: a channel that does not exist here.
    unset(&mut spec.env, &["PMI_FD", "PMI_PORT", "PMI_ID"]);
    for (name, value) in variables {
        set(&mut spec.env, name, value.as_bytes());
    }
    spec
}

fn has_name(pair: &[u8], name: &[u8]) -> bool {
    pair.strip_prefix(name).is_some_and(|rest| rest.first() == Some(&b'='))
}

fn unset(env: &mut Vec<Vec<u8>>, names: &[&str]) {
    env.retain(|pair| !names.iter().any(|name| has_name(pair, name.as_bytes())));
}

fn set(env: &mut Vec<Vec<u8>>, name: impl AsRef<OsStr>, value: &[u8]) {
    let name = name.as_ref().as_bytes();
    env.retain(|pair| !has_name(pair, name));
    env.push([name, b"=", value].concat());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement() -> Vec<(NodeId, String)> {
        [1, 1, 2, 1].iter().map(|&node| (NodeId(node), format!("node{node}"))).collect()
    }

    fn value(spec: &TaskSpec, name: &str) -> Option<String> {
        let mut found = spec.env.iter().filter(|pair| has_name(pair, name.as_bytes()));
        let pair = found.next()?;
        assert!(found.next().is_none(), "{name} is set twice");
        Some(String::from_utf8_lossy(&pair[name.len() + 1..]).into_owned())
    }

    #[test]
    fn a_rank_knows_its_place_in_the_job_and_on_its_node() {
        let options = Options {
            command: vec!["prog".into()],
            env: vec![("PMI_SIZE".into(), "99".into()), ("COLOUR".into(), "a=b".into())],
            ..Options::default()
        };
        let common = options.common_spec(4).unwrap();
        let spec = rank_spec(&common, JobId(5), 3, &placement());
        assert_eq!(value(&spec, "PMI_RANK").unwrap(), "3");
        assert_eq!(value(&spec, "PMI_SIZE").unwrap(), "4");
        assert_eq!(value(&spec, "MPI_LOCALNRANKS").unwrap(), "3");
        assert_eq!(value(&spec, "MPI_LOCALRANKID").unwrap(), "2");
        assert_eq!(value(&spec, "COLOUR").unwrap(), "a=b");
        assert_eq!(spec.channel_env, "PMI_FD");
        assert_ne!(spec.stdio(), Stdio::Pty);
    }

    #[test]
    fn a_relative_working_directory_is_relative_to_ours() {
        assert_eq!(wdir_bytes("sub".as_ref(), b"/home"), b"/home/sub");
        assert_eq!(wdir_bytes("/abs".as_ref(), b"/home"), b"/abs");
    }

    #[test]
    fn jobs_that_make_no_sense_are_refused_before_anything_starts() {
        let good = Options { command: vec!["true".into()], ..Options::default() };
        assert!(matches!(Options::default().common_spec(1), Err(Error::NoProgram)));
        assert!(matches!(good.common_spec(0), Err(Error::NoRanks)));
        let error = good.common_spec(TASKS_PER_CLIENT_MAX + 1).unwrap_err().to_string();
        assert_eq!(error, "4097 ranks are asked for; one job has at most 4096");
        let bad = Options { env: vec![("A=B".into(), "c".into())], ..good };
        assert!(matches!(bad.common_spec(1), Err(Error::Variable(_))));
    }
}
