//! How a file looks: its header, its size, its name, and what may not stand in it.

use super::tree::{Finding, SourceFile, Tree};
use super::{Rule, WrongExample};

/// Most lines a file may have before its tests.
const LINES_MAX: usize = 700;
/// Most characters in a line.
const WIDTH_MAX: usize = 100;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 7] = ["util", "utils", "helper", "helpers", "common", "misc", "stuff"];

/// The rules of this file.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "a file opens with why",
        check: headers,
        wrong: &[
            WrongExample {
                files: &[("raft/src/a.rs", "use std::io;\n")],
                at: ("raft/src/a.rs", 1),
            },
            WrongExample {
                files: &[("raft/src/a.rs", "//! placeholder\n")],
                at: ("raft/src/a.rs", 1),
            },
        ],
        fine: &[&[("raft/src/a.rs", "//! The log of all groups.\n\nuse std::io;\n")]],
    },
    Rule {
        name: "a file is short",
        check: sizes,
        wrong: &[WrongExample {
            files: &[("raft/src/a.rs", LONG)],
            at: ("raft/src/a.rs", LINES_MAX + 1),
        }],
        fine: &[&[("raft/tests/a.rs", "//! A.\n")]],
    },
    Rule {
        name: "a comment's line is short",
        check: widths,
        wrong: &[WrongExample {
            files: &[("raft/src/a.rs", WIDE_COMMENT)],
            at: ("raft/src/a.rs", 2),
        }],
        fine: &[&[("raft/src/a.rs", WIDE_STRING)]],
    },
    Rule {
        name: "a file's name says what is inside",
        check: names,
        wrong: &[
            WrongExample {
                files: &[("raft/src/disk/mod.rs", "//! A.\n")],
                at: ("raft/src/disk/mod.rs", 1),
            },
            WrongExample {
                files: &[("raft/src/wal_utils.rs", "//! A.\n")],
                at: ("raft/src/wal_utils.rs", 1),
            },
        ],
        fine: &[&[("raft/src/utility_meter.rs", "//! A.\n")]],
    },
    Rule {
        name: "lib.rs holds header, modules and re-exports only",
        check: libs,
        wrong: &[
            WrongExample {
                files: &[("raft/src/lib.rs", "//! A.\n\nmod a;\n\n/// B.\npub struct B;\n")],
                at: ("raft/src/lib.rs", 6),
            },
            WrongExample {
                files: &[("raft/src/lib.rs", "//! A.\nmod a;\nmod b {\n    fn c() {}\n}\n")],
                at: ("raft/src/lib.rs", 3),
            },
        ],
        fine: &[&[(
            "raft/src/lib.rs",
            "//! A.\n#![warn(x)]\n\n// Why.\n#[cfg(test)]\nmod a;\npub(crate) mod b;\npub use b::{\n    C, D,\n};\n",
        )]],
    },
    Rule {
        name: "nothing is left unfinished, nothing unwraps outside tests",
        check: leftovers,
        wrong: &[
            WrongExample {
                files: &[("raft/src/a.rs", "//! A.\nfn f() { todo!() }\n")],
                at: ("raft/src/a.rs", 2),
            },
            WrongExample {
                files: &[("raft/src/a.rs", "//! A.\n\nfn f() { unimplemented!(\"later\") }\n")],
                at: ("raft/src/a.rs", 3),
            },
            WrongExample {
                files: &[("raft/src/a.rs", "//! A.\nfn f() { dbg!(1); }\n")],
                at: ("raft/src/a.rs", 2),
            },
            WrongExample {
                files: &[("raft/src/a.rs", "//! A.\nfn f() { x\n    .unwrap(); }\n")],
                at: ("raft/src/a.rs", 3),
            },
        ],
        fine: &[
            &[(
                "raft/src/a.rs",
                "//! A todo!().\nfn f() { x.unwrap_or(1); }\n#[cfg(test)]\nmod tests {\n    // x\n    y.unwrap();\n}\n",
            )],
            &[("tests/it/a.rs", "//! A.\nfn f() { x.unwrap(); }\n")],
        ],
    },
    Rule {
        name: "expect says why it cannot happen",
        check: expects,
        wrong: &[
            WrongExample {
                files: &[("raft/src/a.rs", "//! A.\nfn f() { x.expect(\"\") }\n")],
                at: ("raft/src/a.rs", 2),
            },
            WrongExample {
                files: &[("raft/src/a.rs", "//! A.\nfn f() { x.expect(\"failed\") }\n")],
                at: ("raft/src/a.rs", 2),
            },
            WrongExample {
                files: &[(
                    "raft/src/a.rs",
                    "//! A.\nfn f() { x.expect(\n        \"oops\",\n    ) }\n",
                )],
                at: ("raft/src/a.rs", 2),
            },
        ],
        fine: &[&[(
            "raft/src/a.rs",
            "//! A.\nfn f() { x.expect(\"a partition has a replica\") }\n",
        )]],
    },
    Rule {
        name: "an exception says its reason",
        check: exceptions,
        wrong: &[
            WrongExample {
                files: &[("raft/src/a.rs", "//! A.\n#[allow(dead_code)]\nfn f() {}\n")],
                at: ("raft/src/a.rs", 2),
            },
            WrongExample {
                files: &[("raft/src/a.rs", "//! A.\n#![expect(\n    clippy::all\n)]\n")],
                at: ("raft/src/a.rs", 2),
            },
        ],
        fine: &[&[(
            "raft/src/a.rs",
            "//! A.\n#[allow(\n    dead_code,\n    reason = \"why (not)\",\n)]\nfn f() {}\n",
        )]],
    },
];

fn headers(tree: &Tree) -> Vec<Finding> {
    let opens = |file: &&SourceFile| {
        let first = file.text.lines().next().unwrap_or_default();
        first
            .strip_prefix("//!")
            .is_some_and(|says| says.contains(' ') && says.trim().contains(' '))
    };
    tree.rust()
        .filter(|file| !opens(file))
        .map(|file| file.finding(1, "no header", "a first line `//! Name: what this file is for.`"))
        .collect()
}

fn sizes(tree: &Tree) -> Vec<Finding> {
    let before_tests = |file: &SourceFile| match file.tests_from {
        0 => file.text.lines().count(),
        from => file.text.lines().count().min(from.saturating_sub(1)),
    };
    tree.rust()
        .filter(|file| before_tests(file) > LINES_MAX)
        .map(|file| {
            let found = format!("{} lines before its tests", before_tests(file));
            file.finding(
                LINES_MAX + 1,
                found,
                "at most 700: one main type per file; split by meaning",
            )
        })
        .collect()
}

fn widths(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust() {
        for (at, text) in file.text.lines().enumerate() {
            let width = text.chars().count();
            // Code is put into form by rustfmt; an address cannot be broken.
            let is_comment = text.trim_start().starts_with("//") && !text.contains("://");
            if is_comment && width > WIDTH_MAX {
                found.push(file.finding(at + 1, format!("{width} wide"), "at most 100 characters"));
            }
        }
    }
    found
}

fn names(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust() {
        if file.stem() == "mod" {
            found.push(file.finding(1, "a mod.rs", "`name.rs` beside the folder `name/`"));
        }
        for part in file.path.trim_end_matches(".rs").split(['/', '_']) {
            if EMPTY_NAMES.contains(&part) {
                found.push(file.finding(
                    1,
                    format!("the name `{part}`"),
                    "a name that says what is inside",
                ));
            }
        }
    }
    found
}

fn libs(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust().filter(|file| file.path.ends_with("/src/lib.rs")) {
        let mut at = 0;
        while let Some(item) = item_at(&file.code, at) {
            let words = file.code[item.clone()].trim_start_matches("pub").trim_start();
            let words = words.strip_prefix("(crate)").unwrap_or(words).trim_start();
            let allowed = words.starts_with("mod ") || words.starts_with("use ");
            let in_place = words.starts_with("mod ") && words.contains('{');
            if !allowed || in_place {
                let line = file.line_of(item.start);
                found.push(file.finding(
                    line,
                    "code in lib.rs",
                    "a file of its own, re-exported here",
                ));
            }
            at = item.end;
        }
    }
    found
}

/// The next item: from its first word past the attributes to its `;` or closing brace.
fn item_at(code: &str, from: usize) -> Option<std::ops::Range<usize>> {
    let mut at = from;
    loop {
        at += code[at..].find(|c: char| !c.is_whitespace())?;
        if !code[at..].starts_with('#') {
            break;
        }
        at += balanced(&code[at..], '[', ']');
    }
    let end = at + code[at..].find([';', '{']).map_or(code.len() - at, |end| end);
    let is_use = code[at..end].contains("use ");
    let end = match code[end..].chars().next() {
        Some('{') if is_use => end + code[end..].find(';').map_or(0, |more| more + 1),
        Some('{') => end + balanced(&code[end..], '{', '}'),
        _ => end + 1,
    };
    Some(at..end.min(code.len()))
}

/// The length up to and with the bracket that closes the first one.
fn balanced(code: &str, open: char, close: char) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth -= 1;
            if depth == 0 {
                return at + 1;
            }
        }
    }
    code.len()
}

fn leftovers(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust() {
        for (at, code) in file.code.lines().enumerate() {
            for (word, right) in [
                ("todo!(", "the code, or nothing"),
                ("unimplemented!(", "the code, or nothing"),
                ("dbg!(", "a `tracing` event, or nothing"),
                (".unwrap()", "`?`, a `match`, or `expect` with the reason it cannot happen"),
            ] {
                if code.contains(word) && !file.is_test_line(at + 1) {
                    found.push(file.finding(at + 1, format!("`{word}`"), right));
                }
            }
        }
    }
    found
}

fn expects(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust() {
        for (byte, call) in file.code.match_indices(".expect(") {
            let line = file.line_of(byte);
            let reason = file.text[byte + call.len()..].trim_start();
            let says = reason.strip_prefix('"').and_then(|rest| rest.split('"').next());
            if !file.is_test_line(line) && says.is_some_and(|says| !says.contains(' ')) {
                found.push(file.finding(
                    line,
                    "an `expect` without a reason",
                    "a sentence that says why it cannot happen",
                ));
            }
        }
    }
    found
}

fn exceptions(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust() {
        for open in ["#[allow(", "#![allow(", "#[expect(", "#![expect("] {
            for (byte, _) in file.code.match_indices(open) {
                let length = balanced(&file.code[byte..], '[', ']');
                if !file.code[byte..byte + length].contains("reason =") {
                    let right = "`reason = \"…\"` inside, or no exception";
                    found.push(file.finding(
                        file.line_of(byte),
                        "an exception without a reason",
                        right,
                    ));
                }
            }
        }
    }
    found
}

/// One line more than a file may have.
const LONG: &str = match std::str::from_utf8(&[b'\n'; LINES_MAX + 1]) {
    Ok(lines) => lines,
    Err(_) => "",
};
/// Fifty characters.
macro_rules! fifty {
    () => {
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
    };
}
const WIDE_COMMENT: &str = concat!("//! A.\n// ", fifty!(), fifty!(), "\n");
const WIDE_STRING: &str = concat!("//! A.\n#[error(\"", fifty!(), fifty!(), "\")]\n");
