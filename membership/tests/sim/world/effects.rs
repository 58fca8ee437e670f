//! What a core wants done: carried out in its order, and torn in between where a test asks for crashes.

use super::World;
use crate::agenda::What;
use base::NodeId;
use membership::talk::{Answer, Request};
use membership::{Effect, RequestId};

impl World {
    pub(super) fn carry_out(&mut self, node: u32, effects: Vec<Effect>) {
        for effect in effects {
            if self.torn_one_in > 0 && self.prng.one_in(self.torn_one_in) {
                self.kill_daemon(node);
                self.start_daemon(node, 150);
                return;
            }
            match effect {
                Effect::Persist(register) => {
                    self.oracle.persisted(node, &self.machines[&node].disk, &register);
                    self.machine(node).disk = register;
                }
                Effect::Publish(view) => self.oracle.published(node, &view),
                Effect::Down { peer, down } => {
                    let downs = &mut self.machine(node).downs;
                    if down {
                        downs.insert(peer)
                    } else {
                        downs.remove(&peer)
                    };
                }
                Effect::Reach(_) => {}
                Effect::Ask { to, request } => self.send(node, to, request),
                Effect::Answer { id, answer } => self.send_answer(node, id, answer),
                Effect::Evicted(_) => {
                    self.machine(node).evictions += 1;
                    self.kill_node(node);
                    self.start_node(node, 100);
                    return;
                }
            }
        }
    }

    fn send(&mut self, from: u32, to: NodeId, request: Request) {
        let lost =
            self.machines[&from].downs.contains(&to) || !self.cuts.connects(from, to.0) || self.is_lost();
        if !lost && self.machines.contains_key(&to.0) {
            let (delay, run) = (self.delay(), self.machines[&from].run);
            self.plan(delay, What::Request { from, run, to: to.0, request });
        }
    }

    fn send_answer(&mut self, from: u32, id: RequestId, answer: Answer) {
        let Some((to, run)) = self.machine(from).waiting.remove(&id) else { return };
        if to == 0 {
            return self.machine(from).answers.push(answer);
        }
        if self.cuts.connects(from, to) && !self.is_lost() {
            let delay = self.delay();
            self.plan(delay, What::Answer { to, run, from, answer });
        }
    }
}
