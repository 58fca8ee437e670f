//! How two ends prove to each other that they hold the cluster key (Noise NNpsk0), before anything else is read.
//!
//! ```text
//!  dialling end                                   accepting end
//!  preamble, psk e {hello}          ------------>  refuses a stranger, another cluster, another key
//!                                   <------------  answer, e ee {hello}
//!  refuses another key, another peer
//!  first record, empty              ------------>  only now has the dialling end proved that it is here and now
//! ```
//!
//! The third message costs no round trip (requests follow it at once) and makes a recorded first message worthless.
//! The prologue holds the preamble and the cluster's name: who changes the versions on the way spoils the handshake.

use crate::record::{self, LENGTH_BYTES, Opener, Sealed, Sealer, TAG_BYTES};
use crate::wire::{
    ANSWER_BYTES, Answer, HELLO_BYTES, Hello, Lane, PREAMBLE_BYTES, Preamble, VERSION_MAX, VERSION_MIN,
};
use crate::{ClusterKey, Peer, Refusal};
use snow::HandshakeState;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zerocopy::{FromBytes, IntoBytes};

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// A public key, the hello and a tag: both messages of the handshake are of this length.
const MESSAGE_BYTES: usize = 32 + HELLO_BYTES + TAG_BYTES;
const PROOF_BYTES: usize = LENGTH_BYTES + TAG_BYTES;

/// Who this end is and what it must prove and have proved.
pub struct Identity {
    /// The name that it speaks under.
    pub local: Peer,
    /// The key that both ends must hold.
    pub key: ClusterKey,
    /// The cluster's name.
    pub cluster: String,
}

/// A connection whose other end has proved that it holds the key.
pub struct Session {
    /// The other end.
    pub peer: Peer,
    /// Which connection of the link it is.
    pub lane: Lane,
    /// Seals what this end sends.
    pub sealer: Sealer,
    /// Opens what the other end sends.
    pub opener: Opener,
}

/// Why a handshake failed.
#[derive(Debug)]
pub enum HandshakeError {
    /// The connection broke.
    Io(io::Error),
    /// One of the ends refuses the other.
    Refused(Refusal),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> HandshakeError {
        HandshakeError::Io(error)
    }
}

impl From<Refusal> for HandshakeError {
    fn from(why: Refusal) -> HandshakeError {
        HandshakeError::Refused(why)
    }
}

impl Identity {
    fn hello(&self, lane: Lane, version: u16) -> [u8; HELLO_BYTES] {
        Hello { peer: self.local, lane, version }.encode()
    }

    fn noise(&self, preamble: &Preamble, dials: bool) -> HandshakeState {
        let mut prologue = preamble.as_bytes().to_vec();
        prologue.extend_from_slice(self.cluster.as_bytes());
        let pattern = PATTERN.parse().expect("the pattern is a valid one");
        let builder = snow::Builder::new(pattern)
            .psk(0, self.key.as_bytes())
            .and_then(|builder| builder.prologue(&prologue))
            .expect("key and prologue are given once");
        let state = if dials { builder.build_initiator() } else { builder.build_responder() };
        state.expect("the pattern needs no other key")
    }
}

fn write_message(noise: &mut HandshakeState, hello: &[u8; HELLO_BYTES]) -> [u8; MESSAGE_BYTES] {
    let mut message = [0; MESSAGE_BYTES];
    let written = noise.write_message(hello, &mut message);
    assert_eq!(written.ok(), Some(MESSAGE_BYTES), "it is this end's turn and the message has this length");
    message
}

fn read_message(noise: &mut HandshakeState, message: &[u8; MESSAGE_BYTES]) -> Result<Hello, Refusal> {
    let mut hello = [0; HELLO_BYTES];
    match noise.read_message(message, &mut hello) {
        Ok(HELLO_BYTES) => Hello::decode(&hello).map_err(|_| Refusal::Garbage),
        _ => Err(Refusal::WrongKey),
    }
}

fn session(noise: HandshakeState, hello: Hello, lane: Lane) -> Session {
    let cipher = noise.into_stateless_transport_mode().expect("both messages are through");
    let (sealer, opener) = record::halves(cipher);
    Session { peer: hello.peer, lane, sealer, opener }
}

/// The dialling end's part.
///
/// # Errors
/// [`HandshakeError`].
pub async fn dial(
    stream: &mut TcpStream,
    identity: &Identity,
    lane: Lane,
) -> Result<Session, HandshakeError> {
    let preamble = Preamble::new(&identity.cluster);
    let mut noise = identity.noise(&preamble, true);
    let mut first = [0; PREAMBLE_BYTES + MESSAGE_BYTES];
    first[..PREAMBLE_BYTES].copy_from_slice(preamble.as_bytes());
    first[PREAMBLE_BYTES..].copy_from_slice(&write_message(&mut noise, &identity.hello(lane, VERSION_MAX)));
    stream.write_all(&first).await?;

    let mut answer = [0; ANSWER_BYTES];
    stream.read_exact(&mut answer).await?;
    let answer: Answer = zerocopy::transmute!(answer);
    answer.check()?;
    let mut message = [0; MESSAGE_BYTES];
    stream.read_exact(&mut message).await?;
    let hello = read_message(&mut noise, &message)?;
    if !(VERSION_MIN..=VERSION_MAX).contains(&hello.version) {
        return Err(Refusal::Version.into());
    }
    let mut session = session(noise, hello, lane);
    let mut proof = Sealed::default();
    session.sealer.seal(&[], &mut proof);
    stream.write_all(proof.unwritten()).await?;
    Ok(session)
}

/// The accepting end's part.
///
/// # Errors
/// [`HandshakeError`]. The other end has been told of a refusal as far as that is good for anybody.
pub async fn accept(stream: &mut TcpStream, identity: &Identity) -> Result<Session, HandshakeError> {
    let mut first = [0; PREAMBLE_BYTES];
    stream.read_exact(&mut first).await.map_err(left)?;
    let preamble = Preamble::read_from_bytes(&first).expect("it has this length");
    let version = preamble.accept(&identity.cluster);
    if let Err(Refusal::Garbage) = version {
        return Err(Refusal::Garbage.into());
    }
    let mut message = [0; MESSAGE_BYTES];
    stream.read_exact(&mut message).await.map_err(left)?;
    let mut noise = identity.noise(&preamble, false);
    let agreed = version.and_then(|version| Ok((version, read_message(&mut noise, &message)?)));
    let (version, hello) = match agreed {
        Ok(agreed) => agreed,
        Err(why) => {
            refuse(stream, why);
            return Err(why.into());
        }
    };
    let mut reply = [0; ANSWER_BYTES + MESSAGE_BYTES];
    reply[..ANSWER_BYTES].copy_from_slice(Answer::new(None).as_bytes());
    reply[ANSWER_BYTES..].copy_from_slice(&write_message(&mut noise, &identity.hello(hello.lane, version)));
    stream.write_all(&reply).await?;

    let mut session = session(noise, hello, hello.lane);
    let mut proof = [0; PROOF_BYTES];
    stream.read_exact(&mut proof).await.map_err(left)?;
    match record::split_record(&proof) {
        Ok(Some((sealed, []))) if session.opener.open(sealed, &mut []).is_ok() => Ok(session),
        _ => Err(Refusal::Garbage.into()),
    }
}

/// Who closes before it has proved anything is a stranger, not a broken connection.
fn left(error: io::Error) -> HandshakeError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Refusal::Stranger.into(),
        _ => HandshakeError::Io(error),
    }
}

/// Tells the other end why it is refused, if its socket takes it at once: nobody waits for a stranger.
fn refuse(stream: &TcpStream, why: Refusal) {
    // A stranger that cannot be told is refused all the same.
    let _ = stream.try_write(Answer::new(Some(why)).as_bytes());
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Role;
    use base::NodeId;
    use snow::StatelessTransportState;
    use tokio::net::TcpListener;

    pub(crate) fn identity(node: u32, key: u8, cluster: &str) -> Identity {
        let local = Peer { node: NodeId(node), role: Role::Control };
        Identity { local, key: ClusterKey::from_bytes([key; 32]), cluster: cluster.into() }
    }

    /// Both ends' ciphers after a handshake without a socket.
    pub(crate) fn agreed() -> (StatelessTransportState, StatelessTransportState) {
        let (a, b) = (identity(1, 7, "c"), identity(2, 7, "c"));
        let preamble = Preamble::new("c");
        let (mut ours, mut theirs) = (a.noise(&preamble, true), b.noise(&preamble, false));
        let first = write_message(&mut ours, &a.hello(Lane::Bulk, 1));
        read_message(&mut theirs, &first).unwrap();
        let second = write_message(&mut theirs, &b.hello(Lane::Bulk, 1));
        read_message(&mut ours, &second).unwrap();
        (ours.into_stateless_transport_mode().unwrap(), theirs.into_stateless_transport_mode().unwrap())
    }

    async fn meet(ours: Identity, theirs: Identity) -> (Result<Peer, String>, Result<Peer, String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dialling = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let result = dial(&mut stream, &ours, Lane::Bulk).await;
            result.map(|session| session.peer).map_err(|error| format!("{error:?}"))
        };
        let accepting = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let result = accept(&mut stream, &theirs).await;
            result.map(|session| session.peer).map_err(|error| format!("{error:?}"))
        };
        tokio::join!(dialling, accepting)
    }

    #[tokio::test]
    async fn each_end_learns_who_the_other_is() {
        let (dialled, accepted) = meet(identity(1, 7, "c"), identity(2, 7, "c")).await;
        assert_eq!(dialled.unwrap().node, NodeId(2));
        assert_eq!(accepted.unwrap().node, NodeId(1));
    }

    #[tokio::test]
    async fn both_ends_know_why_they_part() {
        let (dialled, accepted) = meet(identity(1, 7, "c"), identity(2, 8, "c")).await;
        assert_eq!((dialled, accepted), (Err("Refused(WrongKey)".into()), Err("Refused(WrongKey)".into())));
        let (dialled, accepted) = meet(identity(1, 7, "c"), identity(2, 7, "d")).await;
        assert_eq!(
            (dialled, accepted),
            (Err("Refused(WrongCluster)".into()), Err("Refused(WrongCluster)".into()))
        );
    }

    #[test]
    fn a_changed_preamble_spoils_the_handshake() {
        let (a, b) = (identity(1, 7, "c"), identity(2, 7, "c"));
        let mut changed = *Preamble::new("c").as_bytes().first_chunk::<PREAMBLE_BYTES>().unwrap();
        changed[12] = 1;
        let mut ours = a.noise(&Preamble::new("c"), true);
        let mut theirs = b.noise(&Preamble::read_from_bytes(&changed).unwrap(), false);
        let first = write_message(&mut ours, &a.hello(Lane::Urgent, 1));
        assert_eq!(read_message(&mut theirs, &first), Err(Refusal::WrongKey));
    }
}
