//! Setting a link up: who is there, does he hold the cluster key, on what terms do we talk.
//!
//! ```text
//!  dialling end                                   accepting end
//!  preamble, psk e {hello}          ------------>  refuses a stranger, another cluster, another key
//!                                   <------------  answer, e ee {hello}
//!  refuses another key, another peer
//!  sealed: Open (session, lane, terms) --------->  only now has the dialling end proved that it is here and now
//!                                   <------------  sealed: Welcome (resumed?, grants, rails)
//!  frames                           <----------->  frames
//! ```
//!
//! Pure: bytes in, bytes out; the engine owns the sockets. Noise NNpsk0; its prologue holds the preamble and the cluster's
//! name, so whoever changes the versions on the way spoils the handshake, and a recorded first message is worth nothing.
//! Invariant: nothing but these bytes is read from an end that has not proved, for this very connection, that it holds the key.

mod noise;
mod preamble;
mod terms;

pub use noise::{
    Accepting, Dialled, Dialling, Identity, Keys, Opened, RecordKeys, SEALED_HELLO_BYTES, Step,
    TERMS_BYTES_MAX, refusal,
};
pub use preamble::{
    ANSWER_BYTES, Answer, MAGIC, PREAMBLE_BYTES, Preamble, VERSION_MAX, VERSION_MIN, Versions,
};
pub use terms::{Open, QueuePair, Rail, Security, Welcome};
