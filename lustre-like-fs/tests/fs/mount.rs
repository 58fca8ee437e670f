//! The mount, as programs see it: the tools of every day, on a real FUSE mount in a mount namespace of its own.
//!
//! The outer test starts this binary again under unshare(1): the inner process mounts, serves and runs the tools; its
//! mounts end with it. It never touches the mount itself, only its children do.

use crate::common::*;
use lustre_like_fs::Client;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

const INNER_VARIABLE: &str = "SSI_TEST_MOUNT_INNER";
/// How the inner process says that it got to its end.
const DONE: &str = "inner test is done";

fn in_a_namespace(name: &str) {
    let may = Command::new("unshare").args(flags()).arg("true").output();
    if !may.is_ok_and(|output| output.status.success()) || !Path::new("/dev/fuse").exists() {
        println!("skipped: no new mount namespace, or no /dev/fuse");
        return;
    }
    let output = Command::new("timeout")
        .args(["-k", "1", "100", "unshare"])
        .args(flags())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("mount::{name}"), "--nocapture"])
        .env(INNER_VARIABLE, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if let Some(why) = text.lines().find(|line| line.starts_with("skipped: ")) {
        println!("{why}");
        return;
    }
    assert!(output.status.success() && text.contains(DONE), "{name}: {}\n{text}", output.status);
}

/// An ordinary user needs a user namespace for a mount namespace.
fn flags() -> &'static [&'static str] {
    if rustix::process::geteuid().is_root() { &["-m"] } else { &["-Urm"] }
}

fn is_inner() -> bool {
    std::env::var_os(INNER_VARIABLE).is_some()
}

/// Three nodes, and a mount of the first node's and one of the second's client.
struct Mounted {
    runtime: tokio::runtime::Runtime,
    cluster: Option<Cluster>,
    one: PathBuf,
    two: PathBuf,
    sessions: Vec<Session>,
    _directory: tempfile::TempDir,
}

struct Session {
    stopper: fuse::Stopper,
    thread: Option<JoinHandle<()>>,
}

impl Session {
    fn adopt(
        device: &rustix::fd::OwnedFd,
        agreed: Option<fuse::Agreed>,
        client: &Client,
        config: fuse::Config,
    ) -> Session {
        let device = device.try_clone().unwrap();
        let session = fuse::Session::adopt(device, agreed, client.filesystem(), config).unwrap();
        let stopper = session.stopper();
        let thread = std::thread::spawn(move || session.run(2).unwrap());
        Session { stopper, thread: Some(thread) }
    }

    fn stop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Mounted {
    fn start() -> Option<Mounted> {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let cluster = runtime.block_on(Cluster::start_in(3, directory.path()));
        let mut mounted = Mounted {
            one: directory.path().join("one"),
            two: directory.path().join("two"),
            runtime,
            cluster: Some(cluster),
            sessions: vec![],
            _directory: directory,
        };
        mounted.mount(1).and_then(|()| mounted.mount(2)).map(|()| mounted)
    }

    fn mount(&mut self, node: u32) -> Option<()> {
        let target = if node == 1 { self.one.clone() } else { self.two.clone() };
        std::fs::create_dir(&target).unwrap();
        let device = match fuse::mount(&target, "ssi", lustre_like_fs::mount_options()) {
            Ok(device) => device,
            Err(error) => {
                println!("skipped: {error}");
                return None;
            }
        };
        let _inside = self.runtime.enter();
        let client = self.cluster.as_ref().unwrap().client(node);
        self.sessions.push(Session::adopt(&device, None, &client, lustre_like_fs::fuse_config()));
        Some(())
    }

    /// Runs a script with the first mount as its directory, `$TWO` being the second; it must succeed.
    fn sh(&self, script: &str) -> String {
        let output = self.try_sh(script);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}\n{}\n{errors}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    fn try_sh(&self, script: &str) -> Output {
        let script = format!("set -e; cd {}; {script}", self.one.display());
        let mut command = Command::new("timeout");
        command.args(["-k", "1", "60", "bash", "-c", &script]).stdin(Stdio::null());
        command.env("TWO", &self.two).env("HOME", "/nonexistent").output().unwrap()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for target in [&self.one, &self.two] {
            let _ = rustix::mount::unmount(target.as_path(), rustix::mount::UnmountFlags::DETACH);
        }
        for session in &mut self.sessions {
            session.stop();
        }
    }
}

fn run(name: &str, inner: impl FnOnce(&mut Mounted)) {
    if !is_inner() {
        return in_a_namespace(name);
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    if let Some(mut mounted) = Mounted::start() {
        inner(&mut mounted);
        drop(mounted);
        println!("\n{DONE}");
    }
}

#[test]
fn everyday_tools_work() {
    run("everyday_tools_work", |mounted| {
        mounted
            .sh("mkdir -p a/b/c; echo hello > a/b/c/f; cp a/b/c/f a/g; mv a/g a/h; ln a/h a/i; ln -s h a/j");
        assert_eq!(mounted.sh("cat $TWO/a/j; stat -c '%h %s %F' $TWO/a/h"), "hello\n2 6 regular file\n");
        mounted.sh("test \"$(readlink a/j)\" = h; test $(ls a | wc -l) = 4; test $(find . | wc -l) = 8");
        mounted.sh("chmod 640 a/h; test $(stat -c %a $TWO/a/i) = 640; touch -d @1000 a/h; test $(stat -c %Y a/h) = 1000");
        mounted.sh("echo more >> a/h; test $(stat -c %Y $TWO/a/h) -gt 1000; truncate -s 3 a/h; test \"$(cat $TWO/a/i)\" = hel");
        mounted.sh("truncate -s 5M big; test $(stat -c %s $TWO/big) = 5242880; cmp -n 5242880 big /dev/zero");
        mounted.sh("dd if=/dev/urandom of=r bs=123457 count=40 conv=fsync 2>/dev/null; cp r s; cmp r $TWO/s; cp --sparse=always r t; cmp t $TWO/r");
        mounted.sh("mkfifo p; (echo x > p &) ; test \"$(cat p)\" = x; rm p");
        mounted.sh("! rmdir a 2>/dev/null; rm -r a; test ! -e $TWO/a; ! cat a/h 2>/dev/null");
        mounted.sh("mkdir d; for i in $(seq 300); do : > d/a-file-with-a-long-name-$i; done; test $(ls $TWO/d | wc -l) = 300; rm -r d; test ! -e d");
        mounted.sh("set -C; echo 1 > only; ! (echo 2 > only) 2>/dev/null; test $(cat $TWO/only) = 1");
        mounted.sh("df . | grep -q ssi; stat -f . > /dev/null; sync -f .");
        mounted.sh("exec 3<> open; echo kept >&3; rm $TWO/open; test \"$(cat /proc/self/fd/3)\" = kept");
        mounted.sh("umask 027; mkdir m; : > m/f; test $(stat -c %a m) = 750; test $(stat -c %a m/f) = 640");
        mounted.sh("mkdir x y; : > x/f; mv x y/; test -e $TWO/y/x/f; ! mv y y/x/ 2>/dev/null");
        mounted
            .sh("fallocate -l 3M fa; test $(stat -c %s $TWO/fa) = 3145728; fallocate -p -o 4096 -l 8192 fa");
        mounted.sh("python3 -c 'import mmap,os; f=open(\"mm\",\"w+b\"); f.truncate(9000); m=mmap.mmap(f.fileno(),9000); m[4000:4005]=b\"hello\"; m.flush(); m.close()'; test $(head -c 4005 $TWO/mm | tail -c 5) = hello");
        if rustix::process::getuid().is_root()
            && std::fs::read_to_string("/proc/self/uid_map").unwrap().contains("4294967295")
        {
            mounted.sh("echo x > own; chown 1234:4321 own; test $(stat -c %u:%g $TWO/own) = 1234:4321");
            mounted.sh("chmod 600 own; ! setpriv --reuid 99 --clear-groups cat own 2>/dev/null; ! setpriv --reuid 99 --clear-groups rm -f own 2>/dev/null");
        }
    });
}

#[test]
fn compilers_archives_and_git_work() {
    run("compilers_archives_and_git_work", |mounted| {
        mounted.sh("printf '#include <stdio.h>\\nint main(void){puts(\"hello\");return 0;}\\n' > h.c; gcc -O1 -c h.c; gcc -o h h.o; test $(./h) = hello; test $($TWO/h) = hello");
        mounted.sh("mkdir t; for i in 1 2 3; do mkdir t/$i; seq $i$i$i > t/$i/f; done; ln t/1/f t/l; ln -s 1/f t/s; tar cf t.tar t; mkdir u; tar xpf t.tar -C u; diff -r t $TWO/u/t; test $(stat -c %h u/t/l) = 2");
        mounted.sh("gzip -k t.tar; gunzip -c $TWO/t.tar.gz | cmp - t.tar");
        let git = "git -c user.name=n -c user.email=e@e -c init.defaultBranch=main -c safe.directory='*'";
        mounted.sh(&format!("mkdir g; cd g; {git} init -q; seq 1000 > a; {git} add a; {git} commit -qm one; seq 2000 > a; {git} commit -qam two; {git} gc -q; cd $TWO/g; {git} fsck 2>&1; test $({git} log --oneline | wc -l) = 2; test -z \"$({git} status --porcelain)\"; {git} clone -q . ../g2; diff a ../g2/a"));
    });
}

#[test]
fn a_program_does_not_see_the_daemon_being_replaced() {
    run("a_program_does_not_see_the_daemon_being_replaced", |mounted| {
        // A third mount whose session and client end and begin again under a writing program.
        let target = mounted.one.with_file_name("three");
        std::fs::create_dir(&target).unwrap();
        let device = fuse::mount(&target, "ssi", lustre_like_fs::mount_options()).unwrap();
        let _inside = mounted.runtime.enter();
        let agreed = Arc::new(parking_lot::Mutex::new(None));
        let heard = agreed.clone();
        let config = fuse::Config {
            on_agreed: Some(Arc::new(move |agreed: &fuse::Agreed| *heard.lock() = Some(*agreed))),
            ..lustre_like_fs::fuse_config()
        };
        let cluster = mounted.cluster.as_ref().unwrap();
        let mut session = Session::adopt(&device, None, &cluster.client(3), config.clone());
        let script = "cd \"$0\"; exec 4> held; for i in $(seq 150); do echo $i >> log; mkdir d$i; mv d$i e$i; rmdir e$i; echo $i >&4; done";
        let mut program = Command::new("timeout")
            .args(["-k", "1", "60", "bash", "-ec", script])
            .arg(&target)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut lives = 0;
        let status = loop {
            if let Some(status) = program.try_wait().unwrap() {
                break status;
            }
            session.stop();
            let next = cluster.client(3);
            session = Session::adopt(&device, *agreed.lock(), &next, config.clone());
            lives += 1;
            mounted.sh("sleep 0.05");
        };
        assert!(status.success(), "{status} after {lives} lives");
        assert!(lives > 2);
        mounted.sh("seq 150 | cmp - log; seq 150 | cmp - $TWO/held; test $(ls | wc -l) = 2");
        let _ = rustix::mount::unmount(target.as_path(), rustix::mount::UnmountFlags::DETACH);
        session.stop();
    });
}

#[test]
fn files_on_a_node_that_is_down_can_be_seen_and_removed() {
    run("files_on_a_node_that_is_down_can_be_seen_and_removed", |mounted| {
        mounted.sh("head -c 4M /dev/urandom > file; mkdir dir; head -c 4M /dev/urandom > dir/file");
        let mut cluster = mounted.cluster.take().unwrap();
        mounted.runtime.block_on(cluster.stop(3));
        cluster.set_state(3, membership::NodeState::Down);
        let read = mounted.try_sh("exec timeout 5 cat file");
        assert_eq!(read.status.code(), Some(1), "an error, and at once");
        assert!(String::from_utf8_lossy(&read.stderr).contains("not connected"));
        mounted.sh("ls; mv file moved; rm moved; rm -rf dir; test $(ls | wc -l) = 0; echo new > new; test $(cat new) = new");
        mounted.runtime.block_on(cluster.resume(3));
        cluster.set_state(3, membership::NodeState::Up);
        mounted.cluster = Some(cluster);
        let cluster = mounted.cluster.as_ref().unwrap();
        let gone = async || cluster.objects(3).is_empty();
        mounted.runtime.block_on(until("its objects are destroyed when it is back", gone));
    });
}

#[test]
fn servers_may_restart_under_programs() {
    run("servers_may_restart_under_programs", |mounted| {
        let script =
            "cd \"$0\"; for i in $(seq 100); do echo $i >> log; mkdir d$i; seq 1000 > d$i/f; rm -r d$i; done";
        let mut program = Command::new("timeout")
            .args(["-k", "1", "60", "bash", "-ec", script])
            .arg(&mounted.one)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut cluster = mounted.cluster.take().unwrap();
        let mut restarts = 0;
        let status = loop {
            if let Some(status) = program.try_wait().unwrap() {
                break status;
            }
            // Node 3: its endpoint is used by no mount.
            mounted.runtime.block_on(async {
                cluster.stop(3).await;
                cluster.resume(3).await;
            });
            restarts += 1;
            mounted.sh("sleep 0.05");
        };
        mounted.cluster = Some(cluster);
        assert!(status.success(), "{status} after {restarts} restarts");
        mounted.sh("seq 100 | cmp - log; test $(ls | wc -l) = 1");
    });
}

#[test]
fn a_full_disk_is_enospc_and_nothing_is_lost() {
    on_a_small_disk("a_full_disk_is_enospc_and_nothing_is_lost", 2, c"size=12m");
}

#[test]
fn a_disk_that_metadata_and_objects_fill_together_can_be_emptied() {
    on_a_small_disk("a_disk_that_metadata_and_objects_fill_together_can_be_emptied", 1, c"size=64m");
}

/// Fills the disk of `node`, which is small, by real writes; then makes room.
fn on_a_small_disk(name: &str, node: u32, size: &std::ffi::CStr) {
    if !is_inner() {
        return in_a_namespace(name);
    }
    let directory = tempfile::tempdir().unwrap();
    let small = directory.path().join(node.to_string());
    std::fs::create_dir(&small).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    if let Err(why) = rustix::mount::mount("tmpfs", &small, c"tmpfs", flags, Some(size)) {
        println!("skipped: no tmpfs: {why}");
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let cluster = Cluster::start_in(3, directory.path()).await;
        fill_and_empty(&cluster.client(1)).await;
    });
    drop(runtime);
    let _ = rustix::mount::unmount(small.as_path(), rustix::mount::UnmountFlags::DETACH);
    println!("\n{DONE}");
}

async fn fill_and_empty(client: &Client) {
    let kept = create(client, "kept", REGULAR).await.unwrap();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|at| (at / 3) as u8).collect();
    client.write(kept, 0, bytes.clone().into()).await.unwrap();
    client.sync(kept).await.unwrap();
    let ino = create(client, "filler", REGULAR).await.unwrap();
    let mut at = 0;
    let error = loop {
        match client.write(ino, at, vec![1u8; 1 << 20].into()).await {
            Ok(written) => at += written,
            Err(error) => break error,
        }
        assert!(at < 1 << 30, "the disk never fills");
    };
    assert_eq!(error.errno(), rustix::io::Errno::NOSPC);
    assert_eq!(read(client, kept, 0, 3_000_000).await.unwrap(), bytes);
    assert_eq!(read(client, ino, at - 10, 10).await.unwrap(), [1; 10]);
    // Names until they are refused, or until there are so many that they would have been.
    for number in 0..3_000 {
        match create(client, &format!("name{number}"), REGULAR).await {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.errno(), rustix::io::Errno::NOSPC);
                break;
            }
        }
    }
    let name = lustre_like_fs::wire::Place { parent: 1, name: "filler".into() };
    client.change(client.caller(0, 0), lustre_like_fs::wire::MetaVerb::Unlink(name)).await.unwrap();
    let room =
        async || client.write(kept, 3_000_000, vec![2u8; 6 << 20].into()).await.is_ok_and(|n| n == 6 << 20);
    until("there is room again", room).await;
    until("for names too", async || create(client, "after", REGULAR).await.is_ok()).await;
    client.sync(kept).await.unwrap();
}
