//! The simulated world: a caller and a callee between which links come and go, with calls, cancels and a slow service. The seed is all its chance.

use super::ledger::{Call, Ledger, channel};
use super::network::{CALLEE, CALLER, Link, Weather};
use super::scene::{Habits, Sabotage, Scene};
use crate::ServiceId;
use crate::frame::{CHUNK_BYTES, Flags, Header, Kind, Verdict};
use crate::provider::Frame;
use crate::session::{Callee, Caller, Grants, Lane, Outgoing, Ticket, Turn};
use base::Prng;
use bytes::Bytes;

const LANES: [Lane; 2] = [Lane::Urgent, Lane::Bulk];
/// Steps until nothing new happens.
const STEPS: u64 = 900;
/// Steps in which all must come to rest.
const REST_STEPS: u64 = 20_000;

pub struct World {
    prng: Prng,
    sabotage: Sabotage,
    grants: Grants,
    habits: Habits,
    weather: Weather,
    caller: Caller,
    callee: Callee,
    ledger: Ledger,
    links: Vec<Link>,
    numbers: u32,
    /// Rails that are dialled again, and when.
    dialled: Vec<(u64, Lane, u64)>,
    in_service: Vec<(u64, Turn)>,
    now: u64,
    scene: Scene,
}

impl World {
    pub fn new(seed: u64, sabotage: Sabotage) -> World {
        let mut prng = Prng::new(seed);
        let grants = Grants {
            slots: [0; 4].map(|_: u16| 1 + prng.below(6) as u16),
            window_kib: [0; 4]
                .map(|_: u32| 1 + prng.below(if seed.is_multiple_of(2) { 12 } else { 1200 }) as u32),
        };
        let habits = Habits::of(seed, &mut prng);
        let weather = Weather {
            room: 1 + prng.below(8) as usize,
            delay_max: prng.below(30),
            ignorance_max: prng.below(120),
            comes_back_max: prng.below(60),
        };
        let dialled = LANES.iter().flat_map(|lane| (0..habits.rails).map(|rail| (0, *lane, rail))).collect();
        World {
            prng,
            sabotage,
            grants,
            habits,
            weather,
            caller: Caller::new(5),
            callee: Callee::new(&grants),
            ledger: Ledger::new(grants.window_kib),
            links: Vec::new(),
            numbers: 0,
            dialled,
            in_service: Vec::new(),
            now: 0,
            scene: Scene::default(),
        }
    }

    pub fn run(mut self) -> Result<Scene, String> {
        for _ in 0..STEPS {
            self.now += 1;
            self.life_of_links();
            self.step()?;
            if self.now.is_multiple_of(8) {
                self.is_within_bounds()?;
            }
        }
        if self.prng.one_in(10) {
            return self.gives_all_back();
        }
        self.comes_to_rest()?;
        self.ledger.is_over()?;
        self.is_at_rest()?;
        Ok(self.scene)
    }

    fn step(&mut self) -> Result<(), String> {
        match self.prng.below(16) {
            0 => self.submit(),
            1..5 => self.pump(CALLER)?,
            5..8 => self.pump(CALLEE)?,
            8..13 => self.deliver_one()?,
            13 if self.prng.one_in(self.habits.slowness) => self.serve_one(),
            14 if self.prng.one_in(self.habits.cancel) => self.cancel(),
            _ if self.prng.one_in(self.habits.cut) => self.cut(),
            _ => {}
        }
        Ok(())
    }

    fn submit(&mut self) {
        let id = self.ledger.calls.len() as u64;
        let channel = channel(&mut self.prng);
        let lengths = [0; 4].map(|_: usize| match self.prng.below(self.habits.long) {
            0 => CHUNK_BYTES - 8 + self.prng.below(2) as usize * self.prng.below(CHUNK_BYTES as u64) as usize,
            1 => self.prng.below(9 << 10) as usize,
            2..8 => self.prng.below(600) as usize,
            _ => 0,
        });
        let one_way = self.prng.one_in(self.habits.one_way);
        self.ledger.calls.push(Call::new(channel, one_way, lengths));
        let message = self.ledger.request(id);
        let request = Outgoing {
            ticket: Ticket(id),
            service: ServiceId(7),
            channel,
            message,
            deadline_ms: 1 + id as u32,
            one_way,
        };
        if self.caller.submit(request).is_err() {
            self.scene.refused += 1;
            self.ledger.calls.pop();
        } else {
            self.scene.calls += 1;
        }
    }

    fn any_link(&mut self) -> Option<usize> {
        let count = self.links.len() as u64;
        (count > 0).then(|| self.prng.below(count) as usize)
    }

    /// A few frames of one end go out by some link: the more urgent ones first.
    fn pump(&mut self, from: usize) -> Result<(), String> {
        let Some(at) = self.any_link() else {
            return Ok(());
        };
        let mut last = None;
        for _ in 0..=self.prng.below(4) {
            let link = &self.links[at];
            let (lane, id) = (link.lane, link.id(from));
            if !link.has_room(from, self.now, &self.weather) {
                break;
            }
            let next = if from == CALLER { self.caller.next(lane, id) } else { self.callee.next(lane, id) };
            let Some(frame) = next else {
                break;
            };
            is_sound(&frame, lane)?;
            if from == CALLEE || matches!(frame.header.kind, Kind::Request | Kind::Chunk) {
                if last.is_some_and(|last| last > frame.header.channel) {
                    return Err(format!("{:?} was behind {last:?}", frame.header.channel));
                }
                last = Some(frame.header.channel);
            }
            self.push(at, from, frame);
        }
        Ok(())
    }

    fn push(&mut self, at: usize, from: usize, frame: Frame) {
        self.scene.frames += 1;
        self.scene.chunks += u64::from(frame.header.kind == Kind::Chunk);
        self.scene.again += u64::from(frame.header.flags.has(Flags::AGAIN));
        if self.sabotage != Sabotage::FrameLost || !self.prng.one_in(50) {
            self.links[at].push(from, frame, self.now, &self.weather, &mut self.prng);
        }
    }

    fn deliver_one(&mut self) -> Result<(), String> {
        let Some(at) = self.any_link() else {
            return Ok(());
        };
        let end = self.prng.below(2) as usize;
        self.deliver(at, end).map(|_| ())
    }

    /// True if there was a frame for this end.
    fn deliver(&mut self, at: usize, end: usize) -> Result<bool, String> {
        let now = self.now;
        let Some((header, body)) = self.links[at].pop(end, now) else {
            return Ok(false);
        };
        if end == CALLER {
            self.reply(at, &header, body)?
        } else {
            self.request(at, &header, body)?
        }
        Ok(true)
    }

    fn reply(&mut self, at: usize, header: &Header, body: Bytes) -> Result<(), String> {
        let mut completed = Vec::new();
        let link = self.links[at].id(CALLER);
        self.caller.received(link, header, body, &mut completed).map_err(|e| e.to_string())?;
        self.scene.completed += completed.len() as u64;
        completed.iter().try_for_each(|done| self.ledger.completed(done))
    }

    fn request(&mut self, at: usize, header: &Header, body: Bytes) -> Result<(), String> {
        let (mut starts, sabotaged) = (Vec::new(), body.clone());
        let link = self.links[at].id(CALLEE);
        self.callee.received(link, header, body, &mut starts).map_err(|e| e.to_string())?;
        if self.sabotage == Sabotage::StartedAgain && starts.is_empty() && header.kind == Kind::Request {
            // As if nobody had remembered this sequence.
            let mut oblivious = Callee::new(&self.grants);
            let header = Header { sequence: 1, ..*header };
            oblivious.received(link, &header, sabotaged, &mut starts).map_err(|e| e.to_string())?;
            starts.retain(|start| self.ledger.was_started(start));
        }
        for start in &starts {
            let id = self.ledger.started(start)?;
            self.in_service.push((id, start.turn));
        }
        Ok(())
    }

    fn serve_one(&mut self) {
        if self.in_service.is_empty() {
            return;
        }
        let (id, turn) = self.in_service.swap_remove(self.prng.below(self.in_service.len() as u64) as usize);
        if self.sabotage == Sabotage::NeverServed && self.prng.one_in(20) {
            return;
        }
        self.ledger.served(id);
        let mixed_up = self.sabotage == Sabotage::WrongReply && self.prng.one_in(20);
        let reply = self.ledger.reply(if mixed_up { id / 2 } else { id });
        self.callee.answered(turn, Verdict::Answered, reply);
    }

    fn cancel(&mut self) {
        let open = self.ledger.open();
        if !open.is_empty() {
            let id = open[self.prng.below(open.len() as u64) as usize];
            self.scene.cancelled += 1;
            self.ledger.cancelled(id, self.caller.sent(Ticket(id)));
            self.caller.cancel(Ticket(id));
        }
    }

    fn cut(&mut self) {
        if let Some(at) = self.any_link()
            && !self.links[at].is_cut()
        {
            self.scene.cuts += 1;
            self.links[at].cut(self.now, &self.weather, &mut self.prng);
        }
    }

    /// Links are lost and come back.
    fn life_of_links(&mut self) {
        let now = self.now;
        for link in &mut self.links {
            if link.learns(CALLER, now) {
                if self.sabotage != Sabotage::DeafCaller {
                    self.caller.link_lost(link.id(CALLER));
                }
                let at = now + self.prng.below(self.weather.comes_back_max + 1);
                self.dialled.push((at, link.lane, link.rail));
            }
            if link.learns(CALLEE, now) && self.sabotage != Sabotage::DeafCallee {
                self.callee.link_lost(link.id(CALLEE));
            }
        }
        self.links.retain(|link| !link.is_gone());
        for (_, lane, rail) in self.dialled.extract_if(.., |(at, ..)| *at <= now) {
            self.numbers += 1;
            let wait = self.prng.below(10);
            self.links.push(Link::new(lane, rail, self.numbers, now, wait));
            self.caller.grant(&self.grants);
        }
    }

    fn is_within_bounds(&self) -> Result<(), String> {
        let windows: usize = self.grants.window_kib.iter().map(|kib| *kib as usize * 1024).sum();
        let slots: usize = self.grants.slots.iter().map(|slots| usize::from(*slots)).sum();
        // The longest message of this world; one may be half-received by each link and channel, one longer than its window on each channel.
        let longest = 4 * CHUNK_BYTES;
        let bound = windows + longest * (4 + 2 * self.links.len() + slots);
        match () {
            () if self.callee.stored_bytes() > bound => Err("more is stored than was granted".to_owned()),
            () if self.callee.in_service() > windows / 1024 => {
                Err("more is served than was granted".to_owned())
            }
            () if self.caller.in_flight() > slots => Err("more is in flight than was granted".to_owned()),
            () if self.caller.waiting() > 4 * 5 => Err("more waits than may".to_owned()),
            () => Ok(()),
        }
    }

    /// Nothing new happens; what is under way ends.
    fn comes_to_rest(&mut self) -> Result<(), String> {
        for _ in 0..REST_STEPS {
            self.now += 1;
            self.life_of_links();
            let mut moved =
                !self.dialled.is_empty() || self.links.iter().any(|link| link.is_cut() || !link.is_idle());
            for at in 0..self.links.len() {
                moved |= self.exchange(at)?;
            }
            moved |= !self.in_service.is_empty();
            self.serve_one();
            if !moved {
                return Ok(());
            }
        }
        Err("it does not come to rest".to_owned())
    }

    /// True if anything went by this link.
    fn exchange(&mut self, at: usize) -> Result<bool, String> {
        let mut moved = !self.links[at].is_up(CALLER, self.now);
        for end in [CALLER, CALLEE] {
            moved |= self.deliver(at, end)?;
            let (lane, id) = (self.links[at].lane, self.links[at].id(end));
            if self.links[at].has_room(end, self.now, &self.weather) {
                let next =
                    if end == CALLER { self.caller.next(lane, id) } else { self.callee.next(lane, id) };
                if let Some(frame) = next {
                    is_sound(&frame, lane)?;
                    self.push(at, end, frame);
                    moved = true;
                }
            }
        }
        Ok(moved)
    }

    /// All credits and slots are back, and nothing is kept that need not be.
    fn is_at_rest(&self) -> Result<(), String> {
        let (caller, callee) = (&self.caller, &self.callee);
        if LANES.iter().any(|lane| caller.has_next(*lane) || callee.has_next(*lane)) {
            return Err("a frame is left".to_owned());
        }
        if (caller.in_flight(), caller.waiting(), callee.in_service()) != (0, 0, 0) {
            return Err(format!("in flight {}, in service {}", caller.in_flight(), callee.in_service()));
        }
        for channel in LANES.iter().flat_map(|lane| lane.channels()) {
            let left = (caller.slots_left(channel), caller.credit_left(channel));
            let granted = (self.grants.slots[channel as usize], self.grants.window_kib[channel as usize]);
            if left != granted {
                return Err(format!("{left:?} of {granted:?} came back on {channel:?}"));
            }
        }
        let kept = self.grants.slots.iter().map(|slots| usize::from(*slots) * 1024).sum();
        if callee.stored_bytes() > kept {
            return Err(format!("{} bytes are kept, {kept} may be", callee.stored_bytes()));
        }
        Ok(())
    }

    /// The session is given up: every open call comes back, and the caller is as new.
    fn gives_all_back(mut self) -> Result<Scene, String> {
        let drained: Vec<_> = self.caller.drain().iter().map(|(ticket, sent)| (ticket.0, *sent)).collect();
        self.ledger.is_given_back(&drained)?;
        if self.caller.is_granted() || self.caller.in_flight() + self.caller.waiting() > 0 {
            return Err("a drained caller is not as new".to_owned());
        }
        self.scene.drained += drained.len() as u64;
        Ok(self.scene)
    }
}

/// The frame is what its header says, and on its lane.
fn is_sound(frame: &Frame, lane: Lane) -> Result<(), String> {
    let header = &frame.header;
    let carried = match &frame.body {
        crate::provider::Body::Message(head, bulk) => head.len() + bulk.len(),
        _ => 0,
    };
    let decoded = Header::decode(&header.encode());
    if decoded != Ok(*header) || header.carried() != carried || Lane::of(header.channel) != lane {
        return Err(format!("a frame that must not be: {header:?} with {carried} bytes"));
    }
    Ok(())
}
