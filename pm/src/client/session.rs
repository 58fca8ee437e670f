//! The pure part of a client: which bytes of which stream it has, and what it must send again.
//!
//! ```text
//!  output   received (offset)                     what lies below is dropped, what leaves a gap breaks the connection
//!           |<-- written by the caller: acknowledged
//!  input    accepted      accepted + kept
//!           |<- kept here ->|                     at most one window; sent again after a reconnection
//! ```
//!
//! Invariant: `received` only grows, by exactly the bytes told to the caller; `kept` starts at `accepted`.

use super::Error;
use crate::wire::client::{Event, Hello, Request, Resume, Spawn, ToClient, ToDaemon};
use crate::wire::{Change, Failed, Mark, Piece, Started, TaskSpec, WindowSize};
use base::NodeId;
use base::limits::{STREAM_CHUNK_BYTES, STREAM_WINDOW_BYTES, TASKS_PER_CLIENT_MAX};
use std::collections::{BTreeMap, VecDeque};

/// Something happened to one task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskEvent {
    /// The task, as [`Session::spawn`] numbered it.
    pub index: u32,
    /// What.
    pub news: News,
}

/// What can happen to a task.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// It runs. Told once.
    Started(Started),
    /// It could not be started. It is forgotten already.
    Failed(Failed),
    /// The next bytes of an output stream. To be acknowledged ([`Session::written`]) when they are written.
    Output {
        /// Which stream.
        stream: u32,
        /// The bytes; never empty.
        data: Vec<u8>,
    },
    /// The stream ends here. Acknowledged together with its last byte.
    OutputEnd {
        /// Which stream.
        stream: u32,
    },
    /// An input stream that was full takes bytes again.
    InputRoom {
        /// Which stream.
        stream: u32,
    },
    /// It stopped, went on or ended. An end is told once.
    Changed(Change),
    /// Its node is DOWN. It is forgotten already.
    Lost(Failed),
}

/// All tasks of one client.
#[derive(Debug)]
pub struct Session {
    id: u64,
    next_index: u32,
    tasks: BTreeMap<u32, Task>,
}

#[derive(Debug)]
struct Task {
    node: NodeId,
    /// Kept until the task is known to run: an `ssid` that died may never have read it.
    spec: Option<TaskSpec>,
    shadow: bool,
    pid: u32,
    ended: bool,
    outputs: BTreeMap<u32, Output>,
    inputs: BTreeMap<u32, Input>,
}

#[derive(Debug, Default)]
struct Output {
    /// Bytes received.
    received: u64,
    /// Bytes that the caller has written.
    written: u64,
    ended: bool,
}

impl Output {
    /// What is received, as a mark: the end counts as one more.
    fn received(&self, stream: u32) -> Mark {
        Mark { stream, offset: self.received + u64::from(self.ended) }
    }

    /// What is written, as a mark.
    fn written(&self, stream: u32) -> Mark {
        let whole = self.ended && self.written == self.received;
        Mark { stream, offset: self.written + u64::from(whole) }
    }
}

#[derive(Debug, Default)]
struct Input {
    accepted: u64,
    kept: VecDeque<u8>,
    ended: bool,
}

impl Session {
    /// A session numbered `id`: random, not 0.
    pub fn new(id: u64) -> Session {
        Session { id, next_index: 0, tasks: BTreeMap::new() }
    }

    /// The first message of a connection; `again` if it is not the session's first connection.
    pub fn hello(&self, again: bool) -> ToDaemon {
        ToDaemon { index: 0, request: Some(Request::Hello(Hello { session: self.id, again })) }
    }

    /// A new task, numbered from 0 in the order of the calls. `shadow`: the caller's process is to be its shadow.
    ///
    /// # Errors
    /// [`Error::TooMany`].
    pub fn spawn(&mut self, node: NodeId, spec: TaskSpec) -> Result<(u32, ToDaemon), Error> {
        let index = self.next_index;
        if index as usize >= TASKS_PER_CLIENT_MAX {
            return Err(Error::TooMany { asked: index as usize + 1, max: TASKS_PER_CLIENT_MAX });
        }
        self.next_index += 1;
        let task = Task {
            node,
            shadow: spec.keep_pid != 0,
            spec: Some(spec),
            pid: 0,
            ended: false,
            outputs: BTreeMap::new(),
            inputs: BTreeMap::new(),
        };
        let message = task.spawn(index);
        self.tasks.insert(index, task);
        Ok((index, message))
    }

    /// How many bytes of input the task takes at the moment.
    pub fn input_room(&self, index: u32, stream: u32) -> usize {
        match self.tasks.get(&index).map(|task| task.inputs.get(&stream)) {
            None => 0,
            Some(None) => STREAM_WINDOW_BYTES,
            Some(Some(input)) if input.ended => 0,
            Some(Some(input)) => STREAM_WINDOW_BYTES - input.kept.len(),
        }
    }

    /// Input for a task: as much of `data` as there is room for. Gives back how much that was.
    pub fn input(&mut self, index: u32, stream: u32, data: &[u8]) -> (usize, Vec<ToDaemon>) {
        let taken = data.len().min(self.input_room(index, stream));
        let Some(task) = self.tasks.get_mut(&index).filter(|_| taken > 0) else { return (0, Vec::new()) };
        let input = task.inputs.entry(stream).or_default();
        let from = input.accepted + input.kept.len() as u64;
        input.kept.extend(&data[..taken]);
        (taken, input.pieces(index, stream, from))
    }

    /// No more input on this stream.
    pub fn end_input(&mut self, index: u32, stream: u32) -> Vec<ToDaemon> {
        let Some(task) = self.tasks.get_mut(&index) else { return Vec::new() };
        let input = task.inputs.entry(stream).or_default();
        if std::mem::replace(&mut input.ended, true) {
            return Vec::new();
        }
        input.pieces(index, stream, input.accepted + input.kept.len() as u64)
    }

    /// The caller has written `bytes` more of what it was told of this stream.
    pub fn written(&mut self, index: u32, stream: u32, bytes: usize) -> Option<ToDaemon> {
        let output = self.tasks.get_mut(&index)?.outputs.get_mut(&stream)?;
        output.written = (output.written + bytes as u64).min(output.received);
        Some(ask(index, Request::Acknowledge(output.written(stream))))
    }

    /// A signal for the task; `None` if it is forgotten.
    pub fn signal(&self, index: u32, number: u32) -> Option<ToDaemon> {
        self.tasks.contains_key(&index).then(|| ask(index, Request::Signal(number)))
    }

    /// The terminal's new size; `None` if the task is forgotten.
    pub fn resize(&self, index: u32, size: WindowSize) -> Option<ToDaemon> {
        self.tasks.contains_key(&index).then(|| ask(index, Request::Resize(size)))
    }

    /// The caller needs nothing more of this task. If it still runs it is killed.
    pub fn forget(&mut self, index: u32) -> Option<ToDaemon> {
        self.tasks.remove(&index).map(|_| ask(index, Request::Forget(())))
    }

    /// What an `ssid` must be told on a new connection, after [`Session::hello`].
    pub fn resume(&self) -> Vec<ToDaemon> {
        let mut messages = Vec::new();
        for (&index, task) in &self.tasks {
            messages.push(if task.spec.is_some() { task.spawn(index) } else { task.resume(index) });
            for (&stream, input) in &task.inputs {
                messages.extend(input.pieces(index, stream, input.accepted));
            }
        }
        messages
    }

    /// One message of `ssid`: what to tell the caller, and what to answer.
    ///
    /// # Errors
    /// A text that says why the stream of messages cannot be right: connect again and resume.
    pub fn receive(&mut self, message: ToClient) -> Result<(Vec<TaskEvent>, Option<ToDaemon>), String> {
        let index = message.index;
        // Of a forgotten task there may still be something on its way.
        let Some(task) = self.tasks.get_mut(&index) else { return Ok((Vec::new(), None)) };
        let mut answer = None;
        let news = match message.event {
            Some(Event::Output(piece)) => {
                let (news, acknowledged) = task.output(index, piece)?;
                answer = acknowledged;
                news
            }
            Some(Event::Accepted(mark)) => task.accepted(index, &mark)?,
            Some(Event::Started(started)) => task.started(started),
            Some(Event::Changed(change)) => task.changed(change),
            Some(Event::Failed(failed)) => {
                self.tasks.remove(&index);
                vec![News::Failed(failed)]
            }
            Some(Event::Lost(failed)) => {
                self.tasks.remove(&index);
                vec![News::Lost(failed)]
            }
            None => return Err(format!("an event of an unknown kind for task {index}")),
        };
        Ok((news.into_iter().map(|news| TaskEvent { index, news }).collect(), answer))
    }
}

fn ask(index: u32, request: Request) -> ToDaemon {
    ToDaemon { index, request: Some(request) }
}

impl Task {
    fn spawn(&self, index: u32) -> ToDaemon {
        ask(index, Request::Spawn(Spawn { node: self.node.0, spec: self.spec.clone() }))
    }

    fn resume(&self, index: u32) -> ToDaemon {
        let received = self.outputs.iter().map(|(&stream, output)| output.received(stream)).collect();
        let resume = Resume { node: self.node.0, pid: self.pid, received, shadow: self.shadow };
        ask(index, Request::Resume(resume))
    }

    fn started(&mut self, started: Started) -> Vec<News> {
        if self.spec.take().is_none() {
            return Vec::new();
        }
        self.pid = started.pid;
        vec![News::Started(started)]
    }

    fn changed(&mut self, change: Change) -> Vec<News> {
        if self.ended {
            return Vec::new();
        }
        self.ended = change.ended;
        vec![News::Changed(change)]
    }

    fn output(&mut self, index: u32, piece: Piece) -> Result<(Vec<News>, Option<ToDaemon>), String> {
        let stream = piece.stream;
        let output = self.outputs.entry(stream).or_default();
        if output.ended {
            return Ok((Vec::new(), None));
        }
        if piece.offset > output.received {
            let (have, got) = (output.received, piece.offset);
            return Err(format!("bytes {have}..{got} of stream {stream} of task {index} are missing"));
        }
        let known = (output.received - piece.offset).min(piece.data.len() as u64) as usize;
        let data = piece.data[known..].to_vec();
        // An end below what was received belongs to a piece that was cut short when it was sent again.
        let ends = piece.end && piece.offset + piece.data.len() as u64 == output.received + data.len() as u64;
        output.received += data.len() as u64;
        let mut news = Vec::new();
        if !data.is_empty() {
            news.push(News::Output { stream, data });
        }
        let mut answer = None;
        if ends {
            output.ended = true;
            news.push(News::OutputEnd { stream });
            answer = Some(ask(index, Request::Acknowledge(output.written(stream))));
        }
        Ok((news, answer))
    }

    fn accepted(&mut self, index: u32, mark: &Mark) -> Result<Vec<News>, String> {
        let Some(input) = self.inputs.get_mut(&mark.stream) else { return Ok(Vec::new()) };
        let sent = input.accepted + input.kept.len() as u64;
        if mark.offset > sent + u64::from(input.ended) {
            return Err(format!(
                "task {index} has accepted more input ({}) than was sent ({sent})",
                mark.offset
            ));
        }
        let accepted = mark.offset.min(sent);
        let was_full = input.kept.len() == STREAM_WINDOW_BYTES;
        if accepted > input.accepted {
            input.kept.drain(..(accepted - input.accepted) as usize);
            input.accepted = accepted;
        }
        // Whoever stopped reading because nothing fitted waits for this.
        let room = was_full && !input.ended && input.kept.len() < STREAM_WINDOW_BYTES;
        Ok(if room { vec![News::InputRoom { stream: mark.stream }] } else { Vec::new() })
    }
}

impl Input {
    /// The pieces that carry what is kept from offset `from` on, and the end.
    fn pieces(&self, index: u32, stream: u32, from: u64) -> Vec<ToDaemon> {
        let skip = (from - self.accepted) as usize;
        let rest: Vec<u8> = self.kept.iter().skip(skip).copied().collect();
        let mut pieces: Vec<Piece> = Vec::new();
        let mut offset = from;
        for chunk in rest.chunks(STREAM_CHUNK_BYTES) {
            pieces.push(Piece { stream, offset, data: chunk.to_vec(), end: false });
            offset += chunk.len() as u64;
        }
        if self.ended {
            match pieces.last_mut() {
                Some(last) => last.end = true,
                None => pieces.push(Piece { stream, offset, data: Vec::new(), end: true }),
            }
        }
        pieces.into_iter().map(|piece| ask(index, Request::Input(piece))).collect()
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
