//! Reading the transitions: one in relation to another, or as they happen.
//!
//! Invariant: the reader holds the truth about where it is. A question says after which transition; so nothing is missed or told twice
//! when the daemon is restarted between two answers.

use super::change::{Change, TransId, changes};
use super::{Cluster, Which};
use crate::client::{ANSWER_WITHIN, Client};
use crate::error::Error;
use crate::wire::{Ask, Transition, TransitionsWanted, WAIT_MS_MAX, Why};
use rustix::event::{Timespec, poll};
use std::time::{Duration, Instant};

/// How long a waiter lets a daemon that is restarted be away.
const AWAY_MAX: Duration = Duration::from_secs(20);
/// Between two tries to reach it.
const RETRY: Duration = Duration::from_millis(20);

impl Cluster {
    /// One change, in relation to another.
    ///
    /// # Errors
    /// [`Error::NoTransition`] if there is none, [`Error::TooOld`], or no daemon answers.
    pub fn transition(&self, which: Which, id: TransId) -> Result<Change, Error> {
        let found = match which {
            Which::First => self.after(TransId::BEGINNING, |_| true)?,
            Which::Next => self.after(id, |_| true)?,
            Which::Last => self.before(u64::MAX, |_| true)?,
            Which::Previous => self.before(id.number().saturating_add(1), |change| change.id < id)?,
            Which::This => {
                let page = self.page(id.number().saturating_sub(1), 0)?;
                page.iter().flat_map(changes).find(|change| change.id == id)
            }
        };
        found.ok_or(Error::NoTransition)
    }

    /// The first change after `id` by which a node becomes UP or no longer is; `None` if there is none yet.
    ///
    /// # Errors
    /// [`Error::TooOld`], or no daemon answers.
    pub fn next_simple(&self, id: TransId) -> Result<Option<Change>, Error> {
        self.after(id, Change::is_simple)
    }

    /// Waits for changes after `id`, at most `max` of them (and at least one); none if `limit` is over before.
    ///
    /// # Errors
    /// [`Error::TooOld`]; [`Error::Interrupted`] by a signal; no daemon answers, and none comes back in time.
    pub fn wait(
        &self,
        id: TransId,
        simple: bool,
        max: usize,
        limit: Option<Duration>,
    ) -> Result<Vec<Change>, Error> {
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        let left = || until.map(|until| until.saturating_duration_since(Instant::now()));
        let mut position = id.read_after();
        loop {
            let longest = Duration::from_millis(WAIT_MS_MAX.into());
            let patience = left().map_or(longest, |left| left.min(longest));
            let page = self.wait_for_page(position, patience)?;
            let news = page.iter().flat_map(changes).filter(|change| change.id > id);
            let news: Vec<Change> =
                news.filter(|change| !simple || change.is_simple()).take(max.max(1)).collect();
            if !news.is_empty() || (page.is_empty() && left().is_some_and(|left| left.is_zero())) {
                return Ok(news);
            }
            position = page.last().map_or(position, |last| last.number);
        }
    }

    /// The first wanted change after `id`.
    fn after(&self, id: TransId, wanted: impl Fn(&Change) -> bool) -> Result<Option<Change>, Error> {
        let mut position = id.read_after();
        loop {
            let page = self.page(position, 0)?;
            let Some(last) = page.last() else { return Ok(None) };
            position = last.number;
            let found = page.iter().flat_map(changes).find(|change| change.id > id && wanted(change));
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    /// The last wanted change in a transition with a number below `number`.
    fn before(&self, number: u64, wanted: impl Fn(&Change) -> bool) -> Result<Option<Change>, Error> {
        let mut position = number;
        loop {
            let page = self.page(0, position)?;
            let Some(first) = page.first() else { return Ok(None) };
            position = first.number;
            let found = page.iter().flat_map(changes).filter(&wanted).last();
            if found.is_some() || position <= 1 {
                return Ok(found);
            }
        }
    }

    fn page(&self, after: u64, before: u64) -> Result<Vec<Transition>, Error> {
        let wanted = TransitionsWanted { after, before, ..Default::default() };
        let answer = self.place.ask(Ask::Transitions(wanted));
        Ok(answer.map_err(|error| too_old(error, after))?.transitions)
    }

    /// Has the daemon wait, over its restarts.
    fn wait_for_page(&self, after: u64, patience: Duration) -> Result<Vec<Transition>, Error> {
        let until = Instant::now() + patience;
        let mut away: Option<Instant> = None;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.wait_once(after, left) {
                Err(error @ (Error::NoDaemon { .. } | Error::Closed | Error::Broken(_))) => {
                    let since = *away.get_or_insert_with(Instant::now);
                    if since.elapsed() > AWAY_MAX {
                        return Err(error);
                    }
                    if left.is_zero() {
                        return Ok(Vec::new());
                    }
                    pause(RETRY)?;
                }
                answered => return answered,
            }
        }
    }

    fn wait_once(&self, after: u64, patience: Duration) -> Result<Vec<Transition>, Error> {
        let wait_ms = u32::try_from(patience.as_millis()).unwrap_or(WAIT_MS_MAX);
        let wanted = TransitionsWanted { after, wait_ms, ..Default::default() };
        let mut client = Client::connect(&self.place.admin_socket())?;
        client.send(Ask::Transitions(wanted))?;
        let answer = client.receive(patience + ANSWER_WITHIN);
        Ok(answer.map_err(|error| too_old(error, after))?.transitions)
    }
}

fn too_old(error: Error, after: u64) -> Error {
    if error.why() == Some(Why::TooOld) { Error::TooOld(after) } else { error }
}

fn pause(length: Duration) -> Result<(), Error> {
    let length = Timespec { tv_sec: 0, tv_nsec: length.subsec_nanos().into() };
    match poll(&mut [], Some(&length)) {
        Err(rustix::io::Errno::INTR) => Err(Error::Interrupted),
        _ => Ok(()),
    }
}
