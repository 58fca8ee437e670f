//! How a task ended, and how the command that ran it ends the same way.

use crate::wire::{Change, Failed};
use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};

/// What became of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this code.
    Exited(u8),
    /// A signal killed it.
    Killed {
        /// The signal's number.
        signal: u8,
        /// It left a core dump.
        core: bool,
    },
    /// It never ran.
    NotStarted {
        /// 127: there is no such program; 126: it may not be run; 255: the node could not start it.
        code: u8,
        /// What failed, on which node, why.
        message: String,
    },
    /// Its node is DOWN: its status is not known. As with ssh, the code is 255.
    Lost {
        /// Which node.
        message: String,
    },
}

impl Ending {
    /// From the status word of an end; `None` for a stop or a continue.
    pub fn of(change: &Change) -> Option<Ending> {
        let status = change.wait_status;
        let signal = (status & 0x7f) as u8;
        match (change.ended, signal) {
            (false, _) => None,
            (true, 0) => Some(Ending::Exited((status >> 8 & 0xff) as u8)),
            (true, signal) => Some(Ending::Killed { signal, core: status & 0x80 != 0 }),
        }
    }

    /// From a task that could not be started on `node`.
    pub fn not_started(failed: &Failed, node: &str) -> Ending {
        let exec = failed.what.starts_with("exec ");
        let code = match failed.errno as i32 {
            libc::ENOENT if exec => 127,
            _ if exec => 126,
            _ => 255,
        };
        Ending::NotStarted { code, message: failure_text(failed, node) }
    }

    /// From a task whose node went DOWN.
    pub fn lost(failed: &Failed, node: &str) -> Ending {
        let message = if node.is_empty() { failed.what.clone() } else { format!("{node} is DOWN") };
        Ending::Lost { message }
    }

    /// The code as a shell shows it: of a killed task 128 and the signal.
    pub fn code(&self) -> u8 {
        match self {
            Ending::Exited(code) | Ending::NotStarted { code, .. } => *code,
            Ending::Killed { signal, .. } => 128 + signal,
            Ending::Lost { .. } => 255,
        }
    }

    /// What the user must be told, if anything.
    pub fn message(&self) -> Option<&str> {
        match self {
            Ending::NotStarted { message, .. } | Ending::Lost { message } => Some(message),
            _ => None,
        }
    }

    /// Ends this process the way the task ended: the same code, or death by the same signal. Writes no message.
    pub fn imitate(&self) -> ! {
        if let Ending::Killed { signal, core } = *self {
            die_by(signal, core);
        }
        // Also where the signal could not kill us: the code that a shell would have shown.
        std::process::exit(i32::from(self.code()))
    }
}

/// Where a shadow leaves the core that stands for its task's.
const CORES: &str = "/run/ssi/cores";

/// Raises the signal with its default action.
fn die_by(signal: u8, core: bool) {
    let limit = getrlimit(Resource::Core);
    let current = if core { limit.maximum } else { Some(0) };
    // Refused at worst: then only the core-dump bit differs.
    let _ = setrlimit(Resource::Core, Rlimit { current, maximum: limit.maximum });
    if core {
        // The core that sets the bit is nobody's: the task left its own where it ran. In a view this place is emptied.
        let _ = rustix::process::chdir(CORES);
    }
    let number = i32::from(signal);
    if number == libc::SIGPIPE {
        // The runtime ignores it from the start; ignored, it could not kill us.
        let always = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let _ = signal_hook::flag::register_conditional_default(libc::SIGPIPE, always);
    }
    if number == libc::SIGKILL {
        let _ = kill_process(getpid(), Signal::KILL);
    } else if signal_hook::low_level::signal_name(number).is_some() {
        let _ = signal_hook::low_level::emulate_default_handler(number);
    } else if let Some(signal) = Signal::from_named_raw(number) {
        let _ = kill_process(getpid(), signal);
    }
}

/// "Killed", "Segmentation fault", ...: the signal as the shell names it.
pub fn signal_text(signal: u8) -> &'static str {
    const TEXTS: [&str; 32] = [
        "no signal",
        "Hangup",
        "Interrupt",
        "Quit",
        "Illegal instruction",
        "Trace/breakpoint trap",
        "Aborted",
        "Bus error",
        "Floating point exception",
        "Killed",
        "User defined signal 1",
        "Segmentation fault",
        "User defined signal 2",
        "Broken pipe",
        "Alarm clock",
        "Terminated",
        "Stack fault",
        "Child exited",
        "Continued",
        "Stopped (signal)",
        "Stopped",
        "Stopped (tty input)",
        "Stopped (tty output)",
        "Urgent I/O condition",
        "CPU time limit exceeded",
        "File size limit exceeded",
        "Virtual timer expired",
        "Profiling timer expired",
        "Window changed",
        "I/O possible",
        "Power failure",
        "Bad system call",
    ];
    TEXTS.get(usize::from(signal)).copied().unwrap_or("Real-time signal")
}

/// `node2: exec foo: No such file or directory`.
fn failure_text(failed: &Failed, node: &str) -> String {
    // "node3 is DOWN", "node 9: no such node": a sentence that is complete already.
    if failed.errno == 0 || failed.what.starts_with("node") {
        return failed.what.clone();
    }
    let error = std::io::Error::from_raw_os_error(failed.errno as i32).to_string();
    let reason = error.split(" (os error").next().unwrap_or(&error);
    if failed.what.is_empty() {
        format!("{node}: {reason}")
    } else {
        format!("{node}: {}: {reason}", failed.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn ended(wait_status: u32) -> Option<Ending> {
        Ending::of(&Change { wait_status, ended: true, ..Change::default() })
    }

    #[test]
    fn the_status_word_is_read_as_wait_does() {
        assert_eq!(ended(3 << 8), Some(Ending::Exited(3)));
        assert_eq!(ended(9), Some(Ending::Killed { signal: 9, core: false }));
        assert_eq!(ended(11 | 0x80), Some(Ending::Killed { signal: 11, core: true }));
        assert_eq!(ended(9).unwrap().code(), 137);
        assert_eq!(Ending::of(&Change { wait_status: 0x137f, ..Change::default() }), None);
    }

    #[test]
    fn failures_have_the_codes_of_a_shell() {
        let failed = |errno, what: &str| Failed { errno, what: what.to_owned(), node: 2 };
        let missing = Ending::not_started(&failed(2, "exec foo"), "node2");
        assert_eq!(missing.message(), Some("node2: exec foo: No such file or directory"));
        assert_eq!(missing.code(), 127);
        assert_eq!(Ending::not_started(&failed(13, "exec foo"), "node2").code(), 126);
        assert_eq!(Ending::not_started(&failed(0, "node 9: no such node"), "node9").code(), 255);
        assert_eq!(
            Ending::lost(&failed(0, "node 2 (node2) is DOWN"), "node2").message(),
            Some("node2 is DOWN")
        );
    }

    #[test]
    fn signals_have_the_names_that_the_kernel_numbers_mean() {
        assert_eq!(signal_text(9), "Killed");
        assert_eq!(signal_text(15), "Terminated");
        assert_eq!(signal_text(31), "Bad system call");
        assert_eq!(signal_text(40), "Real-time signal");
        assert_eq!(std::process::ExitStatus::from_raw(9).signal(), Some(9));
    }
}
