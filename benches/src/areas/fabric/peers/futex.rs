//! Two processes that wake each other by futex on a shared page: the least that a sleeping call through memory can cost.

use super::shared::Page;
use crate::Error;
use crate::areas::fabric::sample::Laps;
use crate::areas::fabric::side::{finished, serving, warm};
use rustix::io::Errno;
use rustix::thread::futex::{self, Flags};
use std::sync::atomic::{AtomicU32, Ordering};

/// Round trips before the clock starts.
const WARM_UP: u32 = 2_000;

/// Answers on line 1 what comes on line 0.
pub fn serve() -> Result<(), Error> {
    let page = Page::new()?;
    serving(&page.name())?;
    for turn in 1.. {
        await_turn(page.word(0), turn)?;
        tell_turn(page.word(1), turn)?;
    }
    Ok(())
}

/// Wakes the other and waits for its answer, `count` times.
pub fn drive(count: u32, pid: &str, file: &str) -> Result<(), Error> {
    let page = Page::of(pid, file)?;
    let round = |turn: u32| -> Result<(), Error> {
        tell_turn(page.word(0), turn)?;
        await_turn(page.word(1), turn)
    };
    (1..=WARM_UP).try_for_each(round)?;
    let before = warm()?;
    let mut laps = Laps::start(count as usize, 1);
    for turn in WARM_UP + 1..=WARM_UP + count {
        round(turn)?;
        laps.lap();
    }
    finished(laps.sample()?, &before)
}

fn tell_turn(word: &AtomicU32, turn: u32) -> Result<(), Error> {
    word.store(turn, Ordering::Release);
    futex::wake(word, Flags::empty(), 1)?;
    Ok(())
}

/// Sleeps at once while it is not its turn; no spinning.
fn await_turn(word: &AtomicU32, turn: u32) -> Result<(), Error> {
    loop {
        let now = word.load(Ordering::Acquire);
        if now == turn {
            return Ok(());
        }
        match futex::wait(word, Flags::empty(), now, None) {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
