//! Transfers in a world made of seeds.

mod book;
mod fuzz;
mod storm;
mod trips;
mod wire;
mod world;
