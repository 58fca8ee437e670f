//! Endpoints whose links devices carry.

use crate::ends::{Ends, PRIORITIES, ask, frames, message, over_devices, run};
use crate::world::pattern;
use fabric::Provider;
use std::time::Instant;

#[test]
fn calls_of_every_priority_go_over_devices() {
    run(1, async |Ends { near, .. }: Ends| {
        over_devices(&near).await;
        let before = frames(&near, Provider::Tcp);
        for round in 0..20_u8 {
            for priority in PRIORITIES {
                let asked = message(&[round; 24], vec![round; 40]);
                let begun = Instant::now();
                assert_eq!(ask(&near, priority, asked.clone()).await.unwrap(), asked);
                if round == 19 {
                    println!("64 B at {priority:?}: {:?}", begun.elapsed());
                }
            }
        }
        assert_eq!(frames(&near, Provider::Tcp), before, "nothing went over TCP");
    });
}

#[test]
fn messages_of_every_size_come_whole() {
    run(1, async |Ends { near, .. }: Ends| {
        over_devices(&near).await;
        for length in [0, 1, 63, 200, 2047, 8111, 8160, 8161, 16_300, 100_003, 262_144, 262_145, 4 << 20] {
            for priority in [fabric::Priority::Lock, fabric::Priority::Data] {
                let asked = message(&pattern(length as u64, length.min(5000)), pattern(7, length));
                let answer = ask(&near, priority, asked.clone()).await.unwrap();
                assert!(answer == asked, "{length} bytes at {priority:?}");
            }
        }
    });
}
