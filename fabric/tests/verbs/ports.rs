//! Ports: their addresses, and being told when they go down and come up.

use crate::world::{self, rail, rails};
use fabric::verbs::{Device, DeviceEvent, Error, Mtu};
use std::net::IpAddr;
use std::process::Command;

#[test]
fn a_device_is_found_by_its_ip_address() {
    let Some((near, _)) = rails() else { return };
    let ip = near.address.ip().unwrap();
    assert_eq!(near.device.address_of(ip).unwrap(), near.address);
    let IpAddr::V4(v4) = ip else { panic!("the rails are IPv4") };
    let mapped = IpAddr::from(v4.to_ipv6_mapped());
    assert_eq!(near.device.address_of(mapped).unwrap(), near.address, "the same address, written otherwise");
    let nobody = IpAddr::from([192, 0, 2, 1]);
    assert!(matches!(near.device.address_of(nobody), Err(Error::NoAddress { .. })));
}

#[test]
fn a_port_tells_its_state_and_a_port_that_is_not_there_is_an_error() {
    let Some((near, _)) = rails() else { return };
    let port = near.device.port(near.address.port).unwrap();
    assert!(port.active && port.ethernet && port.mtu >= Mtu::LEAST && port.message_length_max > 0);
    assert!(matches!(near.device.port(99), Err(Error::Device { .. })));
    assert!(matches!(Device::open("no-such-device"), Err(Error::Unavailable { .. })));
}

#[test]
fn a_cable_that_is_pulled_and_plugged_in_again_is_told_as_events() {
    // Only where the virtual machine's script has laid a cable that nobody else needs.
    let cable = |state| Command::new("ip").args(["link", "set", "p1b", state]).status();
    if std::env::var_os("SSI_VERBS_VM").is_none() || !cable("up").is_ok_and(|status| status.success()) {
        println!("skipped: no cable to pull");
        return;
    }
    let rail = rail("rxe1b").expect("the device at that cable");
    assert_eq!(rail.device.next_event().unwrap(), None);
    for (state, event) in
        [("down", DeviceEvent::PortDown { port: 1 }), ("up", DeviceEvent::PortUp { port: 1 })]
    {
        assert!(cable(state).unwrap().success());
        loop {
            assert!(world::sleep(&rail.device), "no event after the cable went {state}");
            match rail.device.next_event().unwrap() {
                Some(told) if told == event => break,
                Some(DeviceEvent::AddressesChanged { .. } | DeviceEvent::Other { .. }) | None => {}
                Some(told) => panic!("{told:?} when the cable went {state}"),
            }
        }
        assert_eq!(rail.device.port(1).unwrap().active, state == "up");
    }
}
