//! What libibverbs.so.1 lays out in memory: the structures and numbers of its public interface that the fabric uses.
//!
//! Owns: nothing. Written after rdma-core's `infiniband/verbs.h` (BSD licence); the names are the header's.
//! Invariant: sizes and offsets are those of the header, proved by the tests below as numbers. Of what the library
//! allocates itself (`Context`, `Qp`, ...) only the beginning is drawn, and it is only ever used behind a pointer.

use std::ffi::{c_char, c_int, c_void};

/// `ibv_get_device_name` and the like give a name of at most so many bytes, with the final zero.
pub const SYSFS_NAME_MAX: usize = 64;

/// `struct ibv_device`: a device as it is listed.
#[repr(C)]
pub struct DeviceEntry {
    pub _ops: [*mut c_void; 2],
    pub node_type: c_int,
    pub transport_type: c_int,
    pub name: [c_char; SYSFS_NAME_MAX],
    // dev_name, dev_path, ibdev_path
}

/// `struct ibv_context_ops`: what the header's inline functions call.
#[repr(C)]
pub struct ContextOps {
    _compat_head: [*mut c_void; 7],
    _windows: [*mut c_void; 3],
    _compat_create_cq: *mut c_void,
    pub poll_cq: Option<unsafe extern "C" fn(*mut Cq, c_int, *mut Wc) -> c_int>,
    pub req_notify_cq: Option<unsafe extern "C" fn(*mut Cq, c_int) -> c_int>,
    _compat_cq_srq: [*mut c_void; 7],
    pub post_srq_recv: Option<unsafe extern "C" fn(*mut Srq, *mut RecvWr, *mut *mut RecvWr) -> c_int>,
    _compat_qp: [*mut c_void; 4],
    pub post_send: Option<unsafe extern "C" fn(*mut Qp, *mut SendWr, *mut *mut SendWr) -> c_int>,
    pub post_recv: Option<unsafe extern "C" fn(*mut Qp, *mut RecvWr, *mut *mut RecvWr) -> c_int>,
    _compat_tail: [*mut c_void; 5],
}

/// `struct ibv_context`: an open device.
#[repr(C)]
pub struct Context {
    pub device: *mut DeviceEntry,
    pub ops: ContextOps,
    pub cmd_fd: c_int,
    pub async_fd: c_int,
    pub num_comp_vectors: c_int,
    // mutex, abi_compat
}

/// `struct ibv_pd`.
#[repr(C)]
pub struct Pd {
    pub context: *mut Context,
}

/// `struct ibv_mr`.
#[repr(C)]
pub struct Mr {
    pub context: *mut Context,
    pub pd: *mut Pd,
    pub addr: *mut c_void,
    pub length: usize,
    pub handle: u32,
    pub lkey: u32,
    pub rkey: u32,
}

/// `struct ibv_comp_channel`.
#[repr(C)]
pub struct CompChannel {
    pub context: *mut Context,
    pub fd: c_int,
}

/// `struct ibv_cq`.
#[repr(C)]
pub struct Cq {
    pub context: *mut Context,
}

/// `struct ibv_srq`.
#[repr(C)]
pub struct Srq {
    pub context: *mut Context,
}

/// `struct ibv_qp`.
#[repr(C)]
pub struct Qp {
    pub context: *mut Context,
    _parts: [*mut c_void; 5],
    _handle: u32,
    pub qp_num: u32,
}

/// `struct ibv_device_attr`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DeviceAttr {
    _fw_ver: [u8; 64],
    _guids: [u64; 2],
    pub max_mr_size: u64,
    pub page_size_cap: u64,
    _vendor: [u32; 3],
    pub max_qp: c_int,
    pub max_qp_wr: c_int,
    pub device_cap_flags: u32,
    pub max_sge: c_int,
    pub max_sge_rd: c_int,
    pub max_cq: c_int,
    pub max_cqe: c_int,
    pub max_mr: c_int,
    pub max_pd: c_int,
    pub max_qp_rd_atom: c_int,
    _max_rd_atom: [c_int; 2],
    pub max_qp_init_rd_atom: c_int,
    pub max_ee_init_rd_atom: c_int,
    pub atomic_cap: c_int,
    _max_ee: [c_int; 2],
    pub max_mw: c_int,
    /// Raw queue pairs, multicast, address handles, fast regions.
    _max_others: [c_int; 8],
    pub max_srq: c_int,
    pub max_srq_wr: c_int,
    pub max_srq_sge: c_int,
    pub max_pkeys: u16,
    pub local_ca_ack_delay: u8,
    pub phys_port_cnt: u8,
}

pub const ATOMIC_NONE: c_int = 0;
pub const ATOMIC_GLOB: c_int = 2;

/// `struct ibv_port_attr`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PortAttr {
    pub state: u32,
    pub max_mtu: u32,
    pub active_mtu: u32,
    pub gid_tbl_len: c_int,
    pub port_cap_flags: u32,
    pub max_msg_sz: u32,
    _counters: [u32; 2],
    pub pkey_tbl_len: u16,
    pub lid: u16,
    /// Of the subnet manager, virtual lanes, width, speed.
    _subnet: [u8; 10],
    pub link_layer: u8,
    _flags: u8,
    pub port_cap_flags2: u16,
}

pub const PORT_ACTIVE: u32 = 4;
pub const LINK_LAYER_ETHERNET: u8 = 2;

/// `struct ibv_gid_entry`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct GidEntry {
    pub gid: Gid,
    pub gid_index: u32,
    pub port_num: u32,
    pub gid_type: u32,
    pub ndev_ifindex: u32,
}

/// `union ibv_gid`: 16 bytes in network order, aligned like the numbers that the header also sees in them.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Gid(pub [u8; 16]);

pub const GID_TYPE_IB: u32 = 0;
pub const GID_TYPE_ROCE_V1: u32 = 1;
pub const GID_TYPE_ROCE_V2: u32 = 2;

/// `struct ibv_qp_cap`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct QpCap {
    pub max_send_wr: u32,
    pub max_recv_wr: u32,
    pub max_send_sge: u32,
    pub max_recv_sge: u32,
    pub max_inline_data: u32,
}

/// `struct ibv_qp_init_attr`.
#[repr(C)]
pub struct QpInitAttr {
    pub qp_context: *mut c_void,
    pub send_cq: *mut Cq,
    pub recv_cq: *mut Cq,
    pub srq: *mut Srq,
    pub cap: QpCap,
    pub qp_type: c_int,
    pub sq_sig_all: c_int,
}

pub const QPT_RC: c_int = 2;

/// `struct ibv_ah_attr`, with its `struct ibv_global_route` drawn in.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AhAttr {
    pub dgid: Gid,
    pub flow_label: u32,
    pub sgid_index: u8,
    pub hop_limit: u8,
    pub traffic_class: u8,
    pub dlid: u16,
    pub sl: u8,
    pub src_path_bits: u8,
    pub static_rate: u8,
    pub is_global: u8,
    pub port_num: u8,
}

/// `struct ibv_qp_attr`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct QpAttr {
    pub qp_state: u32,
    pub cur_qp_state: u32,
    pub path_mtu: u32,
    pub path_mig_state: u32,
    pub qkey: u32,
    pub rq_psn: u32,
    pub sq_psn: u32,
    pub dest_qp_num: u32,
    pub qp_access_flags: u32,
    pub cap: QpCap,
    pub ah_attr: AhAttr,
    pub alt_ah_attr: AhAttr,
    pub pkey_index: u16,
    pub alt_pkey_index: u16,
    pub en_sqd_async_notify: u8,
    pub sq_draining: u8,
    pub max_rd_atomic: u8,
    pub max_dest_rd_atomic: u8,
    pub min_rnr_timer: u8,
    pub port_num: u8,
    pub timeout: u8,
    pub retry_cnt: u8,
    pub rnr_retry: u8,
    pub alt_port_num: u8,
    pub alt_timeout: u8,
    pub rate_limit: u32,
}

pub const QP_STATE: c_int = 1 << 0;
pub const QP_ACCESS_FLAGS: c_int = 1 << 3;
pub const QP_PKEY_INDEX: c_int = 1 << 4;
pub const QP_PORT: c_int = 1 << 5;
pub const QP_AV: c_int = 1 << 7;
pub const QP_PATH_MTU: c_int = 1 << 8;
pub const QP_TIMEOUT: c_int = 1 << 9;
pub const QP_RETRY_CNT: c_int = 1 << 10;
pub const QP_RNR_RETRY: c_int = 1 << 11;
pub const QP_RQ_PSN: c_int = 1 << 12;
pub const QP_MAX_QP_RD_ATOMIC: c_int = 1 << 13;
pub const QP_MIN_RNR_TIMER: c_int = 1 << 15;
pub const QP_SQ_PSN: c_int = 1 << 16;
pub const QP_MAX_DEST_RD_ATOMIC: c_int = 1 << 17;
pub const QP_DEST_QPN: c_int = 1 << 20;

pub const QPS_RESET: u32 = 0;
pub const QPS_INIT: u32 = 1;
pub const QPS_RTR: u32 = 2;
pub const QPS_RTS: u32 = 3;
pub const QPS_ERR: u32 = 6;

/// `struct ibv_srq_init_attr`.
#[repr(C)]
pub struct SrqInitAttr {
    pub srq_context: *mut c_void,
    pub max_wr: u32,
    pub max_sge: u32,
    pub srq_limit: u32,
}

/// `struct ibv_sge`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sge {
    pub addr: u64,
    pub length: u32,
    pub lkey: u32,
}

/// `struct ibv_send_wr`. Of the first union the largest member, `atomic`; `rdma` is its `remote_addr` and the word
/// after it, so it has a constructor of its own (`Target::rdma`).
#[repr(C)]
pub struct SendWr {
    pub wr_id: u64,
    pub next: *mut SendWr,
    pub sg_list: *mut Sge,
    pub num_sge: c_int,
    pub opcode: u32,
    pub send_flags: u32,
    /// In network byte order.
    pub imm_data: u32,
    pub target: Target,
    pub xrc_srqn: u32,
    pub _bind_mw: [u64; 6],
}

/// `wr` of `struct ibv_send_wr`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Target {
    remote_addr: u64,
    /// `atomic.compare_add`; its lower half is `rdma.rkey` (both by address, so by byte order).
    second: [u32; 2],
    swap: u64,
    rkey: u32,
}

impl Target {
    /// No target: sends have none.
    pub const NONE: Self = Self::rdma(0, 0);

    /// What `wr.rdma` says.
    pub const fn rdma(address: u64, key: u32) -> Self {
        Self { remote_addr: address, second: [key, 0], swap: 0, rkey: 0 }
    }

    /// What `wr.atomic` says.
    pub fn atomic(address: u64, key: u32, compare_add: u64, swap: u64) -> Self {
        let bytes = compare_add.to_ne_bytes();
        let half = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self { remote_addr: address, second: [half(0), half(4)], swap, rkey: key }
    }
}

pub const WR_RDMA_WRITE: u32 = 0;
pub const WR_RDMA_WRITE_WITH_IMM: u32 = 1;
pub const WR_SEND: u32 = 2;
pub const WR_SEND_WITH_IMM: u32 = 3;
pub const WR_RDMA_READ: u32 = 4;
pub const WR_ATOMIC_CMP_AND_SWP: u32 = 5;
pub const WR_ATOMIC_FETCH_AND_ADD: u32 = 6;

pub const SEND_FENCE: u32 = 1 << 0;
pub const SEND_SIGNALED: u32 = 1 << 1;
pub const SEND_INLINE: u32 = 1 << 3;

/// `struct ibv_recv_wr`.
#[repr(C)]
pub struct RecvWr {
    pub wr_id: u64,
    pub next: *mut RecvWr,
    pub sg_list: *mut Sge,
    pub num_sge: c_int,
}

/// `struct ibv_wc`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Wc {
    pub wr_id: u64,
    pub status: u32,
    pub opcode: u32,
    pub vendor_err: u32,
    pub byte_len: u32,
    /// In network byte order.
    pub imm_data: u32,
    pub qp_num: u32,
    pub src_qp: u32,
    pub wc_flags: u32,
    _path: [u16; 3],
}

pub const WC_RECV_RDMA_WITH_IMM: u32 = (1 << 7) + 1;
pub const WC_WITH_IMM: u32 = 1 << 1;

/// `struct ibv_async_event`; `element` holds a pointer or a port's number.
#[repr(C)]
pub struct AsyncEvent {
    pub element: *mut c_void,
    pub event_type: u32,
}

pub const EVENT_CQ_ERR: u32 = 0;
pub const EVENT_QP_FATAL: u32 = 1;
pub const EVENT_QP_REQ_ERR: u32 = 2;
pub const EVENT_QP_ACCESS_ERR: u32 = 3;
pub const EVENT_DEVICE_FATAL: u32 = 8;
pub const EVENT_PORT_ACTIVE: u32 = 9;
pub const EVENT_PORT_ERR: u32 = 10;
pub const EVENT_LID_CHANGE: u32 = 11;
pub const EVENT_SRQ_ERR: u32 = 14;
pub const EVENT_QP_LAST_WQE_REACHED: u32 = 16;
pub const EVENT_GID_CHANGE: u32 = 18;

pub const ACCESS_LOCAL_WRITE: u32 = 1 << 0;
pub const ACCESS_REMOTE_WRITE: u32 = 1 << 1;
pub const ACCESS_REMOTE_READ: u32 = 1 << 2;
pub const ACCESS_REMOTE_ATOMIC: u32 = 1 << 3;

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};

    #[test]
    fn what_we_allocate_has_the_headers_size() {
        let sizes = [
            (size_of::<DeviceAttr>(), 232),
            (size_of::<PortAttr>(), 52),
            (size_of::<GidEntry>(), 32),
            (size_of::<QpInitAttr>(), 64),
            (size_of::<QpAttr>(), 144),
            (size_of::<AhAttr>(), 32),
            (size_of::<SrqInitAttr>(), 24),
            (size_of::<SendWr>(), 128),
            (size_of::<RecvWr>(), 32),
            (size_of::<Sge>(), 16),
            (size_of::<Wc>(), 48),
            (size_of::<AsyncEvent>(), 16),
            (size_of::<ContextOps>(), 256),
        ];
        for (row, (ours, header)) in sizes.into_iter().enumerate() {
            assert_eq!(ours, header, "row {row}");
        }
    }

    #[test]
    fn members_stand_where_the_header_has_them() {
        let ops = offset_of!(Context, ops);
        let offsets = [
            (offset_of!(DeviceEntry, name), 24),
            (offset_of!(DeviceAttr, max_mr_size), 80),
            (offset_of!(DeviceAttr, max_qp), 108),
            (offset_of!(DeviceAttr, device_cap_flags), 116),
            (offset_of!(DeviceAttr, atomic_cap), 164),
            (offset_of!(DeviceAttr, max_srq), 212),
            (offset_of!(DeviceAttr, phys_port_cnt), 227),
            (offset_of!(PortAttr, lid), 34),
            (offset_of!(PortAttr, link_layer), 46),
            (offset_of!(PortAttr, port_cap_flags2), 48),
            (offset_of!(QpInitAttr, cap), 32),
            (offset_of!(QpInitAttr, qp_type), 52),
            (offset_of!(QpAttr, cap), 36),
            (offset_of!(QpAttr, ah_attr), 56),
            (offset_of!(QpAttr, alt_ah_attr), 88),
            (offset_of!(QpAttr, pkey_index), 120),
            (offset_of!(QpAttr, port_num), 129),
            (offset_of!(QpAttr, rate_limit), 136),
            (offset_of!(SendWr, opcode), 28),
            (offset_of!(SendWr, imm_data), 36),
            (offset_of!(SendWr, target), 40),
            (offset_of!(SendWr, xrc_srqn), 72),
            (offset_of!(SendWr, _bind_mw), 80),
            (offset_of!(Wc, imm_data), 24),
            (offset_of!(Wc, wc_flags), 36),
            (offset_of!(AsyncEvent, event_type), 8),
            (ops + offset_of!(ContextOps, poll_cq), 96),
            (ops + offset_of!(ContextOps, req_notify_cq), 104),
            (ops + offset_of!(ContextOps, post_srq_recv), 168),
            (ops + offset_of!(ContextOps, post_send), 208),
            (ops + offset_of!(ContextOps, post_recv), 216),
            (offset_of!(Context, async_fd), 268),
            (offset_of!(Context, num_comp_vectors), 272),
            (offset_of!(Qp, qp_num), 52),
            (offset_of!(Mr, lkey), 36),
            (offset_of!(Mr, rkey), 40),
            (offset_of!(CompChannel, fd), 8),
        ];
        for (row, (ours, header)) in offsets.into_iter().enumerate() {
            assert_eq!(ours, header, "row {row}");
        }
    }

    #[test]
    fn the_two_kinds_of_target_lie_over_each_other() {
        assert_eq!(offset_of!(Target, second), 8, "rdma.rkey, atomic.compare_add");
        assert_eq!(offset_of!(Target, swap), 16);
        assert_eq!(offset_of!(Target, rkey), 24);
        let target = Target::atomic(1, 2, 0x0123_4567_89ab_cdef, 3);
        let both = [target.second[0].to_ne_bytes(), target.second[1].to_ne_bytes()].concat();
        assert_eq!(both, 0x0123_4567_89ab_cdef_u64.to_ne_bytes());
    }
}
