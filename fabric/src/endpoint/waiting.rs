//! Threads that drive an endpoint themselves while they wait.
//!
//! One thread has the seat and drives for all; others sleep until their future is woken or the seat is free. The seat's bell wakes the one
//! that sleeps in it. Invariant: while any thread waits, one of them has the seat or is about to take it.

use super::Wait;
use super::shared::Shared;
use crate::engine::Errands;
use crate::reactor::Reactor;
use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::cell::Cell;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

/// How long a thread looks before it sleeps: some round trips of a fast network.
const LOOK: Duration = Duration::from_micros(50);
/// How often looking may be in vain before a thread sleeps at once.
const VAIN_MAX: u32 = 4;
/// Glances between two full turns.
const GLANCES: u32 = 256;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Wakes the thread in the seat.
struct Bell {
    descriptor: OwnedFd,
    /// Somebody was woken since the seat last looked.
    rung: AtomicBool,
    /// The seat sleeps, or is about to.
    asleep: AtomicBool,
}

impl Bell {
    fn ring(&self) {
        self.rung.store(true, SeqCst);
        if self.asleep.load(SeqCst) {
            // It is full only if it rings already.
            let _ = rustix::io::write(&self.descriptor, &1u64.to_ne_bytes());
        }
    }

    fn silence(&self) {
        let mut count = [0; 8];
        // Empty if nobody rang.
        let _ = rustix::io::read(&self.descriptor, &mut count);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// Wakes a thread that waits without the seat.
struct Sleeper(Thread);

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The place of the thread that drives.
pub struct Seat {
    taken: Mutex<Errands>,
    owner: AtomicU64,
    bell: Arc<Bell>,
    /// The engine's reactor, to sleep on without its lock.
    reactor: OwnedFd,
    standing: Mutex<Vec<Thread>>,
    /// How many run or arrive.
    works: AtomicUsize,
    arriving: Mutex<Vec<Work>>,
    running: Mutex<FuturesUnordered<Work>>,
}

thread_local! {
    static THREAD: Cell<u64> = const { Cell::new(0) };
}

/// This thread's number, from 1.
fn thread() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    THREAD.with(|number| {
        if number.get() == 0 {
            number.set(LAST.fetch_add(1, SeqCst) + 1);
        }
        number.get()
    })
}

impl Seat {
    /// A free seat before this reactor.
    pub fn new(reactor: &Reactor) -> io::Result<Seat> {
        let bell = Bell {
            descriptor: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            rung: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
        };
        Ok(Seat {
            taken: Mutex::default(),
            owner: AtomicU64::new(0),
            bell: Arc::new(bell),
            reactor: reactor.as_fd().try_clone_to_owned()?,
            standing: Mutex::default(),
            works: AtomicUsize::new(0),
            arriving: Mutex::default(),
            running: Mutex::default(),
        })
    }

    /// True if this thread has the seat.
    pub fn is_ours(&self) -> bool {
        self.owner.load(SeqCst) == thread()
    }

    /// Wakes who has it.
    pub fn ring(&self) {
        self.bell.ring();
    }

    /// Runs something beside what the seat's owner waits for.
    pub fn spawn(&self, work: Work) {
        self.works.fetch_add(1, SeqCst);
        self.arriving.lock().push(work);
        self.bell.ring();
    }

    /// Drops what runs.
    pub fn clear(&self) {
        let arriving = std::mem::take(&mut *self.arriving.lock());
        // What runs may be running on this very thread: then it is dropped with the endpoint.
        let running = self.running.try_lock().map(|mut running| std::mem::take(&mut *running));
        drop((arriving, running));
    }

    /// Goes on with what runs beside.
    pub(super) fn work(&self, context: &mut Context<'_>) {
        if self.works.load(SeqCst) == 0 {
            return;
        }
        let mut running = self.running.lock();
        running.extend(self.arriving.lock().drain(..));
        while !running.is_empty() && matches!(running.poll_next_unpin(context), Poll::Ready(Some(()))) {
            self.works.fetch_sub(1, SeqCst);
        }
    }

    /// Sleeps until the reactor or the bell says something.
    fn sleep(&self, longest: Option<Duration>) {
        let longest = longest.map(|length| rustix::time::Timespec {
            tv_sec: length.as_secs().min(1 << 30) as i64,
            tv_nsec: i64::from(length.subsec_nanos()),
        });
        let mut descriptors =
            [PollFd::new(&self.reactor, PollFlags::IN), PollFd::new(&self.bell.descriptor, PollFlags::IN)];
        // Interrupted is awake, too.
        let _ = poll(&mut descriptors, longest.as_ref());
    }

    /// This thread waits to be told that the seat is free.
    fn stand(&self) {
        let (mut standing, this) = (self.standing.lock(), std::thread::current());
        if !standing.iter().any(|thread| thread.id() == this.id()) {
            standing.push(this);
        }
    }

    /// This thread waits no more.
    fn go(&self) {
        let this = std::thread::current().id();
        self.standing.lock().retain(|thread| thread.id() != this);
    }

    /// Hands the seat on.
    fn leave(&self) {
        self.owner.store(0, SeqCst);
        for thread in self.standing.lock().drain(..) {
            thread.unpark();
        }
    }
}

/// Leaves the seat also when what runs there panics.
struct Leaving<'a>(&'a Seat);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Runs a future on this thread, driving the endpoint or waiting for who does.
pub fn block_on<F: Future>(shared: &Arc<Shared>, wait: Wait, future: F) -> F::Output {
    let mut future = pin!(future);
    let seat = &shared.seat;
    let sleeper = Waker::from(Arc::new(Sleeper(std::thread::current())));
    loop {
        if let Some(mut errands) = seat.taken.try_lock() {
            seat.owner.store(thread(), SeqCst);
            let _leaving = Leaving(seat);
            return drive(shared, wait, future, &mut errands);
        }
        seat.stand();
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&sleeper)) {
            seat.go();
            return output;
        }
        // Between the two the seat may have become free without its owner seeing this thread.
        if seat.owner.load(SeqCst) != 0 {
            std::thread::park();
        }
    }
}

/// What a thread knows about whether looking pays.
struct Patience {
    vain: u32,
}

impl Patience {
    fn look(&mut self, shared: &Arc<Shared>, errands: &mut Errands, bell: &Bell) -> bool {
        if self.vain >= VAIN_MAX {
            return false;
        }
        let begun = super::shared::now();
        loop {
            if shared.turn(errands, true) || bell.rung.load(SeqCst) {
                self.vain = 0;
                return true;
            }
            if super::shared::now().since(begun) > LOOK {
                self.vain += 1;
                return false;
            }
            // The other end may need this very core.
            rustix::thread::sched_yield();
        }
    }

    /// It slept for this long: was looking given up too early?
    fn slept(&mut self, length: Duration) {
        if length < LOOK {
            self.vain = 0;
        }
    }
}

fn drive<F: Future>(
    shared: &Arc<Shared>,
    wait: Wait,
    mut future: Pin<&mut F>,
    errands: &mut Errands,
) -> F::Output {
    let (seat, bell) = (&shared.seat, shared.seat.bell.clone());
    let waker = Waker::from(bell.clone());
    let mut context = Context::from_waker(&waker);
    let (mut patience, mut glances) = (Patience { vain: 0 }, 0);
    bell.rung.store(true, SeqCst);
    loop {
        if bell.rung.load(Relaxed) && bell.rung.swap(false, SeqCst) {
            seat.work(&mut context);
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                shared.turn(errands, true);
                return output;
            }
        }
        // Now and then everybody is heard, also while those who spoke last never pause.
        glances = (glances + 1) % GLANCES;
        let busy = shared.turn(errands, glances != 0);
        if wait == Wait::Poll {
            continue;
        }
        if busy || bell.rung.load(SeqCst) || patience.look(shared, errands, &bell) {
            continue;
        }
        bell.asleep.store(true, SeqCst);
        let rest = shared.rest();
        if rest != Some(Duration::ZERO) && !bell.rung.load(SeqCst) {
            let begun = super::shared::now();
            seat.sleep(rest);
            patience.slept(super::shared::now().since(begun));
        }
        bell.asleep.store(false, SeqCst);
        bell.silence();
        while shared.turn(errands, false) && !bell.rung.load(SeqCst) {}
    }
}
