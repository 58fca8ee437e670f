//! The filter of the view: which system calls are trapped because they name a process of another node.
//!
//! Pure: it makes a BPF program, [`crate::sys::seccomp`] installs it. Every other call is allowed by its number
//! alone, which the kernel finds out once and keeps in a bitmap.
//!
//! ```text
//!  kill(pid > 0), tkill(tid), tgkill(tgid), rt_sigqueueinfo(tgid), rt_tgsigqueueinfo(tgid)
//!  kill(pid < -1)                                   the same question for the group |pid|
//!
//!  id:  0 ........ size ........ home.start .... home.end ........ 4,194,304 ...
//!       |  native  |   trapped   |    native     |     trapped     |  native: the kernel says ESRCH
//! ```
//!
//! Calls of another architecture (i386, x32) are never trapped: they see the node alone.

use base::regions::PID_LIMIT;
use base::{NodeId, PidRegions};

/// One classic BPF instruction (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if a jump's condition holds.
    pub when_true: u8,
    /// Instructions to skip if it does not.
    pub when_false: u8,
    /// Constant operand.
    pub operand: u32,
}

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_GREATER_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const NEGATE: u16 = 0x84; // BPF_ALU | BPF_NEG
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const ALLOW: u32 = 0x7fff_0000;
const NOTIFY: u32 = 0x7fc0_0000;

// struct seccomp_data: nr, arch, instruction pointer, six arguments; the low half of the first argument.
const NR: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARG: u32 = if cfg!(target_endian = "big") { 20 } else { 16 };

#[cfg(target_arch = "x86_64")]
const NATIVE_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE_ARCH: u32 = 0xc000_00b7;
/// On x86_64 numbers from here on belong to x32; no other call is numbered so high.
const X32_BIT: u32 = 0x4000_0000;

/// The calls that name a process, without `kill`, whose argument may also be a group.
const NAMING_CALLS: [libc::c_long; 4] =
    [libc::SYS_tkill, libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo];

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, when_true: 0, when_false: 0, operand: offset }
}

fn jump(code: u16, operand: u32, when_true: u8, when_false: u8) -> Instruction {
    Instruction { code, when_true, when_false, operand }
}

fn give(action: u32) -> Instruction {
    Instruction { code: RETURN, when_true: 0, when_false: 0, operand: action }
}

/// The program for a node whose home region is that of `node`.
pub fn program(regions: PidRegions, node: NodeId) -> Vec<Instruction> {
    let home = regions.home(node);
    let size = regions.node_local().end;
    let [tkill, tgkill, queue, queue_thread] = NAMING_CALLS.map(|nr| nr as u32);
    vec![
        /*  0 */ load(ARCH),
        /*  1 */ jump(JUMP_EQUAL, NATIVE_ARCH, 0, 7),
        /*  2 */ load(NR),
        /*  3 */ jump(JUMP_GREATER_EQUAL, X32_BIT, 5, 0),
        /*  4 */ jump(JUMP_EQUAL, libc::SYS_kill as u32, 5, 0),
        /*  5 */ jump(JUMP_EQUAL, tkill, 8, 0),
        /*  6 */ jump(JUMP_EQUAL, tgkill, 7, 0),
        /*  7 */ jump(JUMP_EQUAL, queue, 6, 0),
        /*  8 */ jump(JUMP_EQUAL, queue_thread, 5, 0),
        /*  9 */ give(ALLOW),
        // kill: a negative number is a group; -1 (everybody) becomes 1, which is node-local.
        /* 10 */
        load(FIRST_ARG),
        /* 11 */ jump(JUMP_GREATER_EQUAL, 1 << 31, 0, 3),
        /* 12 */ Instruction { code: NEGATE, when_true: 0, when_false: 0, operand: 0 },
        /* 13 */ jump(JUMP_GREATER_EQUAL, 0, 1, 1),
        // The other calls name a process, whatever the number is.
        /* 14 */
        load(FIRST_ARG),
        /* 15 */ jump(JUMP_GREATER_EQUAL, PID_LIMIT, 3, 0),
        /* 16 */ jump(JUMP_GREATER_EQUAL, home.end, 3, 0),
        /* 17 */ jump(JUMP_GREATER_EQUAL, home.start, 1, 0),
        /* 18 */ jump(JUMP_GREATER_EQUAL, size, 1, 0),
        /* 19 */ give(ALLOW),
        /* 20 */ give(NOTIFY),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the kernel would do: runs the program on one call.
    fn run(program: &[Instruction], arch: u32, nr: u32, first_arg: u64) -> u32 {
        let (mut pc, mut a) = (0, 0u32);
        loop {
            let i = program[pc];
            pc += 1;
            let holds = match i.code {
                LOAD => {
                    a = match i.operand {
                        NR => nr,
                        ARCH => arch,
                        FIRST_ARG => first_arg as u32,
                        other => panic!("loads at {other}"),
                    };
                    continue;
                }
                NEGATE => {
                    a = a.wrapping_neg();
                    continue;
                }
                RETURN => return i.operand,
                JUMP_EQUAL => a == i.operand,
                JUMP_GREATER_EQUAL => a >= i.operand,
                other => panic!("unknown operation {other:#x}"),
            };
            pc += usize::from(if holds { i.when_true } else { i.when_false });
        }
    }

    const KILL: u32 = libc::SYS_kill as u32;

    fn node_two() -> Vec<Instruction> {
        program(PidRegions::new(16_384).unwrap(), NodeId(2))
    }

    fn is_trapped(nr: u32, target: i32) -> bool {
        run(&node_two(), NATIVE_ARCH, nr, target as i64 as u64) == NOTIFY
    }

    #[test]
    fn kill_traps_exactly_foreign_processes_and_groups() {
        for local in [0, 1, -1, 300, 16_383, 32_768, 49_151, -32_768, -2, 4_194_304, i32::MAX, i32::MIN] {
            assert!(!is_trapped(KILL, local), "{local}");
        }
        for foreign in [16_384, 32_767, 49_152, 4_194_303, -16_384, -49_152] {
            assert!(is_trapped(KILL, foreign), "{foreign}");
        }
    }

    #[test]
    fn the_other_calls_trap_foreign_processes_only() {
        for nr in NAMING_CALLS.map(|nr| nr as u32) {
            assert!(is_trapped(nr, 16_384) && is_trapped(nr, 60_000));
            assert!(!is_trapped(nr, 33_000) && !is_trapped(nr, -16_384) && !is_trapped(nr, 5));
        }
    }

    #[test]
    fn foreign_architectures_and_x32_are_left_alone() {
        assert_eq!(run(&node_two(), 0x4000_0003, 37, 16_384), ALLOW);
        assert_eq!(run(&node_two(), NATIVE_ARCH, KILL | X32_BIT, 16_384), ALLOW);
    }

    proptest! {
        #[test]
        fn a_process_is_local_or_trapped_by_its_number(pid in 1i32..5_000_000, node in 1u32..256) {
            let regions = PidRegions::new(16_384).unwrap();
            let program = program(regions, NodeId(node));
            let origin = regions.origin(base::Pid(pid as u32));
            let foreign = origin.is_some_and(|origin| origin != NodeId(node)) && (pid as u32) < PID_LIMIT;
            for target in [pid, -pid] {
                let verdict = run(&program, NATIVE_ARCH, KILL, target as i64 as u64);
                prop_assert_eq!(verdict == NOTIFY, foreign);
            }
        }

        #[test]
        fn every_other_call_is_allowed(nr in 0u32..1_000, arg: u64) {
            prop_assume!(nr != KILL && !NAMING_CALLS.contains(&i64::from(nr)));
            prop_assert_eq!(run(&node_two(), NATIVE_ARCH, nr, arg), ALLOW);
        }
    }
}
