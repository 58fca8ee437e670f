//! The named maximum of everything that process control keeps or waits for.

use std::time::Duration;

/// Sessions of clients on one node, those in their grace time included.
pub const SESSIONS_MAX: usize = 1_024;
/// Tasks that run on one node for all clients of the cluster.
pub const HOSTED_MAX: usize = 16_384;
/// Encoded bytes of one task's specification; what surrounds it fits beside it into one frame.
pub const SPEC_BYTES_MAX: usize = base::limits::FRAME_BYTES_MAX - (64 << 10);
/// Encoded bytes of specifications in one message to a node; more travel in several.
pub const SPAWN_BYTES_MAX: usize = 1 << 20;
/// Bytes that wait for a client to read its socket; beyond them output stays with `ssi-init` and is asked for again.
pub const CLIENT_QUEUE_BYTES_MAX: usize = 16 << 20;
/// Bytes of output that wait in a lane to one node; beyond them output stays with `ssi-init`.
pub const LANE_QUEUE_BYTES_MAX: usize = 16 << 20;
/// Numbered requests to one node that are under way at the same time, in each lane.
pub const LANE_WINDOW: usize = 64;
/// Reports about shadows kept for clients that have not come back yet after a restart of `ssid`.
pub const EARLY_REPORTS_MAX: usize = 1_024;
/// Foreign kills under way at the same time on one node; each holds one stopped caller.
pub const KILLS_MAX: usize = 4_096;

/// Shortest wait before a failed request is sent again; doubles up to [`RETRY_LONGEST`].
pub const RETRY_SHORTEST: Duration = Duration::from_millis(5);
/// Longest wait before a failed request is sent again.
pub const RETRY_LONGEST: Duration = Duration::from_millis(200);
/// How long one attempt of a numbered request may take.
pub const ATTEMPT: Duration = Duration::from_secs(5);
/// How long a node may take until it says that a task runs or cannot run.
pub const SPAWN_LONGEST: Duration = Duration::from_secs(30);
/// How long a foreign kill may take, restarts of `ssid` on the way included.
pub const KILL_LONGEST: Duration = Duration::from_secs(3);
/// Encoded bytes of one node's table: some 1,500 processes; more are not shown to other nodes.
pub const TABLE_BYTES_MAX: usize = 3 << 20;
/// How long a table of another node's processes is fresh.
pub const TABLE_FRESH: Duration = Duration::from_millis(150);
/// How long another node may take to answer for its table or a file of it.
pub const TABLE_LONGEST: Duration = Duration::from_millis(1_000);
/// How long `ssi-init` may take to answer.
pub const INIT_LONGEST: Duration = Duration::from_secs(5);
