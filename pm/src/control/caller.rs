//! Who a process of the view is, from outside of it: what the kernel says in /proc/PID/status.
//!
//! ```text
//!  NStgid: 4711  16400  12      in the daemons' pid namespace, in the view, in a container inside the view
//! ```

use crate::wire::Credentials;

/// CAP_KILL, capability(7).
const CAP_KILL: u32 = 5;

/// A process as its status file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its process id in the view; `None` if it lives outside.
    pub pid: Option<u32>,
    /// True if it lives in a pid namespace of its own inside the view: ids that it names are not the view's.
    pub nested: bool,
    /// Real user id.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Holds CAP_KILL in its user namespace.
    pub may_kill: bool,
}

impl Caller {
    /// Reads the status of thread or process `id`, numbered as this daemon's own pid namespace does. `None`: it is gone.
    pub fn read(id: u32) -> Option<Caller> {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let mut caller = Caller::parse(&status)?;
        // A capability counts only where the user namespace is the daemon's own.
        let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/user")).ok();
        caller.may_kill = caller.may_kill && namespace(&id.to_string()) == namespace("self");
        Some(caller)
    }

    /// Understands the text of a status file.
    pub fn parse(status: &str) -> Option<Caller> {
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.split_ascii_whitespace())
        };
        let mut uids = field("Uid:")?.map_while(|word| word.parse().ok());
        let (uid, euid) = (uids.next()?, uids.next()?);
        let ids: Vec<u32> = field("NStgid:")?.map_while(|word| word.parse().ok()).collect();
        let capabilities = u64::from_str_radix(field("CapEff:")?.next()?, 16).ok()?;
        Some(Caller {
            pid: ids.get(1).copied(),
            nested: ids.len() > 2,
            uid,
            euid,
            may_kill: capabilities >> CAP_KILL & 1 == 1,
        })
    }
}

/// The credentials that a client's tasks get: those of its socket's other end.
pub fn credentials(uid: u32, gid: u32, groups: Vec<u32>) -> Credentials {
    Credentials { uid, gid, groups }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STATUS: &str = "Name:\tbash\nTgid:\t4711\nUid:\t1000\t1001\t1002\t1003\nGid:\t1\t1\t1\t1\n\
                          NStgid:\t4711\t16400\nNSpid:\t4712\t16401\nCapEff:\t0000000000000020\n";

    #[test]
    fn a_status_is_understood() {
        let caller = Caller { pid: Some(16400), nested: false, uid: 1000, euid: 1001, may_kill: true };
        assert_eq!(Caller::parse(STATUS), Some(caller));
        let outside = Caller::parse(&STATUS.replace("4711\t16400", "4711")).unwrap();
        assert_eq!((outside.pid, outside.nested), (None, false));
        let container = Caller::parse(&STATUS.replace("4711\t16400", "4711\t16400\t7")).unwrap();
        assert_eq!((container.pid, container.nested), (Some(16400), true));
    }

    #[test]
    fn this_process_can_be_read() {
        let own = Caller::read(std::process::id()).unwrap();
        assert_eq!(own.uid, rustix::process::getuid().as_raw());
        assert_eq!(Caller::read(u32::MAX), None);
    }

    proptest! {
        #[test]
        fn nothing_in_a_status_makes_it_panic(text in "(Uid:|NStgid:|CapEff:|[0-9a-z\t\n ]){0,20}") {
            let _ = Caller::parse(&text);
        }
    }
}
