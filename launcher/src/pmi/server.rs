//! The server's end of every rank's stream.

use super::barrier::Barrier;
use super::line::{Line, Lines, excerpt};
use super::{KEY_BYTES_MAX, KVSNAME_MAX, PAIRS_PER_RANK_MAX, VALUE_BYTES_MAX, process_mapping};
use base::{JobId, NodeId, Time};
use std::collections::HashMap;

/// What the server wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send these bytes to this rank.
    Reply {
        /// The rank.
        rank: u32,
        /// Whole lines.
        bytes: Vec<u8>,
    },
    /// The rank asked for the end of the job.
    Abort {
        /// The rank.
        rank: u32,
        /// The exit code it gave, 0 to 255.
        code: u8,
        /// Why, if it said so.
        message: String,
    },
    /// The rank sent what is no PMI: the job cannot go on.
    Broken {
        /// The rank.
        rank: u32,
        /// What was wrong.
        why: String,
    },
}

/// How far a rank's use of PMI has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It has said nothing: perhaps no MPI program.
    #[default]
    Fresh,
    /// It has said `init` and not yet `finalize`: the others count on it.
    Joined,
    /// It has said `finalize`: it may end as it likes.
    Finalized,
}

#[derive(Debug, Default)]
struct Rank {
    lines: Lines,
    phase: Phase,
    /// Inside `mcmd=spawn ... endcmd`, the one message that has many lines.
    in_spawn: bool,
    broken: bool,
}

/// The key-value space and the barrier of one job.
#[derive(Debug)]
pub struct Server {
    ranks: Vec<Rank>,
    kvsname: String,
    pairs: HashMap<String, String>,
    published: HashMap<String, String>,
    barrier: Barrier,
}

const SPAWN_REFUSED: &str = "cmd=spawn_result rc=-1 status=-1 errcodes=-1 msg=spawning_is_not_supported";

impl Server {
    /// A server for a job whose rank r runs on `placement[r]`.
    pub fn new(job: JobId, placement: &[NodeId]) -> Server {
        let mapping = process_mapping(placement);
        let pairs = mapping.map(|mapping| ("PMI_process_mapping".to_owned(), mapping)).into_iter().collect();
        Server {
            ranks: placement.iter().map(|_| Rank::default()).collect(),
            kvsname: format!("kvs_{job}"),
            pairs,
            published: HashMap::new(),
            barrier: Barrier::new(placement.len()),
        }
    }

    /// How far `rank` has come.
    pub fn phase(&self, rank: u32) -> Phase {
        self.ranks.get(rank as usize).map_or(Phase::Fresh, |rank| rank.phase)
    }

    /// When [`Server::tick`] must be called, if nothing else happens.
    pub fn deadline(&self) -> Option<Time> {
        self.barrier.deadline()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Time) -> Vec<Output> {
        barrier_out(self.barrier.tick(now)).collect()
    }

    /// Bytes from `rank`, cut anyhow. After [`Output::Broken`] the rank is not listened to any more.
    pub fn receive(&mut self, now: Time, rank: u32, bytes: &[u8]) -> Vec<Output> {
        let Some(from) = self.ranks.get_mut(rank as usize).filter(|from| !from.broken) else {
            return Vec::new();
        };
        let mut outputs = Vec::new();
        let broken = match from.lines.push(bytes) {
            Ok(lines) => lines.iter().find_map(|line| self.line(now, rank, line, &mut outputs).err()),
            Err(why) => Some(why),
        };
        if let Some(why) = broken {
            self.ranks[rank as usize].broken = true;
            outputs.push(Output::Broken { rank, why });
        }
        outputs
    }

    fn line(&mut self, now: Time, rank: u32, bytes: &[u8], outputs: &mut Vec<Output>) -> Result<(), String> {
        if self.skips_spawn(rank, bytes, outputs) {
            return Ok(());
        }
        let line = Line::parse(bytes)?;
        match line.command {
            "barrier_in" => outputs.extend(barrier_out(self.barrier.enter(now, rank as usize)?)),
            "abort" => outputs.push(abort(rank, &line)),
            _ => {
                let answer = self.answer(rank, &line)?;
                outputs.push(Output::Reply { rank, bytes: format!("{answer}\n").into_bytes() });
            }
        }
        Ok(())
    }

    /// A spawn comes as many lines and gets one answer: no.
    fn skips_spawn(&mut self, rank: u32, bytes: &[u8], outputs: &mut Vec<Output>) -> bool {
        let from = &mut self.ranks[rank as usize];
        if bytes.starts_with(b"mcmd=") {
            from.in_spawn = true;
        } else if from.in_spawn && bytes.starts_with(b"endcmd") {
            from.in_spawn = false;
            outputs.push(Output::Reply { rank, bytes: format!("{SPAWN_REFUSED}\n").into_bytes() });
        } else {
            return from.in_spawn;
        }
        true
    }

    fn answer(&mut self, rank: u32, line: &Line<'_>) -> Result<String, String> {
        Ok(match line.command {
            "init" => {
                self.ranks[rank as usize].phase = Phase::Joined;
                // Version 1.1 whatever is asked: newer clients understand it.
                "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0".to_owned()
            }
            "finalize" => {
                self.ranks[rank as usize].phase = Phase::Finalized;
                "cmd=finalize_ack".to_owned()
            }
            "get_maxes" => {
                format!(
                    "cmd=maxes kvsname_max={KVSNAME_MAX} keylen_max={KEY_BYTES_MAX} vallen_max={VALUE_BYTES_MAX}"
                )
            }
            "get_appnum" => "cmd=appnum appnum=0".to_owned(),
            "get_universe_size" => format!("cmd=universe_size size={}", self.ranks.len()),
            "get_my_kvsname" => format!("cmd=my_kvsname kvsname={}", self.kvsname),
            "put" => self.put(line)?,
            "get" => self.get(line)?,
            "publish_name" => self.publish(line)?,
            "unpublish_name" => self.unpublish(line)?,
            "lookup_name" => self.lookup(line)?,
            "spawn" => SPAWN_REFUSED.to_owned(),
            other => return Err(format!("an unknown command: {:?}", excerpt(other))),
        })
    }

    fn put(&mut self, line: &Line<'_>) -> Result<String, String> {
        let (kvsname, key, value) = (line.need("kvsname")?, line.need("key")?, line.need("value")?);
        let refused = if kvsname != self.kvsname {
            "unknown_kvs"
        } else if key.is_empty() || key.len() > KEY_BYTES_MAX {
            "key_too_long"
        } else if value.len() > VALUE_BYTES_MAX {
            "value_too_long"
        } else if self.pairs.len() > PAIRS_PER_RANK_MAX * self.ranks.len() {
            "kvs_full"
        } else if self.pairs.contains_key(key) {
            "duplicate_key"
        } else {
            self.pairs.insert(key.to_owned(), value.to_owned());
            self.barrier.put();
            return Ok("cmd=put_result rc=0 msg=success".to_owned());
        };
        Ok(format!("cmd=put_result rc=-1 msg={refused}"))
    }

    fn get(&self, line: &Line<'_>) -> Result<String, String> {
        let (kvsname, key) = (line.need("kvsname")?, line.need("key")?);
        Ok(match self.pairs.get(key).filter(|_| kvsname == self.kvsname) {
            Some(value) => format!("cmd=get_result rc=0 msg=success value={value}"),
            None => "cmd=get_result rc=-1 msg=key_not_found value=unknown".to_owned(),
        })
    }

    fn publish(&mut self, line: &Line<'_>) -> Result<String, String> {
        let (service, port) = (line.need("service")?, line.need("port")?);
        let room = self.published.len() < PAIRS_PER_RANK_MAX * self.ranks.len();
        if !room || self.published.contains_key(service) {
            let why = if room { "already_published" } else { "too_many_names" };
            return Ok(format!("cmd=publish_result rc=-1 msg={why}"));
        }
        self.published.insert(service.to_owned(), port.to_owned());
        Ok("cmd=publish_result rc=0 msg=success".to_owned())
    }

    fn unpublish(&mut self, line: &Line<'_>) -> Result<String, String> {
        Ok(match self.published.remove(line.need("service")?) {
            Some(_) => "cmd=unpublish_result rc=0 msg=success".to_owned(),
            None => "cmd=unpublish_result rc=-1 msg=service_not_found".to_owned(),
        })
    }

    fn lookup(&self, line: &Line<'_>) -> Result<String, String> {
        Ok(match self.published.get(line.need("service")?) {
            Some(port) => format!("cmd=lookup_result rc=0 msg=success port={port}"),
            None => "cmd=lookup_result rc=-1 msg=service_not_found".to_owned(),
        })
    }
}

fn barrier_out(ranks: Vec<u32>) -> impl Iterator<Item = Output> {
    ranks.into_iter().map(|rank| Output::Reply { rank, bytes: b"cmd=barrier_out\n".to_vec() })
}

fn abort(rank: u32, line: &Line<'_>) -> Output {
    let code: i64 = line.field("exitcode").and_then(|code| code.trim().parse().ok()).unwrap_or(1);
    // As exit(3) would pass it on.
    let code = (code & 0xff) as u8;
    let message = line.field("error_msg").unwrap_or_default().to_owned();
    Output::Abort { rank, code, message }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
