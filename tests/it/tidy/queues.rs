//! Queues: every channel and semaphore of a node has a bound, and stands in docs/overload.md with
//! what happens when it is full.

use super::tree::{Finding, SourceFile, Tree};
use super::{Rule, WrongExample};

/// Where every queue stands.
const PAGE: &str = "docs/overload.md";
/// The crates that a node is made of.
const CRATES: [&str; 4] = ["actors/src/", "gateway/src/", "node/src/", "raft/src/"];
/// What makes a queue or hands out places. One that holds a single value at a time, `watch` and
/// `oneshot`, needs no bound.
const MAKERS: [&str; 6] = [
    "mpsc::channel(",
    "broadcast::channel(",
    "sync_channel(",
    "Semaphore::new(",
    "TurnQueue::new(",
    "ShareLimiter::new(",
];
/// What has no bound.
const UNBOUNDED: [&str; 3] = ["unbounded_channel(", "mpsc::unbounded(", "mpsc::channel()"];

/// The rules of this file.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "every queue has a bound",
        check: queues_are_bounded,
        wrong: &[
            WrongExample {
                files: &[("actors/src/a.rs", "//! A.\nfn f() { mpsc::unbounded_channel() }\n")],
                at: ("actors/src/a.rs", 2),
            },
            WrongExample {
                files: &[("raft/src/a.rs", "//! A.\n\nfn f() { std::sync::mpsc::channel() }\n")],
                at: ("raft/src/a.rs", 3),
            },
        ],
        fine: &[&[
            ("actors/src/a.rs", "//! No unbounded_channel().\nfn f() { mpsc::channel(MAX) }\n"),
            ("tests/src/a.rs", "//! A.\nfn f() { mpsc::channel() }\n"),
        ]],
    },
    Rule {
        name: "every queue stands in docs/overload.md",
        check: queues_are_listed,
        wrong: &[
            WrongExample {
                files: &[
                    ("actors/src/a.rs", "//! A.\nfn f() { mpsc::channel(MAX) }\n"),
                    (PAGE, "| `actors/src/b.rs` | `mpsc::channel(MAX)` |\n"),
                    ("actors/src/b.rs", "//! B.\nfn f() { mpsc::channel(MAX) }\n"),
                ],
                at: ("actors/src/a.rs", 2),
            },
            WrongExample {
                files: &[
                    ("actors/src/a.rs", "//! A.\nfn f() { Semaphore::new(\n    A / B,\n) }\n"),
                    (PAGE, "| `actors/src/a.rs` | `Semaphore::new(A)` |\n"),
                ],
                at: ("actors/src/a.rs", 2),
            },
            WrongExample {
                files: &[
                    ("actors/src/a.rs", "//! A.\n"),
                    (PAGE, "\n| `actors/src/a.rs` | `Semaphore::new(A)` |\n"),
                ],
                at: (PAGE, 2),
            },
        ],
        fine: &[&[
            ("actors/src/a.rs", "//! A.\nfn f() { Semaphore::new(\n    A / B,\n) }\n"),
            (PAGE, "| `actors/src/a.rs` | `Semaphore::new(A / B)` | places |\n"),
        ]],
    },
];

fn files(tree: &Tree) -> impl Iterator<Item = &SourceFile> {
    // A simulation is no part of a node.
    let is_of_a_node = |file: &&SourceFile| {
        let is_simulation = file.path.contains("/simulation/");
        CRATES.iter().any(|folder| file.path.starts_with(folder)) && !is_simulation
    };
    tree.rust().filter(is_of_a_node)
}

fn queues_are_bounded(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in files(tree) {
        for unbounded in UNBOUNDED {
            for (at, _) in file.code.match_indices(unbounded) {
                let line = file.line_of(at);
                if !file.is_test_line(line) {
                    let right = "a bound, named in the crate's limits.rs";
                    found.push(file.finding(line, "a queue without a bound", right));
                }
            }
        }
    }
    found
}

/// What makes queues in a file: the call as it is written, on one line, and where.
fn made(file: &SourceFile) -> Vec<(usize, String)> {
    let mut made = Vec::new();
    for maker in MAKERS {
        for (at, _) in file.code.match_indices(maker) {
            let line = file.line_of(at);
            let inside = &file.code[at + maker.len()..];
            // `PollSemaphore::new(` takes one that was made elsewhere.
            let is_other = file.code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if file.is_test_line(line) || inside.starts_with(')') || is_other {
                continue;
            }
            let mut depth = 1;
            let end = inside.find(|c| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                depth == 0
            });
            let words: Vec<&str> =
                inside[..end.unwrap_or(inside.len())].split_whitespace().collect();
            let arguments = words.join(" ");
            made.push((line, format!("{maker}{})", arguments.trim_end_matches(','))));
        }
    }
    made
}

fn queues_are_listed(tree: &Tree) -> Vec<Finding> {
    let Some(page) = tree.get(PAGE) else { return Vec::new() };
    let mut found = Vec::new();
    let mut all = Vec::new();
    for file in files(tree) {
        for (line, call) in made(file) {
            let cells = (format!("`{}`", file.path), format!("`{call}`"));
            let stands = |row: &str| {
                row.starts_with('|') && row.contains(&cells.0) && row.contains(&cells.1)
            };
            if !page.text.lines().any(stands) {
                let right =
                    format!("a row in {PAGE}: {} | {} | what it holds | …", cells.0, cells.1);
                found.push(file.finding(line, format!("{call} is not listed"), right));
            }
            all.push(cells);
        }
    }
    for (at, row) in page.text.lines().enumerate().filter(|(_, row)| row.starts_with('|')) {
        let names_one = MAKERS.iter().any(|maker| row.contains(&format!("`{maker}")));
        let stands = |(path, call): &(String, String)| row.contains(path) && row.contains(call);
        if names_one && !all.iter().any(stands) {
            found.push(page.finding(at + 1, "there is no such queue", "no row for it"));
        }
    }
    found
}
