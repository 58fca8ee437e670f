//! Tests of both ends together: a simulated world with its checker, canaries that the checker must catch, lists of commands, garbage.

mod commands;
mod ends;
mod garbage;
mod ledger;
mod network;
mod scene;
mod speed;
mod world;

use scene::{Sabotage, Scene};
use world::World;

/// Seeds of the ordinary run; `SSI_TEST_LONG` asks for more.
const SEEDS: u64 = 2_000;
const SEEDS_LONG: u64 = 40_000;

fn seeds() -> u64 {
    if std::env::var_os("SSI_TEST_LONG").is_some() { SEEDS_LONG } else { SEEDS }
}

fn run(seed: u64, sabotage: Sabotage) -> Result<Scene, String> {
    World::new(seed, sabotage).run().map_err(|complaint| format!("seed {seed}: {complaint}"))
}

#[test]
fn every_call_is_carried_out_and_answered_once_whatever_happens_to_links() {
    let mut seen = Scene::default();
    for seed in 0..seeds() {
        seen += run(seed, Sabotage::None).unwrap();
    }
    println!("{seen:?}");
    assert!(seen.is_rich(seeds()), "the world is too quiet to prove anything: {seen:?}");
}

/// A world that is broken in this way must be caught, and soon, with a complaint that says so.
fn is_caught(sabotage: Sabotage, complaint: &str) {
    let caught: Vec<String> = (0..200).filter_map(|seed| run(seed, sabotage).err()).collect();
    assert!(caught.len() >= 3, "{sabotage:?} was noticed {} times only", caught.len());
    assert!(caught.iter().any(|found| found.contains(complaint)), "{sabotage:?}: {:?}", caught[0]);
}

#[test]
fn canary_a_frame_that_is_lost_without_its_link_is_caught() {
    is_caught(Sabotage::FrameLost, "did not complete");
}

#[test]
fn canary_a_caller_that_does_not_learn_of_lost_links_is_caught() {
    is_caught(Sabotage::DeafCaller, "did not complete");
}

#[test]
fn canary_a_callee_that_does_not_learn_of_lost_links_is_caught() {
    is_caught(Sabotage::DeafCallee, "did not complete");
}

#[test]
fn canary_a_repeated_request_that_is_started_again_is_caught() {
    is_caught(Sabotage::StartedAgain, "was started twice");
}

#[test]
fn canary_a_reply_to_the_wrong_call_is_caught() {
    is_caught(Sabotage::WrongReply, "has the reply of another");
}

#[test]
fn canary_a_service_that_never_ends_is_caught() {
    is_caught(Sabotage::NeverServed, "in service");
}
