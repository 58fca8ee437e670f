//! Whether anything of a cluster is left: processes, namespaces, mounts, files.
//!
//! Invariant: a process belongs to a cluster if it runs the cluster's program and its command line or environment names
//! the cluster's directory, or if it is in a namespace that such a process or a descendant of one had. A person's shell
//! that merely has SSI_DIR set never belongs to one, nor do this process and those that started it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::sys::{self, Signal, Whom};

/// How long the kernel may take to let go of what was ended.
const GONE_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks: the end of somebody else's process tells nobody.
const GLANCE: Duration = Duration::from_millis(50);
const NAMESPACES: [&str; 6] = ["mnt", "net", "pid", "ipc", "uts", "user"];

/// What a cluster that is up would leave if it did not clean up.
pub struct Trace {
    program: PathBuf,
    dir: PathBuf,
    namespaces: BTreeSet<PathBuf>,
}

impl Trace {
    /// Looks at a cluster of `program` in `dir` that is up.
    pub fn of(program: &Path, dir: &Path) -> Self {
        let own = namespaces_of("self");
        let all = with_descendants(members(program, dir));
        let all = all.iter().flat_map(|pid| namespaces_of(&pid.to_string()));
        let namespaces = all.filter(|namespace| !own.contains(namespace)).collect();
        Self { program: program.to_owned(), dir: dir.to_owned(), namespaces }
    }

    /// How many namespaces the cluster's processes live in, beside our own.
    pub fn namespaces(&self) -> usize {
        self.namespaces.len()
    }

    /// What is left when the kernel has had some time to let go of what was ended; also after ^C.
    pub fn settled(&self) -> Vec<String> {
        let until = Instant::now() + GONE_LIMIT;
        loop {
            let left = self.remains();
            // A failed wait is a short one.
            if left.is_empty() || Instant::now() > until || sys::poll(&[], GLANCE).is_err() {
                return left;
            }
        }
    }

    /// What is left, a line each.
    pub fn remains(&self) -> Vec<String> {
        let mut left: Vec<String> = Vec::new();
        left.extend(members(&self.program, &self.dir).iter().map(|pid| told(*pid, "belongs to it")));
        for pid in pids() {
            let inside = namespaces_of(&pid.to_string());
            if let Some(namespace) = inside.intersection(&self.namespaces).next() {
                left.push(told(pid, &format!("is in its namespace {}", namespace.display())));
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let named = mounts.lines().filter(|line| names(line.as_bytes(), &self.dir));
        left.extend(named.map(|line| format!("mount {line}")));
        if self.dir.exists() {
            left.push(format!("file {}", self.dir.display()));
        }
        left
    }
}

/// Ends and removes by force whatever is left of the cluster of `program` in `dir`. What lives in a view ends with the
/// view's first process.
pub fn end(program: &Path, dir: &Path) {
    for pid in members(program, dir) {
        sys::send(Whom::Process(pid), Signal::Kill);
    }
    if dir.exists()
        && let Err(error) = fs::remove_dir_all(dir)
    {
        eprintln!("xtask: cannot remove {}: {error}", dir.display());
    }
}

/// Processes that run `program` and name `dir`.
fn members(program: &Path, dir: &Path) -> Vec<u32> {
    let ours = own_line();
    let runs =
        |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| is_program(&exe, program));
    let named = |pid: &u32| {
        ["cmdline", "environ"].iter().any(|file| {
            let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            names(&text, dir)
        })
    };
    pids().into_iter().filter(|pid| !ours.contains(pid)).filter(runs).filter(named).collect()
}

/// True if a link /proc/PID/exe leads to `program`, also if that was built anew since.
fn is_program(exe: &Path, program: &Path) -> bool {
    let exe = exe.as_os_str().as_encoded_bytes();
    exe.strip_suffix(b" (deleted)").unwrap_or(exe) == program.as_os_str().as_encoded_bytes()
}

fn with_descendants(mut family: Vec<u32>) -> Vec<u32> {
    let parents: Vec<(u32, u32)> =
        pids().into_iter().filter_map(|pid| Some((pid, parent_of(pid)?))).collect();
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        let children =
            parents.iter().filter(|(pid, of)| *of == parent && !family.contains(pid)).map(|(pid, _)| *pid);
        let children: Vec<u32> = children.collect();
        family.extend(children);
        at += 1;
    }
    family
}

/// This process, its parent, its parent's parent, ...
fn own_line() -> Vec<u32> {
    let mut line = vec![std::process::id()];
    while let Some(parent) = line.last().and_then(|pid| parent_of(*pid)).filter(|pid| *pid > 0) {
        line.push(parent);
    }
    line
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything; after it come the state and the parent.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn namespaces_of(pid: &str) -> BTreeSet<PathBuf> {
    NAMESPACES.iter().filter_map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()).collect()
}

fn told(pid: u32, why: &str) -> String {
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let cmdline = String::from_utf8_lossy(&cmdline).replace('\0', " ");
    format!("process {pid} ({}) {why}", cmdline.trim_end())
}

/// True if `text` holds the path of `dir`, not only that of a longer name.
fn names(text: &[u8], dir: &Path) -> bool {
    let dir = dir.as_os_str().as_encoded_bytes();
    let goes_on = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    text.windows(dir.len())
        .enumerate()
        .any(|(at, part)| part == dir && !text.get(at + dir.len()).is_some_and(goes_on))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Run, until};

    #[test]
    fn a_path_is_not_found_in_a_longer_one() {
        let dir = Path::new("/tmp/ssi-demo-12");
        assert!(names(b"ssid\0--dir\0/tmp/ssi-demo-12\0", dir) && names(b"a=/tmp/ssi-demo-12/node1", dir));
        assert!(!names(b"/tmp/ssi-demo-123", dir) && !names(b"/tmp/ssi-demo-1", dir) && !names(b"", dir));
    }

    fn sleep() -> PathBuf {
        fs::canonicalize(crate::setup::program("sleep").unwrap()).unwrap()
    }

    fn unused(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("ssi-leftovers-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_process_that_names_the_directory_is_left_over_until_it_is_ended() {
        let (program, dir) = (sleep(), unused("process"));
        let mut running = Run::line("sleep 100").env("SSI_DIR", &dir).start().unwrap();
        let limit = Duration::from_secs(10);
        let seen = until(limit, || Ok((!members(&program, &dir).is_empty()).then_some(()))).unwrap();
        assert_eq!(seen, Some(()));
        let trace = Trace::of(&program, &dir);
        let left = trace.remains().join("\n");
        assert!(left.contains("(sleep 100) belongs to it"), "{left}");
        end(&program, &dir);
        running.wait(limit).unwrap();
        assert_eq!(trace.settled(), Vec::<String>::new());
    }

    #[test]
    fn a_shell_that_only_has_the_variable_is_left_alone() {
        let dir = unused("shell");
        let mut running =
            Run::new(["sh", "-c", "echo here; read forever"]).env("SSI_DIR", &dir).start().unwrap();
        running.writes_within(Duration::from_secs(10)).unwrap();
        assert!(Trace::of(&sleep(), &dir).remains().is_empty());
    }

    #[test]
    fn a_process_in_a_namespace_of_the_cluster_is_left_over() {
        let (program, dir) = (sleep(), unused("namespace"));
        let kinds = if sys::is_root() { "-n" } else { "-Urn" };
        if Run::new(["unshare", kinds, "true"]).checked().is_err() {
            println!("skipped: no network namespaces here");
            return;
        }
        let script = format!("SSI_DIR={} sleep 100 & echo both; read forever; sleep 101", dir.display());
        let mut running = Run::new(["unshare", kinds, "sh", "-c", &script]).start().unwrap();
        let limit = Duration::from_secs(10);
        let seen = until(limit, || Ok((!members(&program, &dir).is_empty()).then_some(()))).unwrap();
        assert_eq!(seen, Some(()));
        let trace = Trace::of(&program, &dir);
        assert!(trace.namespaces() > 0);
        end(&program, &dir);
        // The shell in the same namespace names nothing, but is seen.
        let left = until(limit, || {
            let left = trace.remains().join("\n");
            Ok((!left.contains("belongs to it")).then_some(left))
        });
        running.stop();
        let left = left.unwrap().unwrap();
        assert!(left.contains("is in its namespace"), "{left}");
        assert_eq!(trace.settled(), Vec::<String>::new());
    }

    #[test]
    fn a_file_is_left_over_until_it_is_removed() {
        let (program, dir) = (sleep(), unused("file"));
        fs::create_dir_all(dir.join("node1")).unwrap();
        let trace = Trace::of(&program, &dir);
        assert_eq!(trace.remains(), [format!("file {}", dir.display())]);
        end(&program, &dir);
        assert!(trace.remains().is_empty());
    }

    #[test]
    fn we_and_our_parents_are_never_left_over() {
        let line = own_line();
        assert!(line.contains(&std::process::id()) && line.len() > 1, "{line:?}");
    }
}
