//! What may not be said, and what the documents must say: banned words, places of one machine,
//! links that lead nowhere, decisions without their cost, error codes nobody explained.

use super::tree::{Finding, SourceFile, Tree};
use super::{Rule, WrongExample};

/// Words that promise work nobody wrote down. Spelled in pieces, so that this file may stand.
const PROMISES: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
/// Places that exist on one machine only.
const MACHINE: [&str; 7] = [
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/wo", "rk/"),
    concat!("/Us", "ers/"),
    concat!(".cargo/reg", "istry"),
    concat!("/tmp/ba", "sh"),
    concat!("C:\\", "Users"),
];
/// Where packages come from is the machine's business; Cargo.lock names it by itself.
const REGISTRIES: [&str; 6] = [
    concat!("crates", ".io"),
    concat!("static.rust-", "lang.org"),
    concat!("registry.", "npmjs"),
    concat!("pypi", ".org"),
    concat!("proxy.", "golang"),
    concat!("docker", ".io"),
];
/// The parts of a decision record.
const RECORD: [&str; 4] = ["## Context", "## Choice", "## Cost", "## When to revisit"];
/// Where stable codes of refusals are written, and the document that explains them.
const CODES: [&str; 4] = [
    "model/src/reject.rs",
    "gateway/src/error.rs",
    "compat/src/orders/save.rs",
    "compat/src/payments.rs",
];
const PROTOCOL: &str = "docs/protocol.md";

/// The rules of this file.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "no promise without an owner",
        check: promises,
        wrong: &[WrongExample {
            files: &[("raft/src/a.rs", concat!("//! A.\n// TO", "DO: later\n"))],
            at: ("raft/src/a.rs", 2),
        }],
        fine: &[&[("docs/a.md", "What is to do.\n")]],
    },
    Rule {
        name: "the repository builds on any machine",
        check: machines,
        wrong: &[
            WrongExample {
                files: &[("docs/a.md", concat!("one\nsee /ho", "me/me/x\n"))],
                at: ("docs/a.md", 2),
            },
            WrongExample {
                files: &[("justfile", concat!("# from crates", ".io\n"))],
                at: ("justfile", 1),
            },
        ],
        fine: &[&[("Cargo.lock.txt", "var/lib/mishkah\n")]],
    },
    Rule {
        name: "links between documents lead somewhere",
        check: links,
        wrong: &[WrongExample {
            files: &[("docs/a.md", "[b](b.md)\n\n[c](../c.md)\n"), ("docs/b.md", "")],
            at: ("docs/a.md", 3),
        }],
        fine: &[&[
            ("README.md", "[a](docs/a.md#part) [w](https://example.org/x) [here](#x) [f](docs/)\n"),
            ("docs/a.md", "[r](../README.md)\n"),
        ]],
    },
    Rule {
        name: "a decision says context, choice, cost and when to revisit",
        check: decisions,
        wrong: &[
            WrongExample {
                files: &[(
                    "docs/decisions/0001-a.md",
                    "# 1. A\n\n## Context\n\n## Choice\n\n## When to revisit\n",
                )],
                at: ("docs/decisions/0001-a.md", 1),
            },
            WrongExample {
                files: &[
                    (
                        "docs/decisions/0001-a.md",
                        "## Context\n## Choice\n## Cost\n## When to revisit\n",
                    ),
                    (
                        "docs/decisions/0003-b.md",
                        "## Context\n## Choice\n## Cost\n## When to revisit\n",
                    ),
                ],
                at: ("docs/decisions/0003-b.md", 1),
            },
        ],
        fine: &[&[(
            "docs/decisions/0001-a.md",
            "## Context\n## Choice\n## Cost\n## When to revisit\n",
        )]],
    },
    Rule {
        name: "the protocol explains every code",
        check: codes,
        wrong: &[WrongExample {
            files: &[
                (
                    "model/src/reject.rs",
                    "//! A.\nfn code() { \"table-not-found\" }\nfn d() { \"missing-record\" }\n",
                ),
                ("docs/protocol.md", "| `table-not-found` |\n"),
            ],
            at: ("model/src/reject.rs", 3),
        }],
        fine: &[&[
            (
                "gateway/src/error.rs",
                "//! A.\nfn code() { \"not-found\" }\nfn d() { \"No such thing.\" }\n",
            ),
            ("docs/protocol.md", "| `not-found` |\n"),
        ]],
    },
    Rule {
        name: "every story a document names is told",
        check: stories,
        wrong: &[WrongExample {
            files: &[
                (
                    "docs/protocol.md",
                    "| Rule | Stories |\n|---|---|\n| a | `it_is_told` `it_is_not` |\n",
                ),
                ("tests/it/a.rs", "//! A.\n\nfn it_is_told() {}\n"),
            ],
            at: ("docs/protocol.md", 3),
        }],
        fine: &[&[
            (
                "docs/protocol.md",
                "`no_story`\n| Rule | Stories |\n|---|---|\n| a `b` | `it_is_told` `a/b.txt` |\n\n`no`\n",
            ),
            ("a/b.txt", "# It is told.\n"),
            ("tests/it/a.rs", "//! A.\n\nfn it_is_told() {}\n"),
        ]],
    },
];

/// How a table begins that names stories in its last column.
const STORIES: &str = "| Rule | Stories |";

fn each_line<'a>(
    file: &'a SourceFile,
    words: &'a [&str],
) -> impl Iterator<Item = (usize, &'a str)> {
    file.text.lines().enumerate().flat_map(move |(at, line)| {
        words.iter().filter(|word| line.contains(**word)).map(move |word| (at + 1, *word))
    })
}

fn promises(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in &tree.files {
        for (line, word) in each_line(file, &PROMISES) {
            found.push(file.finding(line, word, "a record in docs/decisions, or nothing"));
        }
    }
    found
}

fn machines(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in &tree.files {
        for (line, place) in each_line(file, &MACHINE) {
            found.push(file.finding(line, place, "a relative path, or one the reader gives"));
        }
        for (line, host) in each_line(file, &REGISTRIES) {
            found.push(file.finding(line, host, "the machine's own configuration says where from"));
        }
    }
    found
}

fn links(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        for (byte, _) in file.text.match_indices("](") {
            let target = file.text[byte + 2..].split([')', '#', ' ']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let wanted = resolve(&file.path, target);
            let leads = tree.files.iter().any(|f| {
                f.path == wanted
                    || f.path.starts_with(&format!("{}/", wanted.trim_end_matches('/')))
            });
            if !leads {
                let right = "a file of this repository, by its path from this document";
                found.push(file.finding(file.line_of(byte), format!("leads to {wanted}"), right));
            }
        }
    }
    found
}

pub(super) fn resolve(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

fn decisions(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    let records = tree.files.iter().filter(|file| file.path.starts_with("docs/decisions/"));
    for (at, file) in records.enumerate() {
        let number = format!("docs/decisions/{:04}-", at + 1);
        if !file.path.starts_with(&number) {
            let right = format!("{number}…: records are numbered without gaps");
            found.push(file.finding(1, "a number out of order", right));
        }
        for part in RECORD.iter().filter(|part| !file.text.contains(**part)) {
            found.push(file.finding(
                1,
                format!("no part `{part}`"),
                format!("the four parts {RECORD:?}"),
            ));
        }
    }
    found
}

/// A code: lower-case words joined by hyphens, alone in a literal.
fn is_code(text: &str) -> bool {
    text.contains('-')
        && text.split('-').all(|w| !w.is_empty() && w.chars().all(|c| c.is_ascii_lowercase()))
}

fn stories(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        let lines = file.text.lines().enumerate().skip_while(|(_, line)| *line != STORIES);
        for (at, line) in lines.skip(2).take_while(|(_, line)| line.starts_with('|')) {
            let named = line.rsplit('|').nth(1).unwrap_or_default();
            for story in named.split('`').skip(1).step_by(2) {
                let definition = format!("fn {story}()");
                let mut code = tree.files.iter().filter(|file| file.path.ends_with(".rs"));
                // A script has a path: its test plays all scripts.
                let is_script = story.ends_with(".txt") && tree.get(story).is_some();
                if !is_script && !code.any(|file| file.text.contains(&definition)) {
                    let right = "the name of a test, as the code has it, or the path of a script";
                    found.push(file.finding(at + 1, format!("no story {story}"), right));
                }
            }
        }
    }
    found
}

fn codes(tree: &Tree) -> Vec<Finding> {
    let Some(protocol) = tree.get(PROTOCOL) else { return Vec::new() };
    let mut found = Vec::new();
    for file in CODES.iter().filter_map(|path| tree.get(path)) {
        for (at, line) in file.text.lines().enumerate() {
            let code = line.split('"').skip(1).step_by(2).filter(|text| is_code(text));
            for code in code.filter(|_| !file.is_test_line(at + 1)) {
                if !protocol.text.contains(&format!("`{code}`")) {
                    let right = format!("a line for `{code}` in {PROTOCOL}");
                    found.push(file.finding(at + 1, format!("{code} is explained nowhere"), right));
                }
            }
        }
    }
    found
}
