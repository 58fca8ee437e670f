//! One shadow: the process that bears a task's pid on its home node while the task runs elsewhere.
//!
//! Pure: the tracer (`super::tracer`) turns ptrace stops into events and carries out the effects.
//!
//! ```text
//!            a signal reaches it: reported, swallowed             task goes on, or SIGCONT reaches it
//!            +---------+                                     +----------------------------------------+
//!            |         v                                     v                                        |
//!  seized -> +--Follows--+ --task stops: send our SIGSTOP--> Stopping --delivered: becomes the --> Stopped
//!                 |                                              |      task's stop signal            |
//!                 |                 task has ended               |                                    |
//!                 +-------------------> Released <---------------+---------- (sent our SIGCONT) ------+
//!
//!  Released: a plain process again; all signals are its own. The command prints what is left of the output and ends
//!  itself with the task's status. It may be killed (SIGKILL) in any state: Gone is told.
//! ```

use crate::sys::ptrace::Origin;

/// Marks signals that we send a shadow ourselves (`si_value`): "SSI" and a version.
pub const MARK: u64 = 0x5353_4900_0000_0001;

/// What happens to a shadow, or to its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The shadow is about to receive `signal`; it waits.
    Delivery {
        /// Signal number.
        signal: i32,
        /// Who sent it.
        origin: Origin,
    },
    /// The shadow is in a group-stop; it waits.
    GroupStop(i32),
    /// Its group-stop has ended, or ptrace stopped it for another reason; it waits.
    Trap,
    /// The task was stopped by this signal.
    TaskStopped(i32),
    /// The task goes on.
    TaskContinued,
    /// The task has ended (true: dumping core), or nobody wants the mirror any more.
    TaskEnded(bool),
}

/// What the tracer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Let the shadow go on with this signal (0: none).
    Proceed(i32),
    /// Leave it in its group-stop.
    Listen,
    /// Send it this signal with our mark.
    Send(i32),
    /// Tell the control daemon: the shadow was sent `signal` by `pid` of `uid`.
    Report {
        /// Signal number.
        signal: i32,
        /// Sender.
        pid: u32,
        /// Sender's user.
        uid: u32,
        /// What sigqueue(3) sent along.
        value: u64,
    },
    /// Let it dump core, or keep it from doing so, when it ends itself as the task did.
    AllowCore(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Follows,
    Stopping(i32),
    Stopped,
    Released,
}

/// A shadow's state.
#[derive(Debug)]
pub struct Shadow {
    pid: u32,
    state: State,
}

impl Shadow {
    /// The process `pid`, just seized.
    pub fn new(pid: u32) -> Shadow {
        Shadow { pid, state: State::Follows }
    }

    /// One event; the effects are carried out in order.
    pub fn handle(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Delivery { signal, origin } => self.deliver(signal, origin),
            Event::GroupStop(_) if self.state == State::Released => vec![Effect::Listen],
            Event::GroupStop(_) => {
                self.state = State::Stopped;
                vec![Effect::Listen]
            }
            Event::Trap => {
                if self.state == State::Stopped {
                    self.state = State::Follows;
                }
                vec![Effect::Proceed(0)]
            }
            Event::TaskStopped(signal) if self.state == State::Follows => {
                self.state = State::Stopping(signal);
                vec![Effect::Send(libc::SIGSTOP)]
            }
            Event::TaskContinued if matches!(self.state, State::Stopped | State::Stopping(_)) => self.wake(),
            Event::TaskEnded(core) if self.state != State::Released => {
                let mut effects = vec![Effect::AllowCore(core)];
                effects.extend(self.wake());
                self.state = State::Released;
                effects
            }
            Event::TaskStopped(_) | Event::TaskContinued | Event::TaskEnded(_) => Vec::new(),
        }
    }

    /// SIGCONT of ours also takes back a SIGSTOP of ours that is still on its way.
    fn wake(&mut self) -> Vec<Effect> {
        match self.state {
            State::Follows | State::Released => Vec::new(),
            State::Stopped | State::Stopping(_) => {
                self.state = State::Follows;
                vec![Effect::Send(libc::SIGCONT)]
            }
        }
    }

    fn deliver(&mut self, signal: i32, origin: Origin) -> Vec<Effect> {
        if origin.value == MARK && origin.pid == 1 {
            return match (signal, self.state) {
                (libc::SIGSTOP, State::Stopping(stop)) => vec![Effect::Proceed(stop)],
                (libc::SIGSTOP, _) => vec![Effect::Proceed(0)],
                (other, _) => vec![Effect::Proceed(other)],
            };
        }
        if self.state == State::Released || self.is_its_own(signal, origin) {
            return vec![Effect::Proceed(signal)];
        }
        let sender = if origin.code > 0 { (0, 0, 0) } else { (origin.pid, origin.uid, origin.value) };
        let (pid, uid, value) = sender;
        let report = Effect::Report { signal, pid, uid, value };
        // A SIGCONT has already done its work when it is delivered; a handler of the shadow may see it too.
        let passed_on = if signal == libc::SIGCONT { signal } else { 0 };
        vec![report, Effect::Proceed(passed_on)]
    }

    /// What concerns the shadow's own running: faults, what it sends itself, its children and its window.
    fn is_its_own(&self, signal: i32, origin: Origin) -> bool {
        const FAULTS: [i32; 6] =
            [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS];
        matches!(signal, libc::SIGCHLD | libc::SIGWINCH | libc::SIGPIPE)
            || (origin.code > 0 && FAULTS.contains(&signal))
            || (origin.code <= 0 && origin.pid == self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM_SHELL: Origin = Origin { code: 0, pid: 77, uid: 1000, value: 0 };
    const OURS: Origin = Origin { code: -1, pid: 1, uid: 0, value: MARK };

    fn delivery(signal: i32, origin: Origin) -> Event {
        Event::Delivery { signal, origin }
    }

    fn stopped() -> Shadow {
        let mut shadow = Shadow::new(500);
        assert_eq!(shadow.handle(Event::TaskStopped(libc::SIGTSTP)), [Effect::Send(libc::SIGSTOP)]);
        let injected = shadow.handle(delivery(libc::SIGSTOP, OURS));
        assert_eq!(injected, [Effect::Proceed(libc::SIGTSTP)], "it stops by the task's own signal");
        assert_eq!(shadow.handle(Event::GroupStop(libc::SIGTSTP)), [Effect::Listen]);
        shadow
    }

    #[test]
    fn signals_go_to_the_task_and_not_to_the_shadow() {
        let mut shadow = Shadow::new(500);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGSTOP, libc::SIGUSR1, libc::SIGTSTP] {
            let report = Effect::Report { signal, pid: 77, uid: 1000, value: 0 };
            assert_eq!(shadow.handle(delivery(signal, FROM_SHELL)), [report, Effect::Proceed(0)]);
        }
    }

    #[test]
    fn what_the_shadow_needs_itself_stays_with_it() {
        let mut shadow = Shadow::new(500);
        let fault = Origin { code: 1, pid: 0, uid: 0, value: 0 };
        let itself = Origin { code: -6, pid: 500, uid: 0, value: 0 };
        for (signal, origin) in [
            (libc::SIGCHLD, FROM_SHELL),
            (libc::SIGWINCH, fault),
            (libc::SIGSEGV, fault),
            (libc::SIGABRT, itself),
        ] {
            assert_eq!(shadow.handle(delivery(signal, origin)), [Effect::Proceed(signal)]);
        }
    }

    #[test]
    fn a_key_on_the_terminal_has_no_sender() {
        let key = Origin { code: 0x80, pid: 0, uid: 0, value: 0 };
        let effects = Shadow::new(500).handle(delivery(libc::SIGINT, key));
        assert_eq!(effects[0], Effect::Report { signal: libc::SIGINT, pid: 0, uid: 0, value: 0 });
    }

    #[test]
    fn a_stopped_task_goes_on_when_its_shadow_is_continued() {
        let mut shadow = stopped();
        assert_eq!(shadow.handle(Event::Trap), [Effect::Proceed(0)]);
        let report = Effect::Report { signal: libc::SIGCONT, pid: 77, uid: 1000, value: 0 };
        let effects = shadow.handle(delivery(libc::SIGCONT, FROM_SHELL));
        assert_eq!(effects, [report, Effect::Proceed(libc::SIGCONT)]);
        assert_eq!(shadow.handle(Event::TaskContinued), [], "it goes on already");
    }

    #[test]
    fn a_task_continued_elsewhere_continues_its_shadow_without_a_report() {
        let mut shadow = stopped();
        assert_eq!(shadow.handle(Event::TaskContinued), [Effect::Send(libc::SIGCONT)]);
        assert_eq!(shadow.handle(Event::Trap), [Effect::Proceed(0)]);
        assert_eq!(shadow.handle(delivery(libc::SIGCONT, OURS)), [Effect::Proceed(libc::SIGCONT)]);
        assert_eq!(shadow.handle(Event::TaskStopped(libc::SIGSTOP)), [Effect::Send(libc::SIGSTOP)]);
    }

    #[test]
    fn a_stop_and_a_continue_that_overtake_the_shadow_leave_it_running() {
        let mut shadow = Shadow::new(500);
        shadow.handle(Event::TaskStopped(libc::SIGSTOP));
        assert_eq!(shadow.handle(Event::TaskContinued), [Effect::Send(libc::SIGCONT)]);
        // The stop had been dequeued already: it must not stop the shadow any more.
        assert_eq!(shadow.handle(delivery(libc::SIGSTOP, OURS)), [Effect::Proceed(0)]);
    }

    #[test]
    fn a_shadow_that_is_stopped_when_the_task_ends_is_woken_and_free() {
        let mut shadow = stopped();
        let effects = shadow.handle(Event::TaskEnded(true));
        assert_eq!(effects, [Effect::AllowCore(true), Effect::Send(libc::SIGCONT)]);
        assert_eq!(shadow.handle(Event::Trap), [Effect::Proceed(0)]);
        assert_eq!(shadow.handle(delivery(libc::SIGTERM, FROM_SHELL)), [Effect::Proceed(libc::SIGTERM)]);
        assert_eq!(shadow.handle(Event::TaskEnded(true)), []);
    }
}
