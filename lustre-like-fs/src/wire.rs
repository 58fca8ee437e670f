//! What the filesystem's client and servers say to each other: tagged messages in the head of a fabric message, file
//! data in its bulk.
//!
//! The client asks the metadata server ([`MetaRequest`] -> [`MetaReply`], service METADATA) and the object servers
//! ([`ObjectRequest`] -> [`ObjectReply`], service OBJECTS). Every request may be sent twice: a read changes nothing, an
//! object request names absolute offsets, and a change of the namespace carries an [`Operation`] by which the server
//! knows it again.

mod metadata;
mod objects;

pub use metadata::*;
pub use objects::*;

/// The name of one change: the same for every attempt at it, also after a restart of the daemon that asks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Message)]
pub struct Operation {
    /// The asking node.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// For requests of the mount the node's incarnation; for the daemon's own requests a random number.
    #[prost(fixed64, tag = "2")]
    pub source: u64,
    /// For requests of the mount the kernel's number of the FUSE request; otherwise counted up.
    #[prost(fixed64, tag = "3")]
    pub sequence: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    proptest! {
        #[test]
        fn garbage_is_refused_or_decoded_but_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = MetaRequest::decode(&bytes[..]);
            let _ = MetaReply::decode(&bytes[..]);
            let _ = ObjectRequest::decode(&bytes[..]);
            let _ = ObjectReply::decode(&bytes[..]);
        }
    }
}
