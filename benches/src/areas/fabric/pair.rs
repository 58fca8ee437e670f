//! Two processes that talk to each other for one block: a server on the first core, a driver on the second, or both where the kernel likes.
//!
//! Invariant: both are started anew for each block, so that nobody spins while another block is taken, and both are gone when
//! it is over, also after an error.

use super::sample::Sample;
use super::side::{ANY_CORE, COUNT, GO, MARK};
use crate::Error;
use crate::areas::own_path;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// No block takes so long.
const WITHIN: Duration = Duration::from_secs(100);

/// The words of both sides; the server's address is appended to the driver's.
#[derive(Clone, Debug)]
pub struct Pair {
    serve: Vec<String>,
    drive: Vec<String>,
    pinned: bool,
    in_memory: bool,
}

impl Pair {
    /// A pair of these words, which are separated by spaces. Without a server the driver is alone.
    pub fn new(serve: &str, drive: &str) -> Pair {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        Pair { serve: words(serve), drive: words(drive), pinned: true, in_memory: false }
    }

    /// The same on whichever cores: for what the kernel does much work for, on a core that it chooses.
    pub fn unpinned(self) -> Pair {
        Pair { pinned: false, ..self }
    }

    /// The same with the directories of both sides in memory: for what writes to them.
    pub fn in_memory(self) -> Pair {
        Pair { in_memory: true, ..self }
    }

    fn start(&self, core: Option<usize>, words: &[String], log: Option<&Path>) -> Result<Side, Error> {
        let dir = if self.in_memory { tempfile::tempdir_in("/dev/shm")? } else { tempfile::tempdir()? };
        Side::start(core, words, log, dir)
    }

    fn core(&self, core: usize) -> Option<usize> {
        self.pinned.then_some(core)
    }

    /// Takes a block: the driver's sample, and in it `cpu` (us) and `allocations` of one call or MiB, of both sides together, and
    /// by how much the server grew (`server_rss`, KiB).
    pub fn block(&self) -> Result<Sample, Error> {
        self.measured(GO, MARK)
    }

    /// As [`Pair::block`], with requests for memory counted; what is timed is then a little slower.
    pub fn counted(&self) -> Result<Sample, Error> {
        self.measured(COUNT, COUNT)
    }

    fn measured(&self, go: &str, mark: &str) -> Result<Sample, Error> {
        let mut server = self.server(None)?;
        let mut drive = self.drive.clone();
        drive.extend(server.as_ref().map(|(_, at)| at.clone()).unwrap_or_default());
        let mut driver = self.start(self.core(DRIVER_CORE), &drive, None)?;
        driver.expect("warm")?;
        let mut used = |word: &str| -> Result<Sample, Error> {
            match &mut server {
                Some((server, _)) => Sample::parse(&server.ask(word)?),
                None => Ok(Sample::default().with("cpu", 0.0).with("allocations", 0.0).with("rss", 0.0)),
            }
        };
        let before = used(mark)?;
        let sample = Sample::parse(&driver.ask(go)?)?;
        let after = used(MARK)?;
        let each = |name: &str| -> Result<f64, Error> {
            let both = sample.value(name)? + after.value(name)? - before.value(name)?;
            Ok(both / sample.value("count")?)
        };
        let (cpu, allocations) = (each("cpu")? / 1e3, each("allocations")?);
        let grown = after.value("rss")? - before.value("rss")?;
        Ok(sample.with("cpu", cpu).with("allocations", allocations).with("server_rss", grown))
    }

    /// Runs it once below strace, which writes what it counted to these files.
    pub fn traced(&self, server_log: &Path, driver_log: &Path) -> Result<(), Error> {
        let server = self.server(Some(server_log))?;
        let mut drive = self.drive.clone();
        drive.extend(server.as_ref().map(|(_, at)| at.clone()).unwrap_or_default());
        let mut driver = self.start(self.core(DRIVER_CORE), &drive, Some(driver_log))?;
        driver.expect("warm")?;
        driver.ask(GO)?;
        driver.finish()?;
        server.map_or(Ok(()), |(server, _)| server.finish())
    }

    fn server(&self, log: Option<&Path>) -> Result<Option<(Side, Vec<String>)>, Error> {
        if self.serve.is_empty() {
            return Ok(None);
        }
        let mut side = self.start(self.core(0), &self.serve, log)?;
        let line = side.line()?;
        let at = line.strip_prefix("at ").ok_or_else(|| format!("{}: {line}", side.name))?;
        let at = at.split_whitespace().map(str::to_owned).collect();
        Ok(Some((side, at)))
    }
}

/// The core of the driver; the server's is the first.
const DRIVER_CORE: usize = 1;

/// A running side.
pub struct Side {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    /// Where it runs, and may leave what it likes.
    _dir: tempfile::TempDir,
}

impl Side {
    /// Starts one on this core, or on any, below strace if there is a file for what it counts.
    pub fn start(
        core: Option<usize>,
        words: &[String],
        log: Option<&Path>,
        dir: tempfile::TempDir,
    ) -> Result<Side, Error> {
        let own = own_path()?;
        let mut command = match log {
            None => Command::new(&own),
            Some(log) => {
                let mut strace = Command::new("strace");
                strace.args(["-f", "-c", "-o"]).arg(log).arg(&own);
                strace
            }
        };
        let core = core.map_or_else(|| ANY_CORE.to_owned(), |core| core.to_string());
        command.args(["side", &core]).args(words).current_dir(dir.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().ok_or("a side without output")?);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Ok(Side { name: words.join(" "), input: child.stdin.take(), child, lines, _dir: dir })
    }

    /// The next line that it says.
    pub fn line(&mut self) -> Result<String, Error> {
        self.lines.recv_timeout(WITHIN).map_err(|error| format!("{}: {error}", self.name).into())
    }

    /// Says something and waits for the answer.
    pub fn ask(&mut self, word: &str) -> Result<String, Error> {
        let input = self.input.as_mut().ok_or("a side without input")?;
        writeln!(input, "{word}")?;
        self.line()
    }

    /// Waits for this very line.
    pub fn expect(&mut self, wanted: &str) -> Result<(), Error> {
        let line = self.line()?;
        if line == wanted { Ok(()) } else { Err(format!("{}: {line}", self.name).into()) }
    }

    /// Lets it end by itself.
    pub fn finish(mut self) -> Result<(), Error> {
        self.input = None;
        match self.child.wait()? {
            status if status.success() => Ok(()),
            status => Err(format!("{}: {status}", self.name).into()),
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
