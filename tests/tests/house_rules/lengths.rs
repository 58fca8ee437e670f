//! Lengths: of functions and of files, with a ratchet for today's worst.
//!
//! Invariant: a ratchet's row may only shrink: what is longer than its row, what has no row, and what a row is too
//! generous for are all complaints.

use super::source::Source;

/// Lines from `fn` to the closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Lines of a file, without its test modules and the files of tests.
const FILE_LINES_MAX: usize = 400;

/// Today's longer functions: `path: name`, lines.
pub const LONG_FUNCTIONS: &[(&str, usize)] = &[];
/// Today's longer files: path, lines.
pub const LONG_FILES: &[(&str, usize)] = &[];

/// The functions of a file that are too long.
pub fn long_functions(path: &str, source: &Source) -> Vec<(String, usize)> {
    let functions = source.functions().into_iter().filter(|function| function.lines > FUNCTION_LINES_MAX);
    functions.map(|function| (format!("{path}: {}", function.name), function.lines)).collect()
}

/// The file, if it is too long.
pub fn long_file(path: &str, source: &Source) -> Option<(String, usize)> {
    // The last line ends with a line end; what comes after it is no line.
    let lines = source.in_tests.iter().filter(|in_tests| !**in_tests).count() - 1;
    (lines > FILE_LINES_MAX).then(|| (path.to_owned(), lines))
}

/// What was found against what is known.
pub fn ratchet(found: Vec<(String, usize)>, known: &[(&str, usize)]) -> Vec<String> {
    let row = |name: &str| known.iter().find(|(known, _)| *known == name).map(|(_, lines)| *lines);
    let mut complaints = Vec::new();
    for (name, lines) in &found {
        match row(name) {
            None => complaints.push(format!("{name} has {lines} lines: split it by noun")),
            Some(known) if *lines > known => {
                complaints.push(format!("{name} has grown from {known} to {lines} lines"))
            }
            Some(known) if *lines < known => {
                complaints.push(format!("{name}: well done; its row is now {lines}"))
            }
            Some(_) => {}
        }
    }
    let gone = known.iter().filter(|(name, _)| !found.iter().any(|(found, _)| found == name));
    complaints.extend(gone.map(|(name, _)| format!("{name}: well done; remove its row")));
    complaints
}

#[test]
fn a_long_function_is_found() {
    let text = |lines: usize| format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2));
    assert_eq!(long_functions("a.rs", &Source::read(&text(71))), [("a.rs: f".to_owned(), 71)]);
    assert!(long_functions("a.rs", &Source::read(&text(70))).is_empty());
}

#[test]
fn a_long_file_is_found_but_its_tests_do_not_count() {
    let code = "const A: u32 = 1;\n".repeat(400);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    fn a() {}\n".repeat(300));
    assert_eq!(long_file("a.rs", &Source::read(&format!("{code}{tests}"))), None);
    assert_eq!(
        long_file("a.rs", &Source::read(&format!("{code}// one more\n{tests}"))),
        Some(("a.rs".into(), 401))
    );
}

#[test]
fn the_ratchet_lets_nothing_grow() {
    let found = |lines| vec![("a.rs".to_owned(), lines)];
    assert!(ratchet(found(500), &[("a.rs", 500)]).is_empty());
    assert_eq!(ratchet(found(500), &[]).len(), 1);
    assert_eq!(ratchet(found(501), &[("a.rs", 500)]).len(), 1);
    assert_eq!(ratchet(found(499), &[("a.rs", 500)]).len(), 1);
    assert_eq!(ratchet(Vec::new(), &[("a.rs", 500)]).len(), 1);
}
