//! Vocabulary: names are the field's, and each type name has one meaning in the workspace.
//!
//! A name that the field has a word for is refused, with that word.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{Finding, SourceFile, Tree};
use super::{Rule, WrongExample};

/// Words that no identifier may have as a part, and what is said instead.
const WORDS: [(&str, &str); 39] = [
    ("aligned", "coalesced timers"),
    ("arena", "environment"),
    ("bell", "notify"),
    ("carry", "compaction"),
    ("chance", "random"),
    ("dice", "rng"),
    ("door", "store, middleware, or the crate's name"),
    ("doors", "store, middleware, or the crate's name"),
    ("ear", "subscription"),
    ("ears", "subscriptions"),
    ("fleet", "test cluster"),
    ("greet", "handshake"),
    ("greeting", "handshake"),
    ("heart", "model"),
    ("heavy", "offload"),
    ("illness", "disk fault"),
    ("imagined", "preview"),
    ("keeper", "checkpoint task"),
    ("knows", "is_initialized, contains"),
    ("lane", "priority queue, publish queue"),
    ("lanes", "priority queues, publish queues"),
    ("manners", "conventions"),
    ("moment", "clock reading, context"),
    ("nudge", "request_checkpoint"),
    ("oracle", "history checker"),
    ("owed", "pending reply"),
    ("patience", "timeout"),
    ("room", "crate, module, budget"),
    ("rooms", "crates, modules"),
    ("seat", "inner"),
    ("shelf", "checkpoint directory"),
    ("standing", "stored checkpoint, applied catalogue"),
    ("storm", "chaos run"),
    ("strike", "fault injection"),
    ("teller", "event renderer"),
    ("told", "notified, sent, configured"),
    ("tour", "quickstart"),
    ("unasked", "unexpected_answer"),
    ("verb", "mutation, subcommand"),
];
/// Names that no type of ours may have, and what it is called instead.
const TYPES: [(&str, &str); 23] = [
    ("Act", "BulkOperation"),
    ("Asked", "what is asked for: a client, a request's parameters"),
    ("Begun", "FollowStart"),
    ("Branches", "Store"),
    ("Changes", "CatalogueClient"),
    ("Found", "what was found"),
    ("Ground", "Environment"),
    ("Guard", "Precondition"),
    ("Heard", "TopicUpdate"),
    ("Kept", "what is kept"),
    ("Known", "what is known"),
    ("Listed", "what is listed"),
    ("Marks", "LogSummary"),
    ("Named", "IdempotencyKey"),
    ("Outcomes", "DedupTable"),
    ("Reach", "PeerLiveness"),
    ("Said", "TopicUpdate"),
    ("Saved", "what was saved"),
    ("Shown", "what is shown"),
    ("Taken", "what was taken"),
    ("Touch", "RecordDiff"),
    ("Turn", "WriteBatch, reconcile step"),
    ("Upper", "what it does"),
];
/// Names that many files may give to a type of their own.
const SHARED: [&str; 7] = ["Args", "Config", "Error", "Inner", "Message", "Shape", "State"];
const GLOSSARY: &str = "docs/glossary.md";
/// The longest name of a test.
const TEST_NAME_MAX: usize = 60;

/// The rules of this file.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "a name is the field's",
        check: words,
        wrong: &[
            WrongExample {
                files: &[("raft/src/a.rs", "//! A.\nfn ring_bell() {}\n")],
                at: ("raft/src/a.rs", 2),
            },
            WrongExample {
                files: &[("raft/src/a.rs", "//! A.\nstruct SlowLane;\n")],
                at: ("raft/src/a.rs", 2),
            },
        ],
        fine: &[&[(
            "raft/src/a.rs",
            "//! A bell.\nfn label() { say(\"a bell\"); classroom(bells); }\n",
        )]],
    },
    Rule {
        name: "a type is named by what it is",
        check: types,
        wrong: &[WrongExample {
            files: &[("raft/src/a.rs", "//! A.\n\npub(crate) struct Turn {\n}\n")],
            at: ("raft/src/a.rs", 3),
        }],
        fine: &[&[("raft/src/a.rs", "//! A.\nstruct TurnTable;\nenum E { Turn }\n")]],
    },
    Rule {
        name: "a type name has one meaning in the workspace",
        check: duplicates,
        wrong: &[WrongExample {
            files: &[
                ("model/src/a.rs", "//! A.\npub struct Place;\n"),
                ("raft/src/a.rs", "//! A.\n\nenum Place {}\n"),
            ],
            at: ("raft/src/a.rs", 3),
        }],
        fine: &[&[
            ("model/src/a.rs", "//! A.\nstruct Place;\nstruct State;\ntrait T { type Place; }\n"),
            (
                "raft/src/a.rs",
                "//! A.\nuse model::Place;\nstruct State;\n#[cfg(test)]\nmod tests {\n    struct Place;\n}\n",
            ),
            ("raft/tests/a.rs", "//! A.\nstruct Place;\n"),
        ]],
    },
    Rule {
        name: "a test's name is short",
        check: test_names,
        wrong: &[WrongExample {
            files: &[(
                "raft/tests/a.rs",
                "//! A.\n#[test]\nfn a_name_that_goes_on_and_on_until_nobody_remembers_how_it_began() {}\n",
            )],
            at: ("raft/tests/a.rs", 3),
        }],
        fine: &[&[("raft/tests/a.rs", "//! A.\n#[test]\nfn a_rule_holds() {}\n")]],
    },
    Rule {
        name: "the glossary explains each word once, and its types exist",
        check: glossary,
        wrong: &[
            WrongExample {
                files: &[(GLOSSARY, "| **Leader** | a |\n| **Leader** | b |\n")],
                at: (GLOSSARY, 2),
            },
            WrongExample {
                files: &[(GLOSSARY, "| **Leader** | see `LeaderClient` |\n")],
                at: (GLOSSARY, 1),
            },
        ],
        fine: &[&[
            (GLOSSARY, "| **Leader**, **Node** | `LeaderClient`, JSON `key`, `DAR-1` |\n"),
            ("actors/src/a.rs", "//! A.\npub struct LeaderClient;\n"),
        ]],
    },
];

/// A name in code, and its line.
fn identifiers(file: &SourceFile) -> impl Iterator<Item = (usize, &str)> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    file.code.lines().enumerate().flat_map(move |(at, line)| {
        line.split(move |c| !is_name(c)).filter(|name| !name.is_empty()).map(move |n| (at + 1, n))
    })
}

/// The words of a name: `ring_bell`, `RingBell`.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut after_small = false;
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && after_small) {
            parts.push(String::new());
        }
        after_small = c.is_lowercase() || c.is_numeric();
        if let (true, Some(part)) = (c != '_', parts.last_mut()) {
            part.extend(c.to_lowercase());
        }
    }
    parts
}

/// Words from which on a name is a sentence: the names of tests are read as prose.
const SENTENCE_WORDS: usize = 5;

fn banned_word(name: &str) -> Option<&'static (&'static str, &'static str)> {
    let parts = parts(name);
    if parts.len() >= SENTENCE_WORDS {
        return None;
    }
    WORDS.iter().find(|(word, _)| parts.iter().any(|part| part == word))
}

fn words(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust() {
        let mut seen = BTreeSet::new();
        for (line, name) in identifiers(file) {
            if !seen.insert(name) {
                continue;
            }
            if let Some((word, instead)) = banned_word(name) {
                found.push(file.finding(line, format!("`{name}` says {word}"), *instead));
            }
        }
    }
    found
}

/// The types a file defines outside its tests, and where.
fn definitions(file: &SourceFile) -> impl Iterator<Item = (usize, &str)> {
    file.code.lines().enumerate().filter_map(|(at, line)| {
        let item = line.trim_start();
        let item = item.strip_prefix("pub").map_or(item, |rest| {
            let rest = rest.trim_start();
            let inside = rest.strip_prefix('(').and_then(|rest| rest.split_once(')'));
            inside.map_or(rest, |(_, rest)| rest).trim_start()
        });
        let (word, rest) = item.split_once(' ')?;
        // Inside a function a type is a shape of its answer; inside an implementation it is a name
        // of the trait's.
        let is_type = matches!(word, "struct" | "enum" | "trait" | "union" | "type")
            && !line.starts_with(' ');
        let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
        // In a macro a type's name may be a parameter.
        (is_type && !name.is_empty() && !file.is_in_test_module(at + 1)).then_some((at + 1, name))
    })
}

fn types(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust() {
        for (line, name) in definitions(file) {
            if let Some((_, instead)) = TYPES.iter().find(|(banned, _)| *banned == name) {
                found.push(file.finding(line, format!("a type `{name}`"), *instead));
            }
        }
    }
    found
}

/// Where each type name is defined, in order.
fn definitions_by_name(tree: &Tree) -> BTreeMap<&str, Vec<(&SourceFile, usize)>> {
    let mut by_name: BTreeMap<&str, Vec<(&SourceFile, usize)>> = BTreeMap::new();
    for file in tree.rust() {
        for (line, name) in definitions(file).filter(|(_, name)| !SHARED.contains(name)) {
            by_name.entry(name).or_default().push((file, line));
        }
    }
    by_name
}

fn duplicates(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, places) in definitions_by_name(tree) {
        for (file, line) in places.iter().skip(1) {
            let first = places[0].0;
            let right = format!("another name, or the type `{name}` of {}", first.path);
            found.push(file.finding(*line, format!("a second type `{name}`"), right));
        }
    }
    found
}

fn tests(file: &SourceFile) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = file.code.lines().collect();
    let is_test = move |at: usize| {
        let before = lines[..at].iter().rev().take_while(|line| line.trim_start().starts_with('#'));
        before.clone().any(|line| line.contains("test"))
    };
    file.code.lines().enumerate().filter_map(move |(at, line)| {
        let item = line.trim_start();
        let rest = item.strip_prefix("async ").unwrap_or(item).strip_prefix("fn ")?;
        let name = rest.split('(').next()?;
        is_test(at).then_some((at + 1, name))
    })
}

fn test_names(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust() {
        for (line, name) in tests(file) {
            if name.len() > TEST_NAME_MAX {
                let right = format!("the rule it holds, in at most {TEST_NAME_MAX} characters");
                found.push(file.finding(line, format!("`{name}` has {}", name.len()), right));
            }
        }
    }
    found
}

fn glossary(tree: &Tree) -> Vec<Finding> {
    let Some(file) = tree.get(GLOSSARY) else { return Vec::new() };
    let types = definitions_by_name(tree);
    let mut found = Vec::new();
    let mut explained = BTreeSet::new();
    for (at, line) in file.text.lines().enumerate().filter(|(_, line)| line.starts_with('|')) {
        let say = line.split('|').nth(1).unwrap_or_default();
        for word in say.split("**").skip(1).step_by(2) {
            if !explained.insert(word) {
                found.push(file.finding(at + 1, format!("{word} again"), "one line for one word"));
            }
        }
        let code = line.split('`').skip(1).step_by(2).filter(|name| is_type_name(name));
        let bold = say.split("**").skip(1).step_by(2).filter(|name| parts(name).len() > 1);
        for name in code.chain(bold.filter(|name| is_type_name(name))) {
            if !types.contains_key(name) && !SHARED.contains(&name) {
                let right = "the name of a type, as the code has it";
                found.push(file.finding(at + 1, format!("there is no type `{name}`"), right));
            }
        }
    }
    found
}

/// `LeaderClient`, and no `DAR` or `key`.
fn is_type_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.chars().all(char::is_alphanumeric)
        && name.chars().any(|c| c.is_ascii_lowercase())
}
