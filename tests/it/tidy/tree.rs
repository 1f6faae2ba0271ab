//! Tree: the files of the repository as text, and Rust text with comments and literals blanked out,
//! so that a rule about code never trips over prose.

use std::fs;
use std::ops::Range;
use std::path::Path;

/// Folders that are made, not written.
const NOT_OURS: [&str; 4] = [".git", "target", "data", "node_modules"];
/// What a file's name may end with to be read as text.
const TEXT: [&str; 14] = [
    ".svg", ".rs", ".toml", ".md", ".sh", ".json", ".yml", ".yaml", ".service", ".txt", ".py",
    "justfile", "LICENSE", "run",
];

/// Every text file of the repository, in order of path.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// The files.
    pub(super) files: Vec<SourceFile>,
}

/// One file.
#[derive(Debug)]
pub(super) struct SourceFile {
    /// From the root of the repository, with `/`.
    pub(super) path: String,
    /// As it is.
    pub(super) text: String,
    /// The same, byte for byte, with comments and the inside of literals turned to blanks. Equal
    /// to `text` for anything but Rust.
    pub(super) code: String,
    /// The line at which test code begins; test code runs to the end of the file.
    pub(super) tests_from: usize,
    /// The line at which a module of tests begins in this file.
    test_module_from: usize,
    /// Where each line begins.
    lines: Vec<usize>,
}

/// A rule that was not kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// Where.
    pub(super) path: String,
    /// The line, from 1.
    pub(super) line: usize,
    /// What is there.
    pub(super) found: String,
    /// What would be right.
    pub(super) right: String,
}

impl SourceFile {
    /// The crate the file belongs to: its first folder.
    pub(super) fn member(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    /// Its name without folders and ending.
    pub(super) fn stem(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.strip_suffix(".rs").unwrap_or(name)
    }

    /// Whether it is Rust.
    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether this line holds code that only tests run.
    pub(super) fn is_test_line(&self, line: usize) -> bool {
        line >= self.tests_from
    }

    /// Whether this line is in a module of tests, or in a file of them: what the programs of
    /// `tests` and `chaos` are made of is neither.
    pub(super) fn is_in_test_module(&self, line: usize) -> bool {
        let programs = ["tests/src/", "chaos/"].iter().any(|folder| self.path.starts_with(folder));
        let is_test_file = self.path.contains("/tests/") || self.path.ends_with("/tests.rs");
        let is_test = is_test_file || (self.tests_from == 0 && !programs);
        is_test || line >= self.test_module_from
    }

    /// The line of a byte, from 1.
    pub(super) fn line_of(&self, byte: usize) -> usize {
        self.lines.partition_point(|start| *start <= byte)
    }

    /// A finding in this file.
    pub(super) fn finding(
        &self,
        line: usize,
        found: impl Into<String>,
        right: impl Into<String>,
    ) -> Finding {
        Finding { path: self.path.clone(), line, found: found.into(), right: right.into() }
    }
}

impl Tree {
    /// Reads the repository from disk.
    pub(super) fn read(root: &Path) -> Self {
        let mut texts = Vec::new();
        gather(root, "", &mut texts);
        texts.sort();
        Self::of(texts)
    }

    /// A repository made of these files.
    pub(super) fn of(texts: Vec<(String, String)>) -> Self {
        let mut files: Vec<SourceFile> = texts.into_iter().map(file).collect();
        for path in test_only_files(&files) {
            for file in files.iter_mut().filter(|file| file.path == path) {
                file.tests_from = 0;
            }
        }
        Self { files }
    }

    /// The Rust files.
    pub(super) fn rust(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.iter().filter(|file| file.is_rust())
    }

    /// A file by its path.
    pub(super) fn get(&self, path: &str) -> Option<&SourceFile> {
        self.files.iter().find(|file| file.path == path)
    }
}

fn gather(root: &Path, below: &str, texts: &mut Vec<(String, String)>) {
    let entries = fs::read_dir(root.join(below)).expect("the folder was listed a moment ago");
    for entry in entries.map(|entry| entry.expect("a folder's entry can be read")) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        let is_dir = entry.file_type().expect("a folder's entry has a type").is_dir();
        if is_dir && !NOT_OURS.contains(&name.as_str()) {
            gather(root, &path, texts);
        } else if !is_dir && TEXT.iter().any(|end| name.ends_with(end)) {
            let text = fs::read_to_string(entry.path())
                .unwrap_or_else(|error| panic!("{path} should be UTF-8 text: {error}"));
            texts.push((path, text));
        }
    }
}

fn file((path, text): (String, String)) -> SourceFile {
    let code = if path.ends_with(".rs") { blank(&text) } else { text.clone() };
    let all_tests = ["tests/", "chaos/"].iter().any(|folder| path.starts_with(folder))
        || path.contains("/tests/")
        || path.contains("/benches/")
        || path.ends_with("/tests.rs");
    let test_module_from = first_test_line(&code);
    let tests_from = if all_tests { 0 } else { test_module_from };
    let ends = text.match_indices('\n').map(|(at, _)| at + 1);
    let lines = std::iter::once(0).chain(ends).collect();
    SourceFile { path, text, code, tests_from, test_module_from, lines }
}

/// The line of the first `#[cfg(test)]` that opens a module written in place.
fn first_test_line(code: &str) -> usize {
    let lines: Vec<&str> = code.lines().collect();
    let opens = |line: &str| line.contains("mod ") && line.trim_end().ends_with('{');
    (0..lines.len())
        .find(|at| {
            lines[*at].starts_with("#[cfg(test)]")
                && lines[at + 1..]
                    .iter()
                    .find(|line| !line.starts_with("#["))
                    .is_some_and(|l| opens(l))
        })
        .map_or(usize::MAX, |at| at + 1)
}

/// The files declared by `mod name;` under a `cfg` that names `test` or the feature `testing`.
fn test_only_files(files: &[SourceFile]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let folder = match file.path.rsplit_once('/') {
            Some((folder, "lib.rs" | "main.rs")) => folder.to_owned(),
            _ => file.path.trim_end_matches(".rs").to_owned(),
        };
        let lines: Vec<(&str, &str)> = file.text.lines().zip(file.code.lines()).collect();
        for pair in lines.windows(2) {
            let gate = pair[0].0.trim();
            let gated = gate.starts_with("#[cfg(")
                && !gate.contains("not(")
                && (gate.contains("(test") || gate.contains("\"testing\""));
            let declared = pair[1].1.trim().trim_end_matches(';').rsplit_once("mod ");
            if let (true, true, Some((_, name))) = (gated, pair[1].1.contains(';'), declared) {
                found.push(format!("{folder}/{name}.rs"));
            }
        }
    }
    found
}

/// Turns comments and the inside of literals to blanks, keeping every byte's place.
pub(super) fn blank(text: &str) -> String {
    let mut out = text.as_bytes().to_vec();
    let mut at = 0;
    let mut in_word = false;
    while let Some(first) = text[at..].chars().next() {
        let (length, inside) = token(&text[at..], first, in_word);
        for byte in &mut out[at + inside.start..at + inside.end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at += length;
        in_word = first.is_alphanumeric() || first == '_';
    }
    String::from_utf8(out).expect("whole characters were replaced by blanks")
}

/// The length of what begins here, and the part of it to blank.
fn token(rest: &str, first: char, in_word: bool) -> (usize, Range<usize>) {
    let plain = (first.len_utf8(), 0..0);
    match first {
        '/' if rest.starts_with("//") => {
            let length = rest.find('\n').unwrap_or(rest.len());
            (length, 0..length)
        }
        '/' if rest.starts_with("/*") => {
            let length = block_comment(rest);
            (length, 0..length)
        }
        '"' => {
            let inside = quoted(&rest[1..], '"');
            (inside + 2, 1..inside + 1)
        }
        '\'' => match char_literal(rest) {
            Some(inside) => (inside + 2, 1..inside + 1),
            None => plain,
        },
        'r' | 'b' | 'c' if !in_word => raw_string(rest).unwrap_or(plain),
        _ => plain,
    }
}

fn block_comment(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0;
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => depth += 1,
            [b'*', b'/', ..] => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

/// The length up to the closing quote. A file that compiles closes what it opens.
fn quoted(inside: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at,
            _ => {}
        }
    }
    inside.len().saturating_sub(1)
}

/// The length inside a character literal; `None` for a lifetime.
fn char_literal(rest: &str) -> Option<usize> {
    let mut chars = rest[1..].chars();
    let first = chars.next()?;
    if first == '\\' {
        return Some(quoted(&rest[1..], '\''));
    }
    (chars.next() == Some('\'')).then(|| first.len_utf8())
}

/// The length of a raw string and its inside.
fn raw_string(rest: &str) -> Option<(usize, Range<usize>)> {
    let prefix = ["r", "br", "cr"].iter().find(|prefix| {
        rest.strip_prefix(**prefix).is_some_and(|after| after.starts_with(['"', '#']))
    })?;
    let hashes = rest[prefix.len()..].bytes().take_while(|b| *b == b'#').count();
    let open = prefix.len() + hashes + 1;
    if !rest[..rest.len().min(open)].ends_with('"') {
        return None; // A raw identifier.
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let end = rest[open..].find(&close).map_or(rest.len(), |inside| open + inside);
    Some(((end + close.len()).min(rest.len()), open..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blank_and_code_stays_in_place() {
        for (text, code) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ */ d", "a                 d"),
            (r#"x("a\"b", 1)"#, r#"x("    ", 1)"#),
            (r##"x(r#"a"b"#)y"##, r##"x(r#"   "#)y"##),
            (r#"br"ab" z"#, r#"br"  " z"#),
            ("r#type + 1", "r#type + 1"),
            ("'a' + '\\'' + b'\"'", "' ' + '  ' + b' '"),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
            ("\"دار\" x", "\"      \" x"),
            ("var\"x\"", "var\" \""),
        ] {
            assert_eq!(blank(text), code, "{text}");
            assert_eq!(blank(text).len(), text.len(), "{text}");
        }
    }

    #[test]
    fn test_code_is_known_by_its_place() {
        let tree = Tree::of(vec![
            ("raft/src/a.rs".into(), "fn a() {}\n\n#[cfg(test)]\nmod tests {\n}\n".into()),
            (
                "raft/src/lib.rs".into(),
                "#[cfg(feature = \"testing\")]\npub mod memory;\nmod a;\n".into(),
            ),
            ("raft/src/memory.rs".into(), "fn b() {}\n".into()),
            ("raft/tests/x.rs".into(), "fn c() {}\n".into()),
        ]);
        let from = |path| tree.get(path).unwrap().tests_from;
        assert_eq!(from("raft/src/a.rs"), 3);
        assert_eq!(from("raft/src/lib.rs"), usize::MAX);
        assert_eq!(from("raft/src/memory.rs"), 0);
        assert_eq!(from("raft/tests/x.rs"), 0);
    }
}
