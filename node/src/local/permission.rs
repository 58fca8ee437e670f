//! Whether this machine lets this user make a local cluster; where not, the error says what to enable.

use crate::error::Error;
use crate::sys;
use std::io;

const FUSE: &str = "/dev/fuse";

/// Switches of the kernel that forbid namespaces: (file below /proc/sys, the value that forbids, the cure).
const SWITCHES: [(&str, &str, &str); 3] = [
    ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
    ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
];

/// The kernel's FUSE device must be open to us: every view needs it.
///
/// # Errors
/// It is missing or closed to this user; and what to do about it.
pub fn check_fuse() -> Result<(), Error> {
    let Err(error) = std::fs::OpenOptions::new().read(true).write(true).open(FUSE) else { return Ok(()) };
    let cure = match error.kind() {
        io::ErrorKind::PermissionDenied => format!("let this user open it; as root: chmod 0666 {FUSE}"),
        _ => format!("as root: modprobe fuse; in a container: start it with --device {FUSE}"),
    };
    Err(Error::Said(format!("{FUSE} cannot be opened: {error}; {cure}")))
}

/// Leaves the caller's mount, network, pid and IPC namespace (the pid namespace is the next child's). An ordinary user
/// becomes root of a user namespace of its own first.
///
/// # Errors
/// This user may not; and what to enable.
pub fn enter_namespaces() -> Result<(), Error> {
    let root = rustix::process::geteuid().is_root();
    let read = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let outcome = if root { leave_namespaces() } else { become_root().and_then(|()| leave_namespaces()) };
    outcome.map_err(|error| Error::Said(format!("make namespaces: {error}; {}", advice(root, &error, &read))))
}

fn leave_namespaces() -> io::Result<()> {
    sys::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWPID | libc::CLONE_NEWIPC)
}

fn become_root() -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    sys::unshare(libc::CLONE_NEWUSER)?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// What to enable, from what the kernel's switches say.
fn advice(root: bool, error: &io::Error, read: &dyn Fn(&str) -> Option<String>) -> String {
    let off =
        SWITCHES.iter().filter(|(path, bad, _)| read(&format!("/proc/sys/{path}")).as_deref() == Some(*bad));
    let cures: Vec<&str> = off.map(|(_, _, cure)| *cure).collect();
    if !root && !cures.is_empty() {
        return format!(
            "unprivileged user namespaces are switched off; as root: sysctl -w {}",
            cures.join(" ")
        );
    }
    if error.raw_os_error() == Some(libc::ENOSPC) {
        return "there are too many already; as root, raise the limits: sysctl user | grep namespaces".into();
    }
    if root {
        return "root may not make them here: in a container, start it with --privileged".into();
    }
    "an ordinary user may not make them here, and no sysctl that we know forbids it: a container or a security module \
     does. Run as root, or allow them there"
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(root: bool, errno: i32, path: &str, value: &str) -> String {
        let read = |asked: &str| (asked == format!("/proc/sys/{path}")).then(|| value.to_owned());
        advice(root, &io::Error::from_raw_os_error(errno), &read)
    }

    #[test]
    fn the_switch_that_is_off_is_the_one_to_turn() {
        for (path, bad, cure) in SWITCHES {
            let told = of(false, libc::EPERM, path, bad);
            assert!(told.contains(&format!("sysctl -w {cure}")), "{told}");
        }
        assert!(of(false, libc::EPERM, "user/max_user_namespaces", "96365").contains("Run as root"));
        assert!(of(false, libc::ENOSPC, "user/max_user_namespaces", "7").contains("raise the limits"));
        assert!(of(true, libc::EPERM, "", "").contains("--privileged"));
    }
}
