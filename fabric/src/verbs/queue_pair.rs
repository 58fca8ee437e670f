//! Queue pairs: one reliable connection (RC) to one queue pair of a peer.
//!
//! Owns: the queue pair and the account of its send queue. Invariant: requests are numbered in the order of posting, from 0;
//! at most `depth` of them are posted and not known to be done; a completion of number n, good or bad, says the end of
//! all up to n. Receives come through a shared receive queue.
#![allow(unsafe_code)]

use super::completion::CompletionQueue;
use super::connection::Coordinates;
use super::ffi::{self, Qp, QpCap, QpInitAttr, SendWr, Sge};
use super::memory::ProtectionDomain;
use super::port::PortAddress;
use super::request::Request;
use super::srq::SharedReceiveQueue;
use super::{Device, Error};
use std::io;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;

/// Requests that are handed to the library in one chain.
const CHAIN_MAX: usize = 16;
/// Segments of all requests of a chain, and so of any one.
const CHAIN_SEGMENTS_MAX: usize = 64;
/// Numbers of packets are 24 bits long.
pub(super) const PACKET_MASK: u32 = 0x00ff_ffff;

/// How a queue pair is made.
#[derive(Clone, Copy, Debug)]
pub struct QueuePairConfig {
    /// Requests that can be under way.
    pub depth: u32,
    /// Segments of one request, at most 64.
    pub segments: u32,
    /// Bytes that a request can carry inline; the device may refuse more than it has (see `probe`).
    pub inline: u32,
    /// At least one of so many requests in a row has its completion told, so that the account moves on. At most half of `depth`.
    pub signal_every: u32,
    /// Reads and atomics under way, in each direction; cut down to what both devices have.
    pub reads: u8,
    /// The peer's acknowledgement is waited for 4.096 us times 2 to this power (at most 31), then the packet is sent again.
    pub timeout_power: u8,
    /// So many times, at most 7.
    pub retries: u8,
    /// A peer that has no receive buffer is tried again so many times; 7 is for ever.
    pub not_ready_retries: u8,
    /// The number of the first packet (24 bits), best a random one: it tells this connection's packets from an older one's.
    pub first_packet: u32,
}

impl Default for QueuePairConfig {
    fn default() -> Self {
        Self {
            depth: 128,
            segments: 4,
            inline: 128,
            signal_every: 16,
            reads: 16,
            timeout_power: 14,
            retries: 7,
            not_ready_retries: 7,
            first_packet: 0,
        }
    }
}

/// A queue pair.
pub struct QueuePair {
    pub(super) raw: NonNull<Qp>,
    pub(super) config: QueuePairConfig,
    pub(super) own: PortAddress,
    pub(super) coordinates: Coordinates,
    pub(super) ethernet: bool,
    inline_max: usize,
    /// Requests ever posted.
    posted: u64,
    /// Requests known to be done.
    done: u64,
    /// Requests since the last whose completion will be told.
    quiet: u32,
    domain: Arc<ProtectionDomain>,
    _completions: Arc<CompletionQueue>,
    _receives: Arc<SharedReceiveQueue>,
}

// SAFETY: see `Device`: the library and the operations of a context serve any thread.
unsafe impl Send for QueuePair {}
// SAFETY: as above; what changes the account takes `&mut self`.
unsafe impl Sync for QueuePair {}

impl QueuePair {
    /// A queue pair at one of the device's addresses. Its completions, of both kinds, go to `completions`.
    ///
    /// # Errors
    /// `TooMuch` for what the device cannot, `Device` if there are too many or the port is down.
    pub fn create(
        domain: &Arc<ProtectionDomain>,
        completions: &Arc<CompletionQueue>,
        receives: &Arc<SharedReceiveQueue>,
        own: PortAddress,
        config: QueuePairConfig,
    ) -> Result<Self, Error> {
        let device = domain.device();
        let config = checked(config, device)?;
        let port = device.port(own.port)?;
        let mut attr = init_attr(completions, receives, &config);
        // SAFETY: all of them live, and a structure of the header's size.
        let raw = NonNull::new(unsafe { (device.library().create_qp)(domain.raw(), &mut attr) })
            .ok_or_else(|| device.failed("make a queue pair"))?;
        // SAFETY: the library filled it in and does not change it.
        let number = unsafe { (*raw.as_ptr()).qp_num };
        let pair = Self {
            raw,
            config,
            own,
            coordinates: Coordinates::of(number, &own, &port, &config, device),
            ethernet: port.ethernet,
            inline_max: attr.cap.max_inline_data.min(config.inline) as usize,
            posted: 0,
            done: 0,
            quiet: 0,
            domain: Arc::clone(domain),
            _completions: Arc::clone(completions),
            _receives: Arc::clone(receives),
        };
        pair.initialise()?;
        Ok(pair)
    }

    /// Its number on its device: `Completion::queue_pair`.
    pub fn number(&self) -> u32 {
        self.coordinates.number
    }

    /// What the peer must know to connect to it.
    pub fn coordinates(&self) -> Coordinates {
        self.coordinates
    }

    /// Bytes that a request can carry inline.
    pub fn inline_max(&self) -> usize {
        self.inline_max
    }

    /// Requests that can be posted now.
    pub fn room(&self) -> u32 {
        let under_way = u32::try_from(self.posted - self.done).unwrap_or(u32::MAX);
        self.config.depth.saturating_sub(under_way)
    }

    /// The number that the next request will have.
    pub fn next_sequence(&self) -> u64 {
        self.posted
    }

    /// Takes note of a send completion of this pair: it and all before it are done.
    pub fn completed(&mut self, sequence: u64) {
        if sequence < self.posted {
            self.done = self.done.max(sequence + 1);
        }
    }

    /// Posts requests, all or none, in chains of 16; tells the number of the first. The others follow without a gap.
    ///
    /// # Errors
    /// `Full` or `TooMuch`: none was posted. `Post`: the device took some only (then the pair is of no more use).
    pub fn post(&mut self, requests: &[Request<'_>]) -> Result<u64, Error> {
        if requests.len() > self.room() as usize {
            return Err(Error::Full { capacity: self.config.depth });
        }
        for request in requests {
            request.check(self.config.segments as usize, self.inline_max)?;
        }
        let first = self.posted;
        let mut rest = requests;
        while !rest.is_empty() {
            let (chain, later) = rest.split_at(chain_length(rest));
            self.post_chain(chain).map_err(|source| Error::Post {
                device: self.device().name().to_owned(),
                taken: (self.posted - first) as usize,
                source,
            })?;
            rest = later;
        }
        Ok(first)
    }

    fn post_chain(&mut self, chain: &[Request<'_>]) -> io::Result<()> {
        let Some(post) = self.device().ops().post_send else { return Err(io::ErrorKind::Unsupported.into()) };
        let mut segments = [Sge { addr: 0, length: 0, lkey: 0 }; CHAIN_SEGMENTS_MAX];
        let mut requests = [const { MaybeUninit::<SendWr>::uninit() }; CHAIN_MAX];
        let (first, first_segment) = (requests.as_mut_ptr().cast::<SendWr>(), segments.as_mut_ptr());
        let (mut used, quiet_before) = (0, self.quiet);
        for (place, request) in chain.iter().enumerate() {
            // SAFETY: `chain_length` has counted: requests and segments have room. The arrays are reached through these
            // pointers only from here on.
            unsafe {
                let list = first_segment.add(used);
                let room = std::slice::from_raw_parts_mut(list, request.segments());
                used += request.write_segments(room);
                let signal = self.signals(request);
                first.add(place).write(request.work_request(self.posted + place as u64, list, signal));
                if place > 0 {
                    (*first.add(place - 1)).next = first.add(place);
                }
            }
        }
        let mut refused = std::ptr::null_mut();
        // SAFETY: a live queue pair and a chain that ends; all that the processor reads of it is borrowed by `chain`,
        // all that the device reads later is guarded by its registration.
        let status = unsafe { post(self.raw.as_ptr(), first, &mut refused) };
        if status == 0 {
            self.posted += chain.len() as u64;
            return Ok(());
        }
        let taken = (0..chain.len()).find(|place| refused == first.wrapping_add(*place)).unwrap_or(0);
        self.posted += taken as u64;
        self.quiet = quiet_before;
        Err(io::Error::from_raw_os_error(status.abs()))
    }

    /// Whether this request's completion is told, by its own wish or because it is time.
    fn signals(&mut self, request: &Request<'_>) -> bool {
        self.quiet += 1;
        let signal = request.signalled || self.quiet >= self.config.signal_every;
        if signal {
            self.quiet = 0;
        }
        signal
    }

    pub(super) fn device(&self) -> &Arc<Device> {
        self.domain.device()
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        // SAFETY: destroyed once; the queues it uses are still there.
        let status = unsafe { (self.device().library().destroy_qp)(self.raw.as_ptr()) };
        if let Err(error) = self.device().outcome(status, "destroy a queue pair") {
            tracing::warn!("{error}");
        }
    }
}

/// How many of the requests fit into one chain; at least one does.
fn chain_length(requests: &[Request<'_>]) -> usize {
    let mut segments = 0;
    let fits = requests.iter().take(CHAIN_MAX).take_while(|request| {
        segments += request.segments();
        segments <= CHAIN_SEGMENTS_MAX
    });
    fits.count()
}

fn checked(mut config: QueuePairConfig, device: &Device) -> Result<QueuePairConfig, Error> {
    let limits = device.limits();
    let segments = (limits.segments as usize).min(CHAIN_SEGMENTS_MAX);
    let checks = [
        ("requests of a send queue", config.depth as usize, limits.queue_depth as usize),
        ("segments of a request", config.segments as usize, segments),
        ("power of the acknowledgement's time", usize::from(config.timeout_power), 31),
        ("retries", usize::from(config.retries), 7),
        ("retries of a receiver that is not ready", usize::from(config.not_ready_retries), 7),
    ];
    for (what, value, limit) in checks {
        if value > limit {
            return Err(Error::TooMuch { what, value, limit });
        }
    }
    config.depth = config.depth.max(2);
    config.signal_every = config.signal_every.clamp(1, config.depth / 2);
    config.first_packet &= PACKET_MASK;
    Ok(config)
}

fn init_attr(
    completions: &CompletionQueue,
    receives: &SharedReceiveQueue,
    config: &QueuePairConfig,
) -> QpInitAttr {
    QpInitAttr {
        qp_context: std::ptr::null_mut(),
        send_cq: completions.raw(),
        recv_cq: completions.raw(),
        srq: receives.raw(),
        cap: QpCap {
            max_send_wr: config.depth,
            max_recv_wr: 0,
            max_send_sge: config.segments,
            max_recv_sge: 0,
            max_inline_data: config.inline,
        },
        qp_type: ffi::QPT_RC,
        sq_sig_all: 0,
    }
}
