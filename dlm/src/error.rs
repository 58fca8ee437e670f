//! What can be wrong with what a user, a peer or a configuration says.

/// Errors of this crate that are no answer to a request (those are [`crate::Refusal`]s).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A resource name is empty or too long.
    #[error("a resource name has {length} bytes: give it 1 to 64")]
    NameLength {
        /// Its bytes.
        length: usize,
    },
    /// A limit of a table is zero, or larger than its ids can count.
    #[error("{name} = {value} is out of range: it must be 1 to {most}")]
    Limit {
        /// The setting's name.
        name: &'static str,
        /// What was set.
        value: u32,
        /// What is possible.
        most: u32,
    },
}
