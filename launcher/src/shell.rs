//! The thin shell around [`Job`] and [`Server`]: poll(2), the ranks' streams, our own stdin and signals.

use crate::job::{Config, Effect, Event, Job};
use crate::options::rank_spec;
use crate::pmi::{Output, Phase, Server};
use crate::{Error, Options};
use base::limits::STREAM_CHUNK_BYTES;
use base::{JobId, NodeId, Time};
use pm::client::{Credit, Ending, LineMux, News, Outputs, Signals, TaskEvent, Tasks, Watch, in_foreground};
use pm::wire::{CHANNEL, STDERR, STDIN, STDOUT, Stdio, TaskSpec};
use rustix::event::PollFlags;
use rustix::stdio::stdin;
use rustix::termios::isatty;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// Between SIGTERM and SIGKILL for ranks of a job that ends.
const KILL_GRACE: Duration = Duration::from_secs(2);
/// After the last rank's end, how long streams may stay silent before we no longer wait for their end.
const SILENCE: Duration = Duration::from_millis(300);
/// How often we look whether a shell has moved us to the foreground of our terminal.
const FOREGROUND_CHECK: Duration = Duration::from_millis(500);
/// How long our last words to `ssid` may take.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// Wire-up answers that one rank may leave unread beyond its stream's window; it asks one thing at a time.
const BACKLOG_BYTES_MAX: usize = 64 << 10;

/// Signals that end the job.
const ENDING: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// A job and everything around it. Rank r is task r.
pub(crate) struct Shell {
    tasks: Tasks,
    job: Job,
    pmi: Server,
    names: Vec<String>,
    outputs: Outputs,
    muxes: [LineMux; 2],
    signals: Signals,
    start: Instant,
    wake: Option<Time>,
    /// Output streams that have not ended, as (rank, stream).
    open: BTreeSet<(u32, u32)>,
    /// Wire-up answers for which there was no room.
    backlog: BTreeMap<u32, Vec<u8>>,
    stdin_open: bool,
    stdin_is_terminal: bool,
    done: Option<u8>,
}

impl Shell {
    /// Starts all ranks.
    pub(crate) fn start(
        options: &Options,
        common: &TaskSpec,
        job: JobId,
        placement: Vec<(NodeId, String)>,
        socket: &Path,
    ) -> Result<Shell, Error> {
        let nodes: Vec<NodeId> = placement.iter().map(|(node, _)| *node).collect();
        let caught: Vec<i32> = ENDING.into_iter().chain([libc::SIGTSTP, libc::SIGCONT]).collect();
        // Caught before the first rank starts: ^C from now on ends the job in good order.
        let signals = Signals::catch(&caught, common.ignored_signals)?;
        let mut shell = Shell {
            tasks: Tasks::open(socket)?,
            pmi: Server::new(job, &nodes),
            names: placement.iter().map(|(_, name)| name.clone()).collect(),
            outputs: Outputs::here(),
            muxes: Default::default(),
            signals,
            start: Instant::now(),
            wake: None,
            open: BTreeSet::new(),
            backlog: BTreeMap::new(),
            stdin_open: true,
            stdin_is_terminal: isatty(stdin()),
            done: None,
            job: Job::new(Config { placement: placement.clone(), grace: KILL_GRACE }),
        };
        for rank in 0..placement.len() {
            shell.start_rank(options, rank_spec(common, job, rank, &placement), placement[rank].0)?;
        }
        Ok(shell)
    }

    fn start_rank(&mut self, options: &Options, spec: TaskSpec, node: NodeId) -> Result<(), Error> {
        let streams = if spec.stdio() == Stdio::Pipes { &[STDOUT, STDERR][..] } else { &[STDOUT] };
        let rank = self.tasks.spawn(node, spec)?;
        self.open.extend(streams.iter().map(|&stream| (rank, stream)));
        if rank != 0 {
            self.tasks.end_input(rank, STDIN);
        }
        if options.prepend_rank {
            let prefix = format!("[{rank}] ");
            self.muxes.iter_mut().for_each(|mux| mux.prefix(rank, prefix.as_bytes()));
        }
        Ok(())
    }

    /// Waits for one round of events and deals with them. True when all is over and written.
    pub(crate) fn step(&mut self) -> Result<bool, Error> {
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
        let silent = events.is_empty() && ready.is_empty() && self.tasks.is_connected();
        for event in events {
            self.hear(event);
        }
        if caught {
            self.take_signals();
        }
        if ready.contains(&stdin().as_raw_fd()) {
            self.read_stdin();
        }
        if self.outputs.write(&ready, &mut self.tasks).is_err() {
            // Nobody reads us any more: as if we had been killed by SIGPIPE.
            self.tell(Event::Interrupted(libc::SIGPIPE as u8));
        }
        self.tick();
        if self.done.is_some() && silent {
            self.close_all();
        }
        Ok(self.done.is_some() && self.open.is_empty() && !self.outputs.is_waiting())
    }

    /// The job's exit code, after [`Shell::step`] said that all is over.
    pub(crate) fn finish(mut self) -> u8 {
        self.tasks.flush(FLUSH_TIMEOUT);
        self.done.unwrap_or(u8::MAX)
    }

    fn now(&self) -> Time {
        Time(0) + self.start.elapsed()
    }

    fn timeout(&self) -> Option<Duration> {
        let wake = self.wake.into_iter().chain(self.pmi.deadline()).min();
        let until_wake = wake.map(|wake| wake.since(self.now()));
        let silence = self.done.map(|_| SILENCE);
        let check = (self.stdin_open && self.stdin_is_terminal && !in_foreground(stdin()))
            .then_some(FOREGROUND_CHECK);
        [until_wake, silence, check].into_iter().flatten().min()
    }

    fn tick(&mut self) {
        let now = self.now();
        let outputs = self.pmi.tick(now);
        self.carry_out(outputs);
        if self.wake.is_some_and(|wake| wake <= now) {
            self.wake = None;
            self.tell(Event::Tick);
        }
    }

    fn tell(&mut self, event: Event) {
        for effect in self.job.handle(self.now(), event) {
            match effect {
                Effect::Signal(rank, number) => self.tasks.signal(rank, u32::from(number)),
                Effect::Forget(rank) => self.drop_rank(rank),
                Effect::Say(line) => self.outputs.say(&line),
                Effect::Wake(at) => self.wake = Some(at),
                Effect::Done(code) => self.done = Some(code),
            }
        }
    }

    fn hear(&mut self, event: TaskEvent) {
        let rank = event.index;
        match event.news {
            News::Started(started) => self.tell(Event::Started(rank, started.pid)),
            News::Output { stream: CHANNEL, data } => {
                self.tasks.written(rank, CHANNEL, data.len());
                self.wire_up(rank, &data);
            }
            News::Output { stream, data } => {
                let lines = self.muxes[usize::from(stream == STDERR)].push(rank, &data);
                self.outputs.push(stream, &lines, Some(Credit { index: rank, stream, bytes: data.len() }));
            }
            News::OutputEnd { stream } => self.close(rank, stream),
            // What waits for it goes out below; stdin is watched again by the next step.
            News::InputRoom { .. } => {}
            News::Changed(change) => {
                if let Some(ending) = Ending::of(&change) {
                    self.ended(rank, ending);
                }
            }
            News::Failed(failed) => {
                let ending = Ending::not_started(&failed, &self.names[rank as usize]);
                self.gone(rank, ending);
            }
            News::Lost(failed) => {
                let ending = Ending::lost(&failed, &self.names[rank as usize]);
                self.gone(rank, ending);
            }
        }
        self.drain_backlog(rank);
    }

    fn wire_up(&mut self, rank: u32, data: &[u8]) {
        let before = self.pmi.phase(rank);
        let outputs = self.pmi.receive(self.now(), rank, data);
        self.carry_out(outputs);
        if before == Phase::Fresh && self.pmi.phase(rank) != Phase::Fresh {
            self.tell(Event::Joined(rank));
        }
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Reply { rank, bytes } => self.reply(rank, &bytes),
                Output::Abort { rank, code, message } => self.tell(Event::Abort(rank, code, message)),
                Output::Broken { rank, why } => self.tell(Event::Broken(rank, why)),
            }
        }
    }

    fn reply(&mut self, rank: u32, bytes: &[u8]) {
        let waiting = self.backlog.entry(rank).or_default();
        waiting.extend_from_slice(bytes);
        let too_much = waiting.len() > BACKLOG_BYTES_MAX;
        self.drain_backlog(rank);
        if too_much {
            self.tell(Event::Broken(rank, "it asks without reading the answers".to_owned()));
        }
    }

    fn drain_backlog(&mut self, rank: u32) {
        if let Some(waiting) = self.backlog.get_mut(&rank) {
            let taken = self.tasks.input(rank, CHANNEL, waiting);
            waiting.drain(..taken);
            if waiting.is_empty() {
                self.backlog.remove(&rank);
            }
        }
    }

    fn ended(&mut self, rank: u32, ending: Ending) {
        self.backlog.remove(&rank);
        let phase = self.pmi.phase(rank);
        self.tell(Event::Ended(rank, ending, phase));
        self.forget_if_done(rank);
    }

    /// It never ran, or its node is gone: its streams end here.
    fn gone(&mut self, rank: u32, ending: Ending) {
        self.ended(rank, ending);
        self.close(rank, STDOUT);
        self.close(rank, STDERR);
    }

    fn drop_rank(&mut self, rank: u32) {
        self.tasks.forget(rank);
        self.close(rank, STDOUT);
        self.close(rank, STDERR);
    }

    fn close(&mut self, rank: u32, stream: u32) {
        if self.open.remove(&(rank, stream)) {
            let rest = self.muxes[usize::from(stream == STDERR)].finish(rank);
            self.outputs.push(stream, &rest, None);
        }
        self.forget_if_done(rank);
    }

    fn close_all(&mut self) {
        for (rank, stream) in self.open.clone() {
            self.close(rank, stream);
        }
    }

    fn forget_if_done(&mut self, rank: u32) {
        let open = self.open.range((rank, 0)..=(rank, u32::MAX)).next().is_some();
        if !open && !self.job.is_alive(rank) {
            self.tasks.forget(rank);
        }
    }

    fn take_signals(&mut self) {
        for number in self.signals.take() {
            match number {
                libc::SIGTSTP => self.stop(),
                libc::SIGCONT => self.signal_alive(libc::SIGCONT),
                _ => self.tell(Event::Interrupted(number as u8)),
            }
        }
    }

    /// ^Z: the ranks stop, then we do. (They lead sessions of their own, where the kernel discards SIGTSTP.)
    fn stop(&mut self) {
        self.signal_alive(libc::SIGSTOP);
        self.tasks.flush(FLUSH_TIMEOUT);
        // Failing to stop ourselves leaves a job that SIGCONT can wake.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
    }

    fn signal_alive(&mut self, number: i32) {
        for rank in self.job.alive() {
            self.tasks.signal(rank, number as u32);
        }
    }

    fn reads_stdin(&self) -> bool {
        self.stdin_open
            && self.tasks.input_room(0, STDIN) > 0
            && (!self.stdin_is_terminal || in_foreground(stdin()))
    }

    fn read_stdin(&mut self) {
        let mut buffer = vec![0; self.tasks.input_room(0, STDIN).min(STREAM_CHUNK_BYTES)];
        match rustix::io::read(stdin(), &mut buffer[..]) {
            Ok(length) if length > 0 => {
                self.tasks.input(0, STDIN, &buffer[..length]);
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            // The end, or a terminal that is gone.
            _ => {
                self.stdin_open = false;
                self.tasks.end_input(0, STDIN);
            }
        }
    }
}
