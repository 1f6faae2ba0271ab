//! Names: which names of two runs mean the same thing.
//!
//! Times, days and made-up ids cannot be equal in two runs, and numbers of orders depend on what
//! was taken before. A made-up name is bound to its counterpart where both are first met; from
//! then on it must stand wherever the recorded one stood, and requests are sent with it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// No clock of a run is ahead of this; later times were sent by clients.
const FAR: &str = "2090";
/// How long an id is that was made at random.
const UUID: usize = 36;
/// No run was before this, in milliseconds since 1970, which are within ids of logs.
const MILLISECONDS: &str = "1600000000000";

/// One part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NamePiece<'a> {
    /// As it is.
    Plain(&'a str),
    /// An instant: `2026-11-21T00:23:19.881Z`, or with `-` throughout, as in a file's name.
    Time(&'a str),
    /// An instant in milliseconds: `1795220601017`.
    Millis(&'a str),
    /// A day: `2026-11-21`.
    Day(&'a str),
    /// What stands before it, and an id made at random.
    Made(&'a str, &'a str),
    /// What stands before it, and a number of a sequence: `DAR-001020`.
    Number(&'a str, &'a str),
}

/// What is bound.
#[derive(Debug, Clone, Default)]
pub struct NameBindings {
    bound: BTreeMap<String, String>,
    taken: BTreeSet<String>,
    recorded_day: String,
    our_day: String,
}

impl NameBindings {
    /// Nothing is bound; the runs took place on these days.
    pub fn new(recorded_day: &str, our_day: &str) -> Self {
        Self {
            recorded_day: recorded_day.to_owned(),
            our_day: our_day.to_owned(),
            ..Self::default()
        }
    }

    /// A recorded text as we would say it.
    pub fn translate(&self, text: &str) -> String {
        let say = |piece: &NamePiece<'_>| match *piece {
            NamePiece::Plain(text) | NamePiece::Time(text) | NamePiece::Millis(text) => {
                text.to_owned()
            }
            NamePiece::Day(day) if day == self.recorded_day => self.our_day.clone(),
            NamePiece::Day(day) => day.to_owned(),
            NamePiece::Made(before, made) | NamePiece::Number(before, made) => {
                let whole = format!("{before}{made}");
                self.bound.get(&whole).cloned().unwrap_or(whole)
            }
        };
        pieces(text).iter().map(say).collect()
    }

    /// A recorded value as we would say it.
    pub fn translate_all(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.translate(text)),
            Value::Array(items) => items.iter().map(|item| self.translate_all(item)).collect(),
            Value::Object(members) => members
                .iter()
                .map(|(name, value)| (self.translate(name), self.translate_all(value)))
                .collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    /// Whether the two may mean the same; binds nothing.
    pub fn may_match(&self, recorded: &str, ours: &str) -> bool {
        let (left, right) = (pieces(recorded), pieces(ours));
        left.len() == right.len() && left.iter().zip(&right).all(|(l, r)| self.meets(*l, *r))
    }

    /// Whether the two mean the same; what is met for the first time is bound.
    pub fn matches(&mut self, recorded: &str, ours: &str) -> bool {
        if !self.may_match(recorded, ours) {
            return false;
        }
        for (left, right) in pieces(recorded).into_iter().zip(pieces(ours)) {
            if let (Some(left), Some(right)) = (whole(left), whole(right)) {
                self.taken.insert(right.clone());
                self.bound.insert(left, right);
            }
        }
        true
    }

    /// Forgets which numbers of sequences mean the same: a reset lets them begin again.
    pub fn forget_numbers(&mut self) {
        let is_number = |name: &str| matches!(pieces(name)[..], [NamePiece::Number(..)]);
        self.bound.retain(|name, _| !is_number(name));
        self.taken.retain(|name| !is_number(name));
    }

    fn meets(&self, recorded: NamePiece<'_>, ours: NamePiece<'_>) -> bool {
        match (recorded, ours) {
            (NamePiece::Time(left), NamePiece::Time(right)) => {
                let (now, too) = (self.recorded_day.as_str(), self.our_day.as_str());
                left == right || ((now..FAR).contains(&left) && (too..FAR).contains(&right))
            }
            (NamePiece::Millis(_), NamePiece::Millis(_)) => true,
            (NamePiece::Day(left), NamePiece::Day(right)) => {
                left == right || (left == self.recorded_day && right >= self.our_day.as_str())
            }
            (NamePiece::Made(before, _), NamePiece::Made(ours_before, _))
            | (NamePiece::Number(before, _), NamePiece::Number(ours_before, _)) => {
                before == ours_before && self.agree(recorded, ours)
            }
            (left, right) => left == right,
        }
    }

    fn agree(&self, recorded: NamePiece<'_>, ours: NamePiece<'_>) -> bool {
        let (Some(left), Some(right)) = (whole(recorded), whole(ours)) else { return false };
        match self.bound.get(&left) {
            Some(bound) => *bound == right,
            None => !self.taken.contains(&right),
        }
    }
}

fn whole(piece: NamePiece<'_>) -> Option<String> {
    match piece {
        NamePiece::Made(before, made) | NamePiece::Number(before, made) => {
            Some(format!("{before}{made}"))
        }
        NamePiece::Plain(_) | NamePiece::Time(_) | NamePiece::Millis(_) | NamePiece::Day(_) => None,
    }
}

/// The parts of a text, in order.
fn pieces(text: &str) -> Vec<NamePiece<'_>> {
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let time = time_length(rest);
        let word = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        let length = match (time, word) {
            (Some(length), _) => length,
            (None, 0) => rest.find(is_word).unwrap_or(rest.len()),
            (None, length) => length,
        };
        let (here, after) = rest.split_at(length);
        found.push(if time.is_some() { NamePiece::Time(here) } else { piece(here) });
        rest = after;
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '-' || c == '_'
}

fn piece(word: &str) -> NamePiece<'_> {
    let split =
        |length: usize| word.len().checked_sub(length).and_then(|at| word.split_at_checked(at));
    if has_form(word, "0000-00-00") {
        return NamePiece::Day(word);
    }
    if has_form(word, "0000000000000") && word > MILLISECONDS {
        return NamePiece::Millis(word);
    }
    if let Some((before, made)) = split(UUID)
        && is_uuid(made)
    {
        return NamePiece::Made(before, made);
    }
    match split("000000".len()) {
        Some((before, number)) if has_form(number, "000000") && has_form(before, "AAA-") => {
            NamePiece::Number(before, number)
        }
        _ => NamePiece::Plain(word),
    }
}

fn is_uuid(text: &str) -> bool {
    text.char_indices().all(|(at, c)| match at {
        8 | 13 | 18 | 23 => c == '-',
        _ => c.is_ascii_hexdigit(),
    })
}

/// How long an instant at the start of a text is.
fn time_length(text: &str) -> Option<usize> {
    ["0000-00-00T00:00:00.000Z", "0000-00-00T00:00:00Z", "0000-00-00T00-00-00-000Z"]
        .into_iter()
        .find(|form| text.get(..form.len()).is_some_and(|start| has_form(start, form)))
        .map(str::len)
}

/// `0` stands for a digit, `A` for a capital letter, others for themselves.
fn has_form(text: &str, form: &str) -> bool {
    text.len() == form.len()
        && text.bytes().zip(form.bytes()).all(|(byte, like)| match like {
            b'0' => byte.is_ascii_digit(),
            b'A' => byte.is_ascii_uppercase(),
            other => byte == other,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "evt-46048ae6-9a9b-4ddb-b8c3-cfff9319eab1";
    const SECOND: &str = "evt-38be1ec6-bdc0-4a6d-b8fc-11e9a77f284c";

    fn names() -> NameBindings {
        NameBindings::new("2026-11-21", "2030-01-02")
    }

    #[test]
    fn a_made_up_name_is_held_to_its_first_counterpart() {
        let mut names = names();
        assert!(names.matches(FIRST, SECOND));
        assert!(names.matches(FIRST, SECOND));
        assert!(!names.matches(FIRST, FIRST), "it was bound to another");
        assert!(!names.matches(SECOND, SECOND), "that one is taken");
        assert!(names.matches("no AAA-000007 here", "no AAA-000003 here"));
        assert_eq!(names.translate("/orders/AAA-000007?x=1"), "/orders/AAA-000003?x=1");
        assert!(!names.matches("AAA-000008", "BBB-000004"));
    }

    #[test]
    fn a_time_of_the_run_is_any_time_of_the_other_run() {
        let mut names = names();
        assert!(names.matches("2026-11-21T00:23:19.881Z", "2030-01-02T10:00:00.000Z"));
        assert!(!names.matches("2026-11-21T00:23:19.881Z", "2001-01-02T10:00:00.000Z"));
        assert!(!names.matches("2025-01-07T10:00:00.000Z", "2030-01-02T10:00:00.000Z"));
        assert!(names.matches("2025-01-07T10:00:00.000Z", "2025-01-07T10:00:00.000Z"));
        assert!(names.matches("2026-11-21", "2030-01-02"));
        assert_eq!(names.translate("2026-11-21"), "2030-01-02");
    }

    #[test]
    fn a_time_within_an_id_is_any_time() {
        let mut names = names();
        assert!(names.matches("a::status::1795220601017", "a::status::1795254630627"));
        assert!(!names.matches("a::status::1795220601017", "a::status::1"));
    }

    #[test]
    fn numbers_may_begin_again() {
        let mut names = names();
        assert!(names.matches("AAA-000007", "AAA-000003") && names.matches(FIRST, SECOND));
        assert!(!names.may_match("AAA-000003", "AAA-000003"), "it is taken");
        names.forget_numbers();
        assert!(names.matches("AAA-000003", "AAA-000003"));
        assert!(!names.matches(SECOND, SECOND), "others are kept");
    }

    #[test]
    fn other_texts_are_equal_or_not() {
        let mut names = names();
        assert!(names.matches("a «b», ج: 1", "a «b», ج: 1"));
        assert!(!names.matches("a b", "a c"));
        assert!(!names.matches("a", "a b"));
    }
}
