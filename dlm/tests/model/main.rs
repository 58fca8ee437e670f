//! The table against a slow model that is obviously right, over random histories.
//!
//! Invariant: after every event both have told the same, and have the same locks; and what must hold of any lock manager holds.

mod history;
mod laws;
mod spec;

use history::{Runner, Step, step};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn the_table_does_what_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        Runner::new().run(&steps)?;
    }

    /// Few names, few modes, no flags that pass the queue: long queues, many conversions.
    #[test]
    fn crowded_resources_do_what_the_model_does(steps in prop::collection::vec(step(), 40..160)) {
        let steps: Vec<Step> = steps.into_iter().map(Step::crowded).collect();
        Runner::new().run(&steps)?;
    }
}
