//! Transfers in a world made of seeds.

mod asking;
mod book;
mod fuzz;
mod storm;
mod trips;
mod wire;
mod world;
