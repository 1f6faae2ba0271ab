//! Paths: every path a Rust file names, with the trees of its `use` items spelled out.

use super::tree::SourceFile;

/// `a::b::c` at a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// Its parts.
    pub(super) parts: Vec<String>,
    /// The line, from 1.
    pub(super) line: usize,
}

impl Path {
    /// Where it begins: a crate, `crate`, `self`, or a name in scope.
    pub(super) fn first(&self) -> &str {
        &self.parts[0]
    }

    /// Whether the path holds these parts one after another, anywhere: `SystemTime::now` is
    /// found whether the type was imported or spelled out.
    pub(super) fn holds(&self, wanted: &str) -> bool {
        let wanted: Vec<&str> = wanted.split("::").collect();
        self.parts.windows(wanted.len()).any(|parts| parts == wanted)
    }

    /// As it is written.
    pub(super) fn shown(&self) -> String {
        self.parts.join("::")
    }
}

/// Every path of a file.
pub(super) fn paths(file: &SourceFile) -> Vec<Path> {
    let words = words(&file.code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let (word, byte) = words[at];
        let line = file.line_of(byte);
        if word == "use" || (word == "crate" && at > 0 && words[at - 1].0 == "extern") {
            let mut parts = Vec::new();
            at = tree(&words, at + 1, &mut parts, line, &mut found);
        } else if is_name(word) {
            let (parts, next) = chain(&words, at);
            if parts.len() > 1 {
                found.push(Path { parts, line });
            }
            at = next;
        } else {
            at += 1;
        }
    }
    found
}

/// Splits code into names, `::`, and single characters, each with its place.
fn words(code: &str) -> Vec<(&str, usize)> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(first) = code[at..].chars().next() {
        let rest = &code[at..];
        let length = if is_name(rest) {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        if !first.is_whitespace() {
            words.push((&rest[..length], at));
        }
        at += length;
    }
    words
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The names joined by `::` from here, and where they end.
fn chain(words: &[(&str, usize)], mut at: usize) -> (Vec<String>, usize) {
    let mut parts = vec![words[at].0.to_owned()];
    at += 1;
    while at + 1 < words.len() && words[at].0 == "::" && is_name(words[at + 1].0) {
        parts.push(words[at + 1].0.to_owned());
        at += 2;
    }
    (parts, at)
}

/// Walks one branch of a `use` tree below `above`; returns where it ends.
fn tree(
    words: &[(&str, usize)],
    mut at: usize,
    above: &mut Vec<String>,
    line: usize,
    found: &mut Vec<Path>,
) -> usize {
    let depth = above.len();
    while at < words.len() {
        match words[at].0 {
            "::" => at += 1,
            "{" => {
                at += 1;
                while at < words.len() && words[at].0 != "}" {
                    // One more, for the comma; a word no `use` holds is stepped over too.
                    let end = tree(words, at, above, line, found);
                    at = end + usize::from(words.get(end).is_some_and(|word| word.0 != "}"));
                }
                above.truncate(depth);
                return at + 1;
            }
            "as" => at += 2,
            word if is_name(word) || word == "*" => {
                above.push(word.to_owned());
                at += 1;
            }
            _ => break,
        }
    }
    if above.len() > depth {
        found.push(Path { parts: above.clone(), line });
    }
    above.truncate(depth);
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree::Tree;

    fn of(text: &str) -> Vec<String> {
        let tree = Tree::of(vec![("raft/src/a.rs".into(), text.into())]);
        paths(&tree.files[0]).iter().map(Path::shown).collect()
    }

    #[test]
    fn use_trees_are_spelled_out() {
        assert_eq!(
            of("use a::{b, c::{d as e, f::*}, self};"),
            ["a::b", "a::c::d", "a::c::f::*", "a::self"]
        );
        assert_eq!(of("pub use ::sled;\nuse x as y;"), ["sled", "x"]);
        assert_eq!(of("extern crate openraft;"), ["openraft"]);
    }

    #[test]
    fn paths_in_code_are_found_and_prose_is_not() {
        assert_eq!(
            of("fn f() -> std::io::Result<()> { a::<B>::c(crate::x::y) } // z::w"),
            ["std::io::Result", "crate::x::y"]
        );
        assert_eq!(of("let s = \"std::fs\";"), Vec::<String>::new());
    }

    #[test]
    fn a_path_holds_its_parts_in_a_row() {
        let path = Path {
            parts: vec!["std".into(), "time".into(), "SystemTime".into(), "now".into()],
            line: 1,
        };
        assert!(path.holds("SystemTime::now"));
        assert!(!path.holds("std::SystemTime"));
    }
}
