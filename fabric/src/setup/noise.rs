//! The handshake's two ends as state machines: bytes in, bytes out.

use super::preamble::{ANSWER_BYTES, Answer, HELLO_BYTES, Hello, PREAMBLE_BYTES, Preamble, Versions};
use super::terms::{Open, Welcome};
use crate::{ClusterKey, NEWCOMER, Peer, Refusal};
use hmac::{Hmac, KeyInit, Mac};
use prost::Message;
use sha2::Sha256;
use snow::{HandshakeState, StatelessTransportState};
use zerocopy::{FromBytes, IntoBytes};

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
const TAG_BYTES: usize = 16;
/// Bytes of a message of the handshake: a public key, the hello and a tag.
pub const SEALED_HELLO_BYTES: usize = 32 + HELLO_BYTES + TAG_BYTES;
/// The most bytes of sealed terms.
pub const TERMS_BYTES_MAX: usize = 16 << 10;

/// The keys that an endpoint knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The key that it proves when it dials.
    pub current: ClusterKey,
    /// Others that it takes from who dials it: the one before or after, while a cluster changes its key.
    pub also: Vec<ClusterKey>,
    /// Those that let a machine in as [`NEWCOMER`] only, whatever name it claims: joining keys of open tickets.
    pub joining: Vec<ClusterKey>,
}

/// Who this end is and what it must prove and have proved.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The name that it speaks under.
    pub local: Peer,
    /// The keys.
    pub keys: Keys,
    /// The cluster's name.
    pub cluster: String,
}

/// The keys for the records of one connection, one for each direction.
pub struct RecordKeys {
    /// For what this end sends.
    pub send: [u8; 32],
    /// For what it receives.
    pub receive: [u8; 32],
}

/// What a handshake does next.
#[derive(Debug)]
pub enum Step<T> {
    /// It needs more bytes.
    More,
    /// This is to be sent.
    Send(Vec<u8>),
    /// It has come this far.
    Done(T),
}

fn noise(cluster: &str, key: &ClusterKey, preamble: &Preamble, dials: bool) -> HandshakeState {
    let mut prologue = preamble.as_bytes().to_vec();
    prologue.extend_from_slice(cluster.as_bytes());
    let pattern = PATTERN.parse().expect("the pattern is a valid one");
    let builder = snow::Builder::new(pattern)
        .psk(0, key.as_bytes())
        .and_then(|builder| builder.prologue(&prologue))
        .expect("key and prologue are given once");
    let state = if dials { builder.build_initiator() } else { builder.build_responder() };
    state.expect("the pattern needs no other key")
}

fn write_hello(noise: &mut HandshakeState, hello: Hello) -> [u8; SEALED_HELLO_BYTES] {
    let mut message = [0; SEALED_HELLO_BYTES];
    let written = noise.write_message(&hello.encode(), &mut message);
    assert_eq!(
        written.ok(),
        Some(SEALED_HELLO_BYTES),
        "it is this end's turn and the message has this length"
    );
    message
}

fn read_hello(noise: &mut HandshakeState, message: &[u8; SEALED_HELLO_BYTES]) -> Result<Hello, Refusal> {
    let mut hello = [0; HELLO_BYTES];
    match noise.read_message(message, &mut hello) {
        Ok(HELLO_BYTES) => Hello::decode(&hello).map_err(|_| Refusal::Garbage),
        _ => Err(Refusal::WrongKey),
    }
}

/// What both messages agreed on.
struct Agreed {
    cipher: StatelessTransportState,
    keys: RecordKeys,
}

impl Agreed {
    fn new(mut noise: HandshakeState, dials: bool) -> Agreed {
        let (dialling, accepting) = noise.dangerously_get_raw_split();
        let [dialling, accepting] = [dialling, accepting].map(|secret| record_key(&secret));
        let (send, receive) = if dials { (dialling, accepting) } else { (accepting, dialling) };
        let cipher = noise.into_stateless_transport_mode().expect("both messages are through");
        Agreed { cipher, keys: RecordKeys { send, receive } }
    }

    /// The one message that this end sends under the handshake's own cipher.
    fn seal(&self, terms: &impl Message) -> Vec<u8> {
        let plain = terms.encode_to_vec();
        let length = plain.len() + TAG_BYTES;
        assert!(length <= TERMS_BYTES_MAX, "an endpoint's terms are short");
        let mut sealed = vec![0; 2 + length];
        sealed[..2].copy_from_slice(&(length as u16).to_le_bytes());
        let written = self.cipher.write_message(0, &plain, &mut sealed[2..]);
        assert_eq!(written.ok(), Some(length), "terms of a legal length always seal");
        sealed
    }

    /// Opens the one message of the other end. Takes it off `input` once it is whole.
    fn open<T: Message + Default>(&self, input: &mut Vec<u8>) -> Result<Option<T>, Refusal> {
        let Some((length, rest)) = input.split_first_chunk::<2>() else { return Ok(None) };
        let length = usize::from(u16::from_le_bytes(*length));
        if !(TAG_BYTES..=TERMS_BYTES_MAX).contains(&length) {
            return Err(Refusal::Garbage);
        }
        let Some(sealed) = rest.get(..length) else { return Ok(None) };
        let mut plain = vec![0; length];
        let opened = self.cipher.read_message(0, sealed, &mut plain).map_err(|_| Refusal::Garbage)?;
        let terms = T::decode(&plain[..opened]).map_err(|_| Refusal::Garbage)?;
        input.drain(..2 + length);
        Ok(Some(terms))
    }
}

/// A key for the records, from a key of the handshake: no key serves two ciphers.
fn record_key(secret: &[u8; 32]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(b"ssi fabric records");
    mac.finalize().into_bytes().into()
}

/// Takes `N` bytes off the front, once they are there.
fn take<const N: usize>(input: &mut Vec<u8>) -> Option<[u8; N]> {
    let taken = *input.first_chunk::<N>()?;
    input.drain(..N);
    Some(taken)
}

/// The dialling end.
pub struct Dialling {
    versions: Versions,
    noise: Option<HandshakeState>,
    agreed: Option<(Hello, Agreed)>,
}

/// What the dialling end has in the end.
pub struct Dialled {
    /// The accepting end.
    pub peer: Peer,
    /// The version that is spoken.
    pub version: u16,
    /// What it grants.
    pub welcome: Welcome,
    /// For the records.
    pub keys: RecordKeys,
}

impl std::fmt::Debug for Dialled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dialled({}, version {})", self.peer, self.version)
    }
}

impl Dialling {
    /// Begins, and the first bytes to send.
    pub fn begin(identity: &Identity) -> (Dialling, Vec<u8>) {
        Dialling::speaking(identity, Versions::default())
    }

    /// As [`Dialling::begin`], for an end that speaks these versions only.
    pub fn speaking(identity: &Identity, versions: Versions) -> (Dialling, Vec<u8>) {
        let key = &identity.keys.current;
        let preamble = Preamble::new(&identity.cluster, key, versions);
        let mut noise = noise(&identity.cluster, key, &preamble, true);
        let mut first = preamble.as_bytes().to_vec();
        let hello = Hello { peer: identity.local, version: versions.max };
        first.extend_from_slice(&write_hello(&mut noise, hello));
        (Dialling { versions, noise: Some(noise), agreed: None }, first)
    }

    /// Goes on with what came. Bytes that belong to the frames behind the handshake stay in `input`.
    ///
    /// # Errors
    /// One of the ends refuses the other.
    pub fn advance(
        &mut self,
        input: &mut Vec<u8>,
        open: &dyn Fn(Peer) -> Open,
    ) -> Result<Step<Dialled>, Refusal> {
        let Some((hello, agreed)) = &self.agreed else { return self.answered(input, open) };
        let Some(welcome) = agreed.open::<Welcome>(input)? else { return Ok(Step::More) };
        let (peer, version) = (hello.peer, hello.version);
        let keys = RecordKeys { send: agreed.keys.send, receive: agreed.keys.receive };
        Ok(Step::Done(Dialled { peer, version, welcome, keys }))
    }

    fn answered(
        &mut self,
        input: &mut Vec<u8>,
        open: &dyn Fn(Peer) -> Open,
    ) -> Result<Step<Dialled>, Refusal> {
        if let Some(answer) = input.first_chunk::<ANSWER_BYTES>() {
            let answer: Answer = zerocopy::transmute!(*answer);
            answer.check()?;
        }
        if input.len() < ANSWER_BYTES + SEALED_HELLO_BYTES {
            return Ok(Step::More);
        }
        input.drain(..ANSWER_BYTES);
        let (Some(message), Some(mut noise)) = (take(input), self.noise.take()) else {
            return Err(Refusal::Garbage);
        };
        let hello = read_hello(&mut noise, &message)?;
        if !(self.versions.min..=self.versions.max).contains(&hello.version) {
            return Err(Refusal::Version);
        }
        let agreed = Agreed::new(noise, true);
        let third = agreed.seal(&open(hello.peer));
        self.agreed = Some((hello, agreed));
        Ok(Step::Send(third))
    }
}

/// The accepting end.
#[derive(Default)]
pub struct Accepting {
    versions: Versions,
    preamble: Option<Preamble>,
    agreed: Option<(Peer, u16, Agreed)>,
}

/// What the accepting end knows when it is asked to open: it answers with [`Opened::welcome`].
pub struct Opened {
    /// The dialling end.
    pub peer: Peer,
    /// The version that is spoken.
    pub version: u16,
    /// What it wants.
    pub open: Open,
    /// For the records.
    pub keys: RecordKeys,
    agreed: Agreed,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opened({}, version {})", self.peer, self.version)
    }
}

impl Opened {
    /// The bytes that welcome it.
    pub fn welcome(&self, welcome: &Welcome) -> Vec<u8> {
        self.agreed.seal(welcome)
    }
}

/// The bytes that tell a stranger why he is refused; good for an error message at his end only.
pub fn refusal(why: Refusal) -> Vec<u8> {
    Answer::new(Some(why)).as_bytes().to_vec()
}

impl Accepting {
    /// An end that speaks these versions only.
    pub fn speaking(versions: Versions) -> Accepting {
        Accepting { versions, ..Accepting::default() }
    }

    /// True once it has answered: what follows is sealed, so that no [`refusal`] would be understood.
    pub fn has_answered(&self) -> bool {
        self.agreed.is_some()
    }

    /// Goes on with what came. Bytes that belong to the frames behind the handshake stay in `input`.
    ///
    /// # Errors
    /// The other end is refused.
    pub fn advance(&mut self, input: &mut Vec<u8>, identity: &Identity) -> Result<Step<Opened>, Refusal> {
        if let Some((peer, version, agreed)) = self.agreed.take() {
            let Some(open) = agreed.open::<Open>(input)? else {
                self.agreed = Some((peer, version, agreed));
                return Ok(Step::More);
            };
            let keys = RecordKeys { send: agreed.keys.send, receive: agreed.keys.receive };
            return Ok(Step::Done(Opened { peer, version, open, keys, agreed }));
        }
        let Some(preamble) = self.preamble.or_else(|| self.read_preamble(input)) else {
            return Ok(Step::More);
        };
        let version = preamble.accept(&identity.cluster, self.versions);
        if let Err(Refusal::Garbage) = version {
            return Err(Refusal::Garbage);
        }
        let Some(message) = take::<SEALED_HELLO_BYTES>(input) else { return Ok(Step::More) };
        let version = version?;
        let (key, joins) = identity.keys.find(&preamble).ok_or(Refusal::WrongKey)?;
        let mut noise = noise(&identity.cluster, key, &preamble, false);
        let hello = read_hello(&mut noise, &message)?;
        // Who proves a joining key is no member, and no member is a newcomer.
        if joins != (hello.peer.node == NEWCOMER) {
            return Err(Refusal::WrongKey);
        }
        let mut reply = Answer::new(None).as_bytes().to_vec();
        reply.extend_from_slice(&write_hello(&mut noise, Hello { peer: identity.local, version }));
        self.agreed = Some((hello.peer, version, Agreed::new(noise, false)));
        Ok(Step::Send(reply))
    }

    fn read_preamble(&mut self, input: &mut Vec<u8>) -> Option<Preamble> {
        let bytes = take::<PREAMBLE_BYTES>(input)?;
        self.preamble = Preamble::read_from_bytes(&bytes).ok();
        self.preamble
    }
}

impl Keys {
    /// One key.
    pub fn one(key: ClusterKey) -> Keys {
        Keys { current: key, also: Vec::new(), joining: Vec::new() }
    }

    /// The key that is meant, and whether it only lets newcomers in.
    fn find(&self, preamble: &Preamble) -> Option<(&ClusterKey, bool)> {
        let members = std::iter::once(&self.current).chain(&self.also).map(|key| (key, false));
        let joining = self.joining.iter().map(|key| (key, true));
        members.chain(joining).find(|(key, _)| preamble.means(key))
    }
}

#[cfg(test)]
#[path = "noise_tests.rs"]
mod tests;
