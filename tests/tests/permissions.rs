//! Where a local cluster cannot be made, the error says at once what to enable, and nothing is left.

use ssi_tests::{Ran, cannot_run, run, ssi_binary};
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs `cluster up` in a user namespace of its own (flags of unshare(1)), after `before` has taken something away.
fn up_without(flags: &[&str], before: &str) -> Option<Ran> {
    if let Some(why) = cannot_run() {
        println!("{why}");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let up = "$inside \"$0\" cluster up --nodes 2 --dir \"$1\"";
    let mut unshare = Command::new("unshare");
    unshare.arg("-U").args(flags).args(["sh", "-c", &format!("{before} || exit 99; exec {up}")]);
    unshare.arg(ssi_binary()).arg(dir.path().join("c"));
    let start = Instant::now();
    let ran = run(unshare);
    if ran.code == 99 {
        println!("skipped: {}", ran.err);
        return None;
    }
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(start.elapsed() < Duration::from_secs(10), "at once: {:?}", start.elapsed());
    assert!(!dir.path().join("c").exists(), "nothing is left");
    Some(ran)
}

#[test]
fn namespaces_that_are_switched_off_are_told_with_the_switch() {
    let off = "echo 0 > /proc/sys/user/max_user_namespaces";
    let Some(ran) = up_without(&["--map-user=1000", "--keep-caps"], off) else { return };
    assert!(ran.err.contains("sysctl -w user.max_user_namespaces="), "{}", ran.err);
}

#[test]
fn a_fuse_device_that_cannot_be_opened_is_told_with_the_cure() {
    let gone = "mount -t tmpfs none /dev";
    let Some(ran) = up_without(&["-rm"], gone) else { return };
    assert!(ran.err.contains("/dev/fuse") && ran.err.contains("modprobe fuse"), "{}", ran.err);
}

#[test]
fn a_view_that_cannot_be_made_ends_the_start_with_the_reason() {
    let gone = "mount --bind /dev/null /dev/fuse";
    let Some(ran) = up_without(&["-rm"], gone) else { return };
    assert!(ran.err.contains("cannot start") && ran.err.contains("mount FUSE"), "{}", ran.err);
}

#[test]
fn a_hidden_proc_is_told() {
    // What one user namespace has hidden, those inside it cannot uncover.
    let masked = "inside='unshare -Urm' && mount -t tmpfs none /proc/irq";
    let Some(ran) = up_without(&["-rm"], masked) else { return };
    assert!(ran.err.contains("unmasked /proc"), "{}", ran.err);
}
