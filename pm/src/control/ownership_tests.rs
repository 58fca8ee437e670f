//! A session number is no key: what it names belongs to the user that the kernel names beside it.

use super::*;
use crate::wire::client::{self, Hello, Resume, ToDaemon};
use crate::wire::init::{FromInit, Report, TaskState};
use crate::wire::peer::News;
use crate::wire::{Credentials, Started, TaskSpec};
use base::PidRegions;
use membership::{Node, NodeState};

const OWNER: u32 = 1000;
const STRANGER: u32 = 1001;
const NUMBER: u64 = 77;

fn view() -> Event {
    let node = |id| Node { id, state: NodeState::Up as i32, ..Node::default() };
    Event::View(Arc::new(View { epoch: 1, nodes: vec![node(1), node(2)], ..View::default() }))
}

/// Node 1 after a restart; `ssi-init` still has a task of the owner's, which runs on this very node.
fn restarted() -> Core {
    let config = CoreConfig { node: NodeId(1), regions: PidRegions::new(16_384).unwrap(), life: 1 };
    let (mut core, _) = Core::start(config, Time(0));
    core.handle(Time(0), view());
    let started = Started { pid: 16_500, start_time: 9, node: 1 };
    let state = TaskState { started: Some(started), ..TaskState::default() };
    let found = FromInit { task: Some(task(OWNER)), request_id: 0, report: Some(Report::Task(state)) };
    core.handle(Time(0), Event::Init(found));
    let settled = FromInit { task: None, request_id: FENCE, report: Some(Report::Errno(0)) };
    core.handle(Time(0), Event::Init(settled));
    core
}

fn task(uid: u32) -> TaskId {
    TaskId { home: 1, session: NUMBER, index: 0, uid }
}

fn open(core: &mut Core, client: u64, uid: u32) -> Vec<Effect> {
    let hello = Hello { session: NUMBER, again: true };
    let credentials = Credentials { uid, gid: uid, groups: Vec::new() };
    core.handle(Time(0), Event::ClientOpened { client: ClientId(client), hello, credentials, pid: 0 })
}

fn say(core: &mut Core, client: u64, request: client::Request) -> Vec<Effect> {
    let batch = vec![ToDaemon { index: 0, request: Some(request) }];
    core.handle(Time(0), Event::ClientSaid { client: ClientId(client), batch })
}

fn resume(node: u32) -> client::Request {
    client::Request::Resume(Resume { node, ..Resume::default() })
}

fn told(effects: &[Effect]) -> Vec<&client::Event> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Client { message, .. } => message.event.as_ref(),
            _ => None,
        })
        .collect()
}

fn names_the_owners_task(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Init(message) if message.task == Some(task(OWNER))))
}

#[test]
fn a_learnt_session_number_gives_nobody_anothers_task_after_a_restart() {
    let mut core = restarted();
    assert!(open(&mut core, 1, STRANGER).is_empty());
    let effects = say(&mut core, 1, resume(1));
    assert!(!names_the_owners_task(&effects), "{effects:?}");
    assert!(
        matches!(told(&effects)[..], [client::Event::Failed(_) | client::Event::Lost(_)]),
        "the stranger is told that there is no such task: {effects:?}"
    );
    for request in [client::Request::Signal(9), client::Request::Forget(())] {
        let effects = say(&mut core, 1, request);
        assert!(!names_the_owners_task(&effects), "{effects:?}");
    }
    open(&mut core, 2, OWNER);
    let effects = say(&mut core, 2, resume(1));
    assert!(names_the_owners_task(&effects), "the owner has it back: {effects:?}");
    assert!(matches!(told(&effects)[..], [client::Event::Started(_), ..]), "{effects:?}");
}

#[test]
fn two_users_with_one_session_number_do_not_meet() {
    let mut core = restarted();
    open(&mut core, 1, STRANGER);
    open(&mut core, 2, OWNER);
    let spec = TaskSpec { argv: vec![b"id".to_vec()], ..TaskSpec::default() };
    let spawn = |spec| client::Request::Spawn(client::Spawn { node: 1, spec: Some(spec) });
    let effects = say(&mut core, 1, spawn(spec));
    let user = effects.iter().find_map(|effect| match effect {
        Effect::Init(ToInit { task, request: Some(init::Request::Spawn(spec)), .. }) => {
            Some((task.map(|task| task.uid), spec.credentials.as_ref().map(|who| who.uid)))
        }
        _ => None,
    });
    assert_eq!(user, Some((Some(STRANGER), Some(STRANGER))), "{effects:?}");
}

#[test]
fn news_of_anothers_task_reach_nobody_else() {
    let mut core = restarted();
    open(&mut core, 1, STRANGER);
    say(&mut core, 1, resume(1));
    let started = Started { pid: 16_501, start_time: 9, node: 1 };
    core.hear(NodeId(1), task(OWNER), News::Started(started));
    let effects = core.handle(Time(0), Event::Tick);
    assert!(told(&effects).is_empty(), "{effects:?}");
}
