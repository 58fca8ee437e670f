//! Tests of the session cores.
