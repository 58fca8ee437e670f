//! Sockets and tasks: one task a connection.
//!
//! Invariant: when the program's end is closed, its holder leaves, whatever else fails. A program that does not fetch what it is told is given
//! no new locks, so what waits for it is bounded.

use super::locks::Locks;
use super::register::{Outcome, Register};
use super::session::Peer;
use crate::client::status;
use crate::client::wire::{Call, Notice, Reply, SERVICE, VERSION, What};
use crate::event::{Effect, Owner};
use base::codec::ServiceHello;
use base::{FrameReader, encode_frame};
use parking_lot::Mutex;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg,
    socketpair,
};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Connections served at once; more wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 4_096;
/// How long a program may take to say what it wants.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// A program that has left so many bytes unread is late.
const LATE_BYTES: usize = 4 << 20;

/// Binds the socket at `path`, open to every user: lockspaces say who may do what.
///
/// # Errors
/// As bind(2).
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

struct Server {
    locks: Arc<dyn Locks>,
    register: Mutex<Register>,
}

/// Serves `locks` to the programs that connect, for ever. Root, and the user whose process this is, may make lockspaces.
pub async fn run(listener: UnixListener, locks: Arc<dyn Locks>) {
    let register = Mutex::new(Register::new(locks.node(), rustix::process::geteuid().as_raw()));
    let server = Arc::new(Server { locks, register });
    let weak = Arc::downgrade(&server);
    server.locks.list_with(Arc::new(move || {
        let Some(server) = weak.upgrade() else { return Vec::new() };
        server.register.lock().rows(server.locks.now())
    }));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the lock manager's socket does not accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            if let Err(error) = serve(&server, stream).await {
                tracing::debug!(%error, "a program's connection to the lock manager ended");
            }
            drop(place);
        });
    }
}

async fn serve(server: &Arc<Server>, mut stream: UnixStream) -> io::Result<()> {
    let credentials = stream.peer_cred()?;
    let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
    let peer = Peer { pid, uid: credentials.uid(), gid: credentials.gid() };
    let mut reader = FrameReader::default();
    let mut buffer = [0; 4 << 10];
    let hello = async {
        loop {
            if let Some(hello) = reader.next::<ServiceHello>().map_err(io::Error::other)? {
                return Ok(hello);
            }
            match stream.read(&mut buffer).await? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                n => reader.push(&buffer[..n]),
            }
        }
    };
    let hello = tokio::time::timeout(HELLO_WITHIN, hello).await??;
    if hello.service != SERVICE || hello.version != VERSION {
        let refusal = Reply { status: status::INVALID, ..Reply::default() };
        return stream.write_all(&encode_frame(&refusal)).await;
    }
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    // Each end has its own flag; a program waits for its notices.
    rustix::io::ioctl_fionbio(&theirs, false)?;
    welcome(&stream, theirs).await?;
    let (sender, effects) = unbounded_channel();
    let holder = Holder { server: Arc::clone(server), owner: server.locks.join(sender) };
    server.register.lock().enter(holder.owner, peer);
    let ours = UnixStream::from_std(ours.into())?;
    let conversation = Conversation { holder, stream, reader, ours, waiting: Vec::new() };
    conversation.go(effects).await
}

/// The first reply, and with it the program's end of the second socket.
async fn welcome(stream: &UnixStream, theirs: OwnedFd) -> io::Result<()> {
    let frame = encode_frame(&Reply::default());
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [theirs.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let parts = [IoSlice::new(&frame)];
        sendmsg(stream, &parts, &mut control, SendFlags::NOSIGNAL).map_err(io::Error::from)
    };
    match stream.async_io(Interest::WRITABLE, send).await? {
        sent if sent == frame.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// A holder, for as long as its connection is served.
struct Holder {
    server: Arc<Server>,
    owner: Owner,
}

impl Drop for Holder {
    fn drop(&mut self) {
        let now = self.server.locks.now();
        self.server.register.lock().leave(self.owner.holder, now);
        self.server.locks.leave(self.owner);
    }
}

struct Conversation {
    holder: Holder,
    stream: UnixStream,
    reader: FrameReader,
    ours: UnixStream,
    /// What the second socket has not taken yet.
    waiting: Vec<u8>,
}

impl Conversation {
    async fn go(mut self, mut effects: UnboundedReceiver<Effect>) -> io::Result<()> {
        let mut buffer = [0; 8 << 10];
        loop {
            while let Some(call) = self.reader.next::<Call>().map_err(io::Error::other)? {
                self.answer(call).await?;
            }
            tokio::select! {
                read = self.stream.read(&mut buffer) => match read? {
                    0 => return Ok(()),
                    n => self.reader.push(&buffer[..n]),
                },
                effect = effects.recv() => match effect {
                    Some(effect) => self.tell(effect),
                    None => return Ok(()),
                },
                sent = self.ours.write(&self.waiting), if !self.waiting.is_empty() => {
                    self.waiting.drain(..sent?);
                }
            }
        }
    }

    async fn answer(&mut self, call: Call) -> io::Result<()> {
        let Server { locks, register } = &*self.holder.server;
        let (holder, now) = (self.holder.owner.holder, locks.now());
        let outcome = if let Some(What::List(())) = call.what {
            let elsewhere = locks.list_elsewhere().await;
            Outcome { replies: register.lock().list(call.tag, elsewhere, now), events: Vec::new() }
        } else if let Some(What::Waits(())) = call.what {
            let seen = locks.survey().await;
            Outcome { replies: register.lock().waits(call.tag, &seen, now), events: Vec::new() }
        } else {
            let is_late = self.waiting.len() > LATE_BYTES;
            register.lock().call(holder, call, is_late, now)
        };
        for event in outcome.events {
            locks.submit(event);
        }
        let frames: Vec<u8> = outcome.replies.iter().flat_map(encode_frame::<Reply>).collect();
        self.stream.write_all(&frames).await
    }

    fn tell(&mut self, effect: Effect) {
        let Server { locks, register } = &*self.holder.server;
        let told = register.lock().effect(self.holder.owner.holder, effect, locks.now());
        for event in told.events {
            locks.submit(event);
        }
        self.waiting.extend(told.notices.iter().flat_map(encode_frame::<Notice>));
    }
}
