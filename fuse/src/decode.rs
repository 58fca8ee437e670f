//! From the kernel's bytes to an [`Operation`]. Pure; short or odd bytes are `Malformed`, never a panic.

use crate::abi::{self, opcode};
use crate::operation::{Forgotten, Header, Operation, SetAttr, SetTime, Timestamp};
use bytes::Bytes;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// The bytes are no request of the kind that they claim to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// What a message is, once its header is read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    /// The handshake.
    Init(abi::InitIn, u32),
    /// A request for the file system.
    Operation(Operation),
    /// An opcode that this crate does not know.
    Unknown,
}

/// The header in front, if there is one.
pub(crate) fn decode_header(message: &[u8]) -> Option<abi::InHeader> {
    abi::InHeader::read_from_prefix(message).ok().map(|(header, _)| header)
}

impl From<abi::InHeader> for Header {
    fn from(raw: abi::InHeader) -> Header {
        Header { unique: raw.unique, nodeid: raw.nodeid, uid: raw.uid, gid: raw.gid, pid: raw.pid }
    }
}

/// True if the kernel expects no reply to this opcode.
pub(crate) fn is_silent(opcode: u32) -> bool {
    matches!(opcode, opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT)
}

/// The arguments behind the header; `body` is all of them and nothing more.
pub(crate) fn decode(header: &abi::InHeader, body: Bytes) -> Result<Decoded, Malformed> {
    let mut body = Body(body);
    if header.opcode == opcode::INIT {
        let init = body.take::<abi::InitIn>()?;
        let flags2 = body.take::<u32>().unwrap_or(0);
        return Ok(Decoded::Init(init, flags2));
    }
    let operation = match namespace(header.opcode, &mut body)? {
        Some(operation) => Some(operation),
        None => match open_files(header.opcode, &mut body)? {
            Some(operation) => Some(operation),
            None => attributes(header, &mut body)?,
        },
    };
    Ok(operation.map_or(Decoded::Unknown, Decoded::Operation))
}

/// Operations on names in a directory.
fn namespace(code: u32, body: &mut Body) -> Result<Option<Operation>, Malformed> {
    Ok(Some(match code {
        opcode::LOOKUP => Operation::Lookup { name: body.name()? },
        opcode::SYMLINK => Operation::SymLink { name: body.name()?, target: body.name()? },
        opcode::MKNOD => {
            let abi::MkNodIn { mode, rdev, umask, .. } = body.take()?;
            Operation::MkNod { name: body.name()?, mode, rdev, umask }
        }
        opcode::MKDIR => {
            let abi::MkDirIn { mode, umask } = body.take()?;
            Operation::MkDir { name: body.name()?, mode, umask }
        }
        opcode::UNLINK => Operation::Unlink { name: body.name()? },
        opcode::RMDIR => Operation::RmDir { name: body.name()? },
        opcode::RENAME => {
            let abi::RenameIn { newdir } = body.take()?;
            Operation::Rename { name: body.name()?, new_parent: newdir, new_name: body.name()?, flags: 0 }
        }
        opcode::RENAME2 => {
            let abi::Rename2In { newdir, flags, .. } = body.take()?;
            Operation::Rename { name: body.name()?, new_parent: newdir, new_name: body.name()?, flags }
        }
        opcode::LINK => {
            let abi::LinkIn { oldnodeid } = body.take()?;
            Operation::Link { existing: oldnodeid, new_name: body.name()? }
        }
        opcode::CREATE => {
            let abi::CreateIn { flags, mode, umask, .. } = body.take()?;
            Operation::Create { name: body.name()?, mode, umask, flags }
        }
        _ => return Ok(None),
    }))
}

/// Operations through an open file or directory.
fn open_files(code: u32, body: &mut Body) -> Result<Option<Operation>, Malformed> {
    Ok(Some(match code {
        opcode::OPEN => Operation::Open { flags: body.take::<abi::OpenIn>()?.flags },
        opcode::OPENDIR => Operation::OpenDir { flags: body.take::<abi::OpenIn>()?.flags },
        opcode::READ => {
            let abi::ReadIn { fh, offset, size, read_flags, lock_owner, flags, .. } = body.take()?;
            Operation::Read { fh, offset, size, flags, lock_owner: when(read_flags & 2 != 0, lock_owner) }
        }
        opcode::READDIR => {
            let abi::ReadIn { fh, offset, size, .. } = body.take()?;
            Operation::ReadDir { fh, offset, size }
        }
        opcode::READDIRPLUS => {
            let abi::ReadIn { fh, offset, size, .. } = body.take()?;
            Operation::ReadDirPlus { fh, offset, size }
        }
        opcode::WRITE => write(body)?,
        opcode::RELEASE => {
            let abi::ReleaseIn { fh, flags, release_flags, lock_owner } = body.take()?;
            Operation::Release { fh, flags, lock_owner: when(release_flags & 3 != 0, lock_owner) }
        }
        opcode::RELEASEDIR => {
            let abi::ReleaseIn { fh, flags, .. } = body.take()?;
            Operation::ReleaseDir { fh, flags }
        }
        opcode::FLUSH => {
            let abi::FlushIn { fh, lock_owner, .. } = body.take()?;
            Operation::Flush { fh, lock_owner }
        }
        opcode::FSYNC => {
            let abi::FsyncIn { fh, fsync_flags, .. } = body.take()?;
            Operation::Fsync { fh, datasync: fsync_flags & 1 != 0 }
        }
        opcode::FSYNCDIR => {
            let abi::FsyncIn { fh, fsync_flags, .. } = body.take()?;
            Operation::FsyncDir { fh, datasync: fsync_flags & 1 != 0 }
        }
        _ => return special(code, body),
    }))
}

/// The rarer operations through an open file.
fn special(code: u32, body: &mut Body) -> Result<Option<Operation>, Malformed> {
    Ok(Some(match code {
        opcode::FALLOCATE => {
            let abi::FallocateIn { fh, offset, length, mode, .. } = body.take()?;
            Operation::Fallocate { fh, offset, length, mode }
        }
        opcode::LSEEK => {
            let abi::LseekIn { fh, offset, whence, .. } = body.take()?;
            Operation::Lseek { fh, offset, whence }
        }
        opcode::COPY_FILE_RANGE => {
            let abi::CopyFileRangeIn { fh_in, off_in, nodeid_out, fh_out, off_out, len, flags } =
                body.take()?;
            let (offset_in, offset_out) = (off_in, off_out);
            Operation::CopyFileRange { fh_in, offset_in, nodeid_out, fh_out, offset_out, length: len, flags }
        }
        opcode::IOCTL => {
            let abi::IoctlIn { fh, flags, cmd, arg, in_size, out_size } = body.take()?;
            let input = body.bytes(in_size)?;
            Operation::Ioctl { fh, flags, command: cmd, argument: arg, input, out_size }
        }
        opcode::POLL => {
            let abi::PollIn { fh, kh, flags, events } = body.take()?;
            Operation::Poll { fh, kh, flags, events }
        }
        opcode::GETLK | opcode::SETLK | opcode::SETLKW => {
            let abi::LkIn { fh, owner, lk, lk_flags, .. } = body.take()?;
            let (lock, flock) = (lk.into(), lk_flags & 1 != 0);
            match code {
                opcode::GETLK => Operation::GetLock { fh, owner, lock, flock },
                _ => Operation::SetLock { fh, owner, lock, flock, wait: code == opcode::SETLKW },
            }
        }
        _ => return Ok(None),
    }))
}

/// Operations on a node itself, and those about requests.
fn attributes(header: &abi::InHeader, body: &mut Body) -> Result<Option<Operation>, Malformed> {
    Ok(Some(match header.opcode {
        opcode::FORGET => {
            let abi::ForgetIn { nlookup } = body.take()?;
            Operation::Forget { forgotten: vec![Forgotten { nodeid: header.nodeid, nlookup }] }
        }
        opcode::BATCH_FORGET => {
            let abi::BatchForgetIn { count, .. } = body.take()?;
            let one = |_| body.take().map(|abi::ForgetOne { nodeid, nlookup }| Forgotten { nodeid, nlookup });
            Operation::Forget { forgotten: (0..count).map(one).collect::<Result<_, _>>()? }
        }
        opcode::GETATTR => {
            let abi::GetAttrIn { getattr_flags, fh, .. } = body.take()?;
            Operation::GetAttr { fh: when(getattr_flags & 1 != 0, fh) }
        }
        opcode::SETATTR => Operation::SetAttr(set_attr(&body.take()?)),
        opcode::READLINK => Operation::ReadLink,
        opcode::STATFS => Operation::StatFs,
        opcode::SETXATTR => {
            let abi::SetXattrIn { size, flags } = body.take()?;
            Operation::SetXattr { name: body.name()?, value: body.bytes(size)?, flags }
        }
        opcode::GETXATTR => {
            let abi::GetXattrIn { size, .. } = body.take()?;
            Operation::GetXattr { name: body.name()?, size }
        }
        opcode::LISTXATTR => Operation::ListXattr { size: body.take::<abi::GetXattrIn>()?.size },
        opcode::REMOVEXATTR => Operation::RemoveXattr { name: body.name()? },
        opcode::ACCESS => Operation::Access { mask: body.take::<abi::AccessIn>()?.mask },
        opcode::INTERRUPT => Operation::Interrupt { unique: body.take::<abi::InterruptIn>()?.unique },
        opcode::DESTROY => Operation::Destroy,
        _ => return Ok(None),
    }))
}

fn write(body: &mut Body) -> Result<Operation, Malformed> {
    let abi::WriteIn { fh, offset, size, write_flags, lock_owner, flags, .. } = body.take()?;
    let data = body.bytes(size)?;
    let lock_owner = when(write_flags & 2 != 0, lock_owner);
    Ok(Operation::Write { fh, offset, data, flags, lock_owner, cached: write_flags & 1 != 0 })
}

fn set_attr(raw: &abi::SetAttrIn) -> SetAttr {
    let has = |bit: u32| raw.valid & (1 << bit) != 0;
    let time = |bit, now_bit, seconds: u64, nanos| {
        let at = SetTime::At(Timestamp { seconds: seconds.cast_signed(), nanos });
        has(bit).then_some(if has(now_bit) { SetTime::Now } else { at })
    };
    SetAttr {
        fh: when(has(6), raw.fh),
        mode: when(has(0), raw.mode),
        uid: when(has(1), raw.uid),
        gid: when(has(2), raw.gid),
        size: when(has(3), raw.size),
        atime: time(4, 7, raw.atime, raw.atimensec),
        mtime: time(5, 8, raw.mtime, raw.mtimensec),
        ctime: when(has(10), Timestamp { seconds: raw.ctime.cast_signed(), nanos: raw.ctimensec }),
    }
}

fn when<T>(is: bool, value: T) -> Option<T> {
    is.then_some(value)
}

/// What is left of a message.
struct Body(Bytes);

impl Body {
    fn take<T: FromBytes + KnownLayout + Immutable>(&mut self) -> Result<T, Malformed> {
        let (value, _) = T::read_from_prefix(&self.0).map_err(|_| Malformed)?;
        let _ = self.0.split_to(size_of::<T>());
        Ok(value)
    }

    /// A name ended by a NUL.
    fn name(&mut self) -> Result<OsString, Malformed> {
        let length = self.0.iter().position(|&byte| byte == 0).ok_or(Malformed)?;
        let name = self.0.split_to(length + 1);
        Ok(OsStr::from_bytes(&name[..length]).to_owned())
    }

    fn bytes(&mut self, size: u32) -> Result<Bytes, Malformed> {
        let size = size as usize;
        if size > self.0.len() { Err(Malformed) } else { Ok(self.0.split_to(size)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    fn header(opcode: u32, nodeid: u64) -> abi::InHeader {
        abi::InHeader { opcode, nodeid, unique: 4, ..Default::default() }
    }

    proptest! {
        #[test]
        fn garbage_is_malformed_or_an_operation(code in 0u32..60, body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&header(code, 1), Bytes::from(body.clone()));
            let _ = decode_header(&body);
        }

        #[test]
        fn cut_requests_are_malformed(keep in 0usize..90) {
            let whole = abi::SetAttrIn::default();
            let cut = Bytes::copy_from_slice(&whole.as_bytes()[..keep.min(87)]);
            prop_assert_eq!(decode(&header(opcode::SETATTR, 1), cut), Err(Malformed));
        }
    }

    #[test]
    fn a_rename_carries_both_names() {
        let mut body = abi::Rename2In { newdir: 7, flags: 1, padding: 0 }.as_bytes().to_vec();
        body.extend_from_slice(b"old\0new\0");
        let Ok(Decoded::Operation(operation)) = decode(&header(opcode::RENAME2, 3), body.into()) else {
            panic!()
        };
        let expected =
            Operation::Rename { name: "old".into(), new_parent: 7, new_name: "new".into(), flags: 1 };
        assert_eq!(operation, expected);
    }

    #[test]
    fn a_huge_forget_count_does_not_allocate() {
        let body = abi::BatchForgetIn { count: u32::MAX, dummy: 0 }.as_bytes().to_vec();
        assert_eq!(decode(&header(opcode::BATCH_FORGET, 0), body.into()), Err(Malformed));
    }

    #[test]
    fn set_times_tell_now_from_a_time() {
        let raw =
            abi::SetAttrIn { valid: 1 << 4 | 1 << 5 | 1 << 8, atime: 5, atimensec: 6, ..Default::default() };
        let set = set_attr(&raw);
        assert_eq!(set.atime, Some(SetTime::At(Timestamp { seconds: 5, nanos: 6 })));
        assert_eq!((set.mtime, set.ctime, set.mode), (Some(SetTime::Now), None, None));
    }
}
