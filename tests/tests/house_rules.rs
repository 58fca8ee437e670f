//! The rules of the house, as a test: floors, unsafe, lengths, words, documents.
//!
//! Invariant: every rule is a function from text to complaints, and each is itself tested on good and on bad text: a
//! rule that cannot fail is worth nothing. Today's worst offenders stand in ratchets that may only shrink.

#[path = "house_rules/floors.rs"]
mod floors;
#[path = "house_rules/lengths.rs"]
mod lengths;
#[path = "house_rules/source.rs"]
mod source;
#[path = "house_rules/tree.rs"]
mod tree;
#[path = "house_rules/words.rs"]
mod words;

use source::Source;
use tree::{documents, manifests, root, sources};

/// Fails with all complaints at once.
#[track_caller]
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "{} broken rules:\n{}", complaints.len(), complaints.join("\n"));
}

/// Complaints about every source file.
fn about_sources(rule: impl Fn(&str, &Source) -> Vec<String>) -> Vec<String> {
    sources().iter().flat_map(|(path, text)| rule(path, &Source::read(text))).collect()
}

#[test]
fn crates_depend_only_on_lower_floors() {
    none(manifests().iter().flat_map(|(folder, text)| floors::complaints(folder, text)).collect());
}

#[test]
fn every_crate_has_its_floor_in_the_architecture() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    none(floors::undocumented(&text));
}

#[test]
fn unsafe_stands_only_where_it_may_and_says_why_it_is_sound() {
    none(about_sources(words::unsafe_complaints));
}

#[test]
fn forbidden_words_are_nowhere() {
    let mut complaints = about_sources(words::code_complaints);
    complaints.extend(documents().iter().flat_map(|(path, text)| words::place_complaints(path, text)));
    complaints.extend(sources().iter().flat_map(|(path, text)| words::place_complaints(path, text)));
    none(complaints);
}

#[test]
fn every_file_says_what_it_is() {
    none(about_sources(words::opening_complaints));
}

#[test]
fn functions_are_short() {
    let found = sources()
        .iter()
        .flat_map(|(path, text)| lengths::long_functions(path, &Source::read(text)))
        .collect();
    none(lengths::ratchet(found, lengths::LONG_FUNCTIONS));
}

#[test]
fn files_are_short() {
    let found =
        sources().iter().flat_map(|(path, text)| lengths::long_file(path, &Source::read(text))).collect();
    none(lengths::ratchet(found, lengths::LONG_FILES));
}

#[test]
fn every_product_crate_has_a_readme() {
    let missing = floors::FLOORS.iter().map(|(folder, _)| format!("{folder}/README.md"));
    none(missing.filter(|path| !root().join(path).is_file()).collect());
}

#[test]
fn the_rules_see_the_whole_tree() {
    let seen = sources();
    for folder in floors::FLOORS.iter().map(|(folder, _)| *folder).chain(["tests", "benches", "xtask"]) {
        assert!(
            seen.iter().any(|(path, _)| path.starts_with(&format!("{folder}/"))),
            "no source of {folder} was seen"
        );
    }
    assert!(seen.iter().any(|(path, _)| path == "tests/tests/house_rules.rs"));
    assert!(documents().iter().any(|(path, _)| path == "ARCHITECTURE.md"));
}
