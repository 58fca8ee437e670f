//! What every provider must do, in one program: the same tests on each ground, with faults.

mod broadcast;
mod calls;
mod cuts;
mod failure;
mod flow;
mod intruders;
mod ledger;
mod relay;
mod storm;
mod world;
