//! A machine without devices.

use fabric::verbs::{Device, Error};

#[test]
fn a_machine_without_rdma_says_what_is_missing_or_lists_nothing() {
    match Device::names() {
        Ok(names) => println!("devices: {names:?}"),
        Err(Error::Unavailable { why }) => {
            println!("unavailable: {why}");
            assert!(why.contains("install rdma-core") || why.contains("ib_uverbs"), "{why}");
        }
        Err(error) => panic!("{error}"),
    }
}
