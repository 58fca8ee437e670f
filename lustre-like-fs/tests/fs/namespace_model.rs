//! The namespace against a model that is too simple to be wrong: trees of maps, one function a verb.

use base::NodeId;
use lustre_like_fs::mds::Namespace;
use lustre_like_fs::mds::store::{Disk, Memory, Store};
use lustre_like_fs::wire::*;
use proptest::prelude::*;
use rustix::io::Errno;
use std::collections::BTreeMap;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

#[derive(Clone, Debug)]
enum Op {
    Make { dir: usize, name: u8, directory: bool },
    Unlink { dir: usize, name: u8 },
    Rmdir { dir: usize, name: u8 },
    Link { node: usize, dir: usize, name: u8 },
    Rename { from: (usize, u8), to: (usize, u8), flags: u32 },
    Open { node: usize, handle: u64 },
    Release { node: usize, handle: u64 },
}

fn ops() -> impl Strategy<Value = Op> {
    let (dir, name) = (0usize..12, 0u8..4);
    prop_oneof![
        4 => (dir.clone(), name.clone(), any::<bool>()).prop_map(|(dir, name, directory)| Op::Make { dir, name, directory }),
        1 => (dir.clone(), name.clone()).prop_map(|(dir, name)| Op::Unlink { dir, name }),
        1 => (dir.clone(), name.clone()).prop_map(|(dir, name)| Op::Rmdir { dir, name }),
        1 => (dir.clone(), dir.clone(), name.clone()).prop_map(|(node, dir, name)| Op::Link { node, dir, name }),
        3 => ((dir.clone(), name.clone()), (dir.clone(), name), 0u32..3).prop_map(|(from, to, flags)| Op::Rename { from, to, flags }),
        1 => (dir.clone(), 0u64..2).prop_map(|(node, handle)| Op::Open { node, handle }),
        1 => (dir, 0u64..2).prop_map(|(node, handle)| Op::Release { node, handle }),
    ]
}

/// A node of the model: a directory has children.
#[derive(Clone, Debug, Default)]
struct Node {
    children: Option<BTreeMap<u8, usize>>,
    names: u32,
    handles: Vec<u64>,
}

/// The model. Node 0 is the root; nodes keep their index when they are gone.
struct Model {
    nodes: Vec<Node>,
}

impl Model {
    fn alive(&self, node: usize) -> bool {
        let at = &self.nodes[node];
        node == 0 || at.names > 0 || !at.handles.is_empty()
    }

    fn children(&self, dir: usize) -> Result<&BTreeMap<u8, usize>, Errno> {
        if !self.alive(dir) {
            return Err(Errno::NOENT);
        }
        self.nodes[dir].children.as_ref().ok_or(Errno::NOTDIR)
    }

    fn insert(&mut self, dir: usize, name: u8, node: usize) {
        self.nodes[dir].children.as_mut().unwrap().insert(name, node);
    }

    fn make(&mut self, dir: usize, name: u8, directory: bool) -> Result<(), Errno> {
        if self.children(dir)?.contains_key(&name) {
            return Err(Errno::EXIST);
        }
        let children = directory.then(BTreeMap::new);
        self.nodes.push(Node { children, names: 1, handles: vec![] });
        let node = self.nodes.len() - 1;
        self.insert(dir, name, node);
        Ok(())
    }

    fn remove(&mut self, dir: usize, name: u8, directory: bool) -> Result<(), Errno> {
        let node = *self.children(dir)?.get(&name).ok_or(Errno::NOENT)?;
        match (&self.nodes[node].children, directory) {
            (Some(_), false) => return Err(Errno::ISDIR),
            (None, true) => return Err(Errno::NOTDIR),
            (Some(children), true) if !children.is_empty() => return Err(Errno::NOTEMPTY),
            _ => {}
        }
        self.nodes[dir].children.as_mut().unwrap().remove(&name);
        self.nodes[node].names -= 1;
        Ok(())
    }

    fn link(&mut self, node: usize, dir: usize, name: u8) -> Result<(), Errno> {
        if !self.alive(node) {
            return Err(Errno::NOENT);
        }
        if self.nodes[node].children.is_some() {
            return Err(Errno::PERM);
        }
        if self.nodes[node].names == 0 {
            return Err(Errno::NOENT);
        }
        if self.children(dir)?.contains_key(&name) {
            return Err(Errno::EXIST);
        }
        self.insert(dir, name, node);
        self.nodes[node].names += 1;
        Ok(())
    }

    /// Whether `dir` is `above` or lies below it.
    fn is_below(&self, dir: usize, above: usize) -> bool {
        dir == above
            || self.nodes[above]
                .children
                .as_ref()
                .is_some_and(|children| children.values().any(|&child| self.is_below(dir, child)))
    }

    fn rename(&mut self, from: (usize, u8), to: (usize, u8), flags: u32) -> Result<(), Errno> {
        self.children(from.0)?;
        self.children(to.0)?;
        let source = *self.children(from.0)?.get(&from.1).ok_or(Errno::NOENT)?;
        let target = self.children(to.0)?.get(&to.1).copied();
        if flags == 1 && target.is_some() {
            return Err(Errno::EXIST);
        }
        if target == Some(source) {
            return Ok(());
        }
        if self.nodes[source].children.is_some() && self.is_below(to.0, source) {
            return Err(Errno::INVAL);
        }
        if flags == 2 {
            let target = target.ok_or(Errno::NOENT)?;
            if self.nodes[target].children.is_some() && self.is_below(from.0, target) {
                return Err(Errno::INVAL);
            }
            self.insert(from.0, from.1, target);
            self.insert(to.0, to.1, source);
            return Ok(());
        }
        if let Some(target) = target {
            match (&self.nodes[source].children, &self.nodes[target].children) {
                (Some(_), None) => return Err(Errno::NOTDIR),
                (None, Some(_)) => return Err(Errno::ISDIR),
                (Some(_), Some(children)) if !children.is_empty() => return Err(Errno::NOTEMPTY),
                _ => {}
            }
            self.nodes[target].names -= 1;
        }
        self.nodes[from.0].children.as_mut().unwrap().remove(&from.1);
        self.insert(to.0, to.1, source);
        Ok(())
    }

    fn open(&mut self, node: usize, handle: u64) -> Result<(), Errno> {
        if !self.alive(node) {
            return Err(Errno::NOENT);
        }
        if self.nodes[node].children.is_none() && !self.nodes[node].handles.contains(&handle) {
            self.nodes[node].handles.push(handle);
        }
        Ok(())
    }

    fn apply(&mut self, op: &Op) -> Result<(), Errno> {
        match *op {
            Op::Make { dir, name, directory } => self.make(dir, name, directory),
            Op::Unlink { dir, name } => self.remove(dir, name, false),
            Op::Rmdir { dir, name } => self.remove(dir, name, true),
            Op::Link { node, dir, name } => self.link(node, dir, name),
            Op::Rename { from, to, flags } => self.rename(from, to, flags),
            Op::Open { node, handle } => self.open(node, handle),
            Op::Release { node, handle } => {
                self.nodes[node].handles.retain(|open| *open != handle);
                Ok(())
            }
        }
    }
}

fn place(parent: u64, name: u8) -> Place {
    Place { parent, name: vec![b'a' + name] }
}

/// The same verb for the server; `inos` are the inode numbers of the model's nodes.
fn verb(op: &Op, inos: &[u64]) -> MetaVerb {
    let handle = |node: usize, handle| Handle { ino: inos[node], node: 1, incarnation: 1, handle };
    match *op {
        Op::Make { dir, name, directory } => {
            let mode = if directory { DIRECTORY | 0o755 } else { REGULAR | 0o644 };
            MetaVerb::Create(Create { place: Some(place(inos[dir], name)), mode, ..Create::default() })
        }
        Op::Unlink { dir, name } => MetaVerb::Unlink(place(inos[dir], name)),
        Op::Rmdir { dir, name } => MetaVerb::Rmdir(place(inos[dir], name)),
        Op::Link { node, dir, name } => {
            MetaVerb::Link(Link { ino: inos[node], to: Some(place(inos[dir], name)) })
        }
        Op::Rename { from, to, flags } => MetaVerb::Rename(Rename {
            from: Some(place(inos[from.0], from.1)),
            to: Some(place(inos[to.0], to.1)),
            flags,
        }),
        Op::Open { node, handle: number } => MetaVerb::Open(handle(node, number)),
        Op::Release { node, handle: number } => MetaVerb::Release(handle(node, number)),
    }
}

/// Node indices beyond those that exist mean one that does.
fn clamp(op: Op, nodes: usize) -> Op {
    let fit = |index: usize| index % nodes;
    match op {
        Op::Make { dir, name, directory } => Op::Make { dir: fit(dir), name, directory },
        Op::Unlink { dir, name } => Op::Unlink { dir: fit(dir), name },
        Op::Rmdir { dir, name } => Op::Rmdir { dir: fit(dir), name },
        Op::Link { node, dir, name } => Op::Link { node: fit(node), dir: fit(dir), name },
        Op::Rename { from, to, flags } => {
            Op::Rename { from: (fit(from.0), from.1), to: (fit(to.0), to.1), flags }
        }
        Op::Open { node, handle } => Op::Open { node: fit(node), handle },
        Op::Release { node, handle } => Op::Release { node: fit(node), handle },
    }
}

fn ask<S: Store>(namespace: &mut Namespace<S>, verb: MetaVerb) -> MetaReply {
    namespace.handle(7, MetaRequest { verb: Some(verb), ..MetaRequest::default() })
}

fn check<S: Store>(namespace: &mut Namespace<S>, model: &Model, inos: &[u64]) {
    let mut alive = 0;
    for (index, node) in model.nodes.iter().enumerate() {
        let reply = ask(namespace, MetaVerb::Getattr(inos[index]));
        if !model.alive(index) {
            assert_eq!(reply.errno, Errno::NOENT.raw_os_error() as u32, "node {index} is gone");
            continue;
        }
        alive += 1;
        let attr = reply.attr.unwrap();
        let Some(children) = &node.children else {
            assert_eq!(attr.nlink, node.names);
            continue;
        };
        let directories = children.values().filter(|&&child| model.nodes[child].children.is_some());
        assert_eq!(attr.nlink, 2 + directories.clone().count() as u32, "nlink of directory {index}");
        let listing = ask(namespace, MetaVerb::Readdir(Readdir { ino: inos[index], after: 0, limit: 100 }));
        let mut names: Vec<(u8, u64)> =
            listing.entries.iter().map(|entry| (entry.name[0] - b'a', entry.ino)).collect();
        names.sort_unstable();
        let expected: Vec<(u8, u64)> = children.iter().map(|(&name, &child)| (name, inos[child])).collect();
        assert_eq!(names, expected, "names in directory {index}");
        for &child in directories {
            let above = ask(namespace, MetaVerb::Getattr(inos[child])).parent;
            assert_eq!(above, inos[index], "the parent of directory {child}");
        }
    }
    assert_eq!(ask(namespace, MetaVerb::Statfs(())).inodes, alive);
}

fn agrees<S: Store>(store: S, ops: Vec<Op>) {
    let mut namespace = Namespace::open(store, 1).unwrap();
    namespace.set_servers(vec![NodeId(1), NodeId(2)]);
    let mut model = Model { nodes: vec![Node { children: Some(BTreeMap::new()), ..Node::default() }] };
    let mut inos = vec![1];
    for op in ops {
        let op = clamp(op, model.nodes.len());
        let expected = model.apply(&op).map_or_else(|errno| errno.raw_os_error() as u32, |()| 0);
        let reply = ask(&mut namespace, verb(&op, &inos));
        assert_eq!(reply.errno, expected, "{op:?}");
        if model.nodes.len() > inos.len() {
            inos.push(reply.attr.unwrap().ino);
        }
    }
    check(&mut namespace, &model, &inos);
    let files = inos.len() as u64 - ask(&mut namespace, MetaVerb::Statfs(())).inodes;
    assert!(namespace.purges(1_000).unwrap().len() as u64 <= files, "only what is gone is destroyed");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn the_namespace_does_what_the_model_does(ops in prop::collection::vec(ops(), 1..60)) {
        agrees(Memory::default(), ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]
    #[test]
    fn so_it_does_on_disk(ops in prop::collection::vec(ops(), 20..60)) {
        let directory = tempfile::tempdir().unwrap();
        agrees(Disk::open(directory.path()).unwrap(), ops);
    }
}

fn create(name: u8) -> MetaVerb {
    MetaVerb::Create(Create { place: Some(place(1, name)), mode: REGULAR, ..Create::default() })
}

#[test]
fn a_change_asked_twice_happens_once_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let operation = Some(Operation { node: 1, source: 5, sequence: 9 });
    let request = MetaRequest { operation, verb: Some(create(0)), ..MetaRequest::default() };
    let open = || {
        let mut namespace = Namespace::open(Disk::open(directory.path()).unwrap(), 1).unwrap();
        namespace.set_servers(vec![NodeId(1)]);
        namespace
    };
    let mut namespace = open();
    let first = namespace.handle(1, request.clone());
    assert_eq!(first.errno, 0);
    assert_eq!(namespace.handle(2, request.clone()), first);
    let unlink = MetaRequest {
        operation: Some(Operation { node: 1, source: 5, sequence: 10 }),
        verb: Some(MetaVerb::Unlink(place(1, 0))),
        ..MetaRequest::default()
    };
    assert_eq!(namespace.handle(3, unlink.clone()).errno, 0);
    drop(namespace);
    let mut namespace = open();
    assert_eq!(namespace.handle(4, unlink).errno, 0, "the repeated unlink is still known");
    assert_eq!(namespace.handle(5, request), first, "and so is the create before it");
    assert_eq!(ask(&mut namespace, MetaVerb::Lookup(place(1, 0))).errno, Errno::NOENT.raw_os_error() as u32);
}

#[test]
fn a_node_that_is_gone_has_nothing_open() {
    let mut namespace = Namespace::open(Memory::default(), 1).unwrap();
    namespace.set_servers(vec![NodeId(1)]);
    let ino = ask(&mut namespace, create(0)).attr.unwrap().ino;
    for (node, incarnation) in [(1, 3), (2, 4)] {
        let handle = Handle { ino, node, incarnation, handle: 8 };
        assert_eq!(ask(&mut namespace, MetaVerb::Open(handle)).errno, 0);
    }
    assert_eq!(ask(&mut namespace, MetaVerb::Unlink(place(1, 0))).errno, 0);
    namespace.drop_lives(2, |node, life| (node, life) == (NodeId(1), 3)).unwrap();
    assert_eq!(ask(&mut namespace, MetaVerb::Getattr(ino)).errno, 0, "node 2 has it open");
    assert_eq!(namespace.purges(10).unwrap(), vec![]);
    namespace.drop_lives(3, |_, _| true).unwrap();
    assert_eq!(ask(&mut namespace, MetaVerb::Getattr(ino)).errno, Errno::NOENT.raw_os_error() as u32);
    assert_eq!(namespace.purges(10).unwrap().len(), 1);
    namespace.postpone(&[ino]);
    assert_eq!(namespace.purges(10).unwrap(), vec![], "its servers are not asked again at once");
    namespace.resume_purges();
    assert_eq!(namespace.purges(10).unwrap().len(), 1);
    namespace.purged(&[ino]).unwrap();
    assert_eq!(namespace.purges(10).unwrap(), vec![]);
}

#[test]
fn a_setgid_directory_hands_down_its_group_and_pattern() {
    let mut namespace = Namespace::open(Memory::default(), 1).unwrap();
    namespace.set_servers(vec![NodeId(1), NodeId(2), NodeId(3)]);
    let make = |parent, name, mode| {
        MetaVerb::Create(Create { place: Some(place(parent, name)), mode, ..Create::default() })
    };
    let top = ask(&mut namespace, make(1, 0, DIRECTORY | 0o755)).attr.unwrap().ino;
    let set = Setattr { ino: top, mode: Some(0o2775), gid: Some(77), ..Setattr::default() };
    assert_eq!(ask(&mut namespace, MetaVerb::Setattr(set)).errno, 0);
    let pattern = lustre_like_fs::Pattern { stripe_size: 65_536, stripe_count: 1, start: 2 };
    let set = SetPattern { ino: top, pattern: Some(pattern) };
    assert_eq!(ask(&mut namespace, MetaVerb::SetPattern(set)).errno, 0);
    let below = ask(&mut namespace, make(top, 1, DIRECTORY | 0o755)).attr.unwrap();
    assert_eq!((below.gid, below.mode), (77, DIRECTORY | 0o2755));
    let file = ask(&mut namespace, make(below.ino, 2, REGULAR | 0o644));
    assert_eq!(file.attr.unwrap().gid, 77);
    assert_eq!(file.layout.unwrap(), lustre_like_fs::Layout { stripe_size: 65_536, osts: vec![2] });
}

#[test]
fn names_that_cannot_be_are_refused() {
    let mut namespace = Namespace::open(Memory::default(), 1).unwrap();
    namespace.set_servers(vec![NodeId(1)]);
    let named = |name: &[u8]| {
        let place = Some(Place { parent: 1, name: name.to_vec() });
        MetaVerb::Create(Create { place, mode: DIRECTORY, ..Create::default() })
    };
    for (name, errno) in [
        (vec![b'x'; 256], Errno::NAMETOOLONG),
        (vec![], Errno::INVAL),
        (b"a/b".to_vec(), Errno::INVAL),
        (b"..".to_vec(), Errno::INVAL),
    ] {
        assert_eq!(ask(&mut namespace, named(&name)).errno, errno.raw_os_error() as u32);
    }
    assert_eq!(ask(&mut namespace, named(&[b'x'; 255])).errno, 0);
    assert_eq!(namespace.handle(1, MetaRequest::default()).errno, Errno::NOSYS.raw_os_error() as u32);
}
