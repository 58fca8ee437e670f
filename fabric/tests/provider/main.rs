//! What every provider must do, in one program: the same tests on each ground, with faults.

mod broadcast;
mod calls;
mod cuts;
mod failure;
mod flow;
mod ground;
mod intruders;
mod keys;
mod ledger;
mod load;
mod old_peer;
mod rails;
mod regions;
mod relay;
mod shared_memory;
mod soak;
mod storm;
mod world;
