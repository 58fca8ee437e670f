//! The files of the repository, as the rules see them.
//!
//! Invariant: paths are relative to the root and in a fixed order; what a build or a run makes is not seen.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that are made, not written.
const MADE: [&str; 3] = ["target", "demo-out", ".git"];

/// The root of the repository.
pub fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.parent().map(Path::to_path_buf).unwrap_or(here)
}

/// Path and text of every Rust file.
pub fn sources() -> Vec<(String, String)> {
    files(|name| name.ends_with(".rs"))
}

/// Path and text of everything else that people read.
pub fn documents() -> Vec<(String, String)> {
    let endings = [".md", ".toml", ".c", ".h", ".sh", ".yml", "run"];
    files(|name| endings.iter().any(|ending| name.ends_with(ending)))
}

/// Folder and text of every crate's manifest.
pub fn manifests() -> Vec<(String, String)> {
    let all = files(|name| name == "Cargo.toml").into_iter();
    all.filter_map(|(path, text)| Some((path.strip_suffix("/Cargo.toml")?.to_owned(), text))).collect()
}

fn files(wanted: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && !MADE.contains(&name.as_str()) {
                folders.push(path);
            } else if kind.is_file() && wanted(&name) {
                let text = fs::read_to_string(&path).unwrap_or_default();
                found.push((path.strip_prefix(&root).unwrap().display().to_string(), text));
            }
        }
    }
    found.sort();
    found
}
