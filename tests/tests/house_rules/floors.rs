//! Calls go down: a crate depends only on crates of lower floors.
//!
//! Invariant: every crate of the workspace is in [`FLOORS`] or is one of the [`FREE`].

/// The crates by their folder, and the floor on which each stands.
pub const FLOORS: &[(&str, u32)] = &[
    ("base", 0),
    ("fabric", 1),
    ("fuse", 1),
    ("admin", 1),
    ("libssi", 2),
    ("replog", 2),
    ("membership", 3),
    ("dlm", 4),
    ("libdlm_lt", 5),
    ("libdlm", 6),
    ("lustre-like-fs", 5),
    ("pm", 5),
    ("loadlevel", 6),
    ("launcher", 7),
    ("node", 8),
];
/// Crates that stand beside the house; nobody in it may depend on them.
const FREE: [&str; 3] = ["tests", "benches", "xtask"];
const FREE_PACKAGES: [&str; 3] = ["ssi-tests", "ssi-benches", "xtask"];

fn floor(name: &str) -> Option<u32> {
    FLOORS.iter().find(|(crate_name, _)| *crate_name == name).map(|(_, floor)| *floor)
}

/// What is wrong with a crate's dependencies.
pub fn complaints(folder: &str, manifest: &str) -> Vec<String> {
    if FREE.contains(&folder) {
        return Vec::new();
    }
    let Some(own) = floor(folder) else {
        return vec![format!("{folder}: a new crate needs a floor in FLOORS and in ARCHITECTURE.md")];
    };
    let wrong = |name: &String| {
        FREE_PACKAGES.contains(&name.as_str()) || floor(name).is_some_and(|floor| floor >= own)
    };
    let names = dependencies(manifest).into_iter().filter(wrong);
    names.map(|name| format!("{folder} (floor {own}) may not depend on {name}: calls go down")).collect()
}

/// The names in every `[dependencies]` section, also those of a target or of the build script; not those of tests.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            let kind = |part: &str| part == "dependencies" || part == "build-dependencies";
            inside = section.rsplit('.').next().is_some_and(kind);
            // `[dependencies.pm]`
            if let Some((_, name)) = section.rsplit_once('.').filter(|(before, _)| kind(before)) {
                names.push(name.trim_matches('"').to_owned());
            }
        } else if inside && !line.starts_with('#') && line.contains('=') {
            let name = line.split(['=', '.', ' ']).next().unwrap_or("").trim_matches('"').to_owned();
            let renamed = line.split_once("package").and_then(|(_, rest)| rest.split('"').nth(1));
            names.push(renamed.map_or(name, str::to_owned));
        }
    }
    names
}

/// Crates whose row with their floor is not in ARCHITECTURE.md.
pub fn undocumented(architecture: &str) -> Vec<String> {
    let rows = FLOORS.iter().map(|(name, floor)| (format!("| {floor} | `{name}` |"), name));
    let missing = rows.filter(|(row, _)| !architecture.contains(row.as_str()));
    missing.map(|(row, name)| format!("ARCHITECTURE.md has no row `{row}` for {name}")).collect()
}

#[test]
fn a_dependency_upwards_or_sideways_is_found() {
    let manifest = "[package]\nname = \"pm\"\n[dependencies]\nbase.workspace = true\nlustre-like-fs = { path = \"..\" }\n\
                    # node = \"1\"\n[target.'cfg(unix)'.dependencies]\nnode.workspace = true\n\
                    [dependencies.launcher]\npath = \"..\"\n[build-dependencies]\nssi-tests = \"1\"\n";
    let told = complaints("pm", manifest).join("\n");
    for name in ["lustre-like-fs", "node", "launcher", "ssi-tests"] {
        assert!(told.contains(&format!("may not depend on {name}:")), "{name}: {told}");
    }
    assert!(!told.contains("on base"), "{told}");
}

#[test]
fn a_renamed_dependency_is_found() {
    assert_eq!(complaints("base", "[dependencies]\nx = { package = \"fabric\", path = \"..\" }\n").len(), 1);
}

#[test]
fn downwards_and_for_tests_all_is_well() {
    let manifest = "[dependencies]\nbase.workspace = true\nfabric.workspace = true\nserde = \"1\"\n\
                    [dev-dependencies]\nnode.workspace = true\n";
    assert_eq!(complaints("membership", manifest), Vec::<String>::new());
    assert!(complaints("xtask", "[dependencies]\nnode.workspace = true\n").is_empty());
}

#[test]
fn a_crate_without_a_floor_is_found() {
    assert_eq!(complaints("ipc", "").len(), 1);
    assert_eq!(undocumented("| 0 | `base` | identities |\n").len(), FLOORS.len() - 1);
}
