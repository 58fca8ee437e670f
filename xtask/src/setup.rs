//! What this machine must have, and getting it.
//!
//! Invariant: nothing is installed that was not printed before, and where we may not or cannot install, the error
//! names every missing thing and what would bring it.

use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::args::Given;
use crate::error::Error;
use crate::run::Run;
use crate::sys;

/// Long enough for a package index and a few hundred megabytes on a slow line.
const APT_LIMIT: Duration = Duration::from_secs(1_800);

/// What the machine is wanted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Building, and running the demo and the tests.
    Run,
    /// Measuring beside peers.
    Bench,
    /// Soft-RoCE in a virtual machine.
    Verbs,
}

impl Purpose {
    /// Every purpose stands on the first; the others know nothing of each other.
    fn includes(self, other: Self) -> bool {
        other == self || other == Self::Run
    }
}

/// One thing that must be there.
struct Need {
    /// What must be found: a program in PATH, or a file if it starts with `/`.
    what: &'static str,
    /// The Debian package that brings it.
    package: &'static str,
    /// What it is needed for.
    purpose: Purpose,
}

const NEEDS: &[Need] = &[
    Need { what: "gcc", package: "gcc", purpose: Purpose::Run },
    Need { what: "/usr/include/stdio.h", package: "libc6-dev", purpose: Purpose::Run },
    Need { what: "git", package: "git", purpose: Purpose::Run },
    Need { what: "ip", package: "iproute2", purpose: Purpose::Run },
    Need { what: "ps", package: "procps", purpose: Purpose::Run },
    Need { what: "kill", package: "procps", purpose: Purpose::Run },
    Need { what: "fuser", package: "psmisc", purpose: Purpose::Run },
    Need { what: "unshare", package: "util-linux", purpose: Purpose::Run },
    Need { what: "/usr/include/libdlm.h", package: "libdlm-dev", purpose: Purpose::Run },
    Need { what: "mpicc.mpich", package: "libmpich-dev", purpose: Purpose::Run },
    Need { what: "mpiexec.hydra", package: "mpich", purpose: Purpose::Run },
    Need { what: "ssh", package: "openssh-client", purpose: Purpose::Bench },
    Need { what: "sshd", package: "openssh-server", purpose: Purpose::Bench },
    Need { what: "iperf3", package: "iperf3", purpose: Purpose::Bench },
    Need { what: "strace", package: "strace", purpose: Purpose::Bench },
    Need { what: "etcd", package: "etcd-server", purpose: Purpose::Bench },
    Need { what: "corosync", package: "corosync", purpose: Purpose::Bench },
    Need { what: "setpriv", package: "util-linux", purpose: Purpose::Bench },
    Need { what: "qemu-system-x86_64", package: "qemu-system-x86", purpose: Purpose::Verbs },
    Need { what: "setpriv", package: "util-linux", purpose: Purpose::Verbs },
    Need { what: "apt-get", package: "apt", purpose: Purpose::Verbs },
    Need { what: "dpkg-deb", package: "dpkg", purpose: Purpose::Verbs },
    Need { what: "depmod", package: "kmod", purpose: Purpose::Verbs },
    Need { what: "xz", package: "xz-utils", purpose: Purpose::Verbs },
    // The machine runs these of ours.
    Need { what: "rdma", package: "iproute2", purpose: Purpose::Verbs },
    Need { what: "ibv_rc_pingpong", package: "ibverbs-utils", purpose: Purpose::Verbs },
    Need { what: "/etc/libibverbs.d/rxe.driver", package: "ibverbs-providers", purpose: Purpose::Verbs },
    Need { what: "ib_send_lat", package: "perftest", purpose: Purpose::Verbs },
];

/// The verb `setup`.
pub fn verb(_given: &Given) -> Result<(), Error> {
    ready_for(Purpose::Bench)?;
    if cfg!(target_arch = "x86_64") {
        packages_for(Purpose::Verbs)?;
    }
    println!("setup: everything is there");
    Ok(())
}

/// Makes the machine ready, or says what it lacks.
pub fn ready_for(purpose: Purpose) -> Result<(), Error> {
    packages_for(purpose)?;
    fuse_device()?;
    namespaces()
}

/// Installs the packages that are missing, or says which they are.
pub fn packages_for(purpose: Purpose) -> Result<(), Error> {
    let missing = missing_packages(purpose, &found);
    if !missing.is_empty() {
        let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        install(&missing, knows_apt(&os_release))?;
        let still = missing_packages(purpose, &found);
        if !still.is_empty() {
            return Err(Error::Missing(format!("apt-get brought no {}", told(&still))));
        }
    }
    Ok(())
}

/// What is missing: (thing, package).
fn missing_packages(purpose: Purpose, found: &dyn Fn(&str) -> bool) -> Vec<(&'static str, &'static str)> {
    let needed = NEEDS.iter().filter(|need| purpose.includes(need.purpose));
    needed.filter(|need| !found(need.what)).map(|need| (need.what, need.package)).collect()
}

fn found(what: &str) -> bool {
    what.starts_with('/') && Path::new(what).exists() || program(what).is_some()
}

/// Where a program is. Looks beyond PATH too: an ordinary user's PATH lacks the sbin directories.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(name)).find(|path| path.is_file())
}

fn told(missing: &[(&str, &str)]) -> String {
    missing
        .iter()
        .map(|(what, package)| format!("{what} (Debian package {package})"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// True if /etc/os-release tells of Debian, Ubuntu or one of their children.
fn knows_apt(os_release: &str) -> bool {
    let ids =
        os_release.lines().filter_map(|line| line.strip_prefix("ID=").or(line.strip_prefix("ID_LIKE=")));
    ids.flat_map(|ids| ids.trim_matches(['"', '\'']).split_whitespace())
        .any(|id| id == "debian" || id == "ubuntu")
}

fn install(missing: &[(&str, &str)], apt: bool) -> Result<(), Error> {
    if !apt {
        let text = format!("this is neither Debian nor Ubuntu: please install {}", told(missing));
        return Err(Error::Missing(text));
    }
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    println!("setup: missing {}", told(missing));
    let by_hand = format!("apt-get install -y {}", packages.join(" "));
    for words in [vec!["update", "-q"], [&["install", "-y", "-q"], &packages[..]].concat()] {
        let run = apt_get(&words, sys::is_root(), std::io::stdin().is_terminal());
        println!("setup: $ {}", run.shown());
        run.limit(APT_LIMIT).on_terminal().map_err(|error| match error {
            Error::Interrupted => error,
            error => Error::Missing(format!("{error}\nmissing: {}\nas root: {by_hand}", told(missing))),
        })?;
    }
    Ok(())
}

/// `apt-get` that never asks; `sudo` may ask for a password, but only on a terminal.
fn apt_get(words: &[&str], root: bool, terminal: bool) -> Run {
    let sudo: &[&str] = match (root, terminal) {
        (true, _) => &[],
        (false, true) => &["sudo"],
        (false, false) => &["sudo", "-n"],
    };
    Run::new(sudo.iter().copied().chain(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"])).args(words)
}

/// The kernel's FUSE device must be there and open to us.
fn fuse_device() -> Result<(), Error> {
    const DEVICE: &str = "/dev/fuse";
    let open = || fs::OpenOptions::new().read(true).write(true).open(DEVICE);
    if open().is_ok() {
        return Ok(());
    }
    if sys::is_root() && !Path::new(DEVICE).exists() {
        println!("setup: $ modprobe fuse");
        // Whether it helped shows below.
        let _ = Run::line("modprobe fuse").output();
    }
    let Err(error) = open() else { return Ok(()) };
    Err(Error::Missing(match error.kind() {
        std::io::ErrorKind::NotFound => format!(
            "{DEVICE} is not there ({error}). As root: modprobe fuse; in a container: start it with --device {DEVICE}"
        ),
        _ => format!("{DEVICE} is not open to this user ({error}). As root: chmod 0666 {DEVICE}"),
    }))
}

/// Namespaces of every kind that a node lives in must be ours to make.
fn namespaces() -> Result<(), Error> {
    let kinds = if sys::is_root() { "-nmpfiu" } else { "-Urnmpfiu" };
    let Err(error) = Run::new(["unshare", kinds, "true"]).checked() else { return Ok(()) };
    if error.is_interruption() {
        return Err(error);
    }
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    Err(Error::Missing(format!("{error}\n{}", namespace_advice(sys::is_root(), &read))))
}

/// What to enable, from what the kernel's switches say.
fn namespace_advice(root: bool, read: &dyn Fn(&str) -> Option<String>) -> String {
    if root {
        return "root may not make namespaces here: in a container, start it with --privileged".to_owned();
    }
    const SWITCHES: [(&str, &str, &str); 3] = [
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ];
    let off =
        SWITCHES.iter().filter(|(path, bad, _)| read(&format!("/proc/sys/{path}")).as_deref() == Some(*bad));
    let cures: Vec<String> = off.map(|(_, _, cure)| format!("  sysctl -w {cure}")).collect();
    if cures.is_empty() {
        return "an ordinary user may not make user namespaces here, and no sysctl that we know forbids it: \
                a container or a security module does. Run as root, or allow them there."
            .to_owned();
    }
    format!("unprivileged user namespaces are switched off. As root:\n{}", cures.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_its_children_are_known() {
        assert!(knows_apt("PRETTY_NAME=\"Debian\"\nID=debian\n"));
        assert!(knows_apt("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!knows_apt("ID=fedora\nVERSION_ID=41\n"));
        assert!(!knows_apt("ID=arch\nNAME=\"not debian\"\n") && !knows_apt(""));
    }

    #[test]
    fn every_missing_thing_is_named_with_its_package() {
        let missing = missing_packages(Purpose::Run, &|what| what != "ip" && what != "mpicc.mpich");
        assert_eq!(missing, [("ip", "iproute2"), ("mpicc.mpich", "libmpich-dev")]);
        let error = install(&missing, false).unwrap_err().to_string();
        assert!(error.contains("iproute2") && error.contains("libmpich-dev"), "{error}");
    }

    #[test]
    fn what_only_a_bench_needs_is_not_asked_for_otherwise() {
        let found = |what: &str| !what.starts_with("ssh") && what != "iperf3";
        assert!(missing_packages(Purpose::Run, &found).is_empty());
        assert_eq!(missing_packages(Purpose::Bench, &found).len(), 3);
        assert!(missing_packages(Purpose::Bench, &|what| what != "qemu-system-x86_64").is_empty());
        assert_eq!(missing_packages(Purpose::Verbs, &|what| what != "qemu-system-x86_64").len(), 1);
    }

    #[test]
    fn apt_never_asks() {
        let run = apt_get(&["install", "x"], false, false).shown();
        assert_eq!(run, "sudo -n env DEBIAN_FRONTEND=noninteractive apt-get install x");
        assert!(!apt_get(&["update"], true, true).shown().contains("sudo"));
    }

    #[test]
    fn the_switch_that_is_off_is_the_one_to_turn() {
        let ubuntu =
            |path: &str| path.ends_with("apparmor_restrict_unprivileged_userns").then(|| "1".to_owned());
        let advice = namespace_advice(false, &ubuntu);
        assert!(advice.contains("sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"), "{advice}");
        let debian = |path: &str| path.ends_with("unprivileged_userns_clone").then(|| "0".to_owned());
        assert!(namespace_advice(false, &debian).contains("kernel.unprivileged_userns_clone=1"));
        assert!(namespace_advice(false, &|_| None).contains("Run as root"));
        assert!(namespace_advice(true, &|_| None).contains("--privileged"));
    }

    #[test]
    fn programs_of_the_system_are_found() {
        assert!(program("sh").is_some() && program("no-such-program-here").is_none());
    }
}
