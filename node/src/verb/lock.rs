//! `ssi lock`: a lock of the cluster around a command, with the habits of flock(1).
//!
//! Invariant: the command runs only while the lock is held, and its exit code is ours.

use super::Outcome;
use crate::Error;
use admin::Place;
use clap::{Args, ValueEnum};
use dlm::client::wire::{self, Completion, Open, Told, Unlock, What};
use dlm::client::{Connection, status};
use dlm::server::OPEN_SPACE;
use dlm::{Flags, Mode};
use rustix::io::FdFlags;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Names the transaction of the locks around us, so that a deadlock between two commands with several locks is seen.
const TRANSACTION_VARIABLE: &str = "SSI_LOCK_TRANSACTION";
/// Exit code if the command cannot be run, as flock(1) has it (EX_UNAVAILABLE).
const CANNOT_RUN: u8 = 69;

/// Hold a lock of the cluster around a command, as flock(1) does.
#[derive(Debug, Args)]
#[command(
    override_usage = "ssi lock [OPTIONS] NAME COMMAND [ARGUMENT]...\n       ssi lock [OPTIONS] NAME -c COMMAND\n       \
ssi lock [OPTIONS] NAME\n       ssi lock -u NAME",
    after_help = "With a command the lock is held until the command ends. Without one it is kept until `ssi lock -u NAME` on the \
same node drops it, or that node is gone.\n\nExit code: the command's, 128 + n if signal n ended it; 69 if it cannot be run; 1 (or -E) if \
the lock is not had at once (-n), in time (-w), or because of a deadlock."
)]
pub struct Lock {
    /// Get a shared lock: nobody has an exclusive one meanwhile (PR).
    #[arg(short, long, conflicts_with_all = ["exclusive", "mode", "unlock"])]
    shared: bool,
    /// Get an exclusive lock (EX). This is the default.
    #[arg(short = 'x', visible_short_alias = 'e', long, conflicts_with_all = ["mode", "unlock"])]
    exclusive: bool,
    /// Drop a lock that was taken without a command.
    #[arg(short, long)]
    unlock: bool,
    /// Fail rather than wait.
    #[arg(short, long = "nonblock", visible_alias = "nb", conflicts_with = "wait")]
    nonblock: bool,
    /// Wait for at most so many seconds; a fraction is allowed.
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", value_parser = seconds)]
    wait: Option<Duration>,
    /// Let the command not inherit the lock: it goes if this process is killed, even if the command lives on.
    #[arg(short = 'o', long)]
    close: bool,
    /// The exit code if the lock is not had.
    #[arg(short = 'E', long, value_name = "CODE", default_value_t = 1)]
    conflict_exit_code: u8,
    /// Run this with the shell.
    #[arg(short, long = "command", value_name = "COMMAND")]
    command_line: Option<OsString>,
    /// Get a lock in this mode.
    #[arg(long, value_enum, ignore_case = true, value_name = "MODE", conflicts_with = "unlock")]
    mode: Option<ModeName>,
    /// The lockspace: names in different ones have nothing to do with each other.
    #[arg(long, value_name = "SPACE", default_value = OPEN_SPACE)]
    space: OsString,
    /// The lock: 1 to 64 bytes.
    name: OsString,
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The modes, as users write them.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeName {
    /// Null: keeps the lock's value alive, excludes nobody.
    Nl,
    /// Concurrent read: others may write.
    Cr,
    /// Concurrent write: others may write.
    Cw,
    /// Protected read: nobody writes.
    Pr,
    /// Protected write: nobody else writes.
    Pw,
    /// Exclusive.
    Ex,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// A connection that is in the lockspace.
fn open(place: &Place, space: &OsStr) -> Result<Connection, Error> {
    let mut connection = Connection::connect(&place.lock_socket()).map_err(Error::said)?;
    let open = Open { name: space.as_bytes().to_vec(), pid: std::process::id(), ..Open::default() };
    let tag = connection.calls.next_tag();
    let opened = connection.calls.call(tag, What::Open(open));
    opened.map_err(|error| Error::Said(format!("lockspace {}: {error}", space.to_string_lossy())))?;
    Ok(connection)
}

impl Lock {
    /// Takes the lock, runs the command, drops the lock.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let place = Place::find(dir)?;
        let mut connection = open(&place, &self.space)?;
        if self.unlock {
            return self.let_go(connection);
        }
        let command = self.what_to_run()?;
        let transaction = transaction();
        let lasting = if command.is_some() { Flags::NONE } else { Flags::PERSISTENT };
        let end = self.take(&mut connection, self.wanted_mode(), lasting, transaction)?;
        if end.status != status::OK {
            if end.status == status::DEADLOCK {
                eprintln!("ssi lock: {}: {}", self.name.to_string_lossy(), status::words(end.status));
            }
            return match end.status {
                status::AGAIN | status::TIMED_OUT | status::DEADLOCK => Ok(self.conflict_exit_code),
                other => Err(self.refused(other)),
            };
        }
        let code = match command {
            Some(command) => self.run_command(&connection, command, transaction)?,
            None => 0,
        };
        connection.close();
        Ok(code)
    }

    fn refused(&self, code: u32) -> Error {
        Error::Said(format!("lock {}: {}", self.name.to_string_lossy(), status::words(code)))
    }

    fn wanted_mode(&self) -> Mode {
        match self.mode {
            Some(ModeName::Nl) => Mode::NL,
            Some(ModeName::Cr) => Mode::CR,
            Some(ModeName::Cw) => Mode::CW,
            Some(ModeName::Pr) => Mode::PR,
            Some(ModeName::Pw) => Mode::PW,
            Some(ModeName::Ex) => Mode::EX,
            None if self.shared => Mode::PR,
            None => Mode::EX,
        }
    }

    /// The command: words, or a line for the shell, which flock(1) also allows behind the name.
    fn what_to_run(&self) -> Result<Option<Vec<OsString>>, Error> {
        let line = match (&self.command_line, self.command.split_first()) {
            (Some(line), None) => line,
            (Some(_), Some(_)) => return Err(Error::Said("a command or -c COMMAND, not both".into())),
            (None, Some((flag, rest))) if flag == "-c" || flag == "--command" => match rest {
                [line] => line,
                _ => return Err(Error::Said("-c takes one COMMAND, in quotes".into())),
            },
            (None, Some(_)) => return Ok(Some(self.command.clone())),
            (None, None) => return Ok(None),
        };
        let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
        Ok(Some(vec![shell.unwrap_or_else(|| "/bin/sh".into()), "-c".into(), line.clone()]))
    }

    /// Asks for the lock and waits for the answer.
    fn take(
        &self,
        connection: &mut Connection,
        mode: Mode,
        flags: Flags,
        transaction: u64,
    ) -> Result<Completion, Error> {
        let at_once = self.nonblock || self.wait.is_some_and(|wait| wait.is_zero());
        let patience = self.wait.map_or(0, |wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1));
        let lock = wire::Lock {
            name: self.name.as_bytes().to_vec(),
            mode: mode as u32,
            flags: if at_once { flags | Flags::NOQUEUE } else { flags }.0,
            timeout_ms: if at_once { 0 } else { patience },
            transaction,
            ..wire::Lock::default()
        };
        self.end_of(connection, What::Lock(lock))
    }

    /// Calls, and waits for the completion.
    fn end_of(&self, connection: &mut Connection, what: What) -> Result<Completion, Error> {
        let tag = connection.calls.next_tag();
        connection.calls.call(tag, what).map_err(|error| match error {
            dlm::Error::Refused { status } => self.refused(status),
            error => Error::said(error),
        })?;
        loop {
            let notice = connection.notices.wait().map_err(Error::said)?;
            let Some(notice) = notice else { return Err(self.refused(status::GONE)) };
            if let Some(Told::Completion(end)) = notice.told
                && end.tag == tag
            {
                return Ok(end);
            }
        }
    }

    /// Adopts the lock that was left behind, and unlocks it.
    fn let_go(&self, mut connection: Connection) -> Outcome {
        let tag = connection.calls.next_tag();
        let rows = connection.calls.call(tag, What::List(())).map_err(Error::said)?.rows;
        let is_meant = |row: &&wire::Row| {
            row.orphan && row.space == self.space.as_bytes() && row.name == self.name.as_bytes()
        };
        let left =
            rows.iter().find(is_meant).and_then(|row| Some((row.node, Mode::from_number(row.granted?)?)));
        let name = self.name.to_string_lossy();
        let Some((node, mode)) = left else {
            return Err(Error::Said(format!("lock {name}: no command has left it behind")));
        };
        let end = self.take(&mut connection, mode, Flags::ORPHAN | Flags::NOQUEUE, 0)?;
        if end.status == status::NOT_THERE {
            return Err(Error::Said(format!(
                "lock {name}: it was left behind on node {node}: drop it there"
            )));
        }
        if end.status != status::OK {
            return Err(self.refused(end.status));
        }
        let end =
            self.end_of(&mut connection, What::Unlock(Unlock { lkid: end.lkid, ..Unlock::default() }))?;
        match end.status {
            status::UNLOCKED => Ok(0),
            other => Err(self.refused(other)),
        }
    }

    /// Runs the command. Unless `-o` forbids it, it inherits the connection: if we are killed, it still has the lock.
    fn run_command(&self, connection: &Connection, command: Vec<OsString>, transaction: u64) -> Outcome {
        if !self.close {
            for descriptor in [connection.calls.as_fd(), connection.notices.as_fd()] {
                rustix::io::fcntl_setfd(descriptor, FdFlags::empty())
                    .map_err(Error::step("share the lock"))?;
            }
        }
        let mut child = Command::new(&command[0]);
        child.args(&command[1..]).env(TRANSACTION_VARIABLE, transaction.to_string());
        match child.status() {
            Ok(status) => Ok(exit_code(status)),
            Err(error) => {
                eprintln!("ssi lock: failed to execute {}: {error}", command[0].to_string_lossy());
                Ok(CANNOT_RUN)
            }
        }
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// The transaction that we are part of, or a new one: later ones are larger, and the largest gives way in a deadlock.
fn transaction() -> u64 {
    let named = std::env::var(TRANSACTION_VARIABLE).ok().and_then(|text| text.parse().ok());
    named.filter(|transaction| *transaction != 0).unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_millis() as u64);
        // 47 bits of milliseconds last for 4,000 years; the top bit belongs to locks without a transaction.
        (now & ((1 << 47) - 1)) << 16 | u64::from(std::process::id() & 0xffff)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        lock: Lock,
    }

    fn read(line: &str) -> Lock {
        Line::try_parse_from(format!("lock {line}").split(' ')).unwrap().lock
    }

    #[test]
    fn lines_for_flock_mean_the_same() {
        let lock = read("-s -w 2.5 -E 7 name ls -l");
        assert_eq!((lock.wanted_mode(), lock.wait), (Mode::PR, Some(Duration::from_millis(2500))));
        assert_eq!(lock.what_to_run().unwrap().unwrap(), ["ls", "-l"]);
        assert_eq!(lock.conflict_exit_code, 7);
        for line in ["-xn name -c true", "-e -n -c true name", "--nb name --command true"] {
            let lock = read(line);
            assert!(lock.nonblock && lock.wanted_mode() == Mode::EX, "{line}");
            assert_eq!(lock.what_to_run().unwrap().unwrap()[1..], ["-c", "true"], "{line}");
        }
        assert!(read("name").what_to_run().unwrap().is_none());
        assert!(read("name -c true too much").what_to_run().is_err());
    }

    #[test]
    fn modes_are_known_by_their_names() {
        assert_eq!(read("--mode PW name true").wanted_mode(), Mode::PW);
        assert!(Line::try_parse_from(["lock", "--mode", "PW", "-s", "name"]).is_err());
        assert!(Line::try_parse_from(["lock", "-w", "-1", "name"]).is_err());
    }
}
