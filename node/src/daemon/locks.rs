//! The lock manager of a node: a table, and the socket on which the programs of the node ask it.

use crate::config::StateDir;
use crate::error::Error;
use base::NodeId;
use dlm::server::{self, Single};

/// Starts it, for as long as the daemon lives.
///
/// # Errors
/// The socket cannot be opened.
pub fn start(state: &StateDir, node: NodeId) -> Result<(), Error> {
    let seed = getrandom::u64().map_err(Error::said)?;
    let locks = Single::start(node, dlm::Config { seed, ..Default::default() }).map_err(Error::said)?;
    let listener =
        server::listen(&state.lock_socket()).map_err(Error::step("open the lock manager's socket"))?;
    tokio::spawn(server::run(listener, locks));
    Ok(())
}
