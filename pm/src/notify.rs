//! Trapped calls: a kill(2) of a foreign pid, by any program of the view, answered as a local one would be.
//!
//! Owns: the listener, the ledger, and the thread `ssi-notify` that takes calls eagerly (only a taken call is protected
//! from signals). A call that needs another node is answered from a task; the thread goes on.
//!
//! Invariant: every call that was taken is in the ledger until it is answered, so a successor of this daemon answers it.
//! It may send the signal a second time then; it never leaves the caller waiting.
//!
//! The order of checks is kill(2)'s: ESRCH, then EINVAL, then EPERM. What makes a number foreign is the filter's
//! business (`filter`); where it goes is `control::routes`'.

use crate::control::Shared;
use crate::control::caller::Caller;
use crate::control::limits::KILLS_MAX;
use crate::control::routes::Route;
use crate::sys::ledger::{Entry, Ledger};
use crate::sys::notify::{Listener, Notification, Response};
use crate::wire::Signal;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// The largest signal number.
const SIGNAL_MAX: i32 = 64;
/// si_code of tgkill(2): nobody may claim it for somebody else.
const SI_TKILL: i32 = -6;

/// A call as it was understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Call {
    /// As kill(2) takes it.
    target: i32,
    signal: i32,
    /// Address of a siginfo_t in the caller, if the call has one.
    info: Option<u64>,
}

/// What a trapped call asks; `None` for a call that the filter should not have trapped.
fn understand(nr: u32, args: &[u64; 6]) -> Option<Result<Call, Errno>> {
    // The kernel takes the lower half of each argument, as an int.
    let int = |n: usize| args[n] as u32 as i32;
    let positive = |ids: &[i32]| ids.iter().all(|id| *id > 0);
    let call = |target, signal, info| Call { target, signal, info };
    let (ids, call) = match i64::from(nr) {
        libc::SYS_kill => return Some(Ok(call(int(0), int(1), None))),
        libc::SYS_tkill => (vec![int(0)], call(int(0), int(1), None)),
        libc::SYS_tgkill => (vec![int(0), int(1)], call(int(0), int(2), None)),
        libc::SYS_rt_sigqueueinfo => (vec![int(0)], call(int(0), int(1), Some(args[2]))),
        libc::SYS_rt_tgsigqueueinfo => (vec![int(0), int(1)], call(int(0), int(2), Some(args[3]))),
        _ => return None,
    };
    Some(if positive(&ids) { Ok(call) } else { Err(Errno::INVAL) })
}

struct Desk {
    listener: Listener,
    ledger: Mutex<Option<Ledger>>,
    shared: Arc<Shared>,
}

/// Starts the thread that answers trapped calls, first those that a predecessor had taken.
///
/// # Errors
/// The ledger cannot be read, or no thread can be made.
pub(crate) fn serve(listener: OwnedFd, ledger: Option<OwnedFd>, shared: Arc<Shared>) -> io::Result<()> {
    let ledger = ledger.map(Ledger::open).transpose()?;
    let pending = ledger.as_ref().map_or(Ok(Vec::new()), Ledger::pending)?;
    let listener = Listener::from(listener);
    listener.wake_up_synchronously();
    let desk = Arc::new(Desk { listener, ledger: Mutex::new(ledger), shared });
    let work = move || {
        for entry in pending {
            desk.take_over(&entry);
        }
        desk.serve();
    };
    std::thread::Builder::new().name("ssi-notify".into()).spawn(work)?;
    Ok(())
}

impl Desk {
    /// Until the last process of the view is gone.
    fn serve(self: &Arc<Self>) {
        loop {
            let mut listening = [PollFd::new(&self.listener, PollFlags::IN)];
            match poll(&mut listening, None) {
                Err(Errno::INTR) => continue,
                Err(error) => return tracing::error!("trapped calls cannot be waited for: {error}"),
                Ok(_) if !listening[0].revents().contains(PollFlags::IN) => return,
                Ok(_) => {}
            }
            match self.listener.receive() {
                Ok(Some(taken)) => self.take(&taken),
                Ok(None) => {}
                Err(error) => return tracing::error!("trapped calls cannot be taken: {error}"),
            }
        }
    }

    fn take_over(self: &Arc<Self>, entry: &Entry) {
        match self.listener.is_valid(entry.id) {
            Ok(true) => self.decide(entry),
            _ => self.strike(entry.id),
        }
    }

    fn take(self: &Arc<Self>, taken: &Notification) {
        let entry = Entry { id: taken.id, nr: taken.nr, pid: taken.pid, args: taken.args };
        let recorded = self.ledger.lock().as_mut().map_or(Ok(()), |ledger| ledger.record(&entry));
        match recorded {
            Ok(()) => self.decide(&entry),
            Err(error) => {
                tracing::error!("a trapped call is refused, at most {KILLS_MAX} may wait: {error}");
                self.respond(entry.id, Response::Errno(Errno::AGAIN.raw_os_error()));
            }
        }
    }

    fn decide(self: &Arc<Self>, entry: &Entry) {
        let caller = Caller::read(entry.pid);
        let response = match (understand(entry.nr, &entry.args), caller) {
            (None, _) => Response::Continue,
            // It names ids of its own namespace, which are no business of the cluster.
            (_, Some(caller)) if caller.nested => Response::Continue,
            (Some(Err(errno)), _) => Response::Errno(errno.raw_os_error()),
            (_, None) => Response::Errno(Errno::SRCH.raw_os_error()),
            (Some(Ok(call)), Some(_)) if self.runs_here(call.target) => Response::Continue,
            (Some(Ok(call)), Some(caller)) => match self.shared.routes().from_here(call.target) {
                Route::Here => Response::Continue,
                Route::Errno(errno) => Response::Errno(errno.raw_os_error()),
                Route::Node(_) => return self.send(entry, call, &caller),
            },
        };
        self.respond(entry.id, response);
    }

    /// True if a process of another node's region runs here, even if ssi-init has not told of its start yet.
    fn runs_here(&self, target: i32) -> bool {
        let Some(procfs) = self.shared.procfs.as_ref().filter(|_| !self.shared.routes().is_home(target))
        else {
            return false;
        };
        let name = target.unsigned_abs().to_string();
        rustix::fs::accessat(procfs, name, rustix::fs::Access::EXISTS, rustix::fs::AtFlags::empty()).is_ok()
    }

    /// The process is on another node: a task asks there.
    fn send(self: &Arc<Self>, entry: &Entry, call: Call, caller: &Caller) {
        let queued = call.info.map(|info| Queued::read(entry.pid, info));
        if queued.is_some_and(|queued| queued.is_none_or(|queued| !queued.may_be_claimed())) {
            return self.respond(entry.id, Response::Errno(Errno::PERM.raw_os_error()));
        }
        // What was read of the caller is its own only if it still waits.
        if !self.listener.is_valid(entry.id).unwrap_or(false) {
            return self.strike(entry.id);
        }
        let exists = (0..=SIGNAL_MAX).contains(&call.signal);
        let signal = Signal {
            target: call.target,
            number: if exists { call.signal.unsigned_abs() } else { 0 },
            sender: caller.pid.unwrap_or(0),
            sender_uid: caller.uid,
            sender_euid: caller.euid,
            // With a number that is no signal only the target's existence counts before EINVAL.
            privileged: caller.may_kill || !exists,
            value: queued.flatten().map_or(0, |queued| queued.value),
            ..Signal::default()
        };
        let (desk, id) = (self.clone(), entry.id);
        self.shared.spawn(async move {
            let response = match desk.shared.kill(signal).await {
                0 if exists => Response::Value(0),
                0 => Response::Errno(Errno::INVAL.raw_os_error()),
                errno => Response::Errno(i32::try_from(errno).unwrap_or(Errno::SRCH.raw_os_error())),
            };
            desk.respond(id, response);
        });
    }

    fn respond(&self, id: u64, response: Response) {
        if let Err(error) = self.listener.respond(id, response) {
            tracing::error!("a trapped call cannot be answered: {error}");
        }
        self.strike(id);
    }

    /// The call is answered, or its caller is gone.
    fn strike(&self, id: u64) {
        let struck = self.ledger.lock().as_mut().map_or(Ok(()), |ledger| ledger.clear(id));
        if let Err(error) = struck {
            tracing::error!("the ledger of trapped calls cannot be written: {error}");
        }
    }
}

/// What counts of the siginfo_t that a caller gives along.
#[derive(Clone, Copy, Debug)]
struct Queued {
    code: i32,
    value: u64,
}

impl Queued {
    /// The one at `address` of thread `id`; `None` if nothing can be read there.
    fn read(id: u32, address: u64) -> Option<Queued> {
        // si_signo, si_errno, si_code, padding, si_pid, si_uid: an int each; then si_value.
        let mut head = [0; 32];
        let memory = std::fs::File::open(format!("/proc/{id}/mem")).ok()?;
        memory.read_exact_at(&mut head, address).ok()?;
        let code = i32::from_ne_bytes(*head[8..].first_chunk()?);
        Some(Queued { code, value: u64::from_ne_bytes(*head[24..].first_chunk()?) })
    }

    /// True unless it claims that the kernel, or tgkill(2), sent the signal.
    fn may_be_claimed(self) -> bool {
        self.code < 0 && self.code != SI_TKILL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trapped_call_is_understood_as_the_kernel_does() {
        let nr = |number: i64| u32::try_from(number).unwrap();
        let call = |target, signal, info| Some(Ok(Call { target, signal, info }));
        let minus = |n: i64| n as u64;
        for (number, args, expected) in [
            (libc::SYS_kill, [2060, 9, 0, 0], call(2060, 9, None)),
            (libc::SYS_kill, [minus(-2060), 15, 0, 0], call(-2060, 15, None)),
            (libc::SYS_kill, [(7 << 32) + 2060, 15, 0, 0], call(2060, 15, None)),
            (libc::SYS_tkill, [2060, 9, 0, 0], call(2060, 9, None)),
            (libc::SYS_tgkill, [2060, 2061, 9, 0], call(2060, 9, None)),
            (libc::SYS_tgkill, [2060, 0, 9, 0], Some(Err(Errno::INVAL))),
            (libc::SYS_rt_sigqueueinfo, [2060, 34, 0x1000, 0], call(2060, 34, Some(0x1000))),
            (libc::SYS_rt_tgsigqueueinfo, [2060, 2060, 34, 0x1000], call(2060, 34, Some(0x1000))),
            (libc::SYS_getpid, [0, 0, 0, 0], None),
        ] {
            let [a, b, c, d] = args;
            assert_eq!(understand(nr(number), &[a, b, c, d, 0, 0]), expected, "{number} {args:?}");
        }
    }

    #[test]
    fn a_siginfo_cannot_claim_to_come_from_the_kernel() {
        for (code, allowed) in [(-1, true), (0, false), (0x80, false), (SI_TKILL, false)] {
            let info: [i32; 8] = [34, 0, code, 0, 1, 0, 77, 0];
            let queued = Queued::read(std::process::id(), info.as_ptr() as u64).unwrap();
            assert_eq!(queued.may_be_claimed(), allowed, "{code}");
            assert_eq!(queued.value.to_ne_bytes()[..4], 77i32.to_ne_bytes());
        }
        assert!(Queued::read(std::process::id(), 8).is_none(), "nothing is mapped there");
    }
}
