//! The command line as a process: what its environment means to it.

use std::process::{Command, Output};

/// `ssi config check`, which needs no cluster, with `SSI_DIR` as given and `arguments` in front.
fn check(ssi_dir: Option<&str>, arguments: &[&str]) -> Output {
    let state = tempfile::tempdir().expect("a directory");
    let text = "cluster = 'c'\nid = 1\nname = 'node1'\naddress = '127.0.0.1'";
    std::fs::write(state.path().join("node.toml"), text).expect("a file");
    let mut ssi = Command::new(env!("CARGO_BIN_EXE_ssi"));
    match ssi_dir {
        Some(dir) => ssi.env("SSI_DIR", dir),
        None => ssi.env_remove("SSI_DIR"),
    };
    ssi.args(arguments).args(["config", "check"]).arg(state.path()).output().expect("it runs")
}

#[test]
fn an_empty_ssi_dir_is_none() {
    for ssi_dir in [None, Some(""), Some("/somewhere")] {
        let output = check(ssi_dir, &[]);
        assert!(output.status.success(), "SSI_DIR {ssi_dir:?}: {output:?}");
    }
}

#[test]
fn an_empty_dir_that_was_asked_for_is_refused() {
    for ssi_dir in [None, Some("")] {
        let output = check(ssi_dir, &["--dir", ""]);
        assert!(!output.status.success(), "SSI_DIR {ssi_dir:?}: {output:?}");
    }
}
