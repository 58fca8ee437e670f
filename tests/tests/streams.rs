//! Bytes in and out of commands elsewhere: all of them, and a failure where some are lost.

use ssi_tests::{cluster, run};
use std::process::Stdio;

#[test]
fn input_of_many_windows_arrives_whole() {
    let cluster = cluster!(2);
    let file = cluster.dir.join("big");
    let bytes: Vec<u8> = (0..8u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&file, &bytes).unwrap();
    for command in [&["onnode", "2", "cksum"][..], &["ssirun", "-n", "1", "-hosts", "node2", "cksum"]] {
        let mut ssi = cluster.command(1, command);
        ssi.stdin(Stdio::from(std::fs::File::open(&file).unwrap()));
        let there = run(ssi);
        let mut here = std::process::Command::new("cksum");
        here.stdin(Stdio::from(std::fs::File::open(&file).unwrap()));
        assert_eq!((there.code, there.out), (0, run(here).out), "{command:?}: {}", there.err);
    }
}

#[test]
fn a_pipeline_over_three_nodes_is_one_pipeline() {
    let cluster = cluster!(3);
    let there = cluster.ok(1, "onnode 2 seq 1 200000 | onnode 3 md5sum");
    assert_eq!(there, cluster.ok(1, "seq 1 200000 | md5sum"));
}

#[test]
fn a_command_whose_output_cannot_be_written_has_failed() {
    let cluster = cluster!(2);
    let full = cluster.sh(1, "onnode 2 echo lost > /dev/full");
    assert_eq!(full.code, 1);
    assert!(full.err.contains("No space left"), "{}", full.err);
}

#[test]
fn what_sigqueue_sends_along_arrives_on_another_node() {
    let cluster = cluster!(2);
    if cluster.sh(1, "python3 --version").code != 0 {
        println!("skipped: no python3");
        return;
    }
    let script = r#"
cat > /tmp/ssi-wait.$$ <<'P'
import ctypes, signal, os
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print(os.getpid(), flush=True)
info = (ctypes.c_int * 32)()
mask = (ctypes.c_ulong * 16)(1 << (signal.SIGUSR1 - 1))
ctypes.CDLL(None).sigwaitinfo(mask, info)
print("value", info[6])
P
exec 3< <(onnode 2 python3 /tmp/ssi-wait.$$)
read -u 3 pid
python3 -c "import ctypes; print(ctypes.CDLL(None).sigqueue($pid, 10, ctypes.c_void_p(1234)))"
read -u 3 value; echo $value; rm /tmp/ssi-wait.$$
"#;
    assert_eq!(cluster.ok(1, script), "0\nvalue 1234");
}
