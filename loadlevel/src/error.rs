//! Why ranks cannot be placed.

use membership::NodeState;

/// What failed, for the user of `ssirun`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A host that is in no view.
    #[error("there is no node {0:?} in this cluster (ssi nodes lists them)")]
    UnknownHost(String),
    /// A host that cannot run anything now.
    #[error("node {name} is {}", .state.to_ascii_uppercase())]
    HostNotUp {
        /// Its name.
        name: String,
        /// Its state.
        state: String,
    },
    /// A host that gets no new work.
    #[error("node {0} is drained (ssi node undrain lets work go there again)")]
    HostDrained(String),
    /// No node is UP and gets work.
    #[error("no node of this cluster is UP and gets new work")]
    NoNode,
    /// No ranks at all.
    #[error("a job has at least one rank")]
    NoRanks,
    /// More ranks than a job may have.
    #[error("{ranks} ranks are more than the {most} that a job may have")]
    TooManyRanks {
        /// Asked for.
        ranks: u32,
        /// Allowed.
        most: u32,
    },
    /// More ranks than the nodes may get.
    #[error("{ranks} ranks do not fit on {nodes} nodes with at most {per_node} ranks each (-ppn)")]
    TooManyPerNode {
        /// Asked for.
        ranks: u32,
        /// Nodes that may be used.
        nodes: usize,
        /// Ranks that each may get.
        per_node: u32,
    },
}

impl Error {
    /// A host in a state in which it cannot run anything.
    pub(crate) fn not_up(name: &str, state: NodeState) -> Error {
        Error::HostNotUp { name: name.into(), state: format!("{state:?}") }
    }
}
