//! What the owner of a log does with it.

use super::applying::{Query, Waiter};
use super::{Ask, Input};
use crate::core::Status;
use crate::entry::Origin;
use crate::error::Error;
use crate::event::{Event, Refusal};
use crate::ids::{Index, Member, Term};
use crate::voters::Voters;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use tokio::sync::{oneshot, watch};

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its place in the log; of a resend the place of the resend.
    pub index: Index,
    /// What the state machine said.
    pub bytes: Bytes,
}

/// Who leads, as far as is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Leadership {
    /// Who.
    pub leader: Option<Member>,
    /// In which term.
    pub term: Term,
}

/// What a member tells of itself while it runs.
#[derive(Clone)]
pub(super) struct News {
    pub(super) leadership: watch::Receiver<Leadership>,
    pub(super) voters: watch::Receiver<Voters>,
    pub(super) ended: watch::Receiver<Option<String>>,
}

/// A running member of a log with a state machine `S`. Clones mean the same member; it runs until [`Handle::stop`].
pub struct Handle<S> {
    me: Member,
    inbox: SyncSender<Input>,
    news: News,
    stopping: Arc<AtomicBool>,
    machine: PhantomData<fn() -> S>,
}

impl<S> Clone for Handle<S> {
    fn clone(&self) -> Handle<S> {
        Handle {
            me: self.me,
            inbox: self.inbox.clone(),
            news: self.news.clone(),
            stopping: self.stopping.clone(),
            machine: PhantomData,
        }
    }
}

impl<S: 'static> Handle<S> {
    pub(super) fn new(
        me: Member,
        inbox: SyncSender<Input>,
        news: News,
        stopping: Arc<AtomicBool>,
    ) -> Handle<S> {
        Handle { me, inbox, news, stopping, machine: PhantomData }
    }

    /// Who it is: its node, and the disk that its store is on.
    pub fn member(&self) -> Member {
        self.me
    }

    /// Puts a command into the log, and waits until it is agreed, safe here, and carried out here. Only the leader can.
    ///
    /// # Errors
    /// [`Error::Refused`]; with [`Refusal::Unknown`] it may still be carried out: ask the next leader, with the same
    /// `origin`, and get the outcome of whichever came first. [`Error::Ended`].
    pub async fn propose(&self, origin: Option<Origin>, command: Bytes) -> Result<Outcome, Error> {
        self.ask(|waiter| Ask::Propose { origin, bytes: command, waiter }).await
    }

    /// Looks at the state machine when it holds everything that was acknowledged before this call, by whomever. Only the
    /// leader can. While its lease holds that costs no message.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Ended`].
    pub async fn read<R: Send + 'static>(
        &self,
        look: impl FnOnce(&S) -> R + Send + 'static,
    ) -> Result<R, Error> {
        self.query(look, Ask::Read).await
    }

    /// Looks at the state machine as it is here and now, which may be behind.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub async fn look<R: Send + 'static>(
        &self,
        look: impl FnOnce(&S) -> R + Send + 'static,
    ) -> Result<R, Error> {
        self.query(look, Ask::Look).await
    }

    /// Lets others decide. New voters first catch up as learners; voters in `voters` whose disk was wiped must be named by
    /// their new identity. Only the leader can.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Ended`].
    pub async fn change_voters(
        &self,
        voters: BTreeSet<Member>,
        learners: BTreeSet<Member>,
    ) -> Result<(), Error> {
        self.ask(|waiter| Ask::ChangeVoters { voters, learners, waiter }).await.map(|_| ())
    }

    /// Lets another lead: this one, or the one that has most. Nothing happens if this member does not lead.
    pub fn transfer(&self, to: Option<Member>) {
        // A full inbox: whoever wants it asks again.
        let _ = self.inbox.try_send(Input::Event(Event::Transfer(to)));
    }

    /// What this member knows of itself.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub async fn status(&self) -> Result<Status, Error> {
        let (reply, status) = oneshot::channel();
        self.put(Input::Ask(Ask::Status(reply)))?;
        status.await.map_err(|_| self.over())
    }

    /// Who leads, and every change of it.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.news.leadership.clone()
    }

    /// Who decides, and every change of it: as it stands in this member's log, agreed or not.
    pub fn voters(&self) -> watch::Receiver<Voters> {
        self.news.voters.clone()
    }

    /// Why this member has ended, when it has: stopped, or its disk fails. Its directory is free then.
    pub fn ended(&self) -> watch::Receiver<Option<String>> {
        self.news.ended.clone()
    }

    /// Ends this member's part, as a crash would.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        // A full inbox wakes it, too.
        let _ = self.inbox.try_send(Input::Wake);
    }

    async fn ask(&self, ask: impl FnOnce(Waiter) -> Ask) -> Result<Outcome, Error> {
        let (waiter, outcome) = oneshot::channel();
        self.put(Input::Ask(ask(waiter)))?;
        outcome.await.unwrap_or_else(|_| Err(self.over()))
    }

    async fn query<R: Send + 'static>(
        &self,
        look: impl FnOnce(&S) -> R + Send + 'static,
        ask: fn(Query) -> Ask,
    ) -> Result<R, Error> {
        let (reply, seen) = oneshot::channel();
        let query: Query = Box::new(move |state| {
            let state = state.map(|state| state.downcast_ref::<S>());
            let seen = match state {
                Ok(Some(state)) => Ok(look(state)),
                Ok(None) => Err(Error::Ended("its state machine is another".into())),
                Err(error) => Err(error),
            };
            // Whoever asked may have gone away.
            let _ = reply.send(seen);
        });
        self.put(Input::Ask(ask(query)))?;
        seen.await.unwrap_or_else(|_| Err(self.over()))
    }

    fn put(&self, input: Input) -> Result<(), Error> {
        self.inbox.try_send(input).map_err(|error| match error {
            TrySendError::Full(_) => Error::Refused(Refusal::Busy),
            TrySendError::Disconnected(_) => self.over(),
        })
    }

    fn over(&self) -> Error {
        Error::Ended(self.news.ended.borrow().clone().unwrap_or_else(|| "it was stopped".into()))
    }
}
