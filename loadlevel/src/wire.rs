//! What nodes tell each other about their load: requests of the service LOAD. The answer is empty.

use base::NodeId;

/// What one node's view used, at one moment.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Sample {
    /// The node.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// Cores that it gives to the cluster.
    #[prost(uint32, tag = "2")]
    pub cpus: u32,
    /// Cores in use by its view's processes, in thousandths of `cpus`. More than 1,000 if they use more than is given.
    #[prost(uint32, tag = "3")]
    pub busy_permille: u32,
    /// Processes of the view that run or want to.
    #[prost(uint32, tag = "4")]
    pub runnable: u32,
    /// Bytes of memory that the view's processes hold (shared pages count for each).
    #[prost(uint64, tag = "5")]
    pub memory_used: u64,
    /// Bytes of memory that it gives to the cluster.
    #[prost(uint64, tag = "6")]
    pub memory_total: u64,
    /// Relative speed of a core; 100 is the reference.
    #[prost(uint32, tag = "7")]
    pub speed: u32,
    /// Milliseconds on the clock of that node: orders its samples, means nothing to others.
    #[prost(uint64, tag = "8")]
    pub at_ms: u64,
}

impl Sample {
    /// The node as an identity.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.node)
    }

    /// Cores in use, in thousandths of a core.
    pub fn busy_millicores(&self) -> u64 {
        u64::from(self.busy_permille) * u64::from(self.cpus)
    }
}

/// A sample and how old it is.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Aged {
    /// The sample.
    #[prost(message, optional, tag = "1")]
    pub sample: Option<Sample>,
    /// Its age when it was sent, milliseconds.
    #[prost(uint64, tag = "2")]
    pub age_ms: u64,
}

/// Samples on their way: the sender's own, in large clusters also others that it knows.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Spread {
    /// The samples, at most [`SAMPLES_MAX`].
    #[prost(message, repeated, tag = "1")]
    pub samples: Vec<Aged>,
}

/// Samples in one [`Spread`].
pub const SAMPLES_MAX: usize = 32;
