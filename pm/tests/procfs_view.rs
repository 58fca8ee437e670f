//! The view's /proc under the ordinary tools: a real mount in namespaces of its own, other nodes that are made up.
//!
//! ```text
//!   test ── unshare ──> inside (pid 1): mounts ── spawns ──> server: ProcFs, outside the view as ssid is
//!                                              └─ spawns ──> tools, in a mount namespace where it is /proc
//! ```

use fuse::{Agreed, Errno, MountOptions, Session};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, pending, ready};
use pm::procfs::{ProcFs, ProcessTable, Table, read_row, session_config};
use pm::wire::peer::ProcessRow;
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROLE: &str = "PROCFS_TEST_ROLE";
const SHADOW: &str = "PROCFS_TEST_SHADOW";
/// The pid of a process on another node.
const FOREIGN: u32 = 32_773;
/// Where the FUSE filesystem is mounted, for the tools to bind over their /proc.
const MOUNT: &str = "/run/ssi/cluster";
/// While this exists no other node answers.
const SILENT: &str = "/run/silent";
/// Where the process on the other node has its working directory.
const CWD: &str = "/run/cwd";
const AGREED: &str = "/run/agreed";

/// Another node: one process, and the task whose shadow is here.
struct OtherNode {
    rows: Arc<Table>,
    shadows: Arc<BTreeSet<u32>>,
}

impl OtherNode {
    /// Its processes look like this one, but for pid and name.
    fn new(procfs: &OwnedFd, shadow: u32) -> OtherNode {
        let like = read_row(procfs.as_fd(), std::process::id()).unwrap();
        let rows = vec![renamed(&like, FOREIGN, "foreign-sleep"), renamed(&like, shadow, "moved")];
        OtherNode { rows: Arc::new(Table::new(rows)), shadows: Arc::new(BTreeSet::from([shadow])) }
    }
}

fn renamed(like: &ProcessRow, pid: u32, name: &str) -> ProcessRow {
    let rest = like.stat.iter().rposition(|&byte| byte == b')').unwrap();
    let stat = [format!("{pid} ({name}").as_bytes(), &like.stat[rest..]].concat();
    let status = String::from_utf8(like.status.clone()).unwrap();
    let line = |line: &str| match line.split_once(':') {
        Some(("Name", _)) => format!("Name:\t{name}\n"),
        Some((field @ ("Tgid" | "Pid"), _)) => format!("{field}:\t{pid}\n"),
        _ => format!("{line}\n"),
    };
    let status = status.lines().map(line).collect::<String>().into_bytes();
    ProcessRow { pid, stat, status, cmdline: format!("{name}\0--far\0").into_bytes(), ..like.clone() }
}

fn unless_silent<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    if Path::new(SILENT).exists() { pending().boxed() } else { ready(value).boxed() }
}

impl ProcessTable for OtherNode {
    fn rows(&self) -> BoxFuture<'static, Arc<Table>> {
        unless_silent(self.rows.clone())
    }

    fn row(&self, pid: u32) -> BoxFuture<'static, Option<Arc<ProcessRow>>> {
        unless_silent(self.rows.row(pid).cloned().map(Arc::new))
    }

    fn file(
        &self,
        pid: u32,
        name: String,
        _uid: u32,
        _gid: u32,
    ) -> BoxFuture<'static, Result<Vec<u8>, Errno>> {
        let thread = format!("task/{}/comm", pid + 1);
        unless_silent(match name.as_str() {
            "environ" => Ok(b"FAR=1\0".to_vec()),
            "exe" => Ok(b"/usr/bin/far".to_vec()),
            "root" => Ok(b"/".to_vec()),
            "cwd" => Ok(fs::read(CWD).unwrap_or_else(|_| b"/".to_vec())),
            "task" => Ok(format!("{pid}\n{}\n", pid + 1).into_bytes()),
            _ if name == thread => Ok(b"second\n".to_vec()),
            _ => Err(Errno::NOENT),
        })
    }

    fn shadows(&self) -> Arc<BTreeSet<u32>> {
        self.shadows.clone()
    }
}

/// Serves; standard input is the FUSE device, standard output the real procfs root.
fn serve() {
    let device = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let procfs = std::io::stdout().as_fd().try_clone_to_owned().unwrap();
    let shadow = std::env::var(SHADOW).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let table = Arc::new(OtherNode::new(&procfs, shadow));
    let filesystem = ProcFs::new(procfs, table, runtime.handle().clone());
    let agreed = fs::read(AGREED).ok().map(|bytes| Agreed::from_bytes(&bytes).unwrap());
    let on_agreed = Arc::new(|agreed: &Agreed| fs::write(AGREED, agreed.to_bytes()).unwrap());
    let config = fuse::Config { on_agreed: Some(on_agreed), ..session_config() };
    Session::adopt(device, agreed, filesystem, config).unwrap().run(2).unwrap();
}

/// A process that ends with the test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn again(program: &[&str], test: &str, role: &str) -> Command {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ROLE, role);
    command
}

/// What is made inside the namespaces.
struct Inside {
    test: &'static str,
    device: OwnedFd,
    procfs: OwnedFd,
    local: Ending,
    shadow: Ending,
}

impl Inside {
    fn new(test: &'static str) -> Inside {
        rustix::mount::mount("tmpfs", "/run", c"tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        fs::create_dir_all(pm::procfs::LOCAL_PROC).unwrap();
        fs::create_dir_all(MOUNT).unwrap();
        rustix::mount::mount_bind("/proc", pm::procfs::LOCAL_PROC).unwrap();
        let options = MountOptions { allow_other: true, default_permissions: true, ..Default::default() };
        let device = fuse::mount(Path::new(MOUNT), "ssi-proc", options).unwrap();
        let procfs = fs::File::open("/proc").unwrap().into();
        let sleep =
            |seconds| Ending(Command::new("sleep").arg(seconds).stdin(Stdio::null()).spawn().unwrap());
        Inside { test, device, procfs, local: sleep("1000"), shadow: sleep("2000") }
    }

    fn server(&self) -> Ending {
        let mut command = again(&["env"], self.test, "server");
        command.stdin(self.device.try_clone().unwrap()).stdout(self.procfs.try_clone().unwrap());
        Ending(command.env(SHADOW, self.shadow.0.id().to_string()).spawn().unwrap())
    }

    /// Runs a shell script where the mount is /proc; its output and whether it succeeded.
    fn script(&self, script: &str) -> (String, bool) {
        let enter = format!("mount --bind {MOUNT} /proc && exec timeout 30 bash -c \"$1\"");
        let args = ["--mount", "sh", "-c", &enter, "sh", script];
        let output = Command::new("unshare")
            .args(args)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        (String::from_utf8(output.stdout).unwrap(), output.status.success())
    }

    fn shows(&self, script: &str, expected: &str) {
        let (output, success) = self.script(script);
        assert!(
            success && output.trim_end() == expected,
            "{script}: {success}, {output:?}, not {expected:?}"
        );
    }

    fn works(&self, script: &str) -> String {
        let (output, success) = self.script(script);
        assert!(success, "{script}: {output}");
        output
    }
}

/// Runs `body` of the test called `test` in namespaces of its own.
fn in_namespaces(test: &'static str, body: impl FnOnce(&Inside)) {
    match std::env::var(ROLE).as_deref() {
        Ok("inside") => body(&Inside::new(test)),
        Ok(_) => serve(),
        Err(_) => {
            let namespaces =
                ["--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
            let unshare = [&["timeout", "-k", "1", "100", "unshare"][..], &namespaces].concat();
            let probe = Command::new("unshare").args(namespaces).arg("true").stderr(Stdio::null()).status();
            if !probe.is_ok_and(|status| status.success()) {
                return eprintln!("skipped: user namespaces, or a procfs in them, are not allowed here");
            }
            if let Err(error) = fs::File::options().read(true).write(true).open("/dev/fuse") {
                return eprintln!("skipped: /dev/fuse: {error}");
            }
            let status = again(&unshare, test, "inside").status().unwrap();
            assert!(status.success(), "{status}");
        }
    }
}

#[test]
fn ps_and_its_siblings_show_every_node() {
    in_namespaces("ps_and_its_siblings_show_every_node", |inside| {
        let _server = inside.server();
        let (local, shadow) = (inside.local.0.id(), inside.shadow.0.id());
        let rows = inside.works("ps -e -o pid=,args=");
        let rows: Vec<(u32, &str)> = rows
            .lines()
            .map(|row| row.trim_start().split_once(' ').unwrap())
            .map(|(pid, args)| (pid.parse().unwrap(), args))
            .collect();
        assert!(rows.is_sorted_by_key(|row| row.0), "{rows:?}");
        for expected in [(local, "sleep 1000"), (shadow, "moved --far"), (FOREIGN, "foreign-sleep --far")] {
            assert_eq!(rows.iter().filter(|row| row.0 == expected.0).collect::<Vec<_>>(), [&expected]);
        }
        assert!(inside.works("ps -ef").contains("foreign-sleep --far"));
        assert!(inside.works("top -b -n 1 -w 200").contains("foreign-sleep"));
        inside.shows("pgrep -x foreign-sleep", &FOREIGN.to_string());
        inside.shows("pgrep -x sleep", &local.to_string());
        inside.shows("pkill -TERM -x sleep; sleep 0; pgrep -x nothing || echo none", "none");
        for tool in
            ["free", "uptime", "ps -ef --forest", "ps -eLf", "ps aux", "ls -l /proc", "w", "vmstat", "mount"]
        {
            inside.works(tool);
        }
    });
}

#[test]
fn files_of_proc_read_as_ever() {
    in_namespaces("files_of_proc_read_as_ever", |inside| {
        let _server = inside.server();
        inside.shows("cat <(echo fine)", "fine");
        inside.shows("cat /proc/$$/comm; true", "bash");
        inside.shows("basename $(readlink /proc/self/exe)", "readlink");
        inside.shows("grep -c '\\[stack\\]' /proc/self/maps", "1");
        inside.shows("echo in | cat /proc/self/fd/0", "in");
        inside.works("grep -q MemTotal /proc/meminfo && grep -q ' / ' /proc/mounts && test -d /proc/net");
        inside.shows("[ -e /proc/99999 ] || [ -e /proc/nothing ] || echo absent", "absent");
        let foreign = format!("/proc/{FOREIGN}");
        inside.shows(
            &format!("cat {foreign}/comm; tr '\\0' ' ' < {foreign}/cmdline"),
            "foreign-sleep\nforeign-sleep --far",
        );
        inside.shows(&format!("cut -d' ' -f1-2 {foreign}/stat"), &format!("{FOREIGN} (foreign-sleep)"));
        inside.shows(
            &format!("tr '\\0' '\\n' < {foreign}/environ; readlink {foreign}/exe"),
            "FAR=1\n/usr/bin/far",
        );
        inside.shows(
            &format!("ls {foreign}/task; cat {foreign}/task/{}/comm", FOREIGN + 1),
            &format!("{FOREIGN}\n{}\nsecond", FOREIGN + 1),
        );
        inside.shows(
            &format!("stat -c %U:%a:%F {foreign} {foreign}/environ"),
            "root:555:directory\nroot:400:regular empty file",
        );
        inside.shows(&format!("echo x 2>/dev/null > {foreign}/comm || echo refused"), "refused");
        inside.shows(
            &format!("readlink {foreign}/cwd; echo -n /mnt > {CWD}; readlink {foreign}/cwd; stat -c %N {foreign}/cwd"),
            &format!("/\n/mnt\n'{foreign}/cwd' -> '/mnt'"),
        );
        inside.works(&format!("ls -lR {foreign} > /dev/null"));
    });
}

#[test]
fn local_processes_are_as_the_kernel_shows_them() {
    in_namespaces("local_processes_are_as_the_kernel_shows_them", |inside| {
        let _server = inside.server();
        let local = format!("/proc/{}", inside.local.0.id());
        // htop takes only directories, and does not follow links to them.
        inside.shows(&format!("find /proc -maxdepth 1 -path {local} -type d"), &local);
        inside.shows(&format!("tr '\\0' ' ' < {local}/cmdline; stat -c %U {local}"), "sleep 1000 root");
        inside.shows(&format!("readlink {local}/exe | xargs basename; readlink {local}/root"), "sleep\n/");
        inside.shows(
            &format!("readlink {local}/fd/0 && ls {local}/task"),
            &format!("/dev/null\n{}", &local[6..]),
        );
        inside.works(&format!("ls -l {local} > /dev/null && [ {local}/exe -ef $(which sleep) ]"));
        // This bash lives in other mounts than the first process: only the real links lead where they should.
        inside.shows(
            "cd /usr; [ /proc/$$/cwd -ef /usr ] && [ /proc/$$/exe -ef /proc/self/../$$/exe ] && echo same",
            "same",
        );
        inside.shows("cd /usr; ls -d /proc/$$/cwd/bin > /dev/null; cd /; ls -d /proc/$$/cwd/usr > /dev/null && echo moved", "moved");
        inside.shows("sleep 0 & wait; kill -0 $! 2>/dev/null || [ -e /proc/$!/stat ] || echo gone", "gone");
    });
}

#[test]
fn silent_nodes_and_a_restarted_daemon_hang_nobody() {
    in_namespaces("silent_nodes_and_a_restarted_daemon_hang_nobody", |inside| {
        let server = inside.server();
        assert!(inside.works("ps -ef").contains("foreign-sleep"));
        fs::write(SILENT, "").unwrap();
        let start = Instant::now();
        assert!(inside.works("ps -ef").contains("foreign-sleep"), "what was known last is shown");
        inside.shows("[ -e /proc/40000 ] || echo absent", "absent");
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
        fs::remove_file(SILENT).unwrap();
        drop(server);
        let late = Ending(
            Command::new("unshare")
                .args(["--mount", "sh", "-c"])
                .arg(format!("mount --bind {MOUNT} /proc && exec ps -ef"))
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let _next = inside.server();
        let mut late = late;
        let output = std::io::read_to_string(late.0.stdout.take().unwrap()).unwrap();
        assert!(output.contains("foreign-sleep"), "{output}");
    });
}
