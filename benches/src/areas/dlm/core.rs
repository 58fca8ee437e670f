//! The core alone: one table, one thread, nothing around it.

use crate::Error;
use crate::areas::fabric::sample::Laps;
use crate::areas::fabric::side::{finished, warm};
use base::{NodeId, Time};
use dlm::server::lockspace;
use dlm::{Effect, Event, Flags, LockId, Mode, Name, Owner, Request, Scope, Table, Transaction, Unlock};

/// Resources that are locked in turn.
const NAMES: usize = 1_000;
/// Locks that are held at once, each of another owner.
const HELD: usize = 8;
const BATCH: u32 = 1_000;

/// So many grants, each with its unlock.
pub fn grants(count: usize) -> Result<(), Error> {
    let mut table = Table::new(dlm::Config::default())?;
    let names: Vec<Name> =
        (0..NAMES).map(|k| Name::new(format!("resource {k}").as_bytes())).collect::<Result<_, _>>()?;
    let mut effects = Vec::new();
    let mut held = std::collections::VecDeque::new();
    let mut grant = |k: usize| {
        let owner = Owner { node: NodeId(1), holder: (k % (HELD + 1)) as u64 };
        effects.clear();
        table.handle(
            Time(k as u64),
            Event::Request(request(owner, names[k % NAMES], k as u64)),
            &mut effects,
        );
        let Some(Effect::Granted(grant)) = effects.first() else { return Err(format!("{effects:?}")) };
        held.push_back((owner, grant.lock));
        if held.len() > HELD
            && let Some((owner, lock)) = held.pop_front()
        {
            table.handle(Time(k as u64), unlock(owner, lock), &mut effects);
        }
        Ok(())
    };
    (0..10 * NAMES).try_for_each(&mut grant)?;
    let before = warm()?;
    let mut laps = Laps::start(count, BATCH);
    for k in 0..count {
        grant(k)?;
        laps.lap();
    }
    finished(laps.sample()?, &before)
}

fn request(owner: Owner, name: Name, tag: u64) -> Request {
    Request {
        tag,
        owner,
        transaction: Transaction(0),
        lockspace: lockspace(b"bench"),
        parent: None,
        name,
        mode: Mode::EX,
        scope: Scope::Plain,
        flags: Flags::NONE,
        deadline: None,
    }
}

fn unlock(owner: Owner, lock: LockId) -> Event {
    Event::Unlock(Unlock { tag: 0, owner, lock, flags: Flags::NONE, value: None })
}
