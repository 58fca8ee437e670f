//! A queue pair's connection: from being made to being connected, and to its end.
//!
//! Owns: nothing; the states are the device's. Invariant: a pair goes Made, Receiving, Connected, Failed, never back; both
//! ends agree on packet size and on reads under way, because each takes the lesser of its own and the peer's.
#![allow(unsafe_code)]

use super::ffi::{self, AhAttr, Gid, QpAttr, QpInitAttr};
use super::memory::Access;
use super::port::{Mtu, PortAddress, PortStatus};
use super::queue_pair::{PACKET_MASK, QueuePair, QueuePairConfig};
use super::{Atomics, Device, Error};

/// How far a packet may be routed.
const HOPS_MAX: u8 = 64;

/// What the other end must know to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coordinates {
    /// Number of the queue pair.
    pub number: u32,
    /// Number of its first packet.
    pub first_packet: u32,
    /// Address of its port.
    pub gid: [u8; 16],
    /// InfiniBand's local address; 0 on Ethernet.
    pub lid: u16,
    /// The largest packets it takes.
    pub mtu: Mtu,
    /// Reads and atomics that it answers at a time.
    pub reads_served: u8,
}

/// Where a queue pair is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Made, not connected.
    Made,
    /// Receives, but does not send yet.
    Receiving,
    /// Connected.
    Connected,
    /// Failed: all requests are flushed, and there is no way back.
    Failed,
}

impl Coordinates {
    pub(super) fn of(
        number: u32,
        own: &PortAddress,
        port: &PortStatus,
        config: &QueuePairConfig,
        device: &Device,
    ) -> Self {
        Self {
            number,
            first_packet: config.first_packet,
            gid: own.gid,
            lid: port.lid,
            mtu: port.mtu,
            reads_served: config.reads.min(device.limits().reads_served),
        }
    }
}

impl QueuePair {
    /// Connects to the peer's queue pair, which must do the same with this one's coordinates. Requests may be posted as soon as
    /// both have.
    ///
    /// # Errors
    /// `Device` if the peer's address cannot be reached from this port, or the pair is connected already.
    pub fn connect(&self, peer: &Coordinates) -> Result<(), Error> {
        self.begin_receiving(peer)?;
        self.begin_sending(peer)
    }

    /// Ends the connection: every request that is not done completes as `Flushed`, later ones too; the peer notices at its
    /// next request. Take the completions before dropping the pair, or those of received messages (and their slots) are lost.
    ///
    /// # Errors
    /// `Device` if the device is gone.
    pub fn fail(&self) -> Result<(), Error> {
        let attr = QpAttr { qp_state: ffi::QPS_ERR, ..empty_attr() };
        self.modify(attr, ffi::QP_STATE, "end a connection")
    }

    /// Where it is in its life, by the device's own account.
    ///
    /// # Errors
    /// `Device` if the device is gone.
    pub fn state(&self) -> Result<State, Error> {
        let mut attr = empty_attr();
        // SAFETY: pointers and numbers, for which zeros are values.
        let mut init: QpInitAttr = unsafe { std::mem::zeroed() };
        // SAFETY: a live queue pair and structures of the header's sizes.
        let status = unsafe {
            (self.device().library().query_qp)(self.raw.as_ptr(), &mut attr, ffi::QP_STATE, &mut init)
        };
        self.device().outcome(status, "read the state of a queue pair")?;
        Ok(match attr.qp_state {
            ffi::QPS_RESET | ffi::QPS_INIT => State::Made,
            ffi::QPS_RTR => State::Receiving,
            ffi::QPS_RTS => State::Connected,
            _ => State::Failed,
        })
    }

    pub(super) fn initialise(&self) -> Result<(), Error> {
        let atomic = self.device().limits().atomics != Atomics::None;
        let attr = QpAttr {
            qp_state: ffi::QPS_INIT,
            qp_access_flags: Access { atomic, ..Access::READ_WRITE }.flags(),
            port_num: self.own.port,
            ..empty_attr()
        };
        let mask = ffi::QP_STATE | ffi::QP_PKEY_INDEX | ffi::QP_PORT | ffi::QP_ACCESS_FLAGS;
        self.modify(attr, mask, "prepare a queue pair")
    }

    fn begin_receiving(&self, peer: &Coordinates) -> Result<(), Error> {
        let attr = QpAttr {
            qp_state: ffi::QPS_RTR,
            path_mtu: u32::from(self.coordinates.mtu.min(peer.mtu).code()),
            dest_qp_num: peer.number,
            rq_psn: peer.first_packet & PACKET_MASK,
            max_dest_rd_atomic: self.coordinates.reads_served,
            // Code 12: a peer that finds no receive buffer tries again after 0.64 ms.
            min_rnr_timer: 12,
            ah_attr: AhAttr {
                dgid: Gid(peer.gid),
                sgid_index: self.own.index,
                hop_limit: HOPS_MAX,
                dlid: peer.lid,
                is_global: u8::from(self.ethernet),
                port_num: self.own.port,
                ..empty_attr().ah_attr
            },
            ..empty_attr()
        };
        let mask = ffi::QP_STATE
            | ffi::QP_AV
            | ffi::QP_PATH_MTU
            | ffi::QP_DEST_QPN
            | ffi::QP_RQ_PSN
            | ffi::QP_MAX_DEST_RD_ATOMIC
            | ffi::QP_MIN_RNR_TIMER;
        self.modify(attr, mask, "connect a queue pair to its peer's address")
    }

    fn begin_sending(&self, peer: &Coordinates) -> Result<(), Error> {
        let sent = self.config.reads.min(self.device().limits().reads_sent);
        let attr = QpAttr {
            qp_state: ffi::QPS_RTS,
            sq_psn: self.coordinates.first_packet,
            timeout: self.config.timeout_power,
            retry_cnt: self.config.retries,
            rnr_retry: self.config.not_ready_retries,
            max_rd_atomic: sent.min(peer.reads_served),
            ..empty_attr()
        };
        let mask = ffi::QP_STATE
            | ffi::QP_TIMEOUT
            | ffi::QP_RETRY_CNT
            | ffi::QP_RNR_RETRY
            | ffi::QP_SQ_PSN
            | ffi::QP_MAX_QP_RD_ATOMIC;
        self.modify(attr, mask, "let a queue pair send")
    }

    fn modify(&self, mut attr: QpAttr, mask: i32, action: &'static str) -> Result<(), Error> {
        // SAFETY: a live queue pair and a structure of the header's size, of which the masked fields are set.
        let status = unsafe { (self.device().library().modify_qp)(self.raw.as_ptr(), &mut attr, mask) };
        self.device().outcome(status, action)
    }
}

fn empty_attr() -> QpAttr {
    // SAFETY: numbers only, for which zeros are values.
    unsafe { std::mem::zeroed() }
}
