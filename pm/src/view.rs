//! The view: the root that every process of the cluster system on this node sees.
//!
//! ```text
//!  /                tmpfs of our own
//!  /bin /etc /...   the host's top-level entries, bound (links are made again)
//!  /dev             the host's, bound;  /dev/shm, /dev/mqueue private
//!  /run             private, the host's entries bound in
//!  /run/ssi/localproc  procfs of the view's pid namespace
//!  /run/ssi/bin        the executable, and a link for each user command
//!  /run/ssi/admin.sock a link into /run/ssi/admin, which is the admin socket's directory, bound
//!  /run/ssi/cores      where a shadow leaves its own core file, emptied when it is gone
//!  /proc            FUSE, served by ssid        (default_permissions: the kernel checks owner and mode)
//!  /ssi             FUSE, served by ssid --data (default_permissions; set-user-id and device nodes have no effect)
//! ```
//!
//! Invariant: mounts made here never reach the host's mount namespace, and [`enter`] itself touches no path below
//! /proc or /ssi of the view once they are FUSE: nobody serves them yet.

use crate::init::Error;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What the view is made of. All paths are the host's.
#[derive(Clone, Debug)]
pub struct ViewConfig {
    /// An empty directory (made if it is missing) that the new root is put together in.
    pub scaffold: PathBuf,
    /// The view's host name.
    pub hostname: String,
    /// The admin socket; its directory is bound.
    pub admin_socket: PathBuf,
    /// The executable.
    pub binary: PathBuf,
    /// Names that it goes by in `/run/ssi/bin`.
    pub commands: Vec<String>,
    /// Where the shared filesystem goes, if anywhere.
    pub fs_mount: Option<PathBuf>,
    /// Whether /proc is the cluster's.
    pub cluster_proc: bool,
}

/// The descriptors of a view that was entered.
#[derive(Debug)]
pub struct View {
    /// The root of the view's own procfs (O_PATH).
    pub procfs: OwnedFd,
    /// /dev/fuse of /proc, if it is the cluster's.
    pub proc_fuse: Option<OwnedFd>,
    /// /dev/fuse of the shared filesystem, if there is one.
    pub fs_fuse: Option<OwnedFd>,
}

const MAPPED_ROOT: &str = "; this needs root, or a user namespace in which the caller is root (unprivileged user \
                           namespaces must be allowed: sysctl kernel.unprivileged_userns_clone=1, \
                           kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces > 0)";
const PROC_MASKED: &str = "; a container runtime that hides parts of /proc forbids a new one: run with an unmasked \
                           /proc";
const FUSE_MISSING: &str = "; load the module `fuse` and let this user open /dev/fuse";
const MOUNT_POINT: &str = "; choose another mount point for the shared filesystem, or empty this one";

/// Makes the view and makes it the root of the calling process, which must be alone in new mount, pid, IPC and UTS
/// namespaces.
///
/// # Errors
/// [`Error::View`]: a step that the view cannot do without, with what the kernel said and what can be done.
pub fn enter(config: &ViewConfig) -> Result<View, Error> {
    let root = &config.scaffold;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    done("make mounts private", MAPPED_ROOT, rustix::mount::mount_change("/", private))?;
    check_mount_point(config)?;
    fs::create_dir_all(root).map_err(|error| failed(format!("create {}", root.display()), "", error))?;
    mount_tmpfs(root, "mode=0755", MountFlags::empty())?;
    // A directory of the host may hold the scaffold: binding it must not bind the half-made root into itself.
    let unbindable = MountPropagationFlags::UNBINDABLE;
    done("shield the new root", "", rustix::mount::mount_change(root, unbindable))?;
    bind_top_level(config)?;
    make_run(config)?;
    make_ipc(root)?;
    let view = mount_processes_and_files(config)?;
    done("set the host name", "", rustix::system::sethostname(config.hostname.as_bytes()))?;
    switch_root(root)?;
    Ok(view)
}

fn failed(step: impl Into<String>, advice: &'static str, source: io::Error) -> Error {
    Error::View { step: step.into(), source, advice }
}

fn done<T>(step: &str, advice: &'static str, result: Result<T, Errno>) -> Result<T, Error> {
    result.map_err(|errno| failed(step, advice, errno.into()))
}

fn mount_tmpfs(target: &Path, options: &str, flags: MountFlags) -> Result<(), Error> {
    let options = std::ffi::CString::new(options).unwrap_or_default();
    let mounted = rustix::mount::mount("ssi", target, "tmpfs", flags, Some(options.as_c_str()));
    done(&format!("mount a tmpfs at {}", target.display()), MAPPED_ROOT, mounted)
}

/// The shared filesystem hides what is at its mount point, so there may be nothing.
fn check_mount_point(config: &ViewConfig) -> Result<(), Error> {
    let Some(point) = &config.fs_mount else { return Ok(()) };
    let step = || format!("mount the shared filesystem at {}", point.display());
    let in_use = |kind: io::ErrorKind| failed(step(), MOUNT_POINT, kind.into());
    if !point.is_absolute() || point.parent().is_none() || point.starts_with("/proc") {
        return Err(in_use(io::ErrorKind::InvalidInput));
    }
    match fs::read_dir(point) {
        Ok(mut entries) => match entries.next() {
            Some(_) => Err(in_use(io::ErrorKind::DirectoryNotEmpty)),
            None => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_top_level(point) => Ok(()),
        Err(error) => Err(failed(step(), MOUNT_POINT, error)),
    }
}

fn is_top_level(path: &Path) -> bool {
    path.parent() == Some(Path::new("/"))
}

/// Puts the entry `from` of the host at `to`: a link as a link, everything else bound.
fn graft(from: &Path, to: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(from)?.file_type();
    if kind.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if kind.is_dir() {
        fs::create_dir(to)?;
    } else {
        fs::File::create_new(to)?;
    }
    Ok(rustix::mount::mount_bind_recursive(from, to)?)
}

fn bind_top_level(config: &ViewConfig) -> Result<(), Error> {
    let entries = fs::read_dir("/").map_err(|error| failed("list /", "", error))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if ["/proc", "/run"].iter().any(|own| path == Path::new(own))
            || Some(&path) == config.fs_mount.as_ref()
        {
            continue;
        }
        let grafted = graft(&path, &config.scaffold.join(entry.file_name()));
        // An entry that vanished or that this user may not see is missing in the view as well.
        if let Err(error) = grafted
            && ["bin", "dev", "etc", "lib", "usr"].iter().any(|needed| entry.file_name() == *needed)
        {
            return Err(failed(format!("bind {}", path.display()), MAPPED_ROOT, error));
        }
    }
    Ok(())
}

fn make_directory(path: &Path, mode: u32) -> Result<(), Error> {
    let made =
        fs::create_dir(path).and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)));
    made.map_err(|error| failed(format!("create {}", path.display()), "", error))
}

fn make_run(config: &ViewConfig) -> Result<(), Error> {
    let run = config.scaffold.join("run");
    make_directory(&run, 0o755)?;
    mount_tmpfs(&run, "mode=0755", MountFlags::NOSUID | MountFlags::NODEV)?;
    for entry in fs::read_dir("/run").into_iter().flatten().flatten() {
        if entry.file_name() != "ssi" {
            // Best effort: /run changes all the time.
            let _ = graft(&entry.path(), &run.join(entry.file_name()));
        }
    }
    let own = run.join("ssi");
    make_directory(&own, 0o755)?;
    for (name, mode) in [("localproc", 0o555), ("bin", 0o755), ("admin", 0o755), ("cores", 0o1777)] {
        make_directory(&own.join(name), mode)?;
    }
    make_commands(config, &own.join("bin"))?;
    let directory = config.admin_socket.parent().unwrap_or(Path::new("/"));
    let bound = rustix::mount::mount_bind(directory, own.join("admin"));
    done(&format!("bind {}", directory.display()), MAPPED_ROOT, bound)?;
    let socket = Path::new("admin").join(config.admin_socket.file_name().unwrap_or_default());
    symlink(socket, own.join("admin.sock")).map_err(|error| failed("link the admin socket", "", error))
}

fn make_commands(config: &ViewConfig, bin: &Path) -> Result<(), Error> {
    graft(&config.binary, &bin.join("ssi"))
        .map_err(|error| failed(format!("bind {}", config.binary.display()), "", error))?;
    for command in &config.commands {
        symlink("ssi", bin.join(command))
            .map_err(|error| failed(format!("link the command {command}"), "", error))?;
    }
    Ok(())
}

/// Shared memory and message queues of the view alone: nodes of one machine share nothing.
fn make_ipc(root: &Path) -> Result<(), Error> {
    let shm = root.join("dev/shm");
    if shm.is_dir() {
        mount_tmpfs(&shm, "mode=1777", MountFlags::NOSUID | MountFlags::NODEV)?;
    }
    let queues = root.join("dev/mqueue");
    if queues.is_dir() {
        // Optional: a kernel without POSIX message queues has nothing to hide.
        let _ = rustix::mount::mount("mqueue", &queues, "mqueue", MountFlags::empty(), None);
    }
    Ok(())
}

fn mount_processes_and_files(config: &ViewConfig) -> Result<View, Error> {
    let local = config.scaffold.join("run/ssi/localproc");
    let proc = config.scaffold.join("proc");
    make_directory(&proc, 0o555)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mounted = rustix::mount::mount("proc", &local, "proc", flags, None);
    done("mount the view's procfs", PROC_MASKED, mounted)?;
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let procfs = done("open it", "", rustix::fs::open(&local, directory, Mode::empty()))?;
    let fs_fuse = match &config.fs_mount {
        Some(point) => Some(mount_shared(config, point)?),
        None => None,
    };
    let options = fuse::MountOptions {
        allow_other: true,
        default_permissions: true,
        nosuid: true,
        nodev: true,
        noexec: true,
        ..fuse::MountOptions::default()
    };
    if !config.cluster_proc {
        done("bind /proc", "", rustix::mount::mount_bind(&local, &proc))?;
        return Ok(View { procfs, proc_fuse: None, fs_fuse });
    }
    let proc_fuse = fuse::mount(&proc, "ssi-proc", options).map_err(fuse_failed)?;
    Ok(View { procfs, proc_fuse: Some(proc_fuse), fs_fuse })
}

fn mount_shared(config: &ViewConfig, point: &Path) -> Result<OwnedFd, Error> {
    let inside = config.scaffold.join(point.strip_prefix("/").unwrap_or(point));
    if is_top_level(point) {
        make_directory(&inside, 0o755)?;
    }
    let options = fuse::MountOptions {
        allow_other: true,
        default_permissions: true,
        nosuid: true,
        nodev: true,
        ..fuse::MountOptions::default()
    };
    fuse::mount(&inside, "ssi", options).map_err(fuse_failed)
}

fn fuse_failed(error: fuse::Error) -> Error {
    failed("mount FUSE", FUSE_MISSING, io::Error::other(error))
}

fn switch_root(root: &Path) -> Result<(), Error> {
    done("enter the new root", "", rustix::process::chdir(root))?;
    done("make it the root", "", rustix::process::pivot_root(".", "."))?;
    done("leave the old root", "", rustix::mount::unmount(".", UnmountFlags::DETACH))?;
    done("enter /", "", rustix::process::chdir("/"))?;
    done("unshield the root", "", rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE))
}
