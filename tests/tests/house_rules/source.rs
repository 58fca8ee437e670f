//! A Rust file cut into code and comments: enough to find words, blocks and functions without a parser.
//!
//! Invariant: line n of `code` and line n of `text` are the same line of the file; in `code` every comment, text and
//! character is blanked, so what is found there is code, and braces in it match.

/// A Rust file.
pub struct Source {
    /// The lines as they are.
    pub text: Vec<String>,
    /// The lines with comments, texts and characters blanked.
    pub code: Vec<String>,
    /// True for lines inside `#[cfg(test)] mod .. { .. }`.
    pub in_tests: Vec<bool>,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of `fn`, from 0.
    pub line: usize,
    /// Lines from `fn` to the closing brace.
    pub lines: usize,
}

impl Source {
    /// Reads a file's text.
    pub fn read(text: &str) -> Self {
        let blanked = blank(text);
        let code: Vec<String> = blanked.split('\n').map(str::to_owned).collect();
        let in_tests = test_lines(&code);
        Self { text: text.split('\n').map(str::to_owned).collect(), code, in_tests }
    }

    /// Lines in which `word` stands in code, as a word.
    pub fn lines_with(&self, word: &str) -> Vec<usize> {
        let has = |line: &&String| has_word(line, word);
        self.code.iter().enumerate().filter(|(_, line)| has(line)).map(|(at, _)| at).collect()
    }

    /// All functions that have a body.
    pub fn functions(&self) -> Vec<Function> {
        let mut found = Vec::new();
        for at in self.lines_with("fn") {
            for column in word_places(&self.code[at], "fn") {
                found.extend(self.function(at, column));
            }
        }
        found
    }

    fn function(&self, line: usize, column: usize) -> Option<Function> {
        let rest = self.code[line][column + 2..].trim_start();
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        // `fn(u32) -> u32` is a type.
        if name.is_empty() {
            return None;
        }
        let last = closing_line(&self.code, line, column)?;
        Some(Function { name, line, lines: last - line + 1 })
    }
}

/// The line on which the block that follows `line`, `column` closes; `None` if a `;` comes before any block.
fn closing_line(code: &[String], line: usize, column: usize) -> Option<usize> {
    let (mut braces, mut others) = (0usize, 0usize);
    for (at, text) in code.iter().enumerate().skip(line) {
        for c in text.chars().skip(if at == line { column } else { 0 }) {
            match c {
                '{' => braces += 1,
                '}' if braces == 1 => return Some(at),
                '}' => braces = braces.saturating_sub(1),
                '(' | '[' => others += 1,
                ')' | ']' => others = others.saturating_sub(1),
                ';' if braces == 0 && others == 0 => return None,
                _ => {}
            }
        }
    }
    None
}

/// Which lines belong to a module that exists only for tests.
fn test_lines(code: &[String]) -> Vec<bool> {
    let mut inside = vec![false; code.len()];
    for at in 0..code.len() {
        if !code[at].contains("#[cfg(test)]") {
            continue;
        }
        // The module may stand on the same line or after further attributes.
        let module = (at..code.len().min(at + 4)).find(|line| has_word(&code[*line], "mod"));
        if let Some(last) = module.and_then(|line| closing_line(code, line, 0)) {
            inside[at..=last].fill(true);
        }
    }
    inside
}

/// True if `word` stands in `line` and no letter, digit or underscore touches it.
pub fn has_word(line: &str, word: &str) -> bool {
    !word_places(line, word).is_empty()
}

fn word_places(line: &str, word: &str) -> Vec<usize> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let free = |at: &usize| {
        let before = line[..*at].chars().next_back().is_some_and(part);
        let after = line[at + word.len()..].chars().next().is_some_and(part);
        !before && !after
    };
    line.match_indices(word).map(|(at, _)| at).filter(free).collect()
}

/// The text with comments, texts and characters replaced by spaces; line ends stay.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(c) = rest.chars().next() {
        let skipped = skipped(rest, before);
        let taken = skipped.unwrap_or(c.len_utf8());
        match skipped {
            // A space for each byte keeps columns right for all that is code.
            Some(_) => out.extend(rest[..taken].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' })),
            None => out.push(c),
        }
        before = rest[..taken].chars().next_back().unwrap_or(' ');
        rest = &rest[taken..];
    }
    out
}

/// How many bytes of comment, text or character begin here, if one does.
fn skipped(rest: &str, before: char) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment(rest));
    }
    if rest.starts_with('"') {
        return Some(quoted(rest, 1));
    }
    if rest.starts_with('\'') {
        return character(rest);
    }
    let in_word = before.is_alphanumeric() || before == '_';
    if in_word { None } else { raw_text(rest) }
}

/// `r"..."`, `r#"..."#`, `br"..."`, `cr#"..."#`.
fn raw_text(rest: &str) -> Option<usize> {
    let prefix = ["r", "br", "cr"].iter().find(|prefix| {
        rest.strip_prefix(**prefix).is_some_and(|after| after.trim_start_matches('#').starts_with('"'))
    })?;
    let hashes = rest[prefix.len()..].len() - rest[prefix.len()..].trim_start_matches('#').len();
    let open = prefix.len() + hashes + 1;
    let close = format!("\"{}", "#".repeat(hashes));
    // `r#"` of a raw identifier cannot be: a quote never follows one.
    Some(rest[open..].find(&close).map_or(rest.len(), |at| open + at + close.len()))
}

/// A text in quotes with escapes, from `open` on.
fn quoted(rest: &str, open: usize) -> usize {
    let mut bytes = rest.bytes().enumerate().skip(open);
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `'a'`, `'\n'`, `'\u{1f}'`; not the lifetime `'a`.
fn character(rest: &str) -> Option<usize> {
    let inner = &rest[1..];
    if let Some(escape) = inner.strip_prefix('\\') {
        let after_first = escape.chars().next()?.len_utf8();
        return escape[after_first..].find('\'').map(|end| 2 + after_first + end + 1);
    }
    let length = inner.chars().next()?.len_utf8();
    inner[length..].starts_with('\'').then_some(length + 2)
}

/// Comments nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

#[test]
fn comments_and_texts_are_no_code() {
    let text = "let a = \"fn x { \\\" }\"; // fn y {\n/* fn /* z */ { */ let b = r#\"fn \"q\" {\"#; call('{', '\\'', 'a');";
    let source = Source::read(text);
    assert_eq!(source.code.len(), 2);
    assert!(source.lines_with("fn").is_empty());
    let braces = source.code.join("").matches(['{', '}']).count();
    assert_eq!(braces, 0, "{:?}", source.code);
    assert!(source.code[1].contains("let b =") && source.code[1].contains("call("));
}

#[test]
fn lifetimes_are_code() {
    let source = Source::read("fn f<'a>(x: &'a str) -> &'a str {\n x\n}");
    assert_eq!(source.functions(), [Function { name: "f".into(), line: 0, lines: 3 }]);
}

#[test]
fn functions_are_found_with_their_length() {
    let text = "trait T { fn declared(&self) -> [u8; 4]; }\ntype F = fn(u32) -> u32;\npub fn outer(\n    a: [u8; 2],\n) {\n    fn inner() {}\n    if a { b }\n}\nfn last() {}\n";
    let found: Vec<_> = Source::read(text).functions().into_iter().map(|f| (f.name, f.lines)).collect();
    assert_eq!(found, [("outer".into(), 6), ("inner".into(), 1), ("last".into(), 1)]);
}

#[test]
fn test_modules_are_known() {
    let source = Source::read(
        "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nmod outside;\n",
    );
    assert_eq!(source.in_tests, [false, true, true, true, true, false, false, false, false]);
}

#[test]
fn words_are_whole() {
    assert!(
        has_word("unsafe {", "unsafe")
            && !has_word("unsafe_code", "unsafe")
            && !has_word("anunsafe", "unsafe")
    );
}
