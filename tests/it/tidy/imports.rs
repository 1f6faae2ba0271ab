//! Which files of a crate import which: no loops between them, and one file before the store.

use std::collections::{BTreeMap, BTreeSet};

use super::paths::{Path, paths};
use super::tree::{Finding, SourceFile, Tree};
use super::{Rule, WrongExample};

/// The crates whose files import each other in one direction.
const CRATES: [&str; 8] =
    ["actors", "chaos", "compat", "gateway", "history", "model", "node", "raft"];

/// The crate whose handlers reach data for a principal only.
const GATEWAY: &str = "gateway/src/";
/// What may name the store there: the file that checks who asks, and the one that is handed the
/// store when the node is put together.
const BEFORE_THE_STORE: [&str; 2] = ["gateway/src/scoped_store.rs", "gateway/src/gateway.rs"];
/// The store, as code names it.
const STORE: [&str; 2] = ["actors::Store", "actors::ClusterStore"];

/// The rules of this file.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "no loops of imports beyond a parent and its children",
        check: loops,
        wrong: &[
            WrongExample {
                files: &[
                    ("gateway/src/a.rs", "//! A.\nuse crate::b::c::D;\n"),
                    ("gateway/src/b/c.rs", "//! C.\n\nfn f() { crate::a::g() }\n"),
                ],
                at: ("gateway/src/a.rs", 2),
            },
            WrongExample {
                files: &[
                    ("actors/src/a/one.rs", "//! A.\nuse super::two::T;\n"),
                    ("actors/src/a/two.rs", "//! B.\nuse crate::three::T;\n"),
                    ("actors/src/three.rs", "//! C.\nuse crate::a::{one::O, other};\n"),
                ],
                at: ("actors/src/a/one.rs", 2),
            },
        ],
        fine: &[
            &[
                ("gateway/src/a.rs", "//! A.\nmod b;\nuse crate::a::b::B;\n"),
                ("gateway/src/a/b.rs", "//! B.\nuse crate::a::A;\n"),
            ],
            &[
                ("gateway/src/a.rs", "//! A.\nuse crate::b::B;\n"),
                (
                    "gateway/src/b.rs",
                    "//! B.\n\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n",
                ),
            ],
        ],
    },
    Rule {
        name: "data is reached through the scoped store",
        check: stores,
        wrong: &[
            WrongExample {
                files: &[("gateway/src/rest/a.rs", "//! A.\nuse actors::{Cursor, Store};\n")],
                at: ("gateway/src/rest/a.rs", 2),
            },
            WrongExample {
                files: &[("gateway/src/app.rs", "//! A.\n\nfn f(store: &dyn actors::Store) {}\n")],
                at: ("gateway/src/app.rs", 3),
            },
        ],
        fine: &[&[
            ("gateway/src/scoped_store.rs", "//! A.\nuse actors::Store;\n"),
            ("gateway/src/rest/a.rs", "//! A.\nuse actors::{Cursor, RouteError};\n"),
            ("gateway/tests/it/a.rs", "//! A.\nuse actors::Store;\n"),
        ]],
    },
];

/// A file's place in its crate: the names of the modules down to it.
fn module_of<'a>(crate_name: &str, path: &'a str) -> Option<Vec<&'a str>> {
    let inside = path.strip_prefix(crate_name)?.strip_prefix("/src/")?.strip_suffix(".rs")?;
    (!matches!(inside, "lib" | "main")).then(|| inside.split('/').collect())
}

/// The file that a path leads to, of the files of its crate; `None` where it leads out of it.
fn target<'a>(
    from: &[&str],
    path: &Path,
    files: &BTreeMap<Vec<&str>, &'a SourceFile>,
) -> Option<&'a SourceFile> {
    let mut parts = path.parts.iter().map(String::as_str).peekable();
    let mut module: Vec<&str> = match parts.next()? {
        "crate" => Vec::new(),
        "self" => from.to_vec(),
        "super" => from[..from.len() - 1].to_vec(),
        _ => return None,
    };
    while parts.next_if_eq(&"super").is_some() {
        module.pop();
    }
    module.extend(parts);
    // What follows the longest name of a file is an item in it.
    (1..=module.len()).rev().find_map(|length| files.get(&module[..length]).copied())
}

/// Whether one of two modules is inside the other.
fn are_related(one: &[&str], other: &[&str]) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// What each file of a crate imports of the others, and in which line first.
fn imports<'a>(crate_name: &str, tree: &'a Tree) -> BTreeMap<&'a str, BTreeMap<&'a str, usize>> {
    let files: BTreeMap<Vec<&str>, &SourceFile> =
        tree.rust().filter_map(|file| Some((module_of(crate_name, &file.path)?, file))).collect();
    let mut found: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for (module, file) in &files {
        let of = found.entry(&*file.path).or_default();
        for path in paths(file).iter().filter(|path| !file.is_test_line(path.line)) {
            let Some(other) = target(module, path, &files) else { continue };
            let there = module_of(crate_name, &other.path).unwrap_or_default();
            if !are_related(module, &there) {
                of.entry(&*other.path).or_insert(path.line);
            }
        }
    }
    found
}

/// Every file that can be reached from one by what is imported.
fn reached<'a>(
    from: &str,
    imports: &BTreeMap<&'a str, BTreeMap<&'a str, usize>>,
) -> BTreeSet<&'a str> {
    let mut reached: BTreeSet<&str> = BTreeSet::new();
    let mut todo: Vec<&str> = imports[from].keys().copied().collect();
    while let Some(file) = todo.pop() {
        if reached.insert(file) {
            todo.extend(imports[file].keys());
        }
    }
    reached
}

fn loops(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for crate_name in CRATES {
        let imports = imports(crate_name, tree);
        let reached: BTreeMap<&str, BTreeSet<&str>> =
            imports.keys().map(|file| (*file, reached(file, &imports))).collect();
        // Files that reach each other are one strongly connected component.
        let joined =
            |one: &str, other: &str| reached[one].contains(other) && reached[other].contains(one);
        for (file, of) in &imports {
            for (other, line) in of.iter().filter(|(other, _)| joined(file, other)) {
                let Some(file) = tree.get(file) else { continue };
                found.push(file.finding(
                    *line,
                    format!("imports {other}, which leads back here"),
                    "what both need in a file of its own, or what is called passed as an argument",
                ));
            }
        }
    }
    found
}

fn stores(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    let handlers = tree
        .rust()
        .filter(|file| file.path.starts_with(GATEWAY) && !BEFORE_THE_STORE.contains(&&*file.path));
    for file in handlers {
        for path in paths(file).iter().filter(|path| !file.is_test_line(path.line)) {
            if STORE.iter().any(|store| path.holds(store)) {
                found.push(file.finding(
                    path.line,
                    format!("names {}", path.shown()),
                    "`app.store(…)`, or what `app.node()` says of the node itself",
                ));
            }
        }
    }
    found
}
