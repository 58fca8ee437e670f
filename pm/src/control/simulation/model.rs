//! The models of a task, as `ssi-init` has it and as its client sees it.

use super::WINDOW;
use crate::wire::{Change, Piece, STDIN, STDOUT};

/// A task as the model of `ssi-init` has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) printed: Vec<u8>,
    pub(super) to_print: Vec<u8>,
    pub(super) read: Vec<u8>,
    pub(super) read_end: bool,
    pub(super) sent: usize,
    pub(super) acknowledged: u64,
    pub(super) change: Option<Change>,
}

impl Process {
    /// Prints more if the window allows, ends when all is printed and all input was read.
    pub(super) fn live(&mut self, status: u32) -> bool {
        let room = WINDOW - (self.printed.len() - self.acknowledged.min(self.printed.len() as u64) as usize);
        let take = room.min(self.to_print.len());
        self.printed.extend(self.to_print.drain(..take));
        let over = self.to_print.is_empty() && self.read_end && self.change.is_none();
        if over {
            self.change = Some(Change { wait_status: status, ended: true, ..Change::default() });
        }
        over
    }

    pub(super) fn unsent(&mut self, size: usize) -> Option<Piece> {
        let end = self.to_print.is_empty();
        let whole = self.printed.len() + usize::from(end);
        if self.sent >= whole {
            return None;
        }
        let stop = (self.sent + size).min(self.printed.len());
        let data = self.printed[self.sent.min(stop)..stop].to_vec();
        let piece =
            Piece { stream: STDOUT, offset: self.sent as u64, end: end && stop == self.printed.len(), data };
        self.sent = stop + usize::from(piece.end);
        Some(piece)
    }
}

/// A task as its client sees it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) node: u32,
    pub(super) typed: Vec<u8>,
    pub(super) accepted: u64,
    pub(super) printed: Vec<u8>,
    pub(super) end: bool,
    pub(super) started: bool,
    pub(super) status: Option<u32>,
    pub(super) lost: bool,
    pub(super) forgotten: bool,
}

impl Seen {
    pub(super) fn received(&self) -> u64 {
        self.printed.len() as u64 + u64::from(self.end)
    }

    pub(super) fn input(&self) -> Option<Piece> {
        let whole = self.typed.len() as u64 + 1;
        let data = self.typed.get(self.accepted as usize..).unwrap_or_default().to_vec();
        (self.accepted < whole).then_some(Piece { stream: STDIN, offset: self.accepted, data, end: true })
    }
}
