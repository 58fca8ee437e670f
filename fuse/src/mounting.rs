//! mount(2) of type "fuse".

use crate::error::Error;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;
use std::ffi::CString;
use std::fmt::Write;
use std::path::Path;

/// How a mount treats its users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// Others than the mounter may use it.
    pub allow_other: bool,
    /// The kernel checks permission bits; otherwise the file system must.
    pub default_permissions: bool,
    /// Bytes of the longest READ; `None`: what INIT agrees on.
    pub max_read: Option<u32>,
    /// Set-user-id bits have no effect.
    pub nosuid: bool,
    /// Device nodes have no effect.
    pub nodev: bool,
    /// Nothing can be executed.
    pub noexec: bool,
}

impl MountOptions {
    fn flags(&self) -> MountFlags {
        let mut flags = MountFlags::empty();
        flags.set(MountFlags::NOSUID, self.nosuid);
        flags.set(MountFlags::NODEV, self.nodev);
        flags.set(MountFlags::NOEXEC, self.noexec);
        flags
    }

    fn data(&self, device: i32, uid: u32, gid: u32) -> String {
        let mut data = format!("fd={device},rootmode=40000,user_id={uid},group_id={gid}");
        if self.allow_other {
            data.push_str(",allow_other");
        }
        if self.default_permissions {
            data.push_str(",default_permissions");
        }
        if let Some(bytes) = self.max_read {
            let _ = write!(data, ",max_read={bytes}");
        }
        data
    }
}

/// Mounts on the directory `target` and returns the descriptor on which the kernel will ask. `fs_name` is what
/// /proc/mounts shows as the source. Does not wait for anybody to answer; the caller must not use the mount before.
/// Works as root and in an unprivileged user namespace that owns the mount namespace (device and mount must come from
/// the same user namespace).
///
/// # Errors
/// [`Error::Device`], [`Error::Mount`].
pub fn mount(target: &Path, fs_name: &str, options: MountOptions) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let device = rustix::fs::open("/dev/fuse", flags, Mode::empty()).map_err(Error::Device)?;
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let failed = |errno| Error::Mount { target: target.to_owned(), errno };
    let data = CString::new(options.data(device.as_raw_fd(), uid, gid))
        .map_err(|_| failed(rustix::io::Errno::INVAL))?;
    rustix::mount::mount(fs_name, target, c"fuse", options.flags(), Some(data.as_c_str())).map_err(failed)?;
    Ok(device)
}
