//! `ssi fs`: layouts and space of the parallel filesystem, as users of lfs(1) know them.

use super::{Outcome, human, print_json, print_table};
use crate::Error;
use admin::Place;
use admin::wire::{Ask, SetStripe, Space};
use clap::Subcommand;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The filesystem.
#[derive(Debug, Subcommand)]
pub enum Fs {
    /// Show how a file is striped, or what new files in a directory get.
    Getstripe {
        /// Files or directories below the mount.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Set the striping of new files in a directory, or make a new file with a striping.
    Setstripe {
        /// Stripe size, a multiple of 64 KiB; suffixes K, M, G.
        #[arg(long, short = 'S', value_name = "SIZE", default_value = "0", value_parser = size)]
        stripe_size: u64,
        /// Object servers to stripe over; -1: all.
        #[arg(long, short = 'c', value_name = "COUNT", default_value_t = 0, allow_negative_numbers = true)]
        stripe_count: i32,
        /// Number of the node that holds the first stripe.
        #[arg(long, short = 'i', value_name = "NODE", default_value_t = 0)]
        stripe_index: u32,
        /// A directory, or a file that does not exist yet.
        path: PathBuf,
    },
    /// Show the space of every object server.
    Df {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// `64K`, `1M`, `4194304`.
fn size(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.to_ascii_uppercase().chars().last() {
        Some('K') => (&text[..text.len() - 1], 1 << 10),
        Some('M') => (&text[..text.len() - 1], 1 << 20),
        Some('G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|e| format!("{e}"))?;
    number.checked_mul(factor).ok_or_else(|| "too large".into())
}

impl Fs {
    /// Asks `ssid --data` and prints.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let place = Place::find(dir)?;
        match self {
            Fs::Getstripe { paths, json } => getstripe(&place, paths, json),
            Fs::Setstripe { stripe_size, stripe_count, stripe_index, path } => {
                let count = u32::try_from(stripe_count).unwrap_or(u32::MAX);
                let path = below_mount(&path)?;
                place.ask_data(Ask::SetStripe(SetStripe {
                    path,
                    size: stripe_size,
                    count,
                    first: stripe_index,
                }))?;
                Ok(0)
            }
            Fs::Df { json } => df(&place, json),
        }
    }
}

/// The path below /ssi that the user means.
fn below_mount(path: &Path) -> Result<Vec<u8>, Error> {
    let absolute = std::path::absolute(path).map_err(Error::step("find the working directory"))?;
    let below = absolute
        .strip_prefix("/ssi")
        .map_err(|_| Error::Said(format!("{}: not below /ssi", path.display())))?;
    Ok(below.as_os_str().to_owned().into_vec())
}

fn getstripe(place: &Place, paths: Vec<PathBuf>, json: bool) -> Outcome {
    let mut all = Vec::new();
    for path in paths {
        let layout = place.ask_data(Ask::Stripe(below_mount(&path)?))?.layout.unwrap_or_default();
        let count = if layout.count == u32::MAX { -1 } else { i64::from(layout.count) };
        all.push(serde_json::json!({"path": path, "stripe_size": layout.size, "stripe_count": count,
            "nodes": layout.nodes, "directory": layout.directory}));
        if !json {
            println!("{}\nstripe_count:  {count}\nstripe_size:   {}", path.display(), layout.size);
            layout.nodes.iter().enumerate().for_each(|(k, node)| println!("stripe {k}: node {node}"));
        }
    }
    if json { print_json(&serde_json::Value::Array(all)) } else { Ok(0) }
}

fn df(place: &Place, json: bool) -> Outcome {
    let space = place.ask_data(Ask::Space(()))?.space;
    if json {
        let row = |s: &Space| serde_json::json!({"node": s.node, "total": s.total, "free": s.free, "error": s.error});
        return print_json(&serde_json::Value::Array(space.iter().map(row).collect()));
    }
    let row = |s: &Space| match s.error.as_str() {
        "" => vec![s.node.to_string(), human(s.total), human(s.total - s.free.min(s.total)), human(s.free)],
        error => vec![s.node.to_string(), error.to_owned(), String::new(), String::new()],
    };
    let rows: Vec<Vec<String>> = space.iter().map(row).collect();
    print_table(&["NODE", "SIZE", "USED", "FREE"], &rows);
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_suffixes() {
        assert_eq!((size("64K"), size("1m"), size("7")), (Ok(65_536), Ok(1 << 20), Ok(7)));
        assert!(size("x").is_err() && size("").is_err() && size("99999999999G").is_err());
    }

    #[test]
    fn only_paths_of_the_filesystem_are_taken() {
        assert_eq!(below_mount(Path::new("/ssi/a/b")).unwrap(), b"a/b");
        assert!(below_mount(Path::new("/etc/passwd")).is_err());
    }
}
