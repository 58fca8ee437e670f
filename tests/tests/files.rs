//! One filesystem at one path: every node sees the same files at once, and what was fsynced stays.

use ssi_tests::{cluster, kill, wait_until};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn what_one_node_writes_every_node_reads_at_once() {
    let cluster = cluster!(3);
    cluster.ok(1, "head -c 5000000 /dev/urandom > /ssi/data; mkdir /ssi/d; ln /ssi/data /ssi/d/link; ln -s ../data /ssi/d/soft");
    let sums = [1, 2, 3]
        .map(|k| cluster.ok(k, "sha256sum < /ssi/data; sha256sum < /ssi/d/link; sha256sum < /ssi/d/soft"));
    assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
    for round in 0..10 {
        let (writer, reader) = (round % 3 + 1, (round + 1) % 3 + 1);
        cluster.ok(writer, &format!("echo round{round} > /ssi/turn"));
        assert_eq!(cluster.ok(reader, "cat /ssi/turn"), format!("round{round}"));
    }
    cluster.ok(2, "mv /ssi/d /ssi/e; rm /ssi/data");
    assert_eq!(cluster.ok(3, "ls /ssi/e; test -e /ssi/data || echo gone"), "link\nsoft\ngone");
    let nodes = cluster.ok(1, "ssi fs getstripe /ssi/e/link");
    assert!(["node 1", "node 2", "node 3"].iter().all(|node| nodes.contains(node)), "{nodes}");
}

#[test]
fn the_usual_tools_work_on_it() {
    let cluster = cluster!(3);
    for script in [
        "cd /ssi && mkdir -p a/b && t=$(mktemp -d) && cp /etc/passwd $t && cp -a $t/passwd a/b/ && cmp $t/passwd a/b/passwd && rm -r $t && mv a/b a/c && ls -l a/c",
        "cd /ssi && ln a/c/passwd hard && test $(stat -c %h hard) = 2 && ln -s hard soft && cat soft > /dev/null && rm soft hard",
        "cd /ssi && tar cf t.tar a && mkdir x && tar xf t.tar -C x && diff -r a x/a && rm -r x t.tar",
        "cd /ssi && dd if=/dev/zero of=z bs=1M count=3 status=none && truncate -s 1500000 z && test $(stat -c %s z) = 1500000 && rm z",
        "cd /ssi && touch -d 2001-02-03 t && test $(stat -c %Y t) = $(date -d 2001-02-03 +%s) && chmod 640 t && test $(stat -c %a t) = 640 && rm t",
        "cd /ssi && find . -name passwd | grep -q a/c/passwd",
        "mkdir /ssi/repo && cd /ssi/repo && git init -q && echo hi > f && git add f && git -c user.name=n -c user.email=e commit -qm m && git fsck",
        "cd /ssi && printf 'int main(){return 42;}' > m.c && gcc -o m m.c && { ./m; test $? = 42; }",
        "cd /ssi && for i in 1 2 3; do echo $i >> log; done && test $(wc -l < log) = 3",
        "df /ssi | grep -q ssi",
    ] {
        cluster.ok(2, script);
    }
    assert_eq!(cluster.sh(1, "cd /ssi; mkdir q; mkdir q").code, 1);
    assert!(cluster.sh(1, "rmdir /ssi/a").err.contains("not empty"));
    assert!(cluster.sh(1, "cat /ssi/none").err.contains("No such file"));
}

#[test]
fn stripes_can_be_chosen() {
    let cluster = cluster!(3);
    cluster.ok(
        1,
        "mkdir /ssi/one; ssi fs setstripe -c 1 -S 64K /ssi/one; head -c 300000 /dev/zero > /ssi/one/f",
    );
    let layout = cluster.ok(1, "ssi fs getstripe --json /ssi/one/f");
    let layout: serde_json::Value = serde_json::from_str(&layout).unwrap();
    assert_eq!(layout[0]["stripe_size"], 65_536);
    assert_eq!(layout[0]["nodes"].as_array().unwrap().len(), 1);
    assert_eq!(cluster.ok(3, "ssi fs df").lines().count(), 4);
}

#[test]
fn every_fsynced_file_is_whole_after_all_servers_were_killed() {
    let cluster = cluster!(3);
    let write = "for i in $(seq 20); do head -c 2500000 /dev/urandom > /ssi/f$i; sync -d /ssi/f$i; sync /ssi/f$i; done; cd /ssi; sha256sum f*";
    let before = cluster.ok(1, write);
    for k in 1..=3 {
        cluster.process(k, "ssid-data").into_iter().for_each(kill);
    }
    let mut after = String::new();
    wait_until("the files can be read again", PATIENCE, || {
        let ran = cluster.sh(2, "cd /ssi; sha256sum f*");
        after = ran.out.trim_end().to_owned();
        ran.code == 0
    });
    assert_eq!(after, before);
}

#[test]
fn a_program_does_not_notice_that_the_servers_were_restarted() {
    let cluster = cluster!(2);
    let script = "exec 3>/ssi/out; for i in $(seq 300); do echo line$i >&3; stat /ssi/out >/dev/null; done; wc -l < /ssi/out";
    let ran = std::thread::scope(|scope| {
        let run = scope.spawn(|| cluster.sh(1, script));
        wait_until("it writes", PATIENCE, || cluster.sh(2, "test -s /ssi/out").code == 0);
        for k in [1, 2] {
            cluster.process(k, "ssid-data").into_iter().for_each(kill);
        }
        run.join().unwrap()
    });
    assert_eq!((ran.code, ran.out.trim()), (0, "300"), "{}", ran.err);
}

#[test]
fn a_full_object_server_is_told_and_nothing_is_lost() {
    let cluster = cluster!(2, "--ost-mib", "8");
    cluster.ok(1, "head -c 2000000 /dev/urandom > /ssi/kept; sync /ssi/kept");
    let before = cluster.ok(1, "sha256sum < /ssi/kept");
    let full = cluster.sh(1, "dd if=/dev/zero of=/ssi/big bs=64K count=1000 conv=fsync");
    assert_ne!(full.code, 0);
    assert!(full.err.contains("No space left"), "{}", full.err);
    assert_eq!(cluster.ok(2, "sha256sum < /ssi/kept"), before);
    cluster.ok(2, "rm /ssi/big");
    wait_until("the space comes back", PATIENCE, || {
        cluster.sh(1, "head -c 4000000 /dev/zero > /ssi/again && sync /ssi/again").code == 0
    });
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused_and_disturbs_nobody() {
    let cluster = cluster!(2);
    cluster.ok(1, "echo here > /ssi/file");
    let before = ["ssid", "ssid-data"].map(|name| cluster.process(1, name));
    for data in [&[][..], &["--data"]] {
        let mut second = cluster.ssi();
        second.args(["daemon", "--dir"]).arg(cluster.node_dir(1)).args(data);
        let ran = ssi_tests::run(second);
        assert_eq!(ran.code, 1);
        assert!(ran.err.contains("runs already"), "{}", ran.err);
    }
    assert_eq!(cluster.ok(1, "cat /ssi/file"), "here");
    assert_eq!(["ssid", "ssid-data"].map(|name| cluster.process(1, name)), before);
}

#[test]
fn layouts_behind_a_closed_directory_are_not_told() {
    let cluster = cluster!(1);
    cluster.ok(1, "mkdir -m 700 /ssi/closed; touch /ssi/closed/f");
    let other = "setpriv --reuid 1000 --regid 1000 --clear-groups ssi fs getstripe";
    assert!(cluster.sh(1, &format!("{other} /ssi/closed/f")).err.contains("Permission denied"));
    assert!(cluster.sh(1, &format!("{other} /ssi/closed/none")).err.contains("Permission denied"));
    cluster.ok(1, &format!("chmod 711 /ssi/closed; {other} /ssi/closed/f"));
}
