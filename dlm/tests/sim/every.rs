//! Every interleaving of a small scene: three production nodes, one resource, users who convert, one node that dies at any moment.
//!
//! A state is the three nodes, what is on its way (in order between each two), what each user has been told. From each state every
//! event that may be next is tried; states are told apart by a fingerprint of all that is in them. (stateright wants states that are `Hash`
//! and `Eq`; the core is neither, and need not be.)
//!
//! What a dead node has said arrives, or does not: whatever has not arrived at a survivor before the view in which that node is dead is lost
//! there.
//!
//! Invariant: no state is left out, but by equal fingerprints of 128 bits.

mod acts;

use crate::node::fingerprint::fingerprint_of;
use crate::node::{Config, Effect, Event, Member, MemberState, Remaster};
use crate::{
    Convert, Effect as Told, Envelope, Event as UserEvent, Flags, Key, LockId, Lockspace, Mode, Name, Node,
    Owner, Request, Scope, Transaction, Unlock,
};
use acts::{LONG_SCENES, SCENES};
use base::{Epoch, Incarnation, NodeId, Time};
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// What a user does in turn: the mode that it wants next; `None`: it unlocks.
type Script = &'static [Option<Mode>];

/// A scene.
#[derive(Clone, Copy)]
struct Scene {
    name: &'static str,
    master: usize,
    directory: usize,
    /// What has been done before, and what is done in any order, by the one user of each node.
    before: [Script; 3],
    then: [Script; 3],
    dies: usize,
}

#[derive(Clone)]
struct Actor {
    node: Rc<Node>,
    fingerprint: u128,
    script: Script,
    waits: bool,
    lock: Option<LockId>,
    mode: Option<Mode>,
    /// What it may rely on: while it converts, what both modes allow.
    relies_on: Option<Mode>,
    wanted: Option<Mode>,
    tag: u64,
    /// The last view that it was shown.
    view: u64,
}

/// Messages on their way, each with its number.
type Way = VecDeque<(Rc<Envelope>, u128)>;

#[derive(Clone)]
struct World {
    actors: [Actor; 3],
    /// From, to.
    ways: [[Way; 3]; 3],
    dead: Option<usize>,
    tokens: [u64; 6],
}

/// What may happen next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Acts(usize),
    Arrives(usize, usize),
    View(usize),
    Dies,
}

fn id(node: usize) -> NodeId {
    NodeId(node as u32 + 1)
}

impl World {
    fn new(scene: &Scene) -> (World, Key) {
        let actor = |node: usize| {
            let config = Config {
                node: id(node),
                life: Incarnation(1),
                table: crate::Config::default(),
                tokens_idle_max: 4,
                trees_idle_max: 4,
                guarded: BTreeSet::new(),
                lease: Duration::from_secs(1),
                remaster: Remaster::default(),
            };
            let node = Rc::new(Node::new(config).unwrap());
            let (script, relies_on, wanted): (Script, _, _) = (&[], None, None);
            Actor {
                node,
                fingerprint: 0,
                script,
                waits: false,
                lock: None,
                mode: None,
                relies_on,
                wanted,
                tag: 0,
                view: 0,
            }
        };
        let actors = [actor(0), actor(1), actor(2)];
        let mut world = World { actors, ways: Default::default(), dead: None, tokens: [0; 6] };
        (0..3).for_each(|node| world.view(node).unwrap());
        let key = world.key(scene.directory);
        world.settle(&key);
        // The master first.
        for node in [scene.master, 0, 1, 2] {
            if world.actors[node].tag > 0 {
                continue;
            }
            for wish in scene.before[node] {
                world.act(node, *wish, &key).unwrap();
                world.settle(&key);
            }
        }
        assert!(world.actors[scene.master].node.mastered().any(|tree| tree == key), "{}", scene.name);
        (0..3).for_each(|node| world.actors[node].script = scene.then[node]);
        (world, key)
    }

    fn key(&self, directory: usize) -> Key {
        let name = |number: u64| Name::new(format!("r{number}").as_bytes()).unwrap();
        let keys = (0..).map(|number| Key::new(Lockspace(1), name(number)));
        keys.into_iter().find(|key| self.actors[0].node.directory_of(key) == Some(id(directory))).unwrap()
    }

    fn settle(&mut self, key: &Key) {
        while let Some(step) =
            self.steps(usize::MAX).into_iter().find(|step| matches!(step, Step::Arrives(..)))
        {
            self.apply(step, key, usize::MAX).unwrap();
        }
    }

    /// All that may happen next; `dies`: who may die.
    fn steps(&self, dies: usize) -> Vec<Step> {
        let mut steps = Vec::new();
        for node in (0..3).filter(|node| self.dead != Some(*node)) {
            if !self.actors[node].script.is_empty() && !self.actors[node].waits {
                steps.push(Step::Acts(node));
            }
            if self.dead.is_some() && self.actors[node].view == 1 {
                steps.push(Step::View(node));
            }
            for from in 0..3 {
                if !self.ways[from][node].is_empty() {
                    steps.push(Step::Arrives(from, node));
                }
            }
        }
        if self.dead.is_none() && dies < 3 {
            steps.push(Step::Dies);
        }
        steps
    }

    fn apply(&mut self, step: Step, key: &Key, dies: usize) -> Result<(), String> {
        match step {
            Step::Acts(node) => {
                let wish = self.actors[node].script[0];
                self.actors[node].script = &self.actors[node].script[1..];
                self.act(node, wish, key)
            }
            Step::Arrives(from, to) => {
                let Some((envelope, _)) = self.ways[from][to].pop_front() else { return Ok(()) };
                self.show(to, Event::Message(Rc::unwrap_or_clone(envelope)))
            }
            Step::View(node) => self.view(node),
            Step::Dies => {
                self.dead = Some(dies);
                (0..3).for_each(|from| self.ways[from][dies].clear());
                Ok(())
            }
        }
    }

    fn view(&mut self, node: usize) -> Result<(), String> {
        let member = |other: usize| {
            let is_dead = self.dead == Some(other);
            let state = if is_dead { MemberState::Fenced } else { MemberState::Alive };
            Member { node: id(other), life: Incarnation(1), state }
        };
        let members = (0..3).map(member).collect();
        self.actors[node].view += 1;
        if let Some(dead) = self.dead {
            self.ways[dead][node].clear();
        }
        let epoch = Epoch(self.actors[node].view);
        self.show(node, Event::View { epoch, members })
    }

    fn act(&mut self, node: usize, wish: Option<Mode>, key: &Key) -> Result<(), String> {
        let actor = &mut self.actors[node];
        actor.tag += 1;
        (actor.waits, actor.wanted) = (true, wish);
        let (tag, owner) = (actor.tag, Owner { node: id(node), holder: 1 });
        let (scope, flags, deadline) = (Scope::Plain, Flags::NONE, None);
        let event = match (actor.lock, wish) {
            (None, Some(mode)) => UserEvent::Request(Request {
                tag,
                owner,
                transaction: Transaction(0),
                lockspace: key.lockspace,
                parent: None,
                name: key.name,
                mode,
                scope,
                flags,
                deadline,
            }),
            (Some(lock), Some(mode)) => {
                actor.relies_on = actor.mode.map(|held| held.meet(mode));
                UserEvent::Convert(Convert {
                    tag,
                    owner,
                    lock,
                    mode,
                    scope: None,
                    flags,
                    value: None,
                    deadline,
                })
            }
            (Some(lock), None) => {
                (actor.lock, actor.mode, actor.relies_on) = (None, None, None);
                UserEvent::Unlock(Unlock { tag, owner, lock, flags, value: None })
            }
            (None, None) => return Err("a script unlocks what is not locked".to_owned()),
        };
        self.show(node, Event::User(event))
    }

    fn show(&mut self, node: usize, event: Event) -> Result<(), String> {
        let mut effects = Vec::new();
        Rc::make_mut(&mut self.actors[node].node).handle(Time(1), event, &mut effects);
        self.actors[node].fingerprint = self.actors[node].node.fingerprint();
        for effect in effects {
            match effect {
                Effect::Send { to, envelope } => {
                    let to = to.0 as usize - 1;
                    let number = fingerprint_of(format_args!("{envelope:?}"));
                    if self.dead != Some(to) {
                        self.ways[node][to].push_back((Rc::new(envelope), number));
                    }
                }
                Effect::User(told) => self.told(node, told)?,
            }
        }
        self.masters()
    }

    fn told(&mut self, node: usize, told: Told) -> Result<(), String> {
        let Some(tag) = told.ended() else { return Ok(()) };
        let actor = &mut self.actors[node];
        if tag != actor.tag || !actor.waits {
            return Err(format!("{} is told {told:?}", id(node)));
        }
        actor.waits = false;
        match told {
            Told::Granted(grant) => {
                (actor.lock, actor.mode, actor.relies_on) =
                    (Some(grant.lock), Some(grant.mode), Some(grant.mode));
                self.granted(node, grant.mode, grant.token)
            }
            Told::Done { .. } => Ok(()),
            other => Err(format!("{} is told {other:?}", id(node))),
        }
    }

    /// Nobody else who lives relies on what goes not with it; its token is the largest of those that do not go with it.
    fn granted(&mut self, node: usize, mode: Mode, token: u64) -> Result<(), String> {
        let others = (0..3).filter(|other| *other != node && self.is_there(*other));
        for other in others {
            if self.actors[other].relies_on.is_some_and(|held| !held.goes_with(mode)) {
                let held = self.actors[other].relies_on;
                return Err(format!("{} is granted {mode:?} beside {held:?} of {}", id(node), id(other)));
            }
        }
        for other in Mode::ALL.into_iter().filter(|other| !other.goes_with(mode)) {
            if self.tokens[other as usize] >= token {
                return Err(format!(
                    "token {token} in {mode:?} after {} in {other:?}",
                    self.tokens[other as usize]
                ));
            }
        }
        let last = &mut self.tokens[mode as usize];
        *last = token.max(*last);
        Ok(())
    }

    /// A dead node's user counts until somebody knows that it is dead.
    fn is_there(&self, node: usize) -> bool {
        self.dead != Some(node) || self.actors.iter().all(|actor| actor.view < 2)
    }

    fn masters(&self) -> Result<(), String> {
        let living = self.actors.iter().enumerate().filter(|(node, _)| self.dead != Some(*node));
        let masters = living.flat_map(|(_, actor)| actor.node.mastered().map(|key| (key, actor.node.era())));
        let masters: Vec<_> = masters.collect();
        let all: BTreeSet<_> = masters.iter().collect();
        if all.len() == masters.len() { Ok(()) } else { Err(format!("two masters in one era: {masters:?}")) }
    }

    /// Nothing can happen any more: everybody who lives has done all that it wanted.
    fn at_rest(&self) -> Result<(), String> {
        let mut living = self.actors.iter().enumerate().filter(|(node, _)| self.dead != Some(*node));
        match living.find(|(_, actor)| actor.waits || !actor.script.is_empty()) {
            Some((node, actor)) => Err(format!("{} waits for ever for {:?}", id(node), actor.wanted)),
            None => Ok(()),
        }
    }

    fn fingerprint(&self) -> u128 {
        let actor = |actor: &Actor| {
            (actor.fingerprint, actor.script.len(), actor.waits, actor.relies_on, actor.tag, actor.view)
        };
        let ways =
            self.ways.iter().flatten().map(|way| way.iter().map(|(_, number)| *number).collect::<Vec<_>>());
        fingerprint_of(format_args!(
            "{:?} {:?} {:?} {:?}",
            self.actors.iter().map(actor).collect::<Vec<_>>(),
            ways.collect::<Vec<_>>(),
            self.dead,
            self.tokens
        ))
    }
}

/// Goes through all states of a scene; how many there are.
fn explore(scene: &Scene) -> Result<usize, String> {
    let (first, key) = World::new(scene);
    let mut seen: HashSet<u128> = HashSet::from([first.fingerprint()]);
    let mut to_do = vec![(first, Vec::new())];
    while let Some((world, way)) = to_do.pop() {
        let steps = world.steps(scene.dies);
        if steps.is_empty() || (steps.len() == 1 && matches!(steps[0], Step::Dies)) {
            world.at_rest().map_err(|why| format!("{}: {why} after {way:?}", scene.name))?;
        }
        for step in steps {
            let mut next = world.clone();
            let outcome = next.apply(step, &key, scene.dies);
            outcome.map_err(|why| format!("{}: {why} after {way:?}, {step:?}", scene.name))?;
            if seen.insert(next.fingerprint()) {
                let mut way: Vec<Step> = way.clone();
                way.push(step);
                to_do.push((next, way));
            }
        }
    }
    Ok(seen.len())
}

#[test]
fn every_interleaving_of_a_conversion_and_a_death_is_safe_and_ends() {
    let long = if std::env::var_os("SSI_TEST_LONG").is_some() { LONG_SCENES } else { &[] };
    for scene in SCENES.iter().chain(long) {
        let begin = std::time::Instant::now();
        match explore(scene) {
            Ok(states) => {
                println!("{states} states: {} ({:.1} s)", scene.name, begin.elapsed().as_secs_f32())
            }
            Err(why) => panic!("{why}"),
        }
    }
}
