//! The daemons' end of the admin socket: accept, read the hello, hand over to the service it names.

use admin::wire::{Answer, Ask, Request, SERVICE, VERSION_OLDEST, Why};
use base::codec::ServiceHello;
use base::{FrameReader, encode_frame};
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// Connections served at once; more wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 4_096;

/// How long a client may take to say what it wants; who says nothing must not keep a place.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// A connection whose hello has been read: the stream, what was read beyond the hello, and who is at the other end.
pub struct Connection {
    /// The stream.
    pub stream: UnixStream,
    /// Bytes that came after the hello.
    pub reader: FrameReader,
    /// The peer's credentials.
    pub peer: UCred,
    /// What it said.
    pub hello: ServiceHello,
}

/// The future of one answer.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// What stands behind an admin socket.
pub trait Desk: Send + Sync + 'static {
    /// Answers one question.
    fn answer(&self, ask: Ask, peer: UCred) -> Answering<'_>;
    /// Takes over a connection to a service other than `admin`; gives it back if there is no such service.
    fn serve(&self, connection: Connection) -> Option<Connection>;
}

/// An answer that says why not.
pub fn refuse(why: impl std::fmt::Display) -> Answer {
    refuse_because(Why::Failed, why)
}

/// An answer that says why not, also to programs.
pub fn refuse_because(kind: Why, why: impl std::fmt::Display) -> Answer {
    Answer { error: why.to_string(), why: kind as i32, ..Answer::default() }
}

/// The answer to who may not.
pub fn not_permitted(what: &str) -> Answer {
    refuse_because(Why::NotPermitted, format!("only root, or who started the node, may {what}"))
}

/// True if the peer may change the node: root, or whoever runs the daemon.
pub fn is_owner(peer: UCred) -> bool {
    peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw()
}

/// Binds the socket at `path`, open to every user (each question checks the peer's credentials).
///
/// # Errors
/// As bind(2).
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    // A socket file that a killed daemon left is in the way; that no second daemon runs is the keeper's lock.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Serves `desk` until the listener fails.
pub async fn run(listener: UnixListener, desk: Arc<dyn Desk>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin socket does not accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            if let Err(error) = converse(stream, desk).await {
                tracing::debug!(%error, "an admin connection ended");
            }
            drop(place);
        });
    }
}

async fn converse(stream: UnixStream, desk: Arc<dyn Desk>) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let mut reader = FrameReader::default();
    let mut stream = stream;
    let hello = next_frame::<ServiceHello>(&mut stream, &mut reader);
    let Some(hello) = tokio::time::timeout(HELLO_WITHIN, hello).await?? else { return Ok(()) };
    if hello.service != SERVICE {
        if let Some(mut connection) = desk.serve(Connection { stream, reader, peer, hello }) {
            let answer = refuse(format!("no service {:?} here", connection.hello.service));
            connection.stream.write_all(&encode_frame(&answer)).await?;
        }
        return Ok(());
    }
    if hello.version < VERSION_OLDEST {
        let answer = refuse_because(Why::Unknown, "a command of a version that is no longer understood");
        return stream.write_all(&encode_frame(&answer)).await;
    }
    while let Some(request) = next_frame::<Request>(&mut stream, &mut reader).await? {
        let answer = match request.ask {
            // Who waits for something to happen may go before it does.
            Some(ask @ Ask::Transitions(_)) => tokio::select! {
                answer = desk.answer(ask, peer) => answer,
                () = hung_up(&stream) => return Ok(()),
            },
            Some(ask) => desk.answer(ask, peer).await,
            None => refuse_because(
                Why::Unknown,
                "a question that this ssid does not know: it is older than the command",
            ),
        };
        stream.write_all(&encode_frame(&answer)).await?;
    }
    Ok(())
}

/// Ends when the peer has closed its end. One that has sent more meanwhile is there.
async fn hung_up(stream: &UnixStream) {
    if stream.ready(Interest::READABLE).await.is_ok_and(|ready| !ready.is_read_closed()) {
        std::future::pending().await
    }
}

/// The next frame from a stream; `None` at its end.
///
/// # Errors
/// The stream broke, or holds something else.
pub async fn next_frame<M: prost::Message + Default>(
    stream: &mut UnixStream,
    reader: &mut FrameReader,
) -> io::Result<Option<M>> {
    let mut buffer = [0; 8 << 10];
    loop {
        if let Some(message) = reader.next::<M>().map_err(io::Error::other)? {
            return Ok(Some(message));
        }
        match stream.read(&mut buffer).await? {
            0 => return Ok(None),
            n => reader.push(&buffer[..n]),
        }
    }
}

/// The service `data`: `ssid --data` holds this connection for as long as it lives; `present` hears of its coming and
/// going.
pub async fn watch_presence(mut stream: UnixStream, present: impl Fn(bool)) {
    present(true);
    // Nothing is ever sent this way: whatever arrives is the end.
    let _ = stream.read(&mut [0]).await;
    present(false);
}

#[cfg(test)]
mod tests {
    use super::*;
    use admin::wire::{TransitionsWanted, VERSION};
    use std::path::PathBuf;
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

    /// Answers everything but questions for transitions, for which it waits for ever; says when it begins and when it is let off.
    struct Patient {
        said: UnboundedSender<&'static str>,
    }

    struct Told(UnboundedSender<&'static str>);

    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.send("let off");
        }
    }

    impl Desk for Patient {
        fn answer(&self, ask: Ask, _peer: UCred) -> Answering<'_> {
            Box::pin(async move {
                if let Ask::Transitions(_) = ask {
                    let _told = Told(self.said.clone());
                    let _ = self.said.send("waits");
                    std::future::pending::<()>().await;
                }
                Answer { local: 7, ..Answer::default() }
            })
        }

        fn serve(&self, connection: Connection) -> Option<Connection> {
            Some(connection)
        }
    }

    fn start() -> (tempfile::TempDir, PathBuf, UnboundedReceiver<&'static str>) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("admin.sock");
        let (said, heard) = unbounded_channel();
        tokio::spawn(run(listen(&socket).unwrap(), Arc::new(Patient { said })));
        (dir, socket, heard)
    }

    async fn say(socket: &Path, version: u32, bytes: &[u8]) -> (UnixStream, FrameReader) {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        let hello = ServiceHello { service: SERVICE.into(), version };
        stream.write_all(&encode_frame(&hello)).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        (stream, FrameReader::default())
    }

    #[tokio::test]
    async fn questions_of_another_time_are_refused_and_the_next_one_is_answered() {
        let (_dir, socket, _heard) = start();
        // A request with a question of tag 200, then one that is known.
        let unknown = [4u8, 0, 0, 0, 0xc2, 0x0c, 1, 0];
        let known = encode_frame(&Request { ask: Some(Ask::Nodes(())) });
        let (mut stream, mut reader) = say(&socket, VERSION, &[&unknown[..], &known].concat()).await;
        let refused = next_frame::<Answer>(&mut stream, &mut reader).await.unwrap().unwrap();
        assert_eq!(refused.why(), Why::Unknown);
        assert!(!refused.error.is_empty());
        let answer = next_frame::<Answer>(&mut stream, &mut reader).await.unwrap().unwrap();
        assert_eq!((answer.error.as_str(), answer.local), ("", 7));
    }

    #[tokio::test]
    async fn a_client_that_is_too_old_is_told_so() {
        let (_dir, socket, _heard) = start();
        let (mut stream, mut reader) = say(&socket, 0, &[]).await;
        let refused = next_frame::<Answer>(&mut stream, &mut reader).await.unwrap().unwrap();
        assert_eq!(refused.why(), Why::Unknown);
        assert!(next_frame::<Answer>(&mut stream, &mut reader).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn who_waits_and_goes_is_waited_for_no_longer() {
        let (_dir, socket, mut heard) = start();
        let wanted = TransitionsWanted { wait_ms: 30_000, ..Default::default() };
        let ask = encode_frame(&Request { ask: Some(Ask::Transitions(wanted)) });
        let (stream, _) = say(&socket, VERSION, &ask).await;
        assert_eq!(heard.recv().await, Some("waits"));
        drop(stream);
        assert_eq!(heard.recv().await, Some("let off"));
    }
}
