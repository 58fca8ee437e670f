//! What a device reports by itself: ports that go down and come up, things that have failed.
//!
//! Owns: nothing. Invariant: an event is acknowledged before it is handed out, so destroying what it names never waits; it
//! names things by number, so it may outlive them.
#![allow(unsafe_code)]

use super::ffi::{self, AsyncEvent, Qp};
use super::{Device, Error};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// What a device reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    /// A port carries packets (again).
    PortUp {
        /// From 1.
        port: u8,
    },
    /// A port carries no packets.
    PortDown {
        /// From 1.
        port: u8,
    },
    /// The addresses of a port have changed.
    AddressesChanged {
        /// From 1.
        port: u8,
    },
    /// The device is of no more use: close all that is on it.
    Fatal,
    /// A queue pair has failed by itself.
    QueuePairFailed {
        /// Its number.
        queue_pair: u32,
    },
    /// A queue pair that failed takes no more buffers from its shared receive queue: once its completions
    /// are taken, it can be dropped.
    QueuePairDrained {
        /// Its number.
        queue_pair: u32,
    },
    /// A completion queue has overflowed or failed.
    CompletionQueueFailed,
    /// A shared receive queue has failed.
    SharedReceiveQueueFailed,
    /// Something that needs no action; the library's number.
    Other {
        /// `enum ibv_event_type`.
        number: u32,
    },
}

impl Device {
    /// The next event that waits, if any. Does not block: the device's descriptor (`AsFd`) is readable when there is one.
    ///
    /// # Errors
    /// `Device` if the device is gone.
    pub fn next_event(&self) -> Result<Option<DeviceEvent>, Error> {
        let mut raw = AsyncEvent { element: std::ptr::null_mut(), event_type: 0 };
        loop {
            // SAFETY: an open context and a structure of the header's size.
            let status = unsafe { (self.library().next_async_event)(self.context(), &mut raw) };
            if status == 0 {
                break;
            }
            match io::Error::last_os_error().kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => return Ok(None),
                _ => return Err(self.failed("read its events")),
            }
        }
        // SAFETY: just read, not acknowledged.
        let event = unsafe { event_of(&raw) };
        // SAFETY: an event that was read, acknowledged once.
        unsafe { (self.library().ack_async_event)(&mut raw) };
        Ok(Some(event))
    }
}

impl AsFd for Device {
    /// Readable when an event waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event_descriptor()
    }
}

/// # Safety
/// The event has been read and is not acknowledged yet, so that what it names still exists: destroying it waits for the
/// acknowledgement.
unsafe fn event_of(raw: &AsyncEvent) -> DeviceEvent {
    // Of the union with a pointer, a port's number is the first four bytes.
    let bytes = (raw.element.addr() as u64).to_ne_bytes();
    let port = i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let port = u8::try_from(port).unwrap_or(0);
    match raw.event_type {
        ffi::EVENT_PORT_ACTIVE => DeviceEvent::PortUp { port },
        ffi::EVENT_PORT_ERR => DeviceEvent::PortDown { port },
        ffi::EVENT_GID_CHANGE | ffi::EVENT_LID_CHANGE => DeviceEvent::AddressesChanged { port },
        ffi::EVENT_DEVICE_FATAL => DeviceEvent::Fatal,
        ffi::EVENT_CQ_ERR => DeviceEvent::CompletionQueueFailed,
        ffi::EVENT_SRQ_ERR => DeviceEvent::SharedReceiveQueueFailed,
        number @ (ffi::EVENT_QP_FATAL
        | ffi::EVENT_QP_REQ_ERR
        | ffi::EVENT_QP_ACCESS_ERR
        | ffi::EVENT_QP_LAST_WQE_REACHED) => {
            // SAFETY: the caller's promise: the queue pair exists.
            let queue_pair = unsafe { (*raw.element.cast::<Qp>()).qp_num };
            match number {
                ffi::EVENT_QP_LAST_WQE_REACHED => DeviceEvent::QueuePairDrained { queue_pair },
                _ => DeviceEvent::QueuePairFailed { queue_pair },
            }
        }
        number => DeviceEvent::Other { number },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(port: i32, event_type: u32) -> DeviceEvent {
        let mut element = [0; 8];
        element[..4].copy_from_slice(&port.to_ne_bytes());
        // What follows the number in the union is not defined.
        element[4..].fill(0xa5);
        let element = std::ptr::without_provenance_mut(u64::from_ne_bytes(element) as usize);
        // SAFETY: none of these events names anything but a port.
        unsafe { event_of(&AsyncEvent { element, event_type }) }
    }

    #[test]
    fn a_ports_number_is_half_of_the_union() {
        assert_eq!(event(2, ffi::EVENT_PORT_ERR), DeviceEvent::PortDown { port: 2 });
        assert_eq!(event(1, ffi::EVENT_PORT_ACTIVE), DeviceEvent::PortUp { port: 1 });
        assert_eq!(event(3, ffi::EVENT_GID_CHANGE), DeviceEvent::AddressesChanged { port: 3 });
    }

    #[test]
    fn an_event_that_is_not_known_is_no_error() {
        assert_eq!(event(0, 99), DeviceEvent::Other { number: 99 });
        assert_eq!(event(0, ffi::EVENT_DEVICE_FATAL), DeviceEvent::Fatal);
    }
}
