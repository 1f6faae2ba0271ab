//! Tidy: the conventions of the repository, kept by a machine so that reviews are about thought.
//!
//! Each rule carries examples it must catch and examples it must let pass, so that no rule can
//! fall silent. What a rule finds names the file, the line, and what would be right.

use std::fmt::Write as _;
use std::path::Path;

mod citations;
mod crates;
mod form;
mod imports;
mod paths;
mod queues;
mod trade;
mod tree;
mod vocabulary;
mod words;

use tree::{Finding, Tree};

/// Fewer files than this, and the rules were not shown the repository.
const FILES_MIN: usize = 40;

/// Files of an example: path and text.
type ExampleFiles = &'static [(&'static str, &'static str)];

/// One rule.
struct Rule {
    /// The rule, in words.
    name: &'static str,
    /// Finds where it is not kept.
    check: fn(&Tree) -> Vec<Finding>,
    /// What it must catch.
    wrong: &'static [WrongExample],
    /// What it must let pass.
    fine: &'static [ExampleFiles],
}

/// An example that breaks one rule in one place.
struct WrongExample {
    files: ExampleFiles,
    at: (&'static str, usize),
}

fn rules() -> impl Iterator<Item = &'static Rule> {
    [
        crates::RULES,
        imports::RULES,
        form::RULES,
        words::RULES,
        trade::RULES,
        citations::RULES,
        vocabulary::RULES,
        queues::RULES,
    ]
    .into_iter()
    .flatten()
}

fn tree_of(files: ExampleFiles) -> Tree {
    Tree::of(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
}

#[test]
fn the_repository_keeps_its_rules() {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository holds this crate");
    let tree = Tree::read(root);
    assert!(tree.files.len() >= FILES_MIN, "only {} files were read", tree.files.len());
    let mut report = String::new();
    for rule in rules() {
        for Finding { path, line, found, right } in (rule.check)(&tree) {
            writeln!(report, "{path}:{line}: {found}\n    right: {right}  ({})", rule.name)
                .expect("a string takes what is written");
        }
    }
    assert!(report.is_empty(), "the repository does not keep its rules:\n{report}");
}

#[test]
fn every_rule_catches_what_it_must() {
    for rule in rules() {
        assert!(!rule.wrong.is_empty(), "the rule `{}` has no example to catch", rule.name);
        assert!(!rule.fine.is_empty(), "the rule `{}` has no example to let pass", rule.name);
        for WrongExample { files, at } in rule.wrong {
            let found = (rule.check)(&tree_of(files));
            let places: Vec<_> = found.iter().map(|f| (f.path.as_str(), f.line)).collect();
            assert!(places.contains(at), "`{}` missed {at:?}, found {found:?}", rule.name);
        }
    }
}

#[test]
fn every_rule_lets_pass_what_it_must() {
    for rule in rules() {
        for files in rule.fine {
            assert_eq!((rule.check)(&tree_of(files)), [], "`{}` caught {files:?}", rule.name);
        }
    }
}
