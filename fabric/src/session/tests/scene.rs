//! What may happen in a simulated world, and what has happened.

use base::Prng;

/// A world that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    None,
    FrameLost,
    DeafCaller,
    DeafCallee,
    StartedAgain,
    WrongReply,
    NeverServed,
}

/// What has happened, to see that enough did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scene {
    pub calls: u64,
    pub completed: u64,
    pub cancelled: u64,
    pub refused: u64,
    pub cuts: u64,
    pub frames: u64,
    pub chunks: u64,
    pub again: u64,
    pub drained: u64,
}

impl std::ops::AddAssign for Scene {
    fn add_assign(&mut self, other: Scene) {
        self.calls += other.calls;
        self.completed += other.completed;
        self.cancelled += other.cancelled;
        self.refused += other.refused;
        self.cuts += other.cuts;
        self.frames += other.frames;
        self.chunks += other.chunks;
        self.again += other.again;
        self.drained += other.drained;
    }
}

impl Scene {
    /// True if every kind of thing happened often in so many worlds.
    pub fn is_rich(&self, worlds: u64) -> bool {
        let often = [self.completed / 10, self.cancelled, self.cuts, self.chunks, self.again];
        often.iter().all(|count| *count >= worlds) && self.refused > 0 && self.drained > 0
    }
}

/// How likely things are in a world: once in so many steps.
pub struct Habits {
    pub cut: u64,
    pub cancel: u64,
    pub long: u64,
    pub one_way: u64,
    pub slowness: u64,
    pub rails: u64,
}

impl Habits {
    pub fn of(seed: u64, prng: &mut Prng) -> Habits {
        Habits {
            cut: [3, 10, 60, u64::MAX][prng.below(4) as usize],
            cancel: [10, 40, u64::MAX][prng.below(3) as usize],
            long: if seed.is_multiple_of(5) { 16 } else { 120 },
            one_way: 2 + prng.below(8),
            slowness: 1 + prng.below(4),
            rails: 1 + prng.below(3),
        }
    }
}
