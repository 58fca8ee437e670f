//! Appends to a file, from any node, one after the other: the server of the file's object 0 finds the end and writes
//! there, so that no two appends get the same place and readers see an append after those before it.
//!
//! Before the bytes go anywhere, the place is noted with object 0 (the last [`KEPT_MAX`] appends). A repeated append
//! goes to the place that it was given first, and a later one never goes before the end of a noted one, whether or not
//! the server died in between.

use super::objects::{ObjectName, Objects};
use crate::client::data::{file_size, write_pieces};
use crate::error::Error;
use crate::layout::Layout;
use crate::peers::Peers;
use crate::wire::{Append, ObjectReply, Operation};
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use rustix::io::Errno;
use std::collections::HashMap;
use std::sync::Arc;

/// Appends remembered for each file.
const KEPT_MAX: usize = 4;

/// One append's place in the file.
#[derive(Clone, PartialEq, Message)]
struct Placed {
    #[prost(message, optional, tag = "1")]
    operation: Option<Operation>,
    #[prost(uint64, tag = "2")]
    offset: u64,
    #[prost(uint64, tag = "3")]
    length: u64,
}

/// The last appends to a file, oldest first.
#[derive(Clone, PartialEq, Message)]
struct Kept {
    #[prost(message, repeated, tag = "1")]
    appends: Vec<Placed>,
}

impl Kept {
    fn place_of(&self, operation: &Operation) -> Option<u64> {
        self.appends
            .iter()
            .find(|placed| placed.operation.as_ref() == Some(operation))
            .map(|placed| placed.offset)
    }

    /// No later append begins before this.
    fn end(&self) -> u64 {
        self.appends.iter().map(|placed| placed.offset.saturating_add(placed.length)).max().unwrap_or(0)
    }

    fn note(&mut self, operation: Operation, offset: u64, length: u64) {
        self.appends.retain(|placed| placed.operation != Some(operation));
        self.appends.push(Placed { operation: Some(operation), offset, length });
        let surplus = self.appends.len().saturating_sub(KEPT_MAX);
        self.appends.drain(..surplus);
    }
}

/// The order of appends.
#[derive(Default)]
pub struct Appends {
    /// One lock for each file that is being appended to.
    files: Mutex<HashMap<u64, Arc<tokio::sync::Mutex<()>>>>,
}

impl Appends {
    /// Carries out one append with `bytes`.
    pub async fn append(
        &self,
        objects: &Arc<Objects>,
        peers: &Peers,
        ino: u64,
        append: Append,
        bytes: Bytes,
    ) -> ObjectReply {
        let (Some(operation), Some(layout)) = (append.operation, append.layout.filter(Layout::is_valid))
        else {
            return refused(Errno::INVAL);
        };
        let lock = self.files.lock().entry(ino).or_default().clone();
        let reply = {
            let _turn = lock.lock().await;
            place(objects, peers, ino, operation, &layout, bytes).await.unwrap_or_else(refused)
        };
        let mut files = self.files.lock();
        // The map's and this one: nobody else waits for it.
        if Arc::strong_count(&lock) == 2 {
            files.remove(&ino);
        }
        reply
    }
}

async fn place(
    objects: &Arc<Objects>,
    peers: &Peers,
    ino: u64,
    operation: Operation,
    layout: &Layout,
    bytes: Bytes,
) -> Result<ObjectReply, Errno> {
    let mut kept = load(objects, ino).await?;
    let offset = match kept.place_of(&operation) {
        Some(offset) => offset,
        None => file_size(peers, ino, layout).await.map_err(|error| error.errno())?.max(kept.end()),
    };
    let length = bytes.len() as u64;
    kept.note(operation, offset, length);
    save(objects, ino, &kept).await?;
    let (written, failed) = write_pieces(peers, ino, layout, offset, bytes).await;
    if matches!(failed, Some(Error::Stopped)) {
        // The successor is asked, finds the place noted, and writes all of it.
        return Err(Error::Stopped.errno());
    }
    if written < length {
        kept.note(operation, offset, written);
        save(objects, ino, &kept).await?;
    }
    let errno =
        failed.filter(|_| written == 0).map_or(0, |error| error.errno().raw_os_error().unsigned_abs());
    Ok(ObjectReply { errno, written, offset, ..ObjectReply::default() })
}

async fn load(objects: &Arc<Objects>, ino: u64) -> Result<Kept, Errno> {
    let objects = objects.clone();
    let load = move || objects.appends(ObjectName { ino, stripe: 0 });
    let value = tokio::task::spawn_blocking(load).await.map_err(|_| Errno::IO)??;
    Kept::decode(&value[..]).map_err(|_| Errno::IO)
}

async fn save(objects: &Arc<Objects>, ino: u64, kept: &Kept) -> Result<(), Errno> {
    let (objects, value) = (objects.clone(), kept.encode_to_vec());
    let save = move || objects.set_appends(ObjectName { ino, stripe: 0 }, &value);
    tokio::task::spawn_blocking(save).await.map_err(|_| Errno::IO)?
}

fn refused(errno: Errno) -> ObjectReply {
    ObjectReply { errno: errno.raw_os_error().unsigned_abs(), ..ObjectReply::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noted_append_keeps_its_place_until_four_later_ones() {
        let operation = |sequence| Operation { node: 1, source: 2, sequence };
        let mut kept = Kept::default();
        for sequence in 0..4 {
            kept.note(operation(sequence), sequence * 10, 10);
        }
        assert_eq!(kept.place_of(&operation(0)), Some(0));
        assert_eq!(kept.end(), 40);
        kept.note(operation(4), 40, 10);
        assert_eq!(kept.place_of(&operation(0)), None);
        assert_eq!(kept.place_of(&operation(1)), Some(10));
        kept.note(operation(4), 40, 3);
        assert_eq!(kept.appends.len(), 4);
        assert_eq!(kept.end(), 43);
    }
}
