//! What can go wrong in a chore, and how it is told.
//!
//! Invariant: every message says what was tried; a failed command carries its command line and what it printed.

use std::fmt;
use std::io;

/// Why a chore did not succeed.
#[derive(Debug)]
pub enum Error {
    /// The command line makes no sense.
    Usage(String),
    /// The machine lacks something that this program may not or cannot install.
    Missing(String),
    /// A command could not be started, failed, or took too long.
    Command {
        /// What was wrong with it.
        why: String,
        /// The command as a person would type it.
        command: String,
        /// What it printed.
        output: String,
    },
    /// A command ran, but what it showed is not what must be.
    Check {
        /// What must be and is not.
        why: String,
        /// What was seen instead.
        seen: String,
    },
    /// A step of the demo failed.
    Step {
        /// Its number.
        number: u32,
        /// What it wanted to show.
        title: String,
        /// Why it failed.
        cause: Box<Error>,
    },
    /// Tests failed: the table and the summary were printed already.
    TestsFailed,
    /// ^C or a request to end.
    Interrupted,
    /// The operating system refused something.
    Io {
        /// What was tried.
        what: String,
        /// What it answered.
        source: io::Error,
    },
}

impl Error {
    /// A check that did not hold.
    pub fn check(why: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::Check { why: why.into(), seen: seen.into() }
    }

    /// An operation that the system refused.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// True if somebody asked to stop; then no cause needs telling.
    pub fn is_interruption(&self) -> bool {
        match self {
            Self::Interrupted => true,
            Self::Step { cause, .. } => cause.is_interruption(),
            _ => false,
        }
    }

    /// The exit code of the whole program.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            error if error.is_interruption() => 130,
            _ => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(why) | Self::Missing(why) => write!(out, "{why}"),
            Self::Command { why, command, output } => {
                write!(out, "{why}\n  $ {command}")?;
                indented(out, output)
            }
            Self::Check { why, seen } => {
                write!(out, "{why}; seen:")?;
                indented(out, seen)
            }
            Self::Step { number, title, cause } if cause.is_interruption() => {
                write!(out, "interrupted in step {number} ({title})")
            }
            Self::Step { number, title, cause } => write!(out, "step {number} ({title}) failed: {cause}"),
            Self::TestsFailed => write!(out, "there are failed tests"),
            Self::Interrupted => write!(out, "interrupted"),
            Self::Io { what, source } => write!(out, "{what}: {source}"),
        }
    }
}

impl std::error::Error for Error {}

/// The last lines of `text`, each on its own line under the message.
fn indented(out: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    const SHOWN_LINES_MAX: usize = 40;
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let skipped = lines.len().saturating_sub(SHOWN_LINES_MAX);
    if skipped > 0 {
        write!(out, "\n    ({skipped} lines before)")?;
    }
    if lines.is_empty() {
        write!(out, "\n    (nothing)")?;
    }
    lines[skipped..].iter().try_for_each(|line| write!(out, "\n    {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_shows_its_command_and_output() {
        let cause =
            Error::Command { why: "exit 3".into(), command: "ps -ef".into(), output: "no\nway\n".into() };
        let error = Error::Step { number: 3, title: "one ps".into(), cause: Box::new(cause) };
        let text = error.to_string();
        assert!(
            text.contains("step 3 (one ps)") && text.contains("$ ps -ef") && text.contains("    way"),
            "{text}"
        );
        assert_eq!(error.exit_code(), 1);
    }

    #[test]
    fn an_interrupted_step_is_an_interruption() {
        let error = Error::Step { number: 1, title: String::new(), cause: Box::new(Error::Interrupted) };
        assert!(error.is_interruption());
        assert_eq!(error.exit_code(), 130);
    }

    #[test]
    fn long_output_is_cut_to_its_end() {
        let seen: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let text = Error::check("x", seen).to_string();
        assert!(
            text.contains("(60 lines before)") && text.contains("line 99") && !text.contains("line 59\n"),
            "{text}"
        );
    }
}
