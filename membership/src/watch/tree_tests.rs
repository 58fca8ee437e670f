//! Tests of the tree: leases, silence, transitions.
