//! Compare: a recorded answer and ours side by side, down to every member.
//!
//! Versions and sequences are compared by their distance: an earlier, unwritten state may shift
//! them all, but then it shifts them alike. Lists of records are compared by key; a record that
//! our run never had cannot be missing from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

use super::names::NameBindings;
use super::slack;

/// Most characters of a value in a report.
const SHOWN: usize = 80;
/// Numbers beyond this are milliseconds since 1970.
const MILLISECONDS: f64 = 1.6e12;
/// Ends a list of which only the beginning was written down.
pub(super) const CUT_LIST: &str = "<<trimmed: ";
/// Stands for the tables that were empty, with their count.
pub(super) const CUT_TABLES: &str = "<<trimmed-empty-tables>>";
/// A list of branches.
const BRANCHES: &str = "branches";
/// Members that place what stands below them.
const PLACES: [&str; 2] = ["branchId", "moduleId"];

/// How two answers differ in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DifferenceKind {
    /// The status is another.
    Status,
    /// A member, a record or a whole frame is not there.
    Missing,
    /// One is there that was not recorded.
    Extra,
    /// A value has another type.
    Type,
    /// A value is another.
    Value,
    /// The same, in another order.
    Order,
    /// No answer came at all.
    Silence,
}

impl fmt::Display for DifferenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Status => "status",
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Type => "type",
            Self::Value => "value",
            Self::Order => "order",
            Self::Silence => "silence",
        })
    }
}

/// One difference.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The file it was recorded in.
    pub file: String,
    /// The step of the file.
    pub step: usize,
    /// The request or frame, without what changes from one to the next.
    pub what: String,
    /// Where in the answer.
    pub path: String,
    /// How it differs.
    pub kind: DifferenceKind,
    /// What was recorded.
    pub recorded: String,
    /// What we answered.
    pub ours: String,
}

/// Where a comparison stands.
#[derive(Debug, Clone, Default)]
pub struct Spot {
    /// The file.
    pub file: String,
    /// The step.
    pub step: usize,
    /// See [`Difference::what`].
    pub what: String,
    /// The path of the call, if it is one.
    pub call: String,
}

/// How far our number is from the recorded one.
#[derive(Debug, Clone, Copy)]
struct Distance {
    agreed: f64,
    /// What was seen once instead: seen again, it is agreed.
    seen: Option<f64>,
}

/// What is known while one run is compared with another.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Which names mean the same.
    pub names: NameBindings,
    /// What was found so far.
    pub differences: Vec<Difference>,
    distances: BTreeMap<(String, String), Distance>,
    /// Records we ever had, and the number of the scenario they came in.
    had: BTreeMap<String, usize>,
    /// Records that were shown in this scenario.
    shown: BTreeSet<String>,
    scenario: usize,
    spot: Spot,
    /// The topic, where what is compared shows a state of its own.
    topic: String,
}

impl Comparison {
    /// Nothing is known.
    pub fn new(names: NameBindings) -> Self {
        Self { names, ..Self::default() }
    }

    /// Forgets how far numbers are apart: another scenario begins, maybe on another state.
    pub fn begin(&mut self) {
        self.distances.clear();
        self.shown.clear();
        self.scenario += 1;
    }

    /// A comparison for a play whose differences do not count.
    pub fn rehearsal(&self) -> Self {
        Self { names: self.names.clone(), had: self.had.clone(), ..Self::default() }
    }

    /// Takes over which records a rehearsal left.
    pub fn rehearsed(&mut self, rehearsal: Self) {
        for key in rehearsal.had.into_keys() {
            self.had.entry(key).or_default();
        }
    }

    /// Takes a place in the recordings.
    pub fn stand(&mut self, spot: Spot) {
        self.spot = spot;
    }

    /// The file a place was taken in.
    pub fn file(&self) -> &str {
        &self.spot.file
    }

    /// Says what is compared from here on.
    pub fn says(&mut self, what: String) {
        self.spot.what = what;
    }

    /// Notes a difference at the place taken.
    pub fn differs(&mut self, path: &[String], kind: DifferenceKind, recorded: &str, ours: &str) {
        self.differences.push(Difference {
            file: self.spot.file.clone(),
            step: self.spot.step,
            what: self.spot.what.clone(),
            path: format!("/{}", path.join("/")),
            kind,
            recorded: recorded.to_owned(),
            ours: ours.to_owned(),
        });
    }

    /// Compares two values, and remembers which records we have.
    pub fn values(&mut self, root: &str, recorded: &Value, ours: &Value) {
        let topic = recorded.get("topic").and_then(Value::as_str).unwrap_or_default();
        self.topic = if slack::is_of_a_state(topic) { topic.to_owned() } else { String::new() };
        self.walk("", &mut vec![root.to_owned()], recorded, ours);
        self.remember(ours);
        let mut shown = Vec::new();
        every_key(recorded, &mut shown);
        self.shown.extend(shown.iter().map(|key| self.names.translate(key)));
    }

    /// Remembers which records we have.
    pub fn remember(&mut self, ours: &Value) {
        let mut keys = Vec::new();
        every_key(ours, &mut keys);
        for key in keys {
            self.had.entry(key).or_insert(self.scenario);
        }
    }

    /// Whether a record of ours that was not recorded must not be there: it was shown in this
    /// scenario, or came in it. An older one may have been lost before the recording.
    fn is_new(&self, key: &str) -> bool {
        self.shown.contains(key) || self.had.get(key).is_none_or(|since| *since == self.scenario)
    }

    fn walk(&mut self, place: &str, path: &mut Vec<String>, recorded: &Value, ours: &Value) {
        if slack::is_of_the_run(&self.spot.call, path) {
            return self.types(path, recorded, ours);
        }
        match (recorded, ours) {
            (Value::Object(left), Value::Object(right)) => {
                self.members(place, path, recorded, left, right);
            }
            (Value::Array(left), Value::Array(right)) => self.lists(place, path, left, right),
            (Value::String(left), Value::String(right)) => {
                if !self.names.matches(left, right) {
                    self.differs(path, DifferenceKind::Value, &shown(recorded), &shown(ours));
                }
            }
            (Value::Number(left), Value::Number(right)) => {
                let (left, right) = (left.as_f64(), right.as_f64());
                self.numbers(path, left.unwrap_or_default(), right.unwrap_or_default());
            }
            _ if recorded == ours => {}
            _ if type_of(recorded) == type_of(ours) => {
                self.differs(path, DifferenceKind::Value, &shown(recorded), &shown(ours));
            }
            _ => self.differs(path, DifferenceKind::Type, &shown(recorded), &shown(ours)),
        }
    }

    /// Whether two records with made-up keys may be the same one.
    fn like(&self, recorded: &Value, ours: &Value) -> bool {
        match (recorded, ours) {
            (Value::Object(left), Value::Object(right)) => left
                .iter()
                .all(|(name, value)| right.get(name).is_none_or(|ours| self.like(value, ours))),
            (Value::String(left), Value::String(right)) => self.names.may_match(left, right),
            (Value::Number(left), Value::Number(right)) => {
                let (left, right) = (left.as_f64(), right.as_f64());
                left == right || (left > Some(MILLISECONDS) && right > Some(MILLISECONDS))
            }
            (Value::Array(_), Value::Array(_)) => true,
            (left, right) => left == right,
        }
    }

    fn types(&mut self, path: &[String], recorded: &Value, ours: &Value) {
        if type_of(recorded) != type_of(ours) {
            self.differs(path, DifferenceKind::Type, &shown(recorded), &shown(ours));
        }
    }

    fn members(
        &mut self,
        place: &str,
        path: &mut Vec<String>,
        recorded: &Value,
        left: &Map<String, Value>,
        right: &Map<String, Value>,
    ) {
        let place = within(place, left);
        if let Some(cut) = left.get(CUT_TABLES).and_then(Value::as_u64) {
            return self.tables(&place, path, left, right, cut);
        }
        for (name, value) in left {
            let name = &self.names.translate(name);
            path.push(name.clone());
            match right.get(name) {
                None => self.differs(path, DifferenceKind::Missing, &shown(value), ""),
                Some(ours) if slack::is_parsers_word(recorded, name) => {
                    self.types(path, value, ours);
                }
                Some(ours) if is_count_of_rows(name, left) && is_count_of_rows(name, right) => {
                    self.types(path, value, ours);
                }
                Some(ours) if is_last_row(name, left) && is_last_row(name, right) => {
                    self.types(path, value, ours);
                }
                Some(ours) if is_counted(name, left) => {
                    self.counted(&place, path, value, ours);
                }
                Some(ours) => self.walk(&place, path, value, ours),
            }
            path.pop();
        }
        let known: BTreeSet<String> = left.keys().map(|name| self.names.translate(name)).collect();
        for (name, value) in right.iter().filter(|(name, _)| !known.contains(*name)) {
            if !slack::may_have(path, recorded, name) {
                path.push(name.clone());
                self.differs(path, DifferenceKind::Extra, "", &shown(value));
                path.pop();
            }
        }
    }

    /// Compares tables of which the empty ones were not written down.
    fn tables(
        &mut self,
        place: &str,
        path: &mut Vec<String>,
        left: &Map<String, Value>,
        right: &Map<String, Value>,
        cut: u64,
    ) {
        let shown = left.iter().filter(|(name, _)| *name != CUT_TABLES);
        let none = Value::Array(Vec::new());
        for (name, rows) in shown.clone() {
            path.push(name.clone());
            match right.get(name) {
                Some(ours) => self.walk(place, path, rows, ours),
                None => self.differs(path, DifferenceKind::Missing, "a table", ""),
            }
            path.pop();
        }
        for (name, ours) in right.iter().filter(|(name, _)| !left.contains_key(*name)) {
            path.push(name.clone());
            self.walk(place, path, &none, ours);
            path.pop();
        }
        let recorded = shown.count() + usize::try_from(cut).unwrap_or_default();
        if recorded != right.len() {
            let (recorded, ours) = (format!("{recorded} tables"), format!("{}", right.len()));
            self.differs(path, DifferenceKind::Value, &recorded, &ours);
        }
    }

    /// Compares a version or sequence by its distance.
    fn counted(&mut self, place: &str, path: &mut Vec<String>, recorded: &Value, ours: &Value) {
        let (Some(left), Some(right)) = (recorded.as_f64(), ours.as_f64()) else {
            return self.walk(place, path, recorded, ours);
        };
        #[allow(clippy::float_cmp, reason = "whole numbers")]
        let is_equal = left == right;
        if is_equal {
            return; // Such as a version that both clients sent.
        }
        let kind = path.last().cloned().unwrap_or_default();
        let here = (format!("{}{place}", self.topic), kind);
        let found = left - right;
        let known = self.distances.entry(here).or_insert(Distance { agreed: found, seen: None });
        #[allow(clippy::float_cmp, reason = "whole numbers")]
        let is_agreed = known.agreed == found;
        if is_agreed {
            known.seen = None;
        } else if known.seen == Some(found) {
            *known = Distance { agreed: found, seen: None };
        } else {
            known.seen = Some(found);
            let expected = left - known.agreed;
            let ours = format!("{right} (for an even distance {expected})");
            self.differs(path, DifferenceKind::Value, &format!("{left}"), &ours);
        }
    }

    fn numbers(&mut self, path: &mut Vec<String>, left: f64, right: f64) {
        let is_whole = path.len() == 1 && self.spot.call.ends_with("/version");
        if is_whole {
            let place = String::new();
            return self.counted(&place, path, &left.into(), &right.into());
        }
        let are_times = left > MILLISECONDS && right > MILLISECONDS;
        #[allow(clippy::float_cmp, reason = "both were read from text")]
        if left != right && !are_times {
            self.differs(path, DifferenceKind::Value, &left.to_string(), &right.to_string());
        }
    }

    fn lists(&mut self, place: &str, path: &mut Vec<String>, left: &[Value], right: &[Value]) {
        let (left, is_cut) = uncut(left);
        let keyed = left.iter().chain(right).all(|item| key(item).is_some());
        if keyed {
            return self.records(place, path, left, right, is_cut);
        }
        let length = if is_cut { left.len() } else { left.len().max(right.len()) };
        for at in 0..length {
            path.push(at.to_string());
            match (left.get(at), right.get(at)) {
                (Some(left), Some(right)) => self.walk(place, path, left, right),
                (Some(left), None) => self.differs(path, DifferenceKind::Missing, &shown(left), ""),
                (None, Some(right)) => self.differs(path, DifferenceKind::Extra, "", &shown(right)),
                (None, None) => {}
            }
            path.pop();
        }
    }

    /// Compares records by key: those both have, those that were lost, those that are new, and
    /// their order.
    fn records(
        &mut self,
        place: &str,
        path: &mut Vec<String>,
        left: &[Value],
        right: &[Value],
        is_cut: bool,
    ) {
        let mut free: Vec<usize> = (0..right.len()).collect();
        let mut last = None;
        let mut is_ordered = true;
        // Where each has one, it can be no other, however they differ.
        let is_only = left.len() == 1 && right.len() == 1 && !is_cut;
        for recorded in left {
            let wanted = key(recorded).unwrap_or_default();
            let said = self.names.translate(&wanted);
            let found = free.iter().position(|at| {
                let ours = key(&right[*at]).unwrap_or_default();
                ours == said
                    || (self.names.may_match(&wanted, &ours)
                        && (is_only || self.like(recorded, &right[*at])))
            });
            path.push(said.clone());
            match found.map(|at| free.remove(at)) {
                Some(at) => {
                    is_ordered &= last.is_none_or(|last| last < at);
                    last = Some(at);
                    let is_branch = path.iter().rev().nth(1).is_some_and(|list| list == BRANCHES);
                    let inside = if is_branch { format!("{said}::") } else { place.to_owned() };
                    self.walk(&inside, path, recorded, &right[at]);
                }
                None if self.had.contains_key(&said) => {
                    self.differs(path, DifferenceKind::Missing, &shown(recorded), "");
                }
                None => {}
            }
            path.pop();
        }
        for at in free {
            let key = key(&right[at]).unwrap_or_default();
            if !is_cut && self.is_new(&key) {
                path.push(key);
                self.differs(path, DifferenceKind::Extra, "", &shown(&right[at]));
                path.pop();
            }
        }
        if !is_ordered {
            self.differs(path, DifferenceKind::Order, &keys(left), &keys(right));
        }
    }
}

/// The branch and module of a part, `<branch>::<module>`, where it does not say it itself those
/// of what it is part of.
fn within(place: &str, members: &Map<String, Value>) -> String {
    let (branch, module) = place.rsplit_once("::").unwrap_or_default();
    let here = |name: &str| members.get(name).and_then(Value::as_str);
    let [of_branch, of_module] = PLACES.map(here);
    format!("{}::{}", of_branch.unwrap_or(branch), of_module.unwrap_or(module))
}

/// What was written down of a list, and whether more was left out.
fn uncut(list: &[Value]) -> (&[Value], bool) {
    match list.split_last() {
        Some((Value::String(last), shown)) if last.starts_with(CUT_LIST) => (shown, true),
        _ => (list, false),
    }
}

/// The keys of all records in a value.
fn every_key(value: &Value, keys: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| every_key(item, keys)),
        Value::Object(members) => {
            keys.extend(key(value));
            members.values().for_each(|value| every_key(value, keys));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What a record is known by.
fn key(value: &Value) -> Option<String> {
    match value.get("id").or_else(|| value.get("moduleId")).or_else(|| value.get("name")) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    }
}

fn keys(records: &[Value]) -> String {
    short(&records.iter().filter_map(key).collect::<Vec<_>>().join(" "))
}

/// Whether a member counts the rows beside it.
fn is_count_of_rows(name: &str, members: &Map<String, Value>) -> bool {
    let rows = members.get("rows").and_then(Value::as_array);
    name == "count" && rows.is_some_and(|rows| members[name] == rows.len())
}

/// Whether a member is the cursor after the rows beside it.
fn is_last_row(name: &str, members: &Map<String, Value>) -> bool {
    let rows = members.get("rows").and_then(Value::as_array);
    let last = rows.and_then(|rows| uncut(rows).0.last());
    name == "cursor" && last.is_some_and(|row| row.get("id") == members[name].get("id"))
}

/// Whether a member counts the changes of a module.
fn is_counted(name: &str, members: &Map<String, Value>) -> bool {
    let has = |other: &str| members.contains_key(other);
    match name {
        "sequence" => has("eventId") || has("table"),
        "version" => has("moduleId") || has("eventId"),
        "originalVersion" => true,
        _ => false,
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// A value as a report shows it.
pub fn shown(value: &Value) -> String {
    short(&value.to_string())
}

fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(pairs: &[(Value, Value)]) -> Vec<(String, DifferenceKind)> {
        let mut comparison = Comparison::new(NameBindings::new("2026-11-21", "2030-01-02"));
        for (recorded, ours) in pairs {
            comparison.values("body", recorded, ours);
        }
        let differences = comparison.differences.into_iter();
        differences.map(|difference| (difference.path, difference.kind)).collect()
    }

    #[test]
    fn every_member_is_compared() {
        let recorded = json!({ "a": 1, "b": null, "c": [1, "x"], "e": 1.0 });
        let ours = json!({ "a": 2, "c": [1, 2], "d": true, "e": 1 });
        let expected = [
            ("/body/a".to_owned(), DifferenceKind::Value),
            ("/body/b".to_owned(), DifferenceKind::Missing),
            ("/body/c/1".to_owned(), DifferenceKind::Type),
            ("/body/d".to_owned(), DifferenceKind::Extra),
        ];
        assert_eq!(found(&[(recorded, ours)]), expected);
    }

    #[test]
    fn versions_are_compared_by_their_distance() {
        let answer = |version: u64| json!({ "branchId": "b", "moduleId": "m", "version": version });
        let even = [(answer(39), answer(5)), (answer(40), answer(6))];
        assert_eq!(found(&even), []);
        let odd = [(answer(39), answer(5)), (answer(40), answer(7)), (answer(41), answer(8))];
        assert_eq!(
            found(&odd),
            [("/body/version".to_owned(), DifferenceKind::Value)],
            "it is said once"
        );
        let record = (json!({ "id": "a", "version": 2 }), json!({ "id": "a", "version": 3 }));
        let sent =
            [(answer(39), answer(5)), (answer(500), answer(500)), (answer(501), answer(501))];
        assert_eq!(found(&sent), [], "what is equal is right");
        assert_eq!(found(&[record]).len(), 1, "a record's own version is compared as it is");
    }

    #[test]
    fn a_record_that_we_never_had_is_not_missed() {
        let list = |ids: &[&str]| json!({ "rows": ids.iter().map(|id| json!({ "id": id })).collect::<Vec<_>>() });
        assert_eq!(found(&[(list(&["old", "a"]), list(&["a"]))]), []);
        let lost = [(list(&["a", "b"]), list(&["a", "b"])), (list(&["a", "b"]), list(&["b", "c"]))];
        let expected = [
            ("/body/rows/a".to_owned(), DifferenceKind::Missing),
            ("/body/rows/c".to_owned(), DifferenceKind::Extra),
        ];
        assert_eq!(found(&lost), expected);
        let id = "a::status::179522060101";
        let log = |at: u8, state: &str| json!({ "rows": [{ "id": format!("{id}{at}"), "state": state }] });
        let state = ("/body/rows/a::status::1795220601017/state".to_owned(), DifferenceKind::Value);
        assert_eq!(found(&[(log(7, ""), log(8, "open"))]), [state], "one stands for one");
        let turned = (list(&["a", "b"]), list(&["b", "a"]));
        assert_eq!(found(&[turned]), [("/body/rows".to_owned(), DifferenceKind::Order)]);
    }
}
