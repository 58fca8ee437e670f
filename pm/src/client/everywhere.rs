//! One command on many nodes at once: what `onall COMMAND` does.

use super::{Credit, Ending, Error, LineMux, News, Outputs, Signals, TaskEvent, Tasks, Watch};
use crate::wire::{STDERR, STDIN, STDOUT, Stdio, TaskSpec};
use base::NodeId;
use rustix::event::PollFlags;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::Duration;

/// See [`super::foreground`]: how long streams may stay silent after the end of their tasks.
const SILENCE: Duration = Duration::from_millis(500);
/// How long the last words of the conversation may take.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(2_000);

/// What to run, and where.
#[derive(Debug)]
pub struct Everywhere<'a> {
    /// The admin socket of our node's `ssid`.
    pub socket: &'a Path,
    /// The command's name, in front of messages.
    pub program: &'a str,
    /// The nodes and their names.
    pub nodes: &'a [(NodeId, String)],
    /// The task, the same on every node; see [`TaskSpec::from_here`]. Its standard input is empty.
    pub spec: TaskSpec,
    /// Put the node's name in front of each line.
    pub prefix: bool,
}

/// Runs the task on all nodes at once and waits for all of them. Lines of different nodes never mix. Gives back the
/// highest exit code of all (128 and the signal for a killed one, 255 where a node could not run it or was lost).
/// ^C goes to all tasks; a second one kills them and gives 130.
///
/// # Errors
/// [`Error`]: too many nodes, or our `ssid` stays away.
pub fn everywhere(options: &Everywhere<'_>) -> Result<u8, Error> {
    let mut all = All::start(options)?;
    while !all.step()? {}
    all.tasks.flush(FLUSH_TIMEOUT);
    Ok(all.highest)
}

const CAUGHT: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

struct All<'a> {
    options: &'a Everywhere<'a>,
    tasks: Tasks,
    signals: Signals,
    outputs: Outputs,
    muxes: [LineMux; 2],
    running: BTreeSet<u32>,
    /// Streams that have not ended, as (task, stream).
    open: BTreeSet<(u32, u32)>,
    interrupted: bool,
    highest: u8,
}

impl<'a> All<'a> {
    fn start(options: &'a Everywhere<'a>) -> Result<All<'a>, Error> {
        let mut spec = options.spec.clone();
        if spec.stdio() == Stdio::Pty {
            // One terminal cannot belong to many.
            spec.set_stdio(Stdio::Merged);
        }
        let signals = Signals::catch(&CAUGHT, spec.ignored_signals)?;
        let mut all = All {
            options,
            tasks: Tasks::open(options.socket)?,
            signals,
            outputs: Outputs::here(),
            muxes: Default::default(),
            running: BTreeSet::new(),
            open: BTreeSet::new(),
            interrupted: false,
            highest: 0,
        };
        for (node, name) in options.nodes {
            all.add(*node, name, spec.clone())?;
        }
        Ok(all)
    }

    fn add(&mut self, node: NodeId, name: &str, spec: TaskSpec) -> Result<(), Error> {
        let streams = if spec.stdio() == Stdio::Pipes { &[STDOUT, STDERR][..] } else { &[STDOUT] };
        let index = self.tasks.spawn(node, spec)?;
        self.tasks.end_input(index, STDIN);
        self.running.insert(index);
        self.open.extend(streams.iter().map(|&stream| (index, stream)));
        if self.options.prefix {
            let prefix = format!("{name}: ");
            self.muxes.iter_mut().for_each(|mux| mux.prefix(index, prefix.as_bytes()));
        }
        Ok(())
    }

    fn step(&mut self) -> Result<bool, Error> {
        let mut watches = vec![Watch::new(self.signals.as_fd(), PollFlags::IN)];
        self.outputs.watch(&mut watches);
        let timeout = self.running.is_empty().then_some(SILENCE);
        let events = self.tasks.wait(&mut watches, timeout)?;
        let caught = watches[0].is_ready();
        let ready: Vec<i32> =
            watches.iter().filter(|watch| watch.is_ready()).map(|watch| watch.fd.as_raw_fd()).collect();
        let silent = events.is_empty() && ready.is_empty() && self.tasks.is_connected();
        for event in events {
            self.hear(event);
        }
        if caught {
            self.take_signals();
        }
        if self.outputs.write(&ready, &mut self.tasks).is_err() {
            self.signal_all(libc::SIGPIPE);
        }
        if self.running.is_empty() && silent {
            self.close_all();
        }
        Ok(self.running.is_empty() && self.open.is_empty() && !self.outputs.is_waiting())
    }

    fn hear(&mut self, event: TaskEvent) {
        let index = event.index;
        match event.news {
            News::Started(_) | News::InputRoom { .. } => {}
            News::Output { stream, data } => {
                let lines = self.muxes[usize::from(stream == STDERR)].push(index, &data);
                self.outputs.push(stream, &lines, Some(Credit { index, stream, bytes: data.len() }));
            }
            News::OutputEnd { stream } => self.close(index, stream),
            News::Changed(change) => {
                if let Some(ending) = Ending::of(&change) {
                    self.end(index, &ending);
                }
            }
            News::Failed(failed) => self.end(index, &Ending::not_started(&failed, self.name(index))),
            News::Lost(failed) => self.end(index, &Ending::lost(&failed, self.name(index))),
        }
    }

    fn name(&self, index: u32) -> &'a str {
        &self.options.nodes[index as usize].1
    }

    fn close(&mut self, index: u32, stream: u32) {
        let rest = self.muxes[usize::from(stream == STDERR)].finish(index);
        self.outputs.push(stream, &rest, None);
        self.open.remove(&(index, stream));
        self.forget_if_done(index);
    }

    fn end(&mut self, index: u32, ending: &Ending) {
        self.running.remove(&index);
        self.highest = self.highest.max(ending.code());
        if let Some(message) = ending.message() {
            self.outputs.say(&format!("{}: {message}", self.options.program));
            self.close(index, STDOUT);
            self.close(index, STDERR);
        }
        self.forget_if_done(index);
    }

    fn forget_if_done(&mut self, index: u32) {
        let open = self.open.range((index, 0)..=(index, u32::MAX)).next().is_some();
        if !open && !self.running.contains(&index) {
            self.tasks.forget(index);
        }
    }

    fn close_all(&mut self) {
        for (index, stream) in std::mem::take(&mut self.open) {
            self.close(index, stream);
        }
    }

    fn signal_all(&mut self, number: i32) {
        for &index in &self.running {
            self.tasks.signal(index, number as u32);
        }
    }

    fn take_signals(&mut self) {
        for number in self.signals.take() {
            if std::mem::replace(&mut self.interrupted, true) {
                // Twice: whoever does not listen to signals is forgotten, which kills it.
                for index in std::mem::take(&mut self.running) {
                    self.tasks.forget(index);
                }
                self.close_all();
                self.highest = 128 + number as u8;
                return;
            }
            self.signal_all(number);
        }
    }
}
