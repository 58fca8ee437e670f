//! Many seeds, and canaries that must die.

use super::world::{Faults, Tally, World};

fn run(seed: u64, faults: Faults, tally: &mut Tally) -> Result<(), String> {
    let mut world = World::new(seed, faults);
    let outcome = world.run();
    let one = &world.tally;
    tally.answered += one.answered;
    tally.cancelled += one.cancelled;
    tally.revoked += one.revoked;
    tally.denied += one.denied;
    tally.out_of_bounds += one.out_of_bounds;
    tally.native += one.native;
    tally.given_up += one.given_up;
    tally.cut += one.cut;
    tally.skipped += one.skipped;
    tally.arrivals += one.arrivals;
    outcome
}

#[test]
fn whatever_breaks_each_transfer_ends_once_and_memory_holds_what_it_must() {
    let mut tally = Tally::default();
    for seed in 0..1_200 {
        if let Err(why) = run(seed, Faults::default(), &mut tally) {
            panic!("seed {seed}: {why}");
        }
    }
    println!("{tally:?}");
    let Tally { answered, cancelled, revoked, denied, out_of_bounds, .. } = tally;
    let seen = [answered, cancelled, revoked, denied, out_of_bounds];
    assert!(seen.iter().all(|count| *count > 100), "not all came to pass: {tally:?}");
    let rare = [tally.native, tally.given_up, tally.cut, tally.skipped, tally.arrivals];
    assert!(rare.iter().all(|count| *count > 20), "not all came to pass: {tally:?}");
}

fn dies(faults: Faults) -> bool {
    (0..400).any(|seed| run(seed, faults, &mut Tally::default()).is_err())
}

#[test]
fn a_link_that_goes_on_placing_after_a_revocation_is_found() {
    assert!(dies(Faults { deaf_link: true, ..Faults::default() }));
}

#[test]
fn frames_that_vanish_without_a_broken_link_are_found() {
    assert!(dies(Faults { lost_frames: true, ..Faults::default() }));
}

#[test]
fn a_target_that_is_not_told_of_broken_links_is_found() {
    assert!(dies(Faults { untold_target: true, ..Faults::default() }));
}
