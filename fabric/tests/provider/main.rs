//! The tests of a provider, in one program.

mod conformance;
mod intruders;
mod storm;
mod world;
