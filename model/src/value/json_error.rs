//! JSON errors: where in JSON text something is wrong, as people look for it: the member's path,
//! line and column. It also reads single members out of text that cannot be read as a whole, so
//! that its sender can be answered.
//!
//! Promise: one pass, bounded memory, whatever the bytes are; on text that is right the paths are.

use super::{DEPTH_MAX, Value};

/// Longest path that is shown, in bytes.
const PATH_BYTES_MAX: usize = 256;

/// What the reader calls a text that was cut inside a character of two escapes.
const HALF_PAIRS: [&str; 2] =
    ["unexpected end of hex escape", "lone leading surrogate in hex escape"];

/// Text that is not the JSON we read: why, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadJson {
    /// Why, without the place.
    pub reason: String,
    /// The member it is in, `record.lines[2].note`; empty for the whole text. Cut at 256 bytes.
    pub path: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in bytes, from 1.
    pub column: usize,
    /// The byte, from 0.
    pub byte: usize,
}

impl std::error::Error for BadJson {}

impl std::fmt::Display for BadJson {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { reason, path, line, column, .. } = self;
        match path.as_str() {
            "" => write!(f, "{reason} at line {line} column {column}"),
            path => write!(f, "{reason} in {path}, at line {line} column {column}"),
        }
    }
}

impl BadJson {
    /// What is wrong at a byte of a text.
    pub(super) fn at(text: &[u8], byte: usize, reason: impl Into<String>) -> Self {
        // A reader at the end of the text names the byte behind it.
        let byte = byte.min(text.len());
        let before = &text[..byte];
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |place| place + 1);
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let path = path_at(text, byte);
        Self { reason: reason.into(), path, line, column: byte - line_start + 1, byte }
    }

    /// What `serde_json` says of a text that begins at a byte of the whole.
    pub(super) fn of_reader(whole: &[u8], begin: usize, error: &serde_json::Error) -> Self {
        // The reader counts lines from where it began, which is inside the whole text.
        let text = &whole[begin.min(whole.len())..];
        let lines = text.split_inclusive(|b| *b == b'\n');
        let line_start: usize = lines.take(error.line().saturating_sub(1)).map(<[u8]>::len).sum();
        let at = begin + line_start + error.column().saturating_sub(1);
        let words = error.to_string();
        let reason = words.rsplit_once(" at line ").map_or(words.as_str(), |(reason, _)| reason);
        let is_half = HALF_PAIRS.contains(&reason);
        Self::at(whole, at, if is_half { "half of a surrogate pair" } else { reason })
    }
}

/// The path of the member that a byte is in.
fn path_at(text: &[u8], byte: usize) -> String {
    let mut scanner = JsonScanner::new(text);
    while scanner.at < byte && scanner.next_token().is_some() {}
    scanner.path()
}

/// The first text or number under a path, if one can be read there.
pub(super) fn scalar(text: &[u8], path: &[&str]) -> Option<Value> {
    let mut scanner = JsonScanner::new(text);
    while let Some(token) = scanner.next_token() {
        let Token::Scalar(from, to) = token else { continue };
        if scanner.is_at(path)
            && let Ok(scalar) = std::str::from_utf8(&text[from..to])
            && let Ok(value @ (Value::String(_) | Value::Number(_))) =
                serde_json::from_str::<Value>(scalar)
        {
            return Some(value);
        }
    }
    None
}

/// What the scanner passed.
enum Token {
    /// A string, a number or a literal, between these bytes.
    Scalar(usize, usize),
    /// Anything else.
    Punctuation,
}

/// An object or array the scanner is in.
enum Container {
    /// The name of its member of now, with its quotes, and whether another name comes next.
    Object { name: Option<(usize, usize)>, has_name: bool },
    /// The index of its item of now.
    Array(usize),
}

/// Goes through JSON text from left to right without asking that it is right.
struct JsonScanner<'a> {
    text: &'a [u8],
    at: usize,
    containers: Vec<Container>,
    /// Levels deeper than are looked at.
    skipped_depth: usize,
}

impl<'a> JsonScanner<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, containers: Vec::new(), skipped_depth: 0 }
    }

    /// Passes one punctuation mark or scalar; `None` at the end.
    fn next_token(&mut self) -> Option<Token> {
        let from = self.at;
        self.at += 1;
        match self.text.get(from)? {
            b'{' => self.enter(Container::Object { name: None, has_name: false }),
            b'[' => self.enter(Container::Array(0)),
            // Nothing is kept of what is deeper than is read, so that memory stays bounded; only
            // its ends are counted.
            b'}' | b']' if self.skipped_depth > 0 => self.skipped_depth -= 1,
            b'}' | b']' => drop(self.containers.pop()),
            b',' if self.skipped_depth == 0 => match self.containers.last_mut() {
                Some(Container::Object { name, has_name }) => (*name, *has_name) = (None, false),
                Some(Container::Array(index)) => *index += 1,
                None => {}
            },
            b'"' => {
                self.pass_text();
                let to = self.at;
                match self.containers.last_mut().filter(|_| self.skipped_depth == 0) {
                    // A string is a name until its colon: the first one after a brace or a comma.
                    Some(Container::Object { name, has_name }) if !*has_name => {
                        (*name, *has_name) = (Some((from, to)), true);
                    }
                    _ => return Some(Token::Scalar(from, to)),
                }
            }
            b':' | b',' | b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => {
                let ends = |b: &u8| b",:{}[]\" \t\r\n".contains(b);
                let rest = &self.text[self.at..];
                self.at += rest.iter().position(ends).unwrap_or(rest.len());
                return Some(Token::Scalar(from, self.at));
            }
        }
        Some(Token::Punctuation)
    }

    fn enter(&mut self, level: Container) {
        // One level more than is read, so that what is too deep is shown where it is.
        if self.skipped_depth > 0 || self.containers.len() > DEPTH_MAX {
            self.skipped_depth += 1;
        } else {
            self.containers.push(level);
        }
    }

    /// Passes the rest of a text, with its closing quote if it has one.
    fn pass_text(&mut self) {
        while let Some(byte) = self.text.get(self.at) {
            self.at += match byte {
                b'\\' => 2,
                _ => 1,
            };
            if *byte == b'"' {
                break;
            }
        }
        // A backslash at the very end passes a byte that is not there.
        self.at = self.at.min(self.text.len());
    }

    /// Whether the scanner is at the value of this path.
    fn is_at(&self, path: &[&str]) -> bool {
        let same = |(level, wanted): (&Container, &&str)| match level {
            Container::Object { name: Some((from, to)), .. } => {
                name_of(&self.text[*from..*to]) == *wanted
            }
            Container::Object { name: None, .. } | Container::Array(_) => false,
        };
        self.skipped_depth == 0
            && self.containers.len() == path.len()
            && self.containers.iter().zip(path).all(same)
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for level in &self.containers {
            match level {
                Container::Object { name: Some((from, to)), .. } => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(&name_of(&self.text[*from..*to]));
                }
                Container::Object { name: None, .. } => {}
                Container::Array(index) => path.push_str(&format!("[{index}]")),
            }
            if path.len() > PATH_BYTES_MAX {
                let cut = (0..=PATH_BYTES_MAX).rev().find(|cut| path.is_char_boundary(*cut));
                path.truncate(cut.unwrap_or_default());
                path.push('…');
                break;
            }
        }
        path
    }
}

/// A member's name as people know it, from its text with quotes; as it stands where it cannot be
/// read.
fn name_of(quoted: &[u8]) -> String {
    serde_json::from_slice(quoted).unwrap_or_else(|_| {
        let inner = quoted.strip_prefix(b"\"").unwrap_or(quoted);
        String::from_utf8_lossy(inner.strip_suffix(b"\"").unwrap_or(inner)).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bad(text: &[u8]) -> String {
        Value::from_json(text).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_place() {
        let texts = [
            r#"{"record":{"id":"a","lines":[{"n":1},{"note":"x\ud83d"}]}}"#,
            "{\n \"a\": {\n  \"b\": 01}}",
            "{\"a\":[1,2,}",
            "",
            "{\"a\":{\"b\":\"cut",
            "[1] x",
        ];
        let words = [
            "half of a surrogate pair in record.lines[1].note, at line 1 column 54",
            "invalid number in a.b, at line 3 column 9",
            "expected value in a[2], at line 1 column 11",
            "EOF while parsing a value at line 1 column 1",
            "EOF while parsing a string in a.b, at line 1 column 14",
            "trailing characters at line 1 column 5",
        ];
        assert_eq!(texts.map(|text| bad(text.as_bytes())), words);
        assert!(
            bad(b"{\"a\":{\"b\":\"x\xff\"}}").starts_with("not UTF-8 in a.b, at line 1 column 13")
        );
        let error = Value::from_json(b"{\"a\":1,\n\"b\":nul}").unwrap_err();
        assert_eq!((error.path.as_str(), error.line, error.byte), ("b", 2, 15));
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(64), "]".repeat(64));
        assert!(
            bad(deep.as_bytes()).contains("deeper than 64 in a[0]"),
            "{}",
            bad(deep.as_bytes())
        );
        let long = format!("{{\"{}\":x}}", "é".repeat(300));
        assert!(bad(long.as_bytes()).contains("é…, at line 1"));
    }

    #[test]
    fn a_member_is_found_in_text_that_cannot_be_read() {
        let id = |text: &str| scalar(text.as_bytes(), &["meta", "requestId"]);
        let found = Some(Value::from("r-1"));
        for text in [
            r#"{"record":{"n":"\ud83d"},"meta":{"requestId":"r-1"}}"#,
            r#"{"meta":{"requestId":"r-1"},"record":{"n":"cut"#,
            r#"{"requestId":"no","record":{"meta":{"requestId":"no"}},"meta":{"x":[{}],"requestId":"r-1"}"#,
            r#"{"n":01,"m":tru,"meta" : { "request\u0049d" : "r-1" } }"#,
            &format!(
                "{{\"deep\":{}{},\"meta\":{{\"requestId\":\"r-1\"}}}}",
                "[".repeat(200),
                "]".repeat(200)
            ),
        ] {
            assert_eq!(id(text), found, "{text}");
        }
        assert_eq!(id(r#"{"meta":{"requestId":7}"#), Some(Value::from(7)));
        for text in
            [r#"{"meta":{"requestId":"\ud83d"}"#, r#"[{"meta":{"requestId":"x"}}]"#, "", "x"]
        {
            assert_eq!(id(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_passed_to_their_end(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut scanner = JsonScanner::new(&bytes);
            let mut steps = 0;
            while scanner.next_token().is_some() {
                steps += 1;
                prop_assert!(steps <= bytes.len());
            }
            let _ = scalar(&bytes, &["a"]);
            let _ = BadJson::at(&bytes, bytes.len() / 2, "x");
        }
    }
}
