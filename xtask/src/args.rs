//! The command line: one definition of a verb gives its parsing and its help.
//!
//! Invariant: an option that is not in the verb's table is refused, never passed on.

use std::fmt::Write as _;

use crate::error::Error;

/// One option of a verb.
pub struct Flag {
    /// Its name without the dashes.
    pub name: &'static str,
    /// What its value is called, if it takes one.
    pub value: Option<&'static str>,
    /// One line of help.
    pub help: &'static str,
}

/// One verb.
pub struct Verb {
    /// Its name.
    pub name: &'static str,
    /// One line about it.
    pub summary: &'static str,
    /// What its positional arguments are called; empty if it takes none.
    pub operands: &'static str,
    /// More help, after the options.
    pub details: &'static str,
    /// Its options.
    pub flags: &'static [Flag],
    /// What it does.
    pub run: fn(&Given) -> Result<(), Error>,
}

/// What a user gave to a verb.
#[derive(Debug, Default)]
pub struct Given {
    flags: Vec<(&'static str, String)>,
    /// The positional arguments.
    pub operands: Vec<String>,
}

impl Given {
    /// True if the option was given.
    pub fn has(&self, name: &str) -> bool {
        self.flags.iter().any(|(given, _)| *given == name)
    }

    /// The option's value; the last one counts.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// The option's value as a number within bounds.
    pub fn number(
        &self,
        name: &str,
        default: u32,
        bounds: std::ops::RangeInclusive<u32>,
    ) -> Result<u32, Error> {
        let Some(text) = self.value(name) else { return Ok(default) };
        text.parse().ok().filter(|number| bounds.contains(number)).ok_or_else(|| {
            let (low, high) = (bounds.start(), bounds.end());
            Error::Usage(format!("--{name} wants a number from {low} to {high}, not `{text}`"))
        })
    }
}

impl Verb {
    /// Parses what follows the verb's name. `None`: help was asked for.
    pub fn parse(&self, words: &[String]) -> Result<Option<Given>, Error> {
        let mut given = Given::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--help" | "-h" => return Ok(None),
                "--" => given.operands.extend(words.by_ref().cloned()),
                option if option.starts_with("--") => {
                    given.flags.push(self.option(option, &mut words)?);
                }
                option if option.starts_with('-') && option.len() > 1 => return Err(self.unknown(option)),
                operand => given.operands.push(operand.to_owned()),
            }
        }
        match given.operands.first() {
            Some(extra) if self.operands.is_empty() => {
                Err(Error::Usage(format!("`cargo xtask {}` takes no argument, but got `{extra}`", self.name)))
            }
            _ => Ok(Some(given)),
        }
    }

    fn option<'a>(
        &self,
        word: &str,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(&'static str, String), Error> {
        let (name, joined) = match word[2..].split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (&word[2..], None),
        };
        let flag = self.flags.iter().find(|flag| flag.name == name).ok_or_else(|| self.unknown(word))?;
        let value = match (flag.value, joined) {
            (None, None) => String::new(),
            (None, Some(_)) => return Err(Error::Usage(format!("--{name} takes no value"))),
            (Some(_), Some(value)) => value,
            (Some(what), None) => {
                rest.next().cloned().ok_or_else(|| Error::Usage(format!("--{name} wants {what}")))?
            }
        };
        Ok((flag.name, value))
    }

    fn unknown(&self, word: &str) -> Error {
        Error::Usage(format!("unknown option `{word}`; `cargo xtask {} --help` lists them", self.name))
    }

    /// The verb's help.
    pub fn help(&self) -> String {
        let mut text = format!("{}\n\nusage: cargo xtask {}", self.summary, self.name);
        if !self.flags.is_empty() {
            text.push_str(" [options]");
        }
        if !self.operands.is_empty() {
            let _ = write!(text, " {}", self.operands);
        }
        text.push_str("\n\n");
        for flag in self.flags {
            let left = match flag.value {
                Some(value) => format!("--{} {value}", flag.name),
                None => format!("--{}", flag.name),
            };
            let _ = writeln!(text, "  {left:<16} {}", flag.help);
        }
        if !self.details.is_empty() {
            let _ = write!(text, "\n{}\n", self.details.trim_end());
        }
        text
    }
}

/// The help of the whole program.
pub fn overview(verbs: &[Verb]) -> String {
    let mut text = String::from("The chores of this repository.\n\nusage: cargo xtask VERB [options]\n\n");
    for verb in verbs {
        let _ = writeln!(text, "  {:<10} {}", verb.name, verb.summary);
    }
    text.push_str("\n`cargo xtask VERB --help` says more.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERB: Verb = Verb {
        name: "try",
        summary: "Tries.",
        operands: "[filter..]",
        details: "",
        flags: &[
            Flag { name: "keep", value: None, help: "keep it" },
            Flag { name: "nodes", value: Some("N"), help: "how many" },
        ],
        run: |_| Ok(()),
    };

    fn parse(line: &str) -> Result<Option<Given>, Error> {
        VERB.parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_values_and_operands_are_told_apart() {
        let given = parse("--nodes 4 one --keep --nodes=5 -- --two").unwrap().unwrap();
        assert!(given.has("keep") && !given.has("nothing"));
        assert_eq!(given.number("nodes", 3, 1..=9).unwrap(), 5);
        assert_eq!(given.operands, ["one", "--two"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in ["--keeep", "-x", "--nodes", "--keep=1"] {
            assert!(matches!(parse(line), Err(Error::Usage(_))), "{line}");
        }
        let given = parse("--nodes many").unwrap().unwrap();
        assert!(given.number("nodes", 3, 1..=9).is_err());
        assert!(parse("--nodes 12").unwrap().unwrap().number("nodes", 3, 1..=9).is_err());
    }

    #[test]
    fn a_verb_without_operands_refuses_one() {
        let verb = Verb { operands: "", ..VERB };
        assert!(verb.parse(&["x".to_owned()]).is_err());
    }

    #[test]
    fn help_names_every_option() {
        assert!(parse("--keep --help").unwrap().is_none());
        let help = VERB.help();
        assert!(
            help.contains("--keep") && help.contains("--nodes N") && help.contains("[filter..]"),
            "{help}"
        );
    }
}
