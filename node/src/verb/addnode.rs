//! `ssi addnode`: a token with which a machine may join, and the command for it.

use super::{Outcome, view};
use crate::Error;
use admin::Place;
use admin::wire::{Ask, ChangeWanted, TokenWanted, Why, Wish};
use clap::Args;
use membership::token::{LIFE_SECONDS_MAX, Token, USES_MAX};
use std::path::Path;

/// Let machines join: make a token.
#[derive(Debug, Args)]
#[command(
    after_help = "Run what it prints on the machine that shall join, with that machine's own address. Keep the token as you keep a password while \
                  it is good; a change of the cluster's key (`ssi cluster rekey`) voids it."
)]
pub struct Addnode {
    /// How long the token is good: a number and s, m, h or d; at most 7d.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = seconds)]
    ttl: u32,
    /// How many machines may join with it.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(USES_MAX)))]
    uses: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The seconds in "90s", "10m", "2h", "7d".
fn seconds(text: &str) -> Result<u32, String> {
    let split = text.len() - text.chars().next_back().map_or(0, char::len_utf8);
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err("a number and s, m, h or d, such as 10m".into()),
    };
    let number: u32 = number.parse().map_err(|_| format!("{number:?} is no number"))?;
    let seconds = number.checked_mul(factor).filter(|seconds| u64::from(*seconds) <= LIFE_SECONDS_MAX);
    seconds.filter(|seconds| *seconds > 0).ok_or_else(|| "from 1s to 7d".into())
}

impl Addnode {
    /// Has a token made and prints how to join with it.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let place = Place::find(dir)?;
        let (table, _) = view(&place)?;
        let wanted = TokenWanted { seconds: self.ttl, uses: self.uses };
        let text = match place.ask(Ask::Change(ChangeWanted { wish: Some(Wish::Token(wanted)) })) {
            Ok(answer) => answer.token,
            Err(error) if error.why() == Some(Why::Unknown) => {
                return Err(Error::Said(
                    "the ssid of this node is older than this command and makes no tokens".into(),
                ));
            }
            Err(error) => return Err(error.into()),
        };
        let token = Token::parse(&text).map_err(Error::said)?;
        let command = format!("ssi node join --token {text} --address ADDRESS");
        if self.json {
            let seeds: Vec<String> = token.seeds.iter().map(ToString::to_string).collect();
            return super::print_json(&serde_json::json!({
                "token": text, "ticket": token.id.to_string(), "cluster": token.cluster, "expires": token.expires,
                "uses": self.uses, "seeds": seeds, "command": command,
            }));
        }
        let (life, name) = (spoken(self.ttl), &table.cluster);
        match self.uses {
            1 => println!("on the machine that shall join cluster {name}, within {life}:"),
            uses => println!("on each of {uses} machines that shall join cluster {name}, within {life}:"),
        }
        println!("    {command}\n    ssi node start");
        Ok(0)
    }
}

/// A time in the largest unit that it is whole in.
fn spoken(seconds: u32) -> String {
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let (size, unit) =
        units.into_iter().find(|(size, _)| seconds.is_multiple_of(*size)).unwrap_or((1, "second"));
    let count = seconds / size;
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_spoken() {
        let spoke = |text: &str| seconds(text).map(spoken);
        for (text, words) in [
            ("90s", "90 seconds"),
            ("60s", "1 minute"),
            ("10m", "10 minutes"),
            ("48h", "2 days"),
            ("7d", "7 days"),
        ] {
            assert_eq!(spoke(text), Ok(words.to_owned()), "{text}");
        }
        for text in ["", "m", "10", "0m", "8d", "-1m", "1.5h", "10é", "4294967295d"] {
            assert!(spoke(text).is_err(), "{text}");
        }
    }
}
