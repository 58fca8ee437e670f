//! Clients' connections: who they are, what they say, in batches as the socket brings them.

use super::caller::{Caller, credentials};
use super::outbox::Outbox;
use super::shell::{Error, Shared, machine, read_some};
use super::{ClientId, Event};
use crate::sys::socket::peer_groups;
use crate::wire::Credentials;
use crate::wire::client::{Hello, Request, ToDaemon};
use base::FrameReader;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::UnixStream;

/// How long a client may take to say hello.
const HELLO_LONGEST: Duration = Duration::from_secs(5);

/// How long a client that is turned away may take to read what it was told.
const FLUSH_LONGEST: Duration = Duration::from_secs(1);

static CLIENTS: AtomicU64 = AtomicU64::new(1);

/// Takes a client over; one of whom the kernel does not say who it is is dropped.
pub(super) fn attach(shared: &Arc<Shared>, stream: UnixStream, read: FrameReader) {
    if let Err(error) = identify(shared, stream, read) {
        tracing::warn!("a client is turned away: {error}");
    }
}

fn identify(shared: &Arc<Shared>, stream: UnixStream, read: FrameReader) -> Result<(), Error> {
    let peer = stream.peer_cred().map_err(machine("who a client is"))?;
    let groups = peer_groups(&stream).map_err(machine("which groups a client has"))?;
    let outside = u32::try_from(peer.pid().unwrap_or(0)).unwrap_or(0);
    // The kernel's word on the pid is as old as the connection: by now the number may be another user's process, which
    // must not become this client's shadow.
    let itself = |caller: &Caller| !caller.nested && caller.euid == peer.uid();
    let pid = Caller::read(outside).filter(itself).and_then(|caller| caller.pid);
    let conversation = Conversation {
        shared: shared.clone(),
        client: ClientId(CLIENTS.fetch_add(1, Ordering::Relaxed)),
        stream: Arc::new(stream),
        reader: read,
        credentials: credentials(peer.uid(), peer.gid(), groups),
        pid: pid.unwrap_or(0),
    };
    shared.spawn(conversation.run());
    Ok(())
}

struct Conversation {
    shared: Arc<Shared>,
    client: ClientId,
    stream: Arc<UnixStream>,
    reader: FrameReader,
    credentials: Credentials,
    pid: u32,
}

impl Conversation {
    async fn run(mut self) {
        let Ok(Some((hello, rest))) = tokio::time::timeout(HELLO_LONGEST, self.hello()).await else { return };
        let outbox = Arc::new(Outbox::new(self.stream.clone()));
        self.shared.clients.lock().insert(self.client, outbox.clone());
        let (client, shared) = (self.client, self.shared.clone());
        let credentials = self.credentials.clone();
        shared.drive(Event::ClientOpened { client, hello, credentials, pid: self.pid });
        if !rest.is_empty() {
            shared.drive(Event::ClientSaid { client, batch: rest });
        }
        let writing = {
            let (shared, outbox) = (shared.clone(), outbox.clone());
            async move {
                let told = |bytes| {
                    if bytes > 0 {
                        shared.drive(Event::ClientWritten { client, bytes });
                    }
                };
                outbox.run(told).await
            }
        };
        tokio::pin!(writing);
        let broken = tokio::select! {
            _ = &mut writing => true,
            () = self.listen() => false,
            () = outbox.closed() => false,
        };
        outbox.close();
        if !broken {
            // What was told before the end still goes out, if the client reads it.
            let _ = tokio::time::timeout(FLUSH_LONGEST, writing).await;
        }
        shared.clients.lock().remove(&client);
        shared.drive(Event::ClientClosed(client));
    }

    /// The first message, and those that came with it.
    async fn hello(&mut self) -> Option<(Hello, Vec<ToDaemon>)> {
        let mut batch = self.batch().await?.into_iter();
        match batch.next()?.request {
            Some(Request::Hello(hello)) => Some((hello, batch.collect())),
            _ => None,
        }
    }

    async fn listen(&mut self) {
        while let Some(batch) = self.batch().await {
            self.shared.drive(Event::ClientSaid { client: self.client, batch });
        }
    }

    /// All whole messages that are there, at least one. `None`: the client is gone or talks nonsense.
    async fn batch(&mut self) -> Option<Vec<ToDaemon>> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let mut batch = Vec::new();
            while let Some(message) = self.reader.next::<ToDaemon>().inspect_err(log_nonsense).ok()? {
                batch.push(message);
            }
            if !batch.is_empty() {
                return Some(batch);
            }
            match read_some(&self.stream, &mut buffer).await {
                Ok(n) if n > 0 => self.reader.push(&buffer[..n]),
                _ => return None,
            }
        }
    }
}

fn log_nonsense(error: &base::FrameError) {
    tracing::warn!("a client is turned away: {error}");
}
