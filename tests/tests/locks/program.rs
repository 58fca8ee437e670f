//! A program that holds locks on a node: a connection to its lock manager, as libdlm's programs have one.

use dlm::client::Connection;
use dlm::client::wire::{Completion, Convert, Lock, Notice, Open, Told, Unlock, What};
use dlm::server::OPEN_SPACE;
use dlm::{Flags, Mode};
use ssi_tests::Cluster;
use std::collections::VecDeque;

pub struct Program {
    connection: Connection,
    /// Heard, and not asked for yet.
    told: VecDeque<Told>,
}

impl Program {
    /// A program on this node.
    pub fn open(cluster: &Cluster, node: u32) -> Program {
        Program::try_open(cluster, node).expect("the node's lock manager answers")
    }

    pub fn try_open(cluster: &Cluster, node: u32) -> Option<Program> {
        let socket = cluster.node_dir(node).join("run/dlm.sock");
        let mut connection = Connection::connect(&socket).ok()?;
        let open = Open { name: OPEN_SPACE.into(), ..Open::default() };
        let tag = connection.calls.next_tag();
        connection.calls.call(tag, What::Open(open)).ok()?;
        Some(Program { connection, told: VecDeque::new() })
    }

    fn call(&mut self, what: What) -> u64 {
        let tag = self.connection.calls.next_tag();
        self.connection.calls.call(tag, what).unwrap();
        tag
    }

    /// Asks for a lock; the answer comes later.
    pub fn ask(&mut self, name: &str, mode: Mode, flags: Flags) -> u64 {
        let (name, mode) = (name.into(), mode as u32);
        self.call(What::Lock(Lock { name, mode, flags: flags.0, ..Lock::default() }))
    }

    pub fn lock(&mut self, name: &str, mode: Mode, flags: Flags) -> Completion {
        let tag = self.ask(name, mode, flags);
        self.end_of(tag)
    }

    /// Another mode, and the value block with it.
    pub fn convert(&mut self, lkid: u32, mode: Mode, value: &[u8]) -> Completion {
        let mut block = value.to_vec();
        block.resize(32, 0);
        let (mode, flags) = (mode as u32, Flags::VALBLK.0);
        let tag = self.call(What::Convert(Convert { lkid, mode, flags, value: block, timeout_ms: 0 }));
        self.end_of(tag)
    }

    pub fn unlock(&mut self, lkid: u32) -> Completion {
        let tag = self.call(What::Unlock(Unlock { lkid, ..Unlock::default() }));
        self.end_of(tag)
    }

    /// The end of a call.
    pub fn end_of(&mut self, tag: u64) -> Completion {
        let is_it = |told: &Told| match told {
            Told::Completion(end) if end.tag == tag => Some(end.clone()),
            _ => None,
        };
        self.hear(is_it)
    }

    /// Which lock is in somebody's way.
    pub fn blocking(&mut self) -> u32 {
        self.hear(|told| match told {
            Told::Blocking(blocking) => Some(blocking.lkid),
            Told::Completion(_) => None,
        })
    }

    fn hear<T>(&mut self, is_it: impl Fn(&Told) -> Option<T>) -> T {
        if let Some(at) = self.told.iter().position(|told| is_it(told).is_some()) {
            return self.told.remove(at).as_ref().and_then(is_it).unwrap();
        }
        loop {
            let notice = self.connection.notices.wait().unwrap();
            let Some(Notice { told: Some(told) }) = notice else { panic!("the lock manager is gone") };
            match is_it(&told) {
                Some(it) => return it,
                None => self.told.push_back(told),
            }
        }
    }

    /// Waits for the end of the lock manager; true if it is said.
    pub fn is_gone(&mut self) -> bool {
        loop {
            match self.connection.notices.wait() {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return true,
            }
        }
    }
}
