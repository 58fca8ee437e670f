//! What `ssi fs` asks: layouts by path, room on the servers.

use super::Client;
use crate::error::Error;
use crate::layout::{Layout, Pattern};
use crate::mds::record::{DIRECTORY, KIND_MASK, REGULAR, ROOT};
use crate::wire::{Attr, Create, MetaReply, MetaVerb, Place, SetPattern, Space};
use base::NodeId;
use futures_util::future::join_all;
use rustix::io::Errno;

/// How something is striped.
#[derive(Clone, Debug, PartialEq)]
pub enum Striping {
    /// A regular file's layout.
    File(Layout),
    /// What a directory hands to new files; `None`: the default.
    Directory(Option<Pattern>),
}

/// Room on one object server.
#[derive(Debug)]
pub struct ServerSpace {
    /// The server's node.
    pub node: NodeId,
    /// Its room, or why it is not known.
    pub space: Result<Space, Error>,
}

/// The filesystem's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Room on all object servers that answer, together.
    pub space: Space,
    /// Inodes in use.
    pub inodes: u64,
}

impl Client {
    /// The inode at `path` (below the root of the filesystem; symbolic links are not followed), for the user `uid` with
    /// group `gid`, who must be allowed to search every directory on the way.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, EACCES; what the server says, or that it does not.
    pub async fn resolve(&self, path: &str, uid: u32, gid: u32) -> Result<MetaReply, Error> {
        let mut reply = self.ask(MetaVerb::Getattr(ROOT)).await?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let above = reply.attr.ok_or(Errno::IO)?;
            if above.mode & KIND_MASK == DIRECTORY && !may(SEARCH, &above, uid, gid) {
                return Err(Errno::ACCESS.into());
            }
            let place = Place { parent: above.ino, name: name.as_bytes().to_vec() };
            reply = self.ask(MetaVerb::Lookup(place)).await?;
        }
        Ok(reply)
    }

    /// How the file or directory at `path` is striped, for a user who may search the directories above it.
    ///
    /// # Errors
    /// As [`Client::resolve`]; EINVAL if it is neither.
    pub async fn getstripe(&self, path: &str, uid: u32, gid: u32) -> Result<Striping, Error> {
        let reply = self.resolve(path, uid, gid).await?;
        match (reply.layout, reply.attr) {
            (Some(layout), _) => Ok(Striping::File(layout)),
            (None, Some(attr)) if attr.mode & KIND_MASK == DIRECTORY => {
                Ok(Striping::Directory(reply.pattern))
            }
            _ => Err(Errno::INVAL.into()),
        }
    }

    /// On a directory: files made in it from now on are striped like this. On a path that does not exist: makes an empty
    /// file that is. For the user `uid` with group `gid`, whose rights are checked.
    ///
    /// # Errors
    /// EEXIST for a file (its layout never changes), EACCES, EPERM, EINVAL for a pattern that cannot be.
    pub async fn setstripe(&self, path: &str, pattern: Pattern, uid: u32, gid: u32) -> Result<(), Error> {
        match self.resolve(path, uid, gid).await {
            Ok(reply) => {
                let attr = reply.attr.ok_or(Errno::IO)?;
                if attr.mode & KIND_MASK != DIRECTORY {
                    return Err(Errno::EXIST.into());
                }
                let set = SetPattern { ino: attr.ino, pattern: Some(pattern) };
                self.change(self.caller(uid, gid), MetaVerb::SetPattern(set)).await.map(|_| ())
            }
            Err(Error::Errno(Errno::NOENT)) => self.create_striped(path, pattern, uid, gid).await,
            Err(error) => Err(error),
        }
    }

    async fn create_striped(&self, path: &str, pattern: Pattern, uid: u32, gid: u32) -> Result<(), Error> {
        let path = path.trim_end_matches('/');
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.resolve(above, uid, gid).await?.attr.ok_or(Errno::IO)?;
        if !may(WRITE | SEARCH, &parent, uid, gid) {
            return Err(Errno::ACCESS.into());
        }
        let place = Some(Place { parent: parent.ino, name: name.as_bytes().to_vec() });
        let create = Create { place, mode: REGULAR | 0o644, pattern: Some(pattern), ..Create::default() };
        self.change(self.caller(uid, gid), MetaVerb::Create(create)).await.map(|_| ())
    }

    /// Room on each object server in the cluster, by node, DOWN ones included.
    pub async fn df(&self) -> Vec<ServerSpace> {
        let view = self.peers.view();
        let mut nodes: Vec<NodeId> = view.nodes.iter().map(|node| node.node_id()).collect();
        nodes.sort_unstable();
        join_all(
            nodes.into_iter().map(|node| async move { ServerSpace { node, space: self.space(node).await } }),
        )
        .await
    }

    /// Room and inodes of the whole filesystem, as far as its servers answer.
    ///
    /// # Errors
    /// What the metadata server says, or that it does not.
    pub async fn statfs(&self) -> Result<Figures, Error> {
        let servers = self.peers.servers();
        let spaces = join_all(servers.into_iter().map(|node| self.space(node)));
        let (spaces, inodes) = tokio::join!(spaces, self.ask(MetaVerb::Statfs(())));
        let mut figures = Figures { inodes: inodes?.inodes, ..Figures::default() };
        for space in spaces.into_iter().flatten() {
            figures.space.total += space.total;
            figures.space.free += space.free;
            figures.space.available += space.available;
        }
        Ok(figures)
    }
}

/// Permission bits of a directory: names may be made in it, looked up in it.
const WRITE: u32 = 0o2;
const SEARCH: u32 = 0o1;

/// Whether a user may do `what` in a directory, by its permission bits and the user's first group alone: further groups are
/// not known here.
fn may(what: u32, directory: &Attr, uid: u32, gid: u32) -> bool {
    let shift = match (directory.uid == uid, directory.gid == gid) {
        (true, _) => 6,
        (false, true) => 3,
        (false, false) => 0,
    };
    uid == 0 || directory.mode >> shift & what == what
}
