//! One task with our own terminal, streams, signals and exit status: what `onnode NODE COMMAND` does.

use super::terminal::window_size;
use super::{Credit, Ending, Error, News, Outputs, RawMode, Signals, TaskEvent, Tasks, Watch, in_foreground};
use crate::wire::{Change, STDERR, STDIN, STDOUT, Stdio, TaskSpec};
use base::NodeId;
use base::limits::STREAM_CHUNK_BYTES;
use rustix::event::PollFlags;
use rustix::stdio::{stdin, stdout};
use rustix::termios::isatty;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::Duration;

/// After the task's end, how long its streams may stay silent before we no longer wait for their end: a descendant
/// that it left behind may hold them for ever. What was in the pipes at the end arrives well within this.
const SILENCE: Duration = Duration::from_millis(500);
/// How often we look whether a shell has moved us to the foreground of our terminal: `fg` of a running job is told by
/// SIGCONT, which the tracer of a shadow keeps for the task.
const FOREGROUND_CHECK: Duration = Duration::from_millis(500);
/// How long the last words of the conversation may take.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(2_000);

/// What to run in the foreground, and where.
#[derive(Debug)]
pub struct Foreground<'a> {
    /// The admin socket of our node's `ssid`.
    pub socket: &'a Path,
    /// Where the task shall run.
    pub node: NodeId,
    /// That node's name, for messages.
    pub node_name: &'a str,
    /// The task; see [`TaskSpec::from_here`].
    pub spec: TaskSpec,
    /// This process becomes the task's shadow: the task gets our pid, and `ssi-init` carries signals to it and its
    /// stops and its death by a signal back to us. Only for a process of the view. Without it we forward signals.
    pub shadow: bool,
}

/// Runs one task until it ends, with stdin, stdout, stderr, terminal and signals forwarded. Input is read ahead of the
/// task, by at most one window, as with ssh. The caller prints [`Ending::message`] and calls [`Ending::imitate`].
///
/// # Errors
/// [`Error`]: our `ssid` stays away, or this process cannot do what it must. The task is killed after the grace time.
pub fn foreground(options: Foreground<'_>) -> Result<Ending, Error> {
    let mut run = Run::start(options)?;
    while !run.step()? {}
    Ok(run.finish())
}

/// Signals that a command without a shadow passes on.
const FORWARDED: [i32; 8] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTSTP,
    libc::SIGCONT,
];

struct Run<'a> {
    tasks: Tasks,
    index: u32,
    node_name: &'a str,
    shadow: bool,
    pty: bool,
    stdin_is_terminal: bool,
    stdin_open: bool,
    signals: Signals,
    outputs: Outputs,
    raw: Option<RawMode<'static>>,
    /// Output streams that have not ended.
    open: BTreeSet<u32>,
    started: bool,
    /// Between a stop of the task and its going on the terminal is the shell's.
    stopped: bool,
    /// Output was lost: the command has not succeeded, whatever the task says.
    unwritten: bool,
    ending: Option<Ending>,
}

impl<'a> Run<'a> {
    fn start(options: Foreground<'a>) -> Result<Run<'a>, Error> {
        let Foreground { socket, node, node_name, mut spec, shadow } = options;
        let pty = spec.stdio() == Stdio::Pty;
        let open = if spec.stdio() == Stdio::Pipes { vec![STDOUT, STDERR] } else { vec![STDOUT] };
        spec.keep_pid = if shadow { std::process::id() } else { 0 };
        let mut caught = vec![libc::SIGWINCH, libc::SIGCONT];
        caught.extend(FORWARDED.iter().filter(|_| !shadow));
        let signals = Signals::catch(&caught, spec.ignored_signals)?;
        let mut tasks = Tasks::open(socket)?;
        let index = tasks.spawn(node, spec)?;
        Ok(Run {
            tasks,
            index,
            node_name,
            shadow,
            pty,
            stdin_is_terminal: isatty(stdin()),
            stdin_open: true,
            signals,
            outputs: Outputs::here(),
            raw: None,
            open: open.into_iter().collect(),
            started: false,
            stopped: false,
            unwritten: false,
            ending: None,
        })
    }

    /// Waits for one round of events and deals with them. True when all is over.
    fn step(&mut self) -> Result<bool, Error> {
        let timeout = self.timeout();
        let mut watches = vec![Watch::new(self.signals.as_fd(), PollFlags::IN)];
        if self.reads_stdin() {
            watches.push(Watch::new(stdin(), PollFlags::IN));
        }
        self.outputs.watch(&mut watches);
        let events = self.tasks.wait(&mut watches, timeout)?;
        let caught = watches[0].is_ready();
        let ready: Vec<i32> =
            watches.iter().filter(|watch| watch.is_ready()).map(|watch| watch.fd.as_raw_fd()).collect();
        let silent = events.is_empty() && ready.is_empty();
        for event in events {
            self.hear(event);
        }
        if caught {
            self.take_signals();
        }
        if ready.contains(&stdin().as_raw_fd()) {
            self.read_stdin();
        }
        self.write(&ready);
        self.adapt_terminal();
        Ok(self.is_over(silent))
    }

    fn timeout(&self) -> Option<Duration> {
        if self.ending.is_some() {
            Some(SILENCE)
        } else {
            (self.stdin_is_terminal && !in_foreground(stdin())).then_some(FOREGROUND_CHECK)
        }
    }

    fn is_over(&self, silent: bool) -> bool {
        match &self.ending {
            None => false,
            Some(_) if self.outputs.is_waiting() => false,
            Some(Ending::NotStarted { .. } | Ending::Lost { .. }) => true,
            Some(_) => self.open.is_empty() || (silent && self.tasks.is_connected()),
        }
    }

    fn reads_stdin(&self) -> bool {
        self.stdin_open
            && self.started
            && self.ending.is_none()
            && self.tasks.input_room(self.index, STDIN) > 0
            && (!self.stdin_is_terminal || in_foreground(stdin()))
    }

    fn hear(&mut self, event: TaskEvent) {
        match event.news {
            News::Started(_) => self.started = true,
            // The next step watches stdin again.
            News::InputRoom { .. } => {}
            News::Output { stream, data } => {
                let credit = Credit { index: self.index, stream, bytes: data.len() };
                self.outputs.push(stream, &data, Some(credit));
            }
            News::OutputEnd { stream } => {
                self.open.remove(&stream);
            }
            News::Changed(change) => self.changed(&change),
            News::Failed(failed) => self.ending = Some(Ending::not_started(&failed, self.node_name)),
            News::Lost(failed) => self.ending = Some(Ending::lost(&failed, self.node_name)),
        }
    }

    fn changed(&mut self, change: &Change) {
        if change.ended {
            self.ending = Ending::of(change);
        } else if change.wait_status & 0xff == 0x7f {
            // The shell that sees us stop must find its terminal as it was.
            self.raw = None;
            self.stopped = true;
            if !self.shadow {
                let _ = signal_hook::low_level::emulate_default_handler(libc::SIGSTOP);
            }
        } else {
            self.stopped = false;
        }
    }

    fn take_signals(&mut self) {
        for number in self.signals.take() {
            if number == libc::SIGCONT {
                // The shell may have stopped us before we gave it its terminal back, and has set its own modes since.
                (self.raw, self.stopped) = (None, false);
            }
            if number == libc::SIGWINCH {
                if let Some(size) = window_size(stdout()).filter(|_| self.pty) {
                    self.tasks.resize(self.index, size);
                }
            } else if !self.shadow {
                // A task leads its session: its group is an orphaned one, where the kernel discards SIGTSTP.
                let number = if number == libc::SIGTSTP { libc::SIGSTOP } else { number };
                self.tasks.signal(self.index, number as u32);
            }
        }
    }

    fn read_stdin(&mut self) {
        let mut buffer = vec![0; self.tasks.input_room(self.index, STDIN).min(STREAM_CHUNK_BYTES)];
        match rustix::io::read(stdin(), &mut buffer[..]) {
            Ok(0) => self.end_stdin(),
            Ok(length) => {
                let taken = self.tasks.input(self.index, STDIN, &buffer[..length]);
                debug_assert_eq!(taken, length, "no more is read than there is room for");
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            // EIO: the terminal is gone. Whatever it is, nothing more comes.
            Err(_) => self.end_stdin(),
        }
    }

    fn end_stdin(&mut self) {
        self.stdin_open = false;
        self.tasks.end_input(self.index, STDIN);
    }

    fn write(&mut self, ready: &[i32]) {
        if let Err(error) = self.outputs.write(ready, &mut self.tasks) {
            if error.kind() != std::io::ErrorKind::BrokenPipe {
                self.outputs.say(&format!("cannot write the output of {}: {error}", self.node_name));
                self.unwritten = true;
            }
            // What a local program would have met at its next write.
            self.tasks.signal(self.index, libc::SIGPIPE as u32);
        }
    }

    /// Raw mode while a pty runs and we are in the foreground.
    fn adapt_terminal(&mut self) {
        if self.pty && self.started && !self.stopped && self.ending.is_none() && self.raw.is_none() {
            self.raw = RawMode::enter(stdin());
        }
    }

    fn finish(mut self) -> Ending {
        self.raw = None;
        self.tasks.forget(self.index);
        self.tasks.flush(FLUSH_TIMEOUT);
        match self.ending.take().expect("a run is over when it has an ending") {
            Ending::Exited(0) if self.unwritten => Ending::Exited(1),
            // The signal was ours, for the same reason.
            Ending::Killed { signal, .. } if self.unwritten && i32::from(signal) == libc::SIGPIPE => {
                Ending::Exited(1)
            }
            ending => ending,
        }
    }
}
