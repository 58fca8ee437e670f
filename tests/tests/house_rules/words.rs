//! Words: where `unsafe` may stand, what may stand nowhere, and how a file opens.
//!
//! Invariant: a complaint names the file and the line.

use super::source::{Source, has_word};

/// Files and folders in which `unsafe` may stand.
const UNSAFE_PLACES: [&str; 15] = [
    "fabric/src/region/memory.rs",
    "fabric/src/shm/sys.rs",
    "fabric/src/tcp/sys.rs",
    "fabric/src/tcp/sys/",
    "fabric/src/verbs/",
    // A C interface is nothing else.
    "libdlm/src/",
    "libdlm_lt/src/",
    "libssi/src/",
    "pm/src/sys/",
    "node/src/sys.rs",
    "xtask/src/sys.rs",
    "benches/src/allocations.rs",
    "benches/src/areas/dlm/mutex.rs",
    "benches/src/areas/fabric/peers/shared.rs",
    // Where the whole of pm/src/sys/ is declared.
    "pm/src/sys.rs",
];
/// A safety comment stands at most so many lines above its block.
const SAFETY_LINES_MAX: usize = 8;

/// What may stand in no code.
const FORBIDDEN: [(&str, &str); 8] = [
    ("todo!", "say what is missing in an issue"),
    ("unimplemented!", "an operation that is not there is an error of its crate"),
    ("dbg!", "left over from a search for a bug"),
    ("thread::sleep", "wait for an event, not for a length of time"),
    ("allow(dead_code)", "remove what nobody calls"),
    ("allow(unused", "remove what nobody uses"),
    ("disallowed_methods)", "a law of clippy.toml has no exception"),
    ("#[ignore", "a test that needs much time asks SSI_TEST_LONG; one that needs rights says `skipped: why`"),
];

fn at(path: &str, line: usize, why: &str) -> String {
    format!("{path}:{}: {why}", line + 1)
}

/// `unsafe` at the wrong place, or without its reason.
pub fn unsafe_complaints(path: &str, source: &Source) -> Vec<String> {
    let allowed =
        UNSAFE_PLACES.iter().any(|place| path == *place || place.ends_with('/') && path.starts_with(place));
    let mut complaints = Vec::new();
    for line in source.lines_with("unsafe") {
        if !allowed {
            complaints.push(at(path, line, "`unsafe` may not stand here (see UNSAFE_PLACES)"));
        } else if !is_reasoned(source, line) {
            complaints.push(at(
                path,
                line,
                "`unsafe` without a `// SAFETY:` above it that says which invariant holds",
            ));
        }
    }
    if !allowed {
        let lifted = source
            .lines_with("unsafe_code")
            .into_iter()
            .filter(|line| has_word(&source.code[*line], "allow"));
        complaints
            .extend(lifted.map(|line| at(path, line, "the lint against unsafe may not be lifted here")));
    }
    complaints
}

/// A safety comment on the line itself or shortly above; for a function a `# Safety` section in its doc.
fn is_reasoned(source: &Source, line: usize) -> bool {
    let first = line.saturating_sub(SAFETY_LINES_MAX);
    let says = |text: &String| text.contains("SAFETY:") || text.contains("# Safety");
    // A function pointer's type is a promise for its caller, who gives the reason. (`code` has no "C": it is a string.)
    let is_type =
        source.text[line].contains("unsafe extern \"C\" fn(") || source.code[line].contains("unsafe fn(");
    is_type || source.text[first..=line].iter().any(says)
}

/// Words that may stand in no code.
pub fn code_complaints(path: &str, source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    for (line, code) in source.code.iter().enumerate() {
        let found = FORBIDDEN.iter().filter(|(word, _)| code.contains(word));
        complaints.extend(found.map(|(word, why)| at(path, line, &format!("`{word}`: {why}"))));
    }
    complaints
}

/// Places of one particular machine, which mean nothing to anybody else.
pub fn place_complaints(path: &str, text: &str) -> Vec<String> {
    // Put together here, so that this file does not hold what it forbids.
    let places = [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat()];
    let mut complaints = Vec::new();
    for (line, text) in text.lines().enumerate() {
        let found = places.iter().filter(|place| begins_path(text, place));
        complaints.extend(found.map(|place| at(path, line, &format!("`{place}` is a place of one machine"))));
    }
    complaints
}

/// True if a path in `text` begins so; `/proc/self` may well go on so.
fn begins_path(text: &str, place: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || "_.-}*~".contains(c);
    text.match_indices(place).any(|(at, _)| !text[..at].chars().next_back().is_some_and(part))
}

/// A file that does not open with what it is.
pub fn opening_complaints(path: &str, source: &Source) -> Vec<String> {
    let opens =
        source.text.first().is_some_and(|line| line.strip_prefix("//! ").is_some_and(|doc| doc.len() > 10));
    let unfinished =
        source.text.iter().take(3).any(|line| line.to_lowercase().contains("under construction"));
    match (opens, unfinished) {
        (false, _) => vec![at(path, 0, "a file opens with `//!`: what it owns and its invariant")],
        (_, true) => vec![at(path, 0, "no stubs: a file appears when it holds something real")],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(rule: fn(&str, &Source) -> Vec<String>, path: &str, text: &str) -> usize {
        rule(path, &Source::read(text)).len()
    }

    #[test]
    fn unsafe_at_the_wrong_place_is_found() {
        let text = "fn f() {\n    // SAFETY: fine.\n    unsafe { g() }\n}";
        assert_eq!(count(unsafe_complaints, "pm/src/init.rs", text), 1);
        assert_eq!(count(unsafe_complaints, "pm/src/sys/clone.rs", text), 0);
        assert_eq!(count(unsafe_complaints, "pm/src/system.rs", text), 1);
        assert_eq!(count(unsafe_complaints, "fabric/src/sys.rs", text), 1);
        assert_eq!(count(unsafe_complaints, "base/src/lib.rs", "#![allow(unsafe_code)]"), 1);
        assert_eq!(
            count(unsafe_complaints, "base/src/lib.rs", "#![deny(unsafe_code)] // unsafe\n\"unsafe\""),
            0
        );
    }

    #[test]
    fn unsafe_without_a_reason_is_found() {
        assert_eq!(count(unsafe_complaints, "node/src/sys.rs", "unsafe { g() }"), 1);
        let far = format!("// SAFETY: far away.\n{}unsafe {{ g() }}", "\n".repeat(SAFETY_LINES_MAX));
        assert_eq!(count(unsafe_complaints, "node/src/sys.rs", &far), 1);
        assert_eq!(
            count(unsafe_complaints, "node/src/sys.rs", "/// # Safety\n/// The caller..\nunsafe fn f() {}"),
            0
        );
    }

    #[test]
    fn the_type_of_a_function_pointer_needs_no_reason() {
        let text = "struct S {\n    f: unsafe extern \"C\" fn(u8),\n    g: unsafe fn(),\n}";
        assert_eq!(count(unsafe_complaints, "node/src/sys.rs", text), 0);
    }

    #[test]
    fn forbidden_words_are_found_in_code_only() {
        for (word, _) in FORBIDDEN {
            assert_eq!(count(code_complaints, "a.rs", &format!("let x = 1; {word}(x)")), 1, "{word}");
            assert_eq!(
                count(code_complaints, "a.rs", &format!("// {word}\nlet x = \"{word}\";")),
                0,
                "{word}"
            );
        }
    }

    #[test]
    fn places_of_one_machine_are_found_in_text_too() {
        let bad = format!("see {}plan.md", ["/wo", "rk/"].concat());
        assert_eq!(place_complaints("README.md", &bad).len(), 1);
        let inside = format!("/proc/self{} and net{}", ["/ro", "ot/"].concat(), ["/wo", "rk/"].concat());
        assert!(place_complaints("README.md", &inside).is_empty());
    }

    #[test]
    fn a_file_without_an_opening_is_found() {
        assert_eq!(count(opening_complaints, "a.rs", "use std::fs;\n"), 1);
        assert_eq!(count(opening_complaints, "a.rs", "//! x\n"), 1);
        assert_eq!(count(opening_complaints, "a.rs", "//! Under construction.\n"), 1);
        assert_eq!(count(opening_complaints, "a.rs", "//! What this file owns.\n"), 0);
    }
}
