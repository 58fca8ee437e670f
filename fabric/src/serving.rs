//! Runs services: starts each request in its turn, keeps a fault of a service away from everything else.

use crate::frame::Verdict;
use crate::{Message, NEWCOMER, Peer, Reply, Service, ServiceId, service::MEMBERSHIP};
use base::limits::{BULK_BYTES_MAX, HEAD_BYTES_MAX};
use futures_util::FutureExt;
use parking_lot::RwLock;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// How a request went.
pub type Outcome = (Verdict, Message);

/// A request that was started.
pub enum Started {
    /// It was answered at once.
    Done(Outcome),
    /// It is under way.
    Running(Pin<Box<dyn Future<Output = Outcome> + Send>>),
}

/// The services that an endpoint offers.
#[derive(Default)]
pub struct Services {
    /// Few, so that looking through them is quicker than a table.
    offered: RwLock<Vec<(ServiceId, Arc<dyn Service>)>>,
}

impl Services {
    /// Offers `handler` as `service`, in place of what was offered before.
    pub fn offer(&self, service: ServiceId, handler: Arc<dyn Service>) {
        let mut offered = self.offered.write();
        let former = match offered.iter_mut().find(|(number, _)| *number == service) {
            Some((_, former)) => Some(std::mem::replace(former, handler)),
            None => {
                offered.push((service, handler));
                None
            }
        };
        // A handler may hold the endpoint: it is dropped outside the lock.
        drop(offered);
        drop(former);
    }

    /// Offers nothing any more.
    pub fn clear(&self) {
        let all = std::mem::take(&mut *self.offered.write());
        // A handler may hold the endpoint: it is dropped outside the lock.
        drop(all);
    }

    /// Starts a request: calls the service and, if it does not answer at once, polls its future once, here and now, so that requests
    /// are started in the order of these calls. What the future waits for then wakes whoever runs it from here on.
    pub fn start(&self, service: ServiceId, from: Peer, request: Message) -> Started {
        let allowed = from.node != NEWCOMER || service == MEMBERSHIP;
        let offered =
            self.offered.read().iter().find(|(number, _)| *number == service).map(|(_, it)| it.clone());
        let Some(handler) = offered.filter(|_| allowed) else {
            return Started::Done((Verdict::NoService, Message::default()));
        };
        let work = match catch_unwind(AssertUnwindSafe(|| handler.handle(from, request))) {
            Ok(Reply::Now(reply)) => return Started::Done(checked(service, from, reply)),
            Ok(Reply::Later(work)) => work,
            Err(_) => return Started::Done(crashed(service, from)),
        };
        let mut running = Box::pin(AssertUnwindSafe(work).catch_unwind().map(move |reply| match reply {
            Ok(reply) => checked(service, from, reply),
            Err(_) => crashed(service, from),
        }));
        // No one need wake this poll: if it is pending, the next one registers its own waker.
        match running.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => Started::Done(outcome),
            Poll::Pending => Started::Running(running),
        }
    }
}

fn checked(service: ServiceId, from: Peer, reply: Message) -> Outcome {
    if reply.head.len() <= HEAD_BYTES_MAX && reply.bulk.len() <= BULK_BYTES_MAX {
        return (Verdict::Answered, reply);
    }
    tracing::error!(service = service.0, %from, "a service answered more than a message may hold");
    (Verdict::Crashed, Message::default())
}

fn crashed(service: ServiceId, from: Peer) -> Outcome {
    tracing::error!(service = service.0, %from, "a service panicked on a request");
    (Verdict::Crashed, Message::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;
    use crate::service::*;
    use base::NodeId;

    struct Yes;

    impl Service for Yes {
        fn handle(self: Arc<Self>, _: Peer, request: Message) -> Reply {
            Reply::Now(request)
        }
    }

    #[test]
    fn a_newcomer_is_served_by_membership_only() {
        let services = Services::default();
        let all = [TREE, MEMBERSHIP, PROCESSES, LOAD, METADATA, OBJECTS, ADMIN, REPLOG, LOCKS];
        all.iter().for_each(|service| services.offer(*service, Arc::new(Yes)));
        let verdict =
            |node, role, service| match services.start(service, Peer { node, role }, Message::default()) {
                Started::Done((verdict, _)) => verdict,
                Started::Running(_) => panic!("it answers at once"),
            };
        for service in all {
            for role in [Role::Control, Role::Data] {
                let served = verdict(NEWCOMER, role, service) == Verdict::Answered;
                assert_eq!(served, service == MEMBERSHIP, "{service:?}");
                assert_eq!(verdict(NodeId(1), role, service), Verdict::Answered);
            }
        }
    }
}
