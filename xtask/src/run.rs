//! Running commands: with an end to every wait, all output kept, and nothing left running.
//!
//! Invariant: a command of ours that captures output is the leader of a process group of its own. If it does not end
//! by itself (a deadline, ^C, a dropped [`Background`]), the whole group is ended; what a command that has ended by
//! itself leaves behind is its own affair (`ssi cluster up` leaves a cluster).

use std::ffi::{OsStr, OsString};
use std::io::{self, PipeReader, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::sys::{self, Signal, Whom};

/// How long a command may take if nobody says otherwise.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a command that was asked to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(3);
/// How long one look at the world lasts when no descriptor tells of a change.
const GLANCE: Duration = Duration::from_millis(40);

/// What a finished command left.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Its standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// All that it wrote.
    pub fn all(&self) -> String {
        let mut text = self.text();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&String::from_utf8_lossy(&self.stderr));
        text
    }
}

/// A command to run.
#[derive(Debug, Clone)]
pub struct Run {
    words: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    limit: Duration,
    interruptible: bool,
}

impl Run {
    /// A command and its arguments.
    pub fn new<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>) -> Self {
        let words: Vec<OsString> = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        assert!(!words.is_empty(), "a command has a name");
        Self { words, env: Vec::new(), directory: None, limit: LIMIT, interruptible: true }
    }

    /// A command and its arguments, from one line that needs no quoting.
    pub fn line(line: &str) -> Self {
        Self::new(line.split_whitespace())
    }

    /// More arguments.
    pub fn args<W: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.words.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// One more variable of its environment.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Where it runs.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// How long it may take.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// It runs to its end even if somebody asks us to stop: it is part of cleaning up.
    pub fn uninterruptible(mut self) -> Self {
        self.interruptible = false;
        self
    }

    /// The command as a person would type it.
    pub fn shown(&self) -> String {
        let env = self.env.iter().map(|(name, value)| format!("{}={}", name.display(), quoted(value)));
        env.chain(self.words.iter().map(|word| quoted(word))).collect::<Vec<_>>().join(" ")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).envs(self.env.iter().cloned()).stdin(Stdio::null());
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }

    fn failed(&self, why: impl Into<String>, output: impl Into<String>) -> Error {
        Error::Command { why: why.into(), command: self.shown(), output: output.into() }
    }

    /// Runs it to its end, whatever that is, and keeps what it writes.
    pub fn output(&self) -> Result<Output, Error> {
        let (stdout, stdout_end) = pipe()?;
        let (stderr, stderr_end) = pipe()?;
        let mut running = self.start_into(stdout_end, stderr_end, vec![stdout, stderr])?;
        let status = running.finish(self.limit, self.interruptible)?;
        let mut taken = running.sources.iter_mut().map(|source| std::mem::take(&mut source.taken));
        let (stdout, stderr) = (taken.next().unwrap_or_default(), taken.next().unwrap_or_default());
        Ok(Output { status, stdout, stderr })
    }

    /// Runs it; anything but success is an error.
    pub fn checked(&self) -> Result<Output, Error> {
        let output = self.output()?;
        if output.status.success() {
            return Ok(output);
        }
        Err(self.failed(ended(output.status), output.all()))
    }

    /// Starts it; what it writes to both its outputs is kept together.
    pub fn start(&self) -> Result<Background, Error> {
        let (reader, end) = pipe()?;
        let twin = end.try_clone().map_err(Error::io("duplicate a pipe"))?;
        self.start_into(end, twin, vec![reader])
    }

    fn start_into(
        &self,
        out: impl Into<Stdio>,
        err: impl Into<Stdio>,
        pipes: Vec<PipeReader>,
    ) -> Result<Background, Error> {
        let mut command = self.command();
        command.stdout(out).stderr(err).process_group(0);
        let child = command.spawn().map_err(|error| self.failed(format!("cannot start it: {error}"), ""))?;
        // The writing ends live in `command`: ours must be closed, or we would never see the end.
        drop(command);
        let sources = pipes.into_iter().map(|pipe| Source { pipe: Some(pipe), taken: Vec::new() }).collect();
        let mut running =
            Background { run: self.clone(), child, pidfd: None, sources, ended: None, noticed: 0 };
        running.pidfd = Some(sys::open_pidfd(running.child.id()).map_err(Error::io("pidfd_open"))?);
        for source in running.sources.iter().filter_map(|source| source.pipe.as_ref()) {
            sys::unblock(source.as_fd()).map_err(Error::io("fcntl"))?;
        }
        Ok(running)
    }

    /// Runs it on our own terminal and in our own process group, so that it may ask; anything but success is an error.
    pub fn on_terminal(&self) -> Result<(), Error> {
        let mut child = self
            .command()
            .stdin(Stdio::inherit())
            .spawn()
            .map_err(|error| self.failed(format!("cannot start it: {error}"), ""))?;
        let pidfd = sys::open_pidfd(child.id()).map_err(Error::io("pidfd_open"))?;
        let mut fds = vec![pidfd.as_fd()];
        fds.extend(sys::interruption());
        loop {
            let ready = sys::poll(&fds, LIMIT).map_err(Error::io("poll"))?;
            let interrupted = ready.get(1) == Some(&true);
            if interrupted {
                sys::send(Whom::Process(child.id()), Signal::Terminate);
            }
            if !interrupted && !ready[0] {
                continue;
            }
            let status = child.wait().map_err(Error::io("wait"))?;
            return match (interrupted, status.success()) {
                (true, _) => Err(Error::Interrupted),
                (_, true) => Ok(()),
                _ => Err(self.failed(ended(status), "(see above)")),
            };
        }
    }
}

fn pipe() -> Result<(PipeReader, io::PipeWriter), Error> {
    io::pipe().map_err(Error::io("make a pipe"))
}

struct Source {
    pipe: Option<PipeReader>,
    taken: Vec<u8>,
}

impl Source {
    /// Takes what is there now, and not more than a bound.
    fn take(&mut self) {
        const ONE_TURN_BYTES: u64 = 4 << 20;
        let Some(pipe) = &mut self.pipe else { return };
        match pipe.take(ONE_TURN_BYTES).read_to_end(&mut self.taken) {
            Ok(count) if count as u64 == ONE_TURN_BYTES => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => self.pipe = None,
        }
    }
}

/// A command that runs beside us.
pub struct Background {
    run: Run,
    child: Child,
    pidfd: Option<OwnedFd>,
    sources: Vec<Source>,
    ended: Option<ExitStatus>,
    /// Bytes of output that [`Background::writes_within`] has told of.
    noticed: usize,
}

impl Background {
    /// All that it has written so far and that [`Background::pump`] has taken.
    pub fn text(&self) -> String {
        self.sources.iter().map(|source| String::from_utf8_lossy(&source.taken)).collect()
    }

    /// The command as a person would type it.
    pub fn shown(&self) -> String {
        self.run.shown()
    }

    /// Takes output until there is more of it, the command has ended, or the time is over.
    pub fn pump(&mut self, limit: Duration, interruptible: bool) -> Result<(), Error> {
        let mut fds: Vec<_> = self.pidfd.iter().map(|fd| fd.as_fd()).collect();
        fds.extend(self.sources.iter().filter_map(|source| source.pipe.as_ref()).map(|pipe| pipe.as_fd()));
        let own = fds.len();
        if interruptible {
            fds.extend(sys::interruption());
        }
        let ready = sys::poll(&fds, limit).map_err(Error::io("poll"))?;
        if ready[own..].contains(&true) {
            return Err(Error::Interrupted);
        }
        if ready[0] && self.ended.is_none() {
            self.ended = Some(self.child.wait().map_err(Error::io("wait"))?);
        }
        self.sources.iter_mut().for_each(Source::take);
        Ok(())
    }

    /// True once the command has ended.
    pub fn has_ended(&mut self) -> Result<bool, Error> {
        self.pump(Duration::ZERO, true)?;
        Ok(self.ended.is_some())
    }

    /// True if the command has written something since this was asked last, or writes something within `limit`.
    pub fn writes_within(&mut self, limit: Duration) -> Result<bool, Error> {
        let before = self.noticed;
        self.pump(Duration::ZERO, true)?;
        let until = Instant::now() + limit;
        while self.ended.is_none() && self.written() == before {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.pump(left, true)?;
        }
        self.noticed = self.written();
        Ok(self.noticed > before)
    }

    fn written(&self) -> usize {
        self.sources.iter().map(|source| source.taken.len()).sum()
    }

    /// Waits for its end, whatever that is.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, Error> {
        self.finish(limit, true)
    }

    fn finish(&mut self, limit: Duration, interruptible: bool) -> Result<ExitStatus, Error> {
        let until = Instant::now() + limit;
        loop {
            self.pump(until.saturating_duration_since(Instant::now()), interruptible)?;
            if let Some(status) = self.ended {
                return Ok(status);
            }
            if Instant::now() >= until {
                let why = format!("not finished after {} s", limit.as_secs_f32());
                return Err(self.run.failed(why, self.text()));
            }
        }
    }

    /// Asks it to end, then ends it.
    pub fn stop(&mut self) {
        let group = Whom::Group(self.child.id());
        if self.ended.is_none() {
            sys::send(group, Signal::Terminate);
            let _ = self.finish(GRACE, false);
        }
        if self.ended.is_none() {
            sys::send(group, Signal::Kill);
            self.ended = self.child.wait().ok();
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Looks again and again until `look` finds something or the time is over.
pub fn until<T>(
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    let until = Instant::now() + limit;
    loop {
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        let fds: Vec<_> = sys::interruption().into_iter().collect();
        if sys::poll(&fds, GLANCE).map_err(Error::io("poll"))?.contains(&true) {
            return Err(Error::Interrupted);
        }
    }
}

/// Whether somebody has asked us to stop.
pub fn stop_if_interrupted() -> Result<(), Error> {
    let fds: Vec<_> = sys::interruption().into_iter().collect();
    match sys::poll(&fds, Duration::ZERO).map_err(Error::io("poll"))?.contains(&true) {
        true => Err(Error::Interrupted),
        false => Ok(()),
    }
}

/// How a command ended, in words.
pub fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (_, Some(signal)) => format!("was killed by signal {signal}"),
        _ => "ended".to_owned(),
    }
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_outputs_and_the_status_come_back() {
        let output = Run::new(["sh", "-c", "echo out; echo err >&2; exit 3"]).output().unwrap();
        assert_eq!((output.text().as_str(), output.status.code()), ("out\n", Some(3)));
        assert_eq!(output.all(), "out\nerr\n");
    }

    #[test]
    fn much_output_does_not_block_the_command() {
        let output = Run::new(["sh", "-c", "head -c 9000000 /dev/zero; head -c 300000 /dev/zero >&2"])
            .checked()
            .unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len()), (9_000_000, 300_000));
    }

    #[test]
    fn a_command_that_takes_too_long_is_ended_with_all_its_children() {
        let begin = Instant::now();
        let run = Run::new(["sh", "-c", "sleep 100 & echo started; wait"]).limit(Duration::from_millis(200));
        let error = run.output().unwrap_err().to_string();
        assert!(error.contains("not finished after") && error.contains("started"), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_daemon_that_keeps_the_pipe_does_not_keep_us() {
        let mut running = Run::new(["sh", "-c", "sleep 100 & echo done"]).start().unwrap();
        let status = running.wait(Duration::from_secs(10));
        sys::send(Whom::Group(running.child.id()), Signal::Kill);
        assert!(status.unwrap().success());
        assert_eq!(running.text(), "done\n");
    }

    #[test]
    fn a_failure_shows_the_command_line() {
        let error =
            Run::new(["sh", "-c", "echo no; exit 7"]).env("A", "b c").checked().unwrap_err().to_string();
        assert!(
            error.contains("exit code 7") && error.contains("$ A='b c' sh -c 'echo no; exit 7'"),
            "{error}"
        );
        assert!(Run::line("/does/not/exist").output().unwrap_err().to_string().contains("cannot start"));
    }

    #[test]
    fn output_that_came_before_we_looked_counts_once() {
        let mut running = Run::new(["sh", "-c", "echo one; exec sleep 100"]).start().unwrap();
        while running.text().is_empty() {
            running.pump(Duration::from_secs(10), true).unwrap();
        }
        assert!(running.writes_within(Duration::from_secs(10)).unwrap());
        assert!(!running.writes_within(Duration::ZERO).unwrap());
    }

    #[test]
    fn a_background_command_is_watched_and_stopped() {
        let mut cat = Run::new(["sh", "-c", "echo one; exec sleep 100"]).start().unwrap();
        assert!(cat.writes_within(Duration::from_secs(10)).unwrap());
        assert!(!cat.writes_within(Duration::from_millis(20)).unwrap());
        assert!(!cat.has_ended().unwrap());
        sys::send(Whom::Group(cat.child.id()), Signal::Terminate);
        assert!(!cat.writes_within(Duration::from_secs(10)).unwrap());
        cat.stop();
        assert!(cat.has_ended().unwrap());
        assert_eq!(cat.text(), "one\n");
    }
}
