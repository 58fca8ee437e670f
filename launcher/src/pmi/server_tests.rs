//! The PMI-1 server as a pure core: what each line is answered with, and that no line of a rank can harm it.

use super::*;
use proptest::prelude::*;

fn server(ranks: u32) -> Server {
    Server::new(JobId(7), &(0..ranks).map(|rank| NodeId(rank / 2 + 1)).collect::<Vec<_>>())
}

/// The one line that the server answers.
fn ask(server: &mut Server, rank: u32, line: &str) -> String {
    match &server.receive(Time(0), rank, format!("{line}\n").as_bytes())[..] {
        [Output::Reply { rank: to, bytes }] if *to == rank => {
            String::from_utf8_lossy(bytes).trim_end_matches('\n').to_owned()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rank_of_mpich_gets_the_answers_it_expects() {
    let mut server = server(4);
    assert_eq!(server.phase(0), Phase::Fresh);
    let init = ask(&mut server, 0, "cmd=init pmi_version=1 pmi_subversion=1");
    assert_eq!(init, "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0");
    assert_eq!(server.phase(0), Phase::Joined);
    assert_eq!(
        ask(&mut server, 0, "cmd=get_maxes"),
        "cmd=maxes kvsname_max=256 keylen_max=64 vallen_max=1024"
    );
    assert_eq!(ask(&mut server, 0, "cmd=get_appnum"), "cmd=appnum appnum=0");
    assert_eq!(ask(&mut server, 0, "cmd=get_universe_size"), "cmd=universe_size size=4");
    assert_eq!(ask(&mut server, 0, "cmd=get_my_kvsname"), "cmd=my_kvsname kvsname=kvs_7");
    let mapping = ask(&mut server, 0, "cmd=get kvsname=kvs_7 key=PMI_process_mapping");
    assert_eq!(mapping, "cmd=get_result rc=0 msg=success value=(vector,(0,2,2))");
    assert_eq!(ask(&mut server, 0, "cmd=finalize"), "cmd=finalize_ack");
    assert_eq!(server.phase(0), Phase::Finalized);
}

#[test]
fn values_hold_spaces_and_are_read_by_all() {
    let mut server = server(2);
    let put = ask(&mut server, 0, "cmd=put kvsname=kvs_7 key=a value=one two=three ");
    assert_eq!(put, "cmd=put_result rc=0 msg=success");
    let get = ask(&mut server, 1, "cmd=get kvsname=kvs_7 key=a");
    assert_eq!(get, "cmd=get_result rc=0 msg=success value=one two=three ");
    let missing = ask(&mut server, 1, "cmd=get kvsname=kvs_7 key=b");
    assert_eq!(missing, "cmd=get_result rc=-1 msg=key_not_found value=unknown");
}

#[test]
fn puts_beyond_a_limit_are_refused_with_a_reason() {
    let mut server = server(1);
    let long_key = "k".repeat(KEY_BYTES_MAX + 1);
    let long_value = "v".repeat(VALUE_BYTES_MAX + 1);
    for (line, why) in [
        ("cmd=put kvsname=other key=a value=b".to_owned(), "unknown_kvs"),
        (format!("cmd=put kvsname=kvs_7 key={long_key} value=b"), "key_too_long"),
        (format!("cmd=put kvsname=kvs_7 key=a value={long_value}"), "value_too_long"),
        ("cmd=put kvsname=kvs_7 key=PMI_process_mapping value=b".to_owned(), "duplicate_key"),
    ] {
        assert_eq!(ask(&mut server, 0, &line), format!("cmd=put_result rc=-1 msg={why}"));
    }
    for n in 0..PAIRS_PER_RANK_MAX {
        assert!(ask(&mut server, 0, &format!("cmd=put kvsname=kvs_7 key=k{n} value=v")).contains("rc=0"));
    }
    assert!(ask(&mut server, 0, "cmd=put kvsname=kvs_7 key=last value=v").contains("kvs_full"));
}

#[test]
fn the_barrier_opens_for_all_when_the_last_arrives_and_again() {
    let mut server = server(3);
    for _ in 0..2 {
        assert_eq!(server.receive(Time(0), 2, b"cmd=barrier_in\n"), []);
        assert_eq!(server.receive(Time(0), 0, b"cmd=barr"), []);
        assert_eq!(server.receive(Time(0), 0, b"ier_in\n"), []);
        let out = |rank| Output::Reply { rank, bytes: b"cmd=barrier_out\n".to_vec() };
        assert_eq!(server.receive(Time(0), 1, b"cmd=barrier_in\n"), [out(0), out(1), out(2)]);
    }
}

#[test]
fn abort_carries_its_code_and_spawn_is_refused_politely() {
    let mut server = server(2);
    let abort = Output::Abort { rank: 1, code: 3, message: String::new() };
    assert_eq!(server.receive(Time(0), 1, b"cmd=abort exitcode=3\n"), [abort]);
    assert!(matches!(server.receive(Time(0), 1, b"cmd=abort\n")[..], [Output::Abort { code: 1, .. }]));
    assert!(ask(&mut server, 0, "cmd=spawn nprocs=2 execname=a").starts_with("cmd=spawn_result rc=-1"));
    let long = "mcmd=spawn\nnprocs=2\nexecname=a\nendcmd";
    assert!(ask(&mut server, 0, long).starts_with("cmd=spawn_result rc=-1"));
    assert!(ask(&mut server, 0, "cmd=lookup_name service=x").contains("rc=-1"));
    assert!(ask(&mut server, 0, "cmd=publish_name service=x port=p").contains("rc=0"));
    assert!(ask(&mut server, 1, "cmd=lookup_name service=x").ends_with("port=p"));
    assert!(ask(&mut server, 0, "cmd=unpublish_name service=x").contains("rc=0"));
}

#[test]
fn a_rank_that_talks_nonsense_is_named_once() {
    let mut server = server(2);
    let outputs = server.receive(Time(0), 1, b"GET / HTTP/1.0\n");
    assert!(matches!(&outputs[..], [Output::Broken { rank: 1, why }] if why.contains("GET")), "{outputs:?}");
    assert_eq!(server.receive(Time(0), 1, b"cmd=init\n"), []);
    assert!(ask(&mut server, 0, "cmd=init").contains("rc=0"));
    server.receive(Time(0), 0, b"cmd=barrier_in\n");
    assert!(matches!(server.receive(Time(0), 0, b"cmd=barrier_in\n")[..], [Output::Broken { .. }]));
    assert_eq!(server.receive(Time(0), 9, b"cmd=init\n"), []);
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let command = prop::sample::select(vec![
        "init",
        "put",
        "get",
        "barrier_in",
        "abort",
        "finalize",
        "spawn",
        "get_maxes",
        "publish_name",
        "lookup_name",
        "unpublish_name",
        "nonsense",
        "",
    ]);
    let fields = "[a-z =_0-9]{0,40}";
    (command, fields).prop_map(|(command, fields)| format!("cmd={command} {fields}\n").into_bytes())
}

proptest! {
    #[test]
    fn no_bytes_of_any_rank_break_the_server(pieces in prop::collection::vec((0u32..4, prop_oneof![message(), prop::collection::vec(any::<u8>(), 0..200)]), 0..60)) {
        let mut server = server(3);
        for (rank, bytes) in pieces {
            for output in server.receive(Time(0), rank, &bytes) {
                if let Output::Reply { rank, bytes } = output {
                    prop_assert!(rank < 3 && bytes.ends_with(b"\n"));
                }
            }
        }
        prop_assert!(server.pairs.len() <= PAIRS_PER_RANK_MAX * 3 + 1);
    }
}
