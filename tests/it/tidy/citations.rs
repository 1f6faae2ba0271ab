//! Citations: what a comment or a document cites stands in this repository.
//!
//! A citation is `docs/original/rest.md#save` (or `rest.md#save` where the page is named before),
//! `decision 14`, or the path of a document. A section is a heading, in the spelling of its link:
//! small letters, `-` for blanks.

use super::tree::{Finding, SourceFile, Tree};
use super::{Rule, WrongExample};

/// Where the pages about the original are: a page without a folder is one of them.
const ORIGINAL: &str = "docs/original/";
const DECISIONS: &str = "docs/decisions/";

/// The rules of this file.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "a cited section exists",
        check: sections,
        wrong: &[
            WrongExample {
                files: &[
                    ("model/src/a.rs", "//! A.\n\n/// B (docs/original/rest.md#gone).\n"),
                    ("docs/original/rest.md", "# Calls\n\n## Save\n"),
                ],
                at: ("model/src/a.rs", 3),
            },
            WrongExample {
                files: &[("model/src/a.rs", "//! A (docs/original/rest.md).\n")],
                at: ("model/src/a.rs", 1),
            },
            WrongExample {
                files: &[("model/src/a.rs", "//! A (contract.md 3.4).\n")],
                at: ("model/src/a.rs", 1),
            },
            WrongExample {
                files: &[("docs/a.md", "One.\n\n[b](b.md#gone)\n"), ("docs/b.md", "# There\n")],
                at: ("docs/a.md", 3),
            },
        ],
        fine: &[&[
            (
                "model/src/a.rs",
                "//! A (docs/original/rest.md#one-save, rest.md#calls).\nfn f() { \"x.md#y\" }\n",
            ),
            ("docs/original/rest.md", "# Calls\n\n## One save\n\n[see](../b.md#there)\n"),
            ("docs/b.md", "# There\n\nhttps://example.org/x.md#y [c](original/rest.md#calls)\n"),
        ]],
    },
    Rule {
        name: "a cited decision exists",
        check: decisions,
        wrong: &[
            WrongExample {
                files: &[
                    ("model/src/a.rs", "//! A (decision 2).\n"),
                    ("docs/decisions/0001-a.md", ""),
                ],
                at: ("model/src/a.rs", 1),
            },
            WrongExample {
                files: &[
                    ("docs/a.md", "As decisions 1 and 7 say.\n"),
                    ("docs/decisions/0001-a.md", ""),
                ],
                at: ("docs/a.md", 1),
            },
        ],
        fine: &[&[
            ("model/src/a.rs", "//! A (decision 0001).\nfn f() { \"decision 9\" }\n"),
            ("docs/decisions/0001-a.md", ""),
        ]],
    },
];

/// The lines of a file that may cite: all of a document, the comments of code.
fn prose(file: &SourceFile) -> impl Iterator<Item = (usize, &str)> {
    let lines = file.text.lines().enumerate().map(|(at, line)| (at + 1, line));
    lines.filter_map(|(at, line)| {
        let is_document = !file.is_rust();
        let comment = || line.trim_start().starts_with("//").then_some(line);
        if is_document { Some((at, line)) } else { comment().map(|line| (at, line)) }
    })
}

fn sections(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in &tree.files {
        for (at, line) in prose(file) {
            for (byte, _) in line.match_indices(".md") {
                let Some((path, section)) = citation(line, byte) else { continue };
                let is_link =
                    line[..byte].ends_with(&format!("]({}", path.trim_end_matches(".md")));
                let Some(page) = cited(tree, file, &path, is_link) else {
                    let right = "a document of this repository, by its path from the root";
                    found.push(file.finding(at, format!("cites {path}"), right));
                    continue;
                };
                let exists = |section: &str| headings(page).any(|heading| heading == section);
                if let Some(section) = section.filter(|section| !exists(section)) {
                    let right = format!("a heading of {}, as its link is spelled", page.path);
                    found.push(file.finding(at, format!("cites {path}#{section}"), right));
                }
            }
        }
    }
    found
}

/// The path that ends with the `.md` at `byte`, and the section behind it. `None` for an address
/// and for a name that is a pattern.
fn citation(line: &str, byte: usize) -> Option<(String, Option<String>)> {
    let is_path = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let stem = line[..byte].rsplit(|c| !is_path(c)).next()?;
    let before = line[..byte - stem.len()].chars().next_back();
    if stem.is_empty() || before.is_some_and(|c| ":*…{}<>".contains(c)) {
        return None;
    }
    let rest = &line[byte + ".md".len()..];
    if rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ']') {
        return None; // No ending, or the text of a link, whose target is cited besides.
    }
    let section = rest.strip_prefix('#').map(|rest| {
        let is_section = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        rest.split(|c| !is_section(c)).next().unwrap_or_default().to_owned()
    });
    Some((format!("{stem}.md"), section))
}

/// The page a citation means: from the root, beside the citing file, or about the original.
fn cited<'a>(
    tree: &'a Tree,
    from: &SourceFile,
    path: &str,
    is_link: bool,
) -> Option<&'a SourceFile> {
    let beside = super::words::resolve(&from.path, path);
    if is_link {
        return tree.get(&beside);
    }
    let pages = [path.to_owned(), beside, format!("{ORIGINAL}{path}")];
    pages.iter().find_map(|page| tree.get(page))
}

/// The sections of a document, as links spell them.
fn headings(page: &SourceFile) -> impl Iterator<Item = String> {
    let titles = page.text.lines().filter(|line| line.starts_with('#'));
    titles.map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        title.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    })
}

fn decisions(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in &tree.files {
        for (at, line) in prose(file) {
            for number in numbers(line) {
                let path = format!("{DECISIONS}{number:04}-");
                if !tree.files.iter().any(|file| file.path.starts_with(&path)) {
                    let right = format!("the number of a file of {DECISIONS}");
                    found.push(file.finding(at, format!("cites decision {number}"), right));
                }
            }
        }
    }
    found
}

/// The numbers behind `decision` or `decisions`: a list with commas and `and`.
fn numbers(line: &str) -> Vec<u32> {
    let mut all = Vec::new();
    for (byte, word) in line.match_indices("ecision") {
        let rest = line[byte + word.len()..].trim_start_matches('s');
        let words = rest.split([' ', ',']).filter(|word| !word.is_empty() && *word != "and");
        let digits = words.map(|word| word.trim_end_matches(|c: char| c.is_ascii_punctuation()));
        all.extend(digits.map_while(|digits| digits.parse::<u32>().ok()));
    }
    all
}
