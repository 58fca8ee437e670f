//! The named maximum of everything that could otherwise grow without end.

/// Nodes in one cluster.
pub const NODES_MAX: usize = 1_000;
/// Bytes of one control frame on a local socket: an argument list and environment of the kernel's largest size, and its framing.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// Bytes of the head (the tagged message) of one fabric request or reply.
pub const HEAD_BYTES_MAX: usize = 4 << 20;
/// Bytes of the bulk that may ride with one fabric request or reply.
pub const BULK_BYTES_MAX: usize = 4 << 20;
/// Processes one client may start in one request.
pub const TASKS_PER_CLIENT_MAX: usize = 4_096;
/// Output bytes of one stream of a task that wait for the client's acknowledgement.
pub const STREAM_WINDOW_BYTES: usize = 256 << 10;
/// Bytes in one piece of a stream.
pub const STREAM_CHUNK_BYTES: usize = 32 << 10;
