//! Real mounts, each in a user and mount namespace of its own, so that they need no root and leave nothing behind.
//!
//! ```text
//!   test ── unshare ──> the same test again, inside: holds the device ── spawns ──> the same test as the server
//! ```
//!
//! The process that reads the mount never serves it and never keeps it alive alone: when a test fails its processes die,
//! the device closes, and the kernel ends whatever still waits.

use fuse::{
    Agreed, Attr, Config, DirBuffer, EntryOut, Errno, FileType, Filesystem, MountOptions, Operation, ROOT_ID,
    Request, Session, StatFs, Stopper,
};
use rustix::event::{PollFd, PollFlags};
use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

const ROLE: &str = "FUSE_TEST_ROLE";
const WAIT_S: i64 = 10;
const LONG: Duration = Duration::from_secs(60);
const MANY: u64 = 3_000;

const NAMES: [(&str, u64); 6] =
    [("hello", HELLO), ("hole", HOLE), ("stop", STOP), ("link", LINK), ("many", 6), ("sink", SINK)];
const HELLO: u64 = 2;
/// Reading it is never answered by a server of the role `hole`.
const HOLE: u64 = 3;
/// Reading it ends the session.
const STOP: u64 = 4;
const LINK: u64 = 5;
const DIR: u64 = 6;
/// Keeps what is written.
const SINK: u64 = 7;
const FIRST_OF_MANY: u64 = 100;

/// A small tree in memory.
#[derive(Default)]
struct Tree {
    swallows: bool,
    swallowed: Mutex<Vec<Request>>,
    sink: Mutex<Vec<u8>>,
    stopper: OnceLock<Stopper>,
}

impl Tree {
    fn attr(&self, nodeid: u64) -> Option<Attr> {
        let (mode, size) = match nodeid {
            ROOT_ID | DIR => (0o040_755, 0),
            HELLO | HOLE | STOP => (0o100_644, 12),
            LINK => (0o120_777, 5),
            SINK => (0o100_666, self.sink.lock().unwrap().len() as u64),
            _ if (FIRST_OF_MANY..FIRST_OF_MANY + MANY).contains(&nodeid) => (0o100_600, nodeid),
            _ => return None,
        };
        Some(Attr { ino: nodeid, size, mode, nlink: 1, blksize: 4_096, ..Default::default() })
    }

    fn lookup(&self, parent: u64, name: &OsStr) -> Option<EntryOut> {
        let name = name.to_str()?;
        let nodeid = match parent {
            ROOT_ID => NAMES.iter().find(|(known, _)| *known == name)?.1,
            DIR => FIRST_OF_MANY + name.strip_prefix("file")?.parse::<u64>().ok()?,
            _ => return None,
        };
        Some(EntryOut {
            nodeid,
            attr_valid: LONG,
            entry_valid: LONG,
            attr: self.attr(nodeid)?,
            ..Default::default()
        })
    }

    fn list(nodeid: u64, offset: u64, size: u32) -> DirBuffer {
        let mut buffer = DirBuffer::new(size);
        for index in offset..if nodeid == DIR { MANY } else { 0 } {
            let name = format!("file{index}");
            if !buffer.add(FIRST_OF_MANY + index, index + 1, FileType::Regular, OsStr::new(&name)) {
                break;
            }
        }
        buffer
    }

    fn read(&self, request: Request, offset: usize, size: usize) {
        match request.header.nodeid {
            HOLE if self.swallows => self.swallowed.lock().unwrap().push(request),
            HELLO | HOLE | STOP => {
                if request.header.nodeid == STOP && offset == 0 {
                    self.stopper.get().unwrap().stop();
                }
                request.reply.data(b"hello world\n".get(offset..).unwrap_or(&[]));
            }
            SINK => {
                let sink = self.sink.lock().unwrap();
                let end = sink.len().min(offset + size);
                request.reply.data_vectored(&[sink.get(offset..end).unwrap_or(&[])]);
            }
            _ => request.reply.error(Errno::ISDIR),
        }
    }

    fn write(&self, offset: usize, data: &[u8]) {
        let mut sink = self.sink.lock().unwrap();
        let length = sink.len().max(offset + data.len());
        sink.resize(length, 0);
        sink[offset..offset + data.len()].copy_from_slice(data);
    }
}

impl Filesystem for Tree {
    fn handle(&self, request: Request) {
        let nodeid = request.header.nodeid;
        match &request.operation {
            Operation::Lookup { name } => match self.lookup(nodeid, name) {
                Some(entry) => request.reply.entry(&entry),
                None => request.reply.error(Errno::NOENT),
            },
            Operation::GetAttr { .. } => match self.attr(nodeid) {
                Some(attr) => request.reply.attr(&attr, Duration::ZERO),
                None => request.reply.error(Errno::STALE),
            },
            Operation::SetAttr(set) => {
                if set.size == Some(0) {
                    self.sink.lock().unwrap().clear();
                }
                request.reply.attr(&self.attr(nodeid).unwrap(), Duration::ZERO);
            }
            Operation::ReadLink => request.reply.data(b"hello"),
            Operation::Open { flags } if nodeid == SINK && flags & 0o1000 != 0 => {
                self.sink.lock().unwrap().clear();
                request.reply.opened(1, fuse::open_flags::DIRECT_IO);
            }
            Operation::Open { .. } | Operation::OpenDir { .. } => {
                request.reply.opened(1, fuse::open_flags::DIRECT_IO);
            }
            &Operation::Read { offset, size, .. } => self.read(request, offset as usize, size as usize),
            Operation::Write { offset, data, .. } => {
                self.write(*offset as usize, data);
                request.reply.written(data.len() as u32);
            }
            &Operation::ReadDir { offset, size, .. } => {
                request.reply.directory(&Tree::list(nodeid, offset, size))
            }
            Operation::StatFs => {
                request.reply.statfs(&StatFs {
                    blocks: 77,
                    bsize: 4_096,
                    frsize: 4_096,
                    ..Default::default()
                });
            }
            // Dropped: the asker gets EIO.
            Operation::GetXattr { name, .. } if name == "user.dropped" => {}
            Operation::GetXattr { .. } => request.reply.error(Errno::NODATA),
            Operation::Release { .. } | Operation::ReleaseDir { .. } | Operation::Flush { .. } => {
                request.reply.empty()
            }
            Operation::Forget { .. } | Operation::Interrupt { .. } => request.reply.none(),
            _ => request.reply.error(Errno::NOSYS),
        }
    }
}

/// Serves the device on standard input until the mount is gone or somebody reads `stop`.
/// `$FUSE_TEST_AGREED` names the file that stands for ssi-init's memory.
fn serve(role: &str) {
    let device = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let store = std::env::var_os("FUSE_TEST_AGREED").unwrap();
    let agreed = fs::read(&store).ok().map(|bytes| Agreed::from_bytes(&bytes).unwrap());
    let on_agreed = Arc::new(move |agreed: &Agreed| fs::write(&store, agreed.to_bytes()).unwrap());
    let config = Config { on_agreed: Some(on_agreed), ..Default::default() };
    let tree = Arc::new(Tree { swallows: role == "hole", ..Default::default() });
    let session = Session::adopt(device, agreed, tree.clone(), config).unwrap();
    tree.stopper.set(session.stopper()).unwrap();
    session.run(3).unwrap();
}

/// A process that ends with its owner.
struct Ending(Child);

impl Ending {
    /// Its exit status, once it has ended by itself.
    fn status(&mut self) -> ExitStatus {
        assert!(self.ends(), "a process of the test does not end");
        self.0.wait().unwrap()
    }

    fn ends(&self) -> bool {
        let pid = rustix::process::Pid::from_child(&self.0);
        let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
            return true;
        };
        let mut events = [PollFd::new(&pidfd, PollFlags::IN)];
        let wait = rustix::event::Timespec { tv_sec: WAIT_S, tv_nsec: 0 };
        rustix::event::poll(&mut events, Some(&wait)).unwrap() == 1
    }
}

impl Drop for Ending {
    /// Not waited for without end: a reader of the mount cannot die before the device closes, after us.
    fn drop(&mut self) {
        let _ = self.0.kill();
        if self.ends() {
            let _ = self.0.wait();
        }
    }
}

/// This test binary, running only the test `test`, as `role`.
fn again(program: &[&str], test: &str, role: &str) -> Command {
    let this = std::env::current_exe().unwrap();
    let mut command = match program {
        [] => Command::new(this),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(this);
            command
        }
    };
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ROLE, role);
    command
}

fn server(test: &str, role: &str, device: &OwnedFd, dir: &Path) -> Ending {
    let mut command = again(&[], test, role);
    command.stdin(Stdio::from(device.try_clone().unwrap())).stdout(Stdio::null());
    Ending(command.env("FUSE_TEST_AGREED", dir.join("agreed")).spawn().unwrap())
}

/// Runs `body(mount point, device, directory)` of the test called `test` in namespaces of its own.
fn in_namespaces(test: &str, body: impl FnOnce(&Path, OwnedFd, &Path)) {
    match std::env::var(ROLE).as_deref() {
        Ok("inside") => {
            // Files of the test live in memory that ends with the namespace, also when it fails.
            let dir = Path::new("/run");
            rustix::mount::mount("tmpfs", dir, c"tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
            let target = dir.join("mount");
            fs::create_dir(&target).unwrap();
            let device =
                fuse::mount(&target, "sample", MountOptions { nosuid: true, ..Default::default() }).unwrap();
            body(&target, device, dir);
            rustix::mount::unmount(&target, rustix::mount::UnmountFlags::DETACH).unwrap();
        }
        Ok(role) => serve(role),
        Err(_) => {
            let unshare = ["unshare", "--user", "--map-root-user", "--mount"];
            let probe =
                Command::new(unshare[0]).args(&unshare[1..]).arg("true").stderr(Stdio::null()).status();
            if !probe.is_ok_and(|status| status.success()) {
                return eprintln!("skipped: user namespaces are not allowed here");
            }
            if let Err(error) = fs::File::options().read(true).write(true).open("/dev/fuse") {
                return eprintln!("skipped: /dev/fuse: {error}");
            }
            let status = again(&unshare, test, "inside").status().unwrap();
            assert!(status.success(), "{status}");
        }
    }
}

/// `cat` of a file of the mount, as a process of its own.
fn cat(file: &Path) -> Ending {
    Ending(Command::new("cat").arg(file).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap())
}

fn output(cat: &mut Ending) -> String {
    assert!(cat.status().success());
    std::io::read_to_string(cat.0.stdout.take().unwrap()).unwrap()
}

/// Waits until the process sleeps in the kernel's FUSE code for an answer.
fn wait_until_blocked(reader: &Ending) {
    let deadline = Instant::now() + Duration::from_secs(WAIT_S as u64);
    let wchan = format!("/proc/{}/wchan", reader.0.id());
    while !fs::read_to_string(&wchan).unwrap().contains("request_wait_answer") {
        assert!(Instant::now() < deadline, "the reader does not come to wait for an answer");
        std::thread::yield_now();
    }
}

#[test]
fn a_tree_is_read_and_written_through_the_kernel() {
    in_namespaces("a_tree_is_read_and_written_through_the_kernel", |target, device, dir| {
        let _server = server("a_tree_is_read_and_written_through_the_kernel", "serve", &device, dir);
        drop(device);
        assert_eq!(fs::read_to_string(target.join("hello")).unwrap(), "hello world\n");
        assert_eq!(fs::read_link(target.join("link")).unwrap(), Path::new("hello"));
        assert_eq!(fs::read_to_string(target.join("link")).unwrap(), "hello world\n");
        assert_eq!(fs::read(target.join("absent")).unwrap_err().kind(), std::io::ErrorKind::NotFound);
        let names: Vec<_> =
            fs::read_dir(target.join("many")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len() as u64, MANY);
        assert_eq!(names[MANY as usize - 1], OsStr::new(&format!("file{}", MANY - 1)));
        assert_eq!(fs::metadata(target.join("many/file7")).unwrap().len(), FIRST_OF_MANY + 7);
        let content: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
        fs::write(target.join("sink"), &content).unwrap();
        assert!(fs::read(target.join("sink")).unwrap() == content, "what is written is read");
        assert_eq!(rustix::fs::statvfs(target).unwrap().f_blocks, 77);
        assert_eq!(
            rustix::fs::getxattr(target.join("hello"), c"user.dropped", &mut [0u8; 8]).unwrap_err(),
            Errno::IO,
            "a dropped request is answered"
        );
        let agreed = Agreed::from_bytes(&fs::read(dir.join("agreed")).unwrap()).unwrap();
        assert_eq!(agreed.max_write, 1 << 20);
    });
}

#[test]
fn a_successor_answers_what_a_killed_server_had_taken() {
    let test = "a_successor_answers_what_a_killed_server_had_taken";
    in_namespaces(test, |target, device, dir| {
        let first = server(test, "hole", &device, dir);
        assert_eq!(output(&mut cat(&target.join("hello"))), "hello world\n");
        let mut blocked = cat(&target.join("hole"));
        wait_until_blocked(&blocked);
        drop(first);
        let mut late = cat(&target.join("hello"));
        let second = server(test, "serve", &device, dir);
        let agreed = Agreed::from_bytes(&fs::read(dir.join("agreed")).unwrap()).unwrap();
        if agreed.flags & fuse::init_flags::HAS_RESEND == 0 {
            eprintln!("skipped: this kernel cannot resend");
        } else {
            assert_eq!(output(&mut blocked), "hello world\n");
        }
        assert_eq!(output(&mut late), "hello world\n");
        drop(second);
    });
}

#[test]
fn a_stopped_session_leaves_the_mount_to_the_next() {
    let test = "a_stopped_session_leaves_the_mount_to_the_next";
    in_namespaces(test, |target, device, dir| {
        let mut first = server(test, "serve", &device, dir);
        // The session may end between the read and the close; the next one answers the rest.
        let mut stop = cat(&target.join("stop"));
        let status = first.status();
        assert!(status.success() && status.signal().is_none(), "{status}");
        let _second = server(test, "serve", &device, dir);
        assert_eq!(output(&mut stop), "hello world\n");
        assert_eq!(output(&mut cat(&target.join("hello"))), "hello world\n");
    });
}

#[test]
fn an_unmount_ends_the_session() {
    let test = "an_unmount_ends_the_session";
    in_namespaces(test, |target, device, dir| {
        let mut server = server(test, "serve", &device, dir);
        assert_eq!(output(&mut cat(&target.join("hello"))), "hello world\n");
        rustix::mount::unmount(target, rustix::mount::UnmountFlags::empty()).unwrap();
        assert!(server.status().success());
        let _again = fuse::mount(target, "sample", MountOptions::default()).unwrap();
    });
}
