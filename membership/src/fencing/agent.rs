//! An agent: one process that is told what to do on its standard input, has a time limit, and ends with 0 if it was done.
//!
//! Invariant: a run ends within its time limit, whatever the agent does: then it and its children are killed (it leads a process group
//! of its own). What is kept of its output is bounded; what is beyond that is read and dropped, so that it never blocks.

use super::device::{Action, Device};
use super::fencer::{Effect, Event, RunId};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeMap;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Bytes that are kept of what an agent writes.
pub const OUTPUT_BYTES_MAX: usize = 4_096;
/// How long its output is waited for once it has ended (a child of it may hold the pipe).
const DRAIN: Duration = Duration::from_millis(200);

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The exit code; none if it was killed, or never ran.
    pub code: Option<i32>,
    /// What it wrote last: its errors, or else its output.
    pub words: String,
    /// Why it failed, if it is not the exit code that says so.
    pub fault: Option<String>,
}

impl Report {
    /// What [`super::Fencer`] is told.
    ///
    /// # Errors
    /// Why the node cannot be called off.
    pub fn result(&self) -> Result<(), String> {
        let words = if self.words.is_empty() { String::new() } else { format!(" ({})", self.words) };
        match (&self.fault, self.code) {
            (Some(fault), _) => Err(format!("{fault}{words}")),
            (None, Some(0)) => Ok(()),
            (None, Some(code)) => Err(format!("exit code {code}{words}")),
            (None, None) => Err(format!("it was killed{words}")),
        }
    }

    /// The answer to [`Action::Status`]: on, off, or unknown.
    pub fn power(&self) -> Option<bool> {
        match (&self.fault, self.code) {
            (None, Some(0)) => Some(true),
            (None, Some(2)) => Some(false),
            _ => None,
        }
    }

    fn failed(fault: String) -> Report {
        Report { code: None, words: String::new(), fault: Some(fault) }
    }
}

/// Runs the device's agent for the node called `name`, to its end or to its time limit.
pub async fn run(device: &Device, action: Action, name: &str) -> Report {
    let mut command = Command::new(&device.agent);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true).current_dir("/");
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Report::failed(format!("it cannot be started: {error}")),
    };
    let group = Group::of(&child);
    let talk = talk(&mut child, device.request(action, name));
    match tokio::time::timeout(device.timeout, talk).await {
        Ok((status, words)) => report(status, words),
        Err(_) => {
            drop(group);
            // It was killed: this ends at once, and leaves no zombie.
            let _ = child.wait().await;
            Report::failed(format!("it did not end within {} s and was killed", device.timeout.as_secs()))
        }
    }
}

fn report(status: std::io::Result<ExitStatus>, words: String) -> Report {
    match status {
        Ok(status) => Report { code: status.code(), words, fault: None },
        Err(error) => Report { code: None, words, fault: Some(format!("it cannot be waited for: {error}")) },
    }
}

/// The process group of an agent; killed when this is dropped: nothing of an agent outlives its run.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Group {
        Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0.take() {
            // It fails if all of them have ended: that is as well.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn talk(child: &mut Child, request: String) -> (std::io::Result<ExitStatus>, String) {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut said = (Vec::new(), Vec::new());
    let status = {
        let tell = async {
            if let Some(mut stdin) = stdin {
                // An agent need not read it all.
                let _ = stdin.write_all(request.as_bytes()).await;
            }
        };
        let listen = async { tokio::join!(tell, read(stdout, &mut said.0), read(stderr, &mut said.1)) };
        tokio::pin!(listen);
        tokio::select! {
            status = child.wait() => {
                let _ = tokio::time::timeout(DRAIN, &mut listen).await;
                status
            }
            // All is said; now it must end.
            _ = &mut listen => child.wait().await,
        }
    };
    let (output, errors) = said;
    let words = if errors.iter().all(u8::is_ascii_whitespace) { output } else { errors };
    (status, String::from_utf8_lossy(&words).trim().to_owned())
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = [0; 1_024];
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        let room = OUTPUT_BYTES_MAX - kept.len();
        kept.extend_from_slice(&buffer[..length.min(room)]);
    }
}

/// The agents that run at the moment. Belongs into a tokio runtime.
#[derive(Debug)]
pub struct Crew {
    ended: mpsc::UnboundedSender<Event>,
    running: BTreeMap<RunId, AbortHandle>,
}

impl Crew {
    /// A crew that says of each agent that has ended [`Event::Ended`]. ([`super::fencer::RUNNING_MAX`] bounds what can be under way.)
    pub fn new(ended: mpsc::UnboundedSender<Event>) -> Crew {
        Crew { ended, running: BTreeMap::new() }
    }

    /// Carries out what concerns agents; the others are not its business.
    pub fn carry_out(&mut self, effect: &Effect) {
        self.running.retain(|_, task| !task.is_finished());
        match effect {
            Effect::Run { run, name, device } => {
                let (run, name, device, ended) = (*run, name.clone(), device.clone(), self.ended.clone());
                let task = tokio::spawn(async move {
                    let report = self::run(&device, device.action, &name).await;
                    // Nobody waits for it where the node is stopping.
                    let _ = ended.send(Event::Ended { run, result: report.result() });
                });
                self.running.insert(run, task.abort_handle());
            }
            Effect::Kill(run) => {
                if let Some(task) = self.running.remove(run) {
                    task.abort();
                }
            }
            Effect::Fenced { .. } | Effect::Failed { .. } => {}
        }
    }
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
