//! The chores of the repository: set-up, demo, tests, bench, lint, audit.
//!
//! Invariant: builds in seconds, with no system library, before anything was set up.
//!
//! `args` (one table a verb) -> `setup` (what must be there) -> `demo`, `test`, `verbs`, `bench`; all of them run commands
//! through `run`, which keeps the promise that nothing is left running.

mod args;
mod audit;
mod bench;
mod cluster;
mod demo;
mod error;
mod leftovers;
mod lint;
mod picture;
mod place;
mod run;
mod setup;
mod sim;
mod sys;
mod tally;
mod test;
mod verbs;
mod vm;

use std::process::ExitCode;

use args::{Flag, Verb};
use error::Error;

const VERBS: &[Verb] = &[
    Verb {
        name: "demo",
        summary: "sets up, builds, runs the main job on a local cluster, cleans up",
        operands: "",
        details: "Seven steps, each checked. The last line is `demo ok: 6 ranks on 3 nodes, T s`.\n\
                  ^C ends it and takes the cluster down. The result picture stays in demo-out/heat.png.",
        flags: &[
            Flag { name: "keep", value: None, help: "leave the cluster up at the end" },
            Flag { name: "nodes", value: Some("N"), help: "how many nodes (3 to 8; default 3)" },
            Flag { name: "dir", value: Some("D"), help: "the cluster's directory; must not exist yet" },
        ],
        run: demo::verb,
    },
    Verb {
        name: "test",
        summary: "sets up, lints, builds, runs all tests, within 40 minutes",
        operands: "[filter..]",
        details: "The last line is `N passed, N failed, N skipped`. Filters choose tests by a part of their name.",
        flags: &[
            Flag { name: "long", value: None, help: "storms and soaks too, and every test 20 times" },
            Flag { name: "no-lint", value: None, help: "without formatter and linter" },
        ],
        run: test::verb,
    },
    Verb {
        name: "sim",
        summary: "the cores of replog, membership and dlm in simulated clusters",
        operands: "[replog|membership|dlm|all]..",
        details: "One line a crate. Built with all optimisations. A failure shows what happened last, its seed, and how to see it\n\
                  again. With --nodes one large cluster is simulated instead (membership up to 10,000, dlm up to 1,000 nodes).",
        flags: &[
            Flag {
                name: "seeds",
                value: Some("N"),
                help: "how many seeds of each simulation (default 2,000)",
            },
            Flag { name: "nodes", value: Some("M"), help: "one large cluster of so many nodes" },
            Flag { name: "seed", value: Some("S"), help: "this seed alone" },
        ],
        run: sim::verb,
    },
    Verb {
        name: "test-verbs",
        summary: "the fabric's tests on Soft-RoCE, in a virtual machine",
        operands: "[-- COMMAND..]",
        details: "The machine runs this machine's own files, read-only, under Debian's kernel: fetched once, never installed.\n\
                  Node K has the devices rxeKa and rxeKb; GID 1 is that of 10.77.0.K and 10.78.0.K. `ip link set pKa down`\n\
                  pulls a cable. With COMMAND (one word: a line for the shell) that is run instead of the tests.\n\
                  The last line is `N passed, N failed, N skipped`.",
        flags: &[
            Flag { name: "bench", value: None, help: "the fabric's figures beside those of perftest, too" },
            Flag { name: "count", value: None, help: "1 processor, 1 ns an instruction: no noise" },
            Flag { name: "nodes", value: Some("N"), help: "how many nodes (2 to 8; default 3)" },
            Flag {
                name: "long",
                value: None,
                help: "storms and soaks too, and the main job on real nodes over verbs",
            },
        ],
        run: verbs::verb,
    },
    Verb {
        name: "lint",
        summary: "the formatter and the linter, warnings as errors",
        operands: "",
        details: "",
        flags: &[],
        run: lint::verb,
    },
    Verb {
        name: "bench",
        summary: "our figures beside a peer's: launch, pm, fs, membership, fabric",
        operands: "AREA..|all",
        details: "One line a figure; `short` where a target is missed. Peers run in the same run on the same nodes.",
        flags: &[],
        run: bench::verb,
    },
    Verb {
        name: "audit",
        summary: "licences and advisories of all dependencies (deny.toml)",
        operands: "",
        details: "Needs the network. Installs cargo-deny if it is missing.",
        flags: &[],
        run: audit::verb,
    },
    Verb {
        name: "setup",
        summary: "finds what this machine lacks and installs it",
        operands: "",
        details: "On Debian and Ubuntu by apt-get (sudo where not root); elsewhere it says what is missing.",
        flags: &[],
        run: setup::verb,
    },
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match chore(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The last line of `test` is its summary.
            if !matches!(error, Error::TestsFailed) {
                eprintln!("xtask: {error}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn chore(words: &[String]) -> Result<(), Error> {
    let Some(name) = words.first().filter(|name| !["--help", "-h", "help"].contains(&name.as_str())) else {
        print!("{}", args::overview(VERBS));
        return if words.is_empty() { Err(Error::Usage("which verb?".to_owned())) } else { Ok(()) };
    };
    let verb = VERBS.iter().find(|verb| verb.name == name);
    let verb =
        verb.ok_or_else(|| Error::Usage(format!("no verb `{name}`; `cargo xtask --help` lists them")))?;
    let Some(given) = verb.parse(&words[1..])? else {
        print!("{}", verb.help());
        return Ok(());
    };
    sys::catch_interrupts().map_err(Error::io("catch ^C"))?;
    (verb.run)(&given)
}
