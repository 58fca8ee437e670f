//! Where a link's frames go: into the cores of the remote or guest that the link belongs to.

use crate::frame::{ACCESS_BYTES, Access, Header, Kind, WireError};
use crate::provider::{LinkError, Place, Sink};
use crate::region::{RegionId, Regions};
use crate::session::{Callee, Caller, Completed, LinkId, Start};
use crate::transfer::{Initiator, Target};
use bytes::Bytes;

/// For a link that this end dialled: replies come in.
pub struct Replies<'a> {
    /// The link.
    pub link: LinkId,
    /// The remote's calls.
    pub caller: &'a mut Caller,
    /// The remote's transfers.
    pub initiator: &'a mut Initiator,
    /// Calls that are answered.
    pub completed: &'a mut Vec<Completed>,
    /// Something came.
    pub spoke: &'a mut bool,
    /// The other end says that it closes.
    pub goodbye: &'a mut bool,
}

impl Sink for Replies<'_> {
    fn frame(&mut self, header: Header, body: Bytes) -> Result<(), WireError> {
        *self.spoke = true;
        match header.kind {
            Kind::Reply | Kind::Chunk | Kind::Credit => {
                self.caller.received(self.link, &header, body, self.completed)
            }
            Kind::Done => self.initiator.received(&header),
            Kind::Goodbye => {
                *self.goodbye = true;
                Ok(())
            }
            _ => Err(WireError("a request came from the end that accepted")),
        }
    }

    fn place(&mut self, header: &Header, access: &Access) -> Result<Place, WireError> {
        *self.spoke = true;
        if header.kind != Kind::ReadData {
            return Err(WireError("a write came from the end that accepted"));
        }
        self.initiator.place(self.link, header, access)
    }

    fn placed(&mut self, header: &Header, access: &Access) -> Result<(), WireError> {
        *self.spoke = true;
        {
            self.initiator.placed(self.link, header, access);
            Ok(())
        }
    }

    fn posted(&mut self, work: u64, outcome: Result<(), LinkError>) {
        *self.spoke = true;
        self.initiator.posted(self.link, work, outcome.is_ok());
    }

    fn notified(&mut self, _region: u64) {}
}

/// For a link that the other end dialled: requests come in.
pub struct Requests<'a> {
    /// The link.
    pub link: LinkId,
    /// The guest's calls.
    pub callee: &'a mut Callee,
    /// The guest's transfers.
    pub target: &'a mut Target,
    /// What it may reach.
    pub regions: &'a mut Regions,
    /// Requests to start.
    pub starts: &'a mut Vec<Start>,
    /// Something came.
    pub spoke: &'a mut bool,
    /// The other end says that it closes.
    pub goodbye: &'a mut bool,
}

impl Sink for Requests<'_> {
    fn frame(&mut self, header: Header, body: Bytes) -> Result<(), WireError> {
        *self.spoke = true;
        match header.kind {
            Kind::Request | Kind::Chunk | Kind::Cancel | Kind::Taken => {
                self.callee.received(self.link, &header, body, self.starts)
            }
            Kind::Read | Kind::Write => {
                let bytes =
                    body.first_chunk::<ACCESS_BYTES>().ok_or(WireError("a transfer without its access"))?;
                self.target.received(&header, &Access::decode(bytes)?, self.regions)
            }
            Kind::Goodbye => {
                *self.goodbye = true;
                Ok(())
            }
            _ => Err(WireError("a reply came from the end that dialled")),
        }
    }

    fn place(&mut self, header: &Header, access: &Access) -> Result<Place, WireError> {
        *self.spoke = true;
        if header.kind != Kind::Write {
            return Err(WireError("read data came from the end that dialled"));
        }
        self.target.place(self.link, header, access, self.regions)
    }

    fn placed(&mut self, header: &Header, access: &Access) -> Result<(), WireError> {
        *self.spoke = true;
        self.target.placed(self.link, header, access, self.regions);
        Ok(())
    }

    fn posted(&mut self, _work: u64, _outcome: Result<(), LinkError>) {}

    fn notified(&mut self, region: u64) {
        *self.spoke = true;
        self.regions.notify(RegionId(region));
    }
}
