//! The model speaks of no trade: what exists only because the original sold things over a counter
//! is in `compat`.

use super::tree::{Finding, SourceFile, Tree};
use super::{Rule, WrongExample};

/// Words that only a shop has.
const WORDS: [&str; 7] = ["orders", "payment", "payments", "kitchen", "pos", "invoice", "cashier"];
/// Words that, behind "order", make a shop's order of it; alone it is a sequence.
const OF_AN_ORDER: [&str; 7] = ["header", "headers", "line", "lines", "id", "status", "item"];

/// The rules of this file.
pub(super) const RULES: &[Rule] = &[Rule {
    name: "the model has no word of a trade",
    check: no_trade_in_model,
    wrong: &[
        WrongExample {
            files: &[("model/src/a.rs", "//! A.\n\nstruct SaveOrders;\n")],
            at: ("model/src/a.rs", 3),
        },
        WrongExample {
            files: &[("model/src/a.rs", "//! A.\nconst A: &str = \"order_header\";\n")],
            at: ("model/src/a.rs", 2),
        },
        WrongExample {
            files: &[("model/src/a.rs", "//! A.\nfn f() { g(\"orderId\") } // An id.\n")],
            at: ("model/src/a.rs", 2),
        },
        WrongExample {
            files: &[("model/src/a.rs", "//! A.\nconst PAYMENT_STATE: u8 = 1;\n")],
            at: ("model/src/a.rs", 2),
        },
    ],
    fine: &[
        &[("model/src/a.rs", "//! Orders.\nfn in_order(order_by: u8) {} // As orders are.\n")],
        &[("model/src/a.rs", "//! A.\n\n#[cfg(test)]\nmod tests {\n    fn orders() {}\n}\n")],
        &[("compat/src/a.rs", "//! A.\nstruct SaveOrders;\n")],
        &[("model/src/a.rs", "//! A.\nfn f() { g(\"reorder-two-events\", Position) }\n")],
    ],
}];

fn no_trade_in_model(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust().filter(|file| file.path.starts_with("model/src/")) {
        let lines = file.text.lines().zip(file.code.lines()).enumerate();
        for (at, (text, code)) in lines.filter(|(at, _)| !file.is_test_line(at + 1)) {
            let names = without_comment(text, code);
            let names = names.split(|c: char| !c.is_alphanumeric() && c != '_');
            for name in names.filter(|name| speaks_of_a_trade(name)) {
                found.push(wrong(file, at + 1, name));
            }
        }
    }
    found
}

fn wrong(file: &SourceFile, line: usize, name: &str) -> Finding {
    let right = "a word any trade has; what only the original has belongs to compat";
    file.finding(line, format!("speaks of {name}"), right)
}

/// A line up to its comment: to the first `//` behind which there is no code.
fn without_comment<'t>(text: &'t str, code: &str) -> &'t str {
    let mut marks = text.match_indices("//").map(|(at, _)| at);
    let comment = marks.find(|at| code.get(*at..).is_none_or(|rest| rest.trim().is_empty()));
    &text[..comment.unwrap_or(text.len())]
}

fn speaks_of_a_trade(name: &str) -> bool {
    let words = words(name);
    let has_word = words.iter().any(|word| WORDS.contains(&word.as_str()));
    let is_order =
        words.windows(2).any(|pair| pair[0] == "order" && OF_AN_ORDER.contains(&pair[1].as_str()));
    has_word || is_order
}

/// The words of a name, however it joins them, in small letters.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut after_small = false;
    for letter in name.chars() {
        if letter == '_' || (letter.is_uppercase() && after_small) {
            words.push(String::new());
        }
        after_small = letter.is_lowercase() || letter.is_ascii_digit();
        if let Some(word) = words.last_mut().filter(|_| letter != '_') {
            word.extend(letter.to_lowercase());
        }
    }
    words
}
