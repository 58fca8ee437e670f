//! The scenes whose every interleaving is tried.
//!
//! Invariant: without the death each ends with nobody waiting.

use super::Scene;
use crate::Mode;

const PR: Option<Mode> = Some(Mode::PR);
const CW: Option<Mode> = Some(Mode::CW);
const EX: Option<Mode> = Some(Mode::EX);

pub const SCENES: &[Scene] = &[
    Scene {
        name: "PR to CW beside a PR that goes; the master dies",
        master: 2,
        directory: 0,
        before: [&[PR], &[PR], &[PR, None]],
        then: [&[CW, None], &[None], &[]],
        dies: 2,
    },
    Scene {
        name: "PR to CW beside a newcomer in EX; the master dies",
        master: 2,
        directory: 0,
        before: [&[PR], &[], &[PR, None]],
        then: [&[CW, None], &[EX, None], &[]],
        dies: 2,
    },
    Scene {
        name: "PR to CW and CW to PR in turn; the master dies",
        master: 2,
        directory: 1,
        before: [&[PR], &[PR], &[PR]],
        then: [&[CW, PR, None], &[None, CW, None], &[None]],
        dies: 2,
    },
    Scene {
        name: "CW to EX beside a CW that goes; the directory dies",
        master: 2,
        directory: 1,
        before: [&[CW], &[], &[CW]],
        then: [&[EX, None], &[PR, None], &[None, PR, None]],
        dies: 1,
    },
    Scene {
        name: "PR to EX; a holder dies",
        master: 2,
        directory: 2,
        before: [&[PR], &[PR], &[PR]],
        then: [&[EX, None], &[None, EX, None], &[None]],
        dies: 1,
    },
    Scene {
        name: "EX down to CW and up again; the master, that is the directory, dies",
        master: 2,
        directory: 2,
        before: [&[EX], &[], &[PR, None]],
        then: [&[CW, EX, None], &[CW, None], &[PR, None]],
        dies: 2,
    },
];

/// With SSI_TEST_LONG only: minutes.
pub const LONG_SCENES: &[Scene] = &[Scene {
    name: "three who convert up and down; the master dies",
    master: 2,
    directory: 0,
    before: [&[PR], &[PR], &[PR]],
    then: [&[CW, PR, None], &[None, CW, None], &[None, PR, None]],
    dies: 2,
}];
