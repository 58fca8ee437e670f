//! What `ssid --data` is asked about files: layouts and space.

/// A layout for a directory's new files, or for a new file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetStripe {
    /// Path below the mount.
    #[prost(bytes = "vec", tag = "1")]
    pub path: Vec<u8>,
    /// Stripe size in bytes; 0: the default.
    #[prost(uint64, tag = "2")]
    pub size: u64,
    /// Object servers to stripe over; 0: the default, `u32::MAX`: all.
    #[prost(uint32, tag = "3")]
    pub count: u32,
    /// Node of the first stripe; 0: chosen.
    #[prost(uint32, tag = "4")]
    pub first: u32,
}

/// A file's layout.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Layout {
    /// Stripe size, bytes.
    #[prost(uint64, tag = "1")]
    pub size: u64,
    /// Object servers, in stripe order.
    #[prost(uint32, repeated, tag = "2")]
    pub nodes: Vec<u32>,
    /// Stripe count; for a directory, the default it gives (`u32::MAX`: all).
    #[prost(uint32, tag = "4")]
    pub count: u32,
    /// It is a directory: this is what new files in it get.
    #[prost(bool, tag = "5")]
    pub directory: bool,
}

/// The space of one object server.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Space {
    /// Its node.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// Bytes in all.
    #[prost(uint64, tag = "2")]
    pub total: u64,
    /// Bytes free for users.
    #[prost(uint64, tag = "3")]
    pub free: u64,
    /// Not empty: it does not answer, and this is why.
    #[prost(string, tag = "4")]
    pub error: String,
}
