//! The admin protocol: what the command line asks of the daemons of its node.
//!
//! A client connects to a Unix socket in the node's run directory, names the service it wants
//! (`base::codec::ServiceHello`), and from then on both ends speak that service's frames: `admin` (this module's
//! requests and answers), `data` (`ssid --data` says that it is there), `tasks` (`pm::wire::client`). Who may ask what is decided by the
//! peer credentials of the socket.

pub mod client;
pub mod server;
pub mod wire;
