//! The functions about the cluster and its nodes.

#![allow(unsafe_code)]

use crate::errno::{guard, of};
use crate::layout::{NodeInfo, NodeNumber, hand_over, size, take_over};
use admin::{Cluster, State};
use libc::{EINVAL, c_char, c_int};
use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::ptr::null_mut;

/// What `clusternode_setinfo` can set.
const CLUSTERNODE_SETSTATE: c_int = 1;

thread_local! {
    /// What `cluster_name` gave in this thread last.
    static NAME: RefCell<CString> = RefCell::default();
}

/// The cluster that the program is in.
pub fn here() -> Result<Cluster, c_int> {
    Cluster::here().map_err(|error| of(&error))
}

/// A node's number as the cluster has it.
fn number(said: NodeNumber) -> Result<u32, c_int> {
    u32::try_from(said).ok().filter(|number| *number > 0).ok_or(EINVAL)
}

/// 1 if the program is in a cluster, otherwise 0.
// SAFETY: nothing else in a program that is linked to us has this name.
#[unsafe(no_mangle)]
pub extern "C" fn cluster_ssiconfig() -> c_int {
    c_int::from(guard(false, || Ok(Cluster::here().is_ok())))
}

/// The cluster's name; null if it cannot be told.
// SAFETY: nothing else in a program that is linked to us has this name.
#[unsafe(no_mangle)]
pub extern "C" fn cluster_name() -> *mut c_char {
    guard(null_mut(), || {
        let name = here()?.name().map_err(|error| of(&error))?;
        let name = CString::new(name).map_err(|_| libc::EPROTO)?;
        NAME.with(|place| {
            *place.borrow_mut() = name;
            // The program is told not to write there.
            Ok(place.borrow().as_ptr().cast_mut())
        })
    })
}

/// The largest number that a node can have.
// SAFETY: nothing else in a program that is linked to us has this name.
#[unsafe(no_mangle)]
pub extern "C" fn cluster_maxnodes() -> c_int {
    guard(-1, || {
        let most = here()?.nodes_max().map_err(|error| of(&error))?;
        Ok(c_int::try_from(most).unwrap_or(c_int::MAX))
    })
}

/// The nodes that are UP, and the transition that made it so. Gives how many they are.
///
/// # Safety
/// As cluster_membership(3): `transid` is null or can be written; `membershiparray` can be written for `arraylength` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cluster_membership(
    transid: *mut u64,
    arraylength: c_int,
    membershiparray: *mut NodeNumber,
) -> c_int {
    guard(-1, || {
        let length = usize::try_from(arraylength).map_err(|_| EINVAL)?;
        if length > 0 && membershiparray.is_null() {
            return Err(EINVAL);
        }
        let membership = here()?.membership().map_err(|error| of(&error))?;
        let numbers = membership.up.iter().map(|id| NodeNumber::from(*id));
        for (at, number) in numbers.chain(std::iter::repeat(0)).take(length).enumerate() {
            // SAFETY: `at` is below `arraylength`, for which the caller's promise holds.
            unsafe { membershiparray.add(at).write(number) };
        }
        if !transid.is_null() {
            // SAFETY: the caller's promise.
            unsafe { transid.write(membership.transition.0) };
        }
        Ok(c_int::try_from(membership.up.len()).unwrap_or(c_int::MAX))
    })
}

/// The number of the node of that name.
///
/// # Safety
/// As cluster_getnodebyname(3): `nodename` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cluster_getnodebyname(nodename: *const c_char) -> NodeNumber {
    guard(-1, || {
        if nodename.is_null() {
            return Err(EINVAL);
        }
        // SAFETY: the caller's promise.
        let name = unsafe { CStr::from_ptr(nodename) }.to_str().map_err(|_| EINVAL)?;
        let number = here()?.find(name).map_err(|error| of(&error))?;
        Ok(NodeNumber::from(number))
    })
}

/// The number of the node on which the program runs.
// SAFETY: nothing else in a program that is linked to us has this name.
#[unsafe(no_mangle)]
pub extern "C" fn clusternode_num() -> NodeNumber {
    guard(-1, || Ok(NodeNumber::from(here()?.number().map_err(|error| of(&error))?)))
}

/// 1 if the node is UP, 0 if it is not.
// SAFETY: nothing else in a program that is linked to us has this name.
#[unsafe(no_mangle)]
pub extern "C" fn clusternode_avail(nodenum: NodeNumber) -> c_int {
    guard(-1, || {
        let node = number(nodenum)?;
        Ok(c_int::from(here()?.is_up(node).map_err(|error| of(&error))?))
    })
}

/// What there is to know of a node.
///
/// # Safety
/// As clusternode_info(3): `nodeinfo` is null, or can be written for `bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clusternode_info(
    nodenum: NodeNumber,
    bytes: c_int,
    nodeinfo: *mut NodeInfo,
) -> c_int {
    guard(-1, || {
        let bytes = size::<NodeInfo>(bytes)?;
        let node = number(nodenum)?;
        if nodeinfo.is_null() {
            return Err(EINVAL);
        }
        let info = here()?.node(node).map_err(|error| of(&error))?;
        // SAFETY: the caller's promise; the size was checked.
        unsafe { hand_over(&NodeInfo::from(&info), nodeinfo, bytes) };
        Ok(0)
    })
}

/// Asks for another state of a node.
///
/// # Safety
/// As clusternode_setinfo(3): `nodeinfo` is null, or can be read for `bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clusternode_setinfo(
    nodenum: NodeNumber,
    action: c_int,
    bytes: c_int,
    nodeinfo: *const NodeInfo,
) -> c_int {
    guard(-1, || {
        size::<NodeInfo>(bytes)?;
        let node = number(nodenum)?;
        if nodeinfo.is_null() || action != CLUSTERNODE_SETSTATE {
            return Err(EINVAL);
        }
        // SAFETY: the caller's promise; the size is at least that of the structure, which is all numbers.
        let wanted = unsafe { take_over(nodeinfo) }.state;
        let wanted = State::try_from(wanted).map_err(|_| EINVAL)?;
        here()?.set_state(node, wanted).map_err(|error| of(&error))?;
        Ok(0)
    })
}
