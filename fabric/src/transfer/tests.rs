//! Transfers in a world made of seeds.

mod trips;
