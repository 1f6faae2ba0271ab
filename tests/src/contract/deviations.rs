//! Deviations: the one table of differences that are meant, read from `docs/protocol.md`.
//!
//! `Where` is `<file>#<steps> <path>`: the file or `*`; steps such as `7`, `7,9-12` or `*`; a path
//! in which `*` is one step and `**` any number. `Recorded` and `Ours` are words, or a value in
//! backticks that must be the one found, `*` for any text. `Because` cites the rule.

use std::cell::Cell;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::compare::Difference;

/// The document with the table.
const DOCUMENT: &str = "../docs/protocol.md";
/// How the table begins.
const HEAD: &str = "| Where | Recorded | Ours | Because |";
/// What a reason cites one of: sections of `docs/original`, or a decision.
const RULES: [&str; 3] = ["differences.md#", "faults.md#", "decision "];

/// One row.
#[derive(Debug, Clone)]
pub struct DeviationRow {
    /// `<file>#<steps> <path>`, as written.
    pub place: String,
    file: String,
    steps: String,
    path: String,
    recorded: String,
    ours: String,
    used: Cell<usize>,
}

/// The table.
#[derive(Debug, Clone, Default)]
pub struct DeviationTable {
    /// Its rows.
    pub rows: Vec<DeviationRow>,
}

impl DeviationTable {
    /// Reads the table of the document.
    ///
    /// # Errors
    /// The document cannot be read, or a row has another form.
    pub fn of_the_document() -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
        Self::of(&fs::read_to_string(&path).with_context(|| format!("reading {DOCUMENT}"))?)
    }

    /// Reads the table of a text.
    ///
    /// # Errors
    /// There is none, or a row has another form.
    pub fn of(text: &str) -> Result<Self> {
        let mut lines = text.lines().skip_while(|line| !line.starts_with(HEAD)).skip(1);
        ensure!(lines.next().is_some_and(|line| line.starts_with("|-")), "no table `{HEAD}`");
        let rows = lines.take_while(|line| line.starts_with('|')).map(row);
        Ok(Self { rows: rows.collect::<Result<_>>()? })
    }

    /// Whether a difference is meant. Its rows are used by this.
    pub fn explains(&self, difference: &Difference) -> bool {
        let mut is_explained = false;
        for row in self.rows.iter().filter(|row| row.matches(difference)) {
            row.used.set(row.used.get() + 1);
            is_explained = true;
        }
        is_explained
    }

    /// Rows that explained nothing, of the files that were played.
    pub fn unused(&self, files: &[String]) -> Vec<String> {
        let is_played = |row: &&DeviationRow| files.iter().any(|file| matches(&row.file, file));
        let unused = self.rows.iter().filter(|row| row.used.get() == 0).filter(is_played);
        unused.map(|row| row.place.clone()).collect()
    }
}

impl DeviationRow {
    fn matches(&self, difference: &Difference) -> bool {
        let path: Vec<&str> = difference.path.split('/').collect();
        let like: Vec<&str> = self.path.split('/').collect();
        matches(&self.file, &difference.file)
            && has_step(&self.steps, difference.step)
            && leads(&like, &path)
            && says(&self.recorded, &difference.recorded)
            && says(&self.ours, &difference.ours)
    }
}

fn row(line: &str) -> Result<DeviationRow> {
    let cells: Vec<&str> = line.trim().trim_matches('|').split(" | ").map(str::trim).collect();
    let [place, recorded, ours, because] = cells[..] else {
        anyhow::bail!("a row has four cells: {line}");
    };
    let place = place.trim_matches('`');
    ensure!(RULES.iter().any(|rule| because.contains(rule)), "{place} cites no rule: {because}");
    let (spot, path) = place.split_once(' ').with_context(|| format!("{place} has no path"))?;
    let (file, steps) = spot.split_once('#').with_context(|| format!("{place} has no step"))?;
    Ok(DeviationRow {
        place: place.to_owned(),
        file: file.to_owned(),
        steps: steps.to_owned(),
        path: path.to_owned(),
        recorded: recorded.to_owned(),
        ours: ours.to_owned(),
        used: Cell::new(0),
    })
}

/// Whether a list such as `7,9-12` names a step.
fn has_step(steps: &str, step: usize) -> bool {
    steps.split(',').any(|part| match part.split_once('-') {
        _ if part == "*" => true,
        Some((first, last)) => {
            matches!((first.parse(), last.parse()), (Ok(first), Ok(last)) if (first..=last).contains(&step))
        }
        None => part.parse() == Ok(step),
    })
}

/// Whether a cell in backticks is this value; words are not compared.
fn says(cell: &str, value: &str) -> bool {
    match cell.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) {
        Some(like) => matches(like, value),
        None => true,
    }
}

/// Whether a path leads along these steps.
fn leads(like: &[&str], path: &[&str]) -> bool {
    match (like.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => (0..=path.len()).any(|skipped| leads(rest, &path[skipped..])),
        (Some((first, like)), Some((step, path))) => matches(first, step) && leads(like, path),
        _ => false,
    }
}

/// Whether a text has a form in which `*` is any text.
fn matches(form: &str, text: &str) -> bool {
    let mut parts = form.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut is_open = false;
    for part in parts {
        is_open = true;
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        if part.is_empty() {
            rest = "";
        }
    }
    rest.is_empty() || (is_open && form.rsplit('*').next().is_some_and(|end| text.ends_with(end)))
}

#[cfg(test)]
mod tests {
    use super::super::compare::DifferenceKind;
    use super::*;

    fn difference(path: &str, ours: &str) -> Difference {
        Difference {
            file: "rest-02".to_owned(),
            step: 19,
            what: "POST /x".to_owned(),
            path: path.to_owned(),
            kind: DifferenceKind::Status,
            recorded: String::new(),
            ours: ours.to_owned(),
        }
    }

    fn table(place: &str, ours: &str) -> DeviationTable {
        let text = format!(
            "{HEAD}\n|---|---|---|---|\n| `{place}` | it ends | {ours} | faults.md#orders |\n"
        );
        DeviationTable::of(&text).unwrap()
    }

    #[test]
    fn a_row_explains_what_it_names_and_nothing_else() {
        let found = difference("/body/rows/a/total", "400");
        for place in ["rest-02#19 /body/**", "*#* /body/rows/*/total", "rest-02#1,18-20 /**/total"]
        {
            assert!(table(place, "words").explains(&found), "{place}");
        }
        for place in ["rest-01#19 /**", "rest-02#18 /**", "rest-02#* /body/*", "rest-02#* /body"] {
            assert!(!table(place, "words").explains(&found), "{place}");
        }
        assert!(table("*#* /**", "`4*`").explains(&found));
        assert!(!table("*#* /**", "`5*`").explains(&found));
    }

    #[test]
    fn a_row_that_explains_nothing_is_told() {
        let table = table("rest-02#3 /status", "400");
        assert_eq!(table.unused(&["rest-02".to_owned()]), ["rest-02#3 /status"]);
        assert_eq!(table.unused(&["rest-01".to_owned()]), [""; 0], "its file was not played");
    }

    #[test]
    fn a_reason_cites_a_rule() {
        let text = format!("{HEAD}\n|---|---|---|---|\n| `a#1 /x` | a | b | we like it |\n");
        assert!(DeviationTable::of(&text).is_err());
    }

    /// The first cells of the table under a heading of the document, without backticks.
    fn first_cells(heading: &str) -> Vec<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines().skip_while(|line| *line != heading).skip(1);
        let rows = lines.take_while(|line| !line.starts_with('#')).filter(|l| l.starts_with('|'));
        rows.skip(2)
            .map(|row| row.split('|').nth(1).unwrap().trim().trim_matches('`').to_owned())
            .collect()
    }

    #[test]
    fn every_step_that_is_cited_is_described() {
        let described = first_cells("### 5.1 What the recordings ask");
        let is_described = |file: &str, step: usize| {
            described.iter().any(|cell| {
                let (of, steps) = cell.split_once('#').unwrap();
                of == file && has_step(steps, step)
            })
        };
        for row in DeviationTable::of_the_document().unwrap().rows {
            let cited = (0..1000).filter(|step| row.steps != "*" && has_step(&row.steps, *step));
            for step in cited.filter(|_| row.file != "*") {
                let files = [row.file.clone(), row.file.replace('*', "1")];
                let is_known = files.iter().any(|file| is_described(file, step));
                assert!(is_known, "{}: step {step} is not in 5.1", row.place);
            }
        }
    }

    #[test]
    fn every_rule_that_is_cited_is_described() {
        let described = first_cells("### 5.2 The rules cited");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines().skip_while(|line| !line.starts_with(HEAD)).skip(2);
        let mut checked = 0;
        for line in lines.take_while(|line| line.starts_with('|')) {
            let because = line.trim().trim_end_matches('|').rsplit(" | ").next().unwrap();
            for part in because.split([',', ':']).map(str::trim) {
                if RULES.iter().any(|rule| part.starts_with(rule)) {
                    assert!(described.iter().any(|rule| rule == part), "{part}: not in 5.2");
                    checked += 1;
                }
            }
        }
        assert!(checked > 0);
    }

    #[test]
    fn a_form_with_stars_matches() {
        assert!(matches("a*c", "abc") && matches("*", "") && matches("a*", "abc"));
        assert!(matches("a*c*c", "abcdc") && !matches("a*c", "abcd") && !matches("a", "ab"));
    }
}
