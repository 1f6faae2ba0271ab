//! Rule: one sequence's rule, in any of the three formats people have written
//! (docs/original/schemas.md#sequence-rules).
//!
//! Parts: `{prefix, suffix, start, padding, padChar, delimiter, counterField}`, joined by the
//! delimiter. Format: `{prefix, start, format: "{prefix}-{number:05d}"}`. Pattern: `{pattern:
//! "{branchPrefix}-{seq:6}", start, increment}`. Refused: a text without the number in it, which
//! would name every record alike; placeholders nobody knows; numbers that are none.

use crate::limits::{SEQUENCE_NOTE_BYTES_MAX, SEQUENCE_NUMBER_MAX, SEQUENCE_TEXT_BYTES_MAX};
use crate::schema::{Field, FieldType};
use crate::sequence::{PatternPart, SequenceRule};
use crate::value::{Object, Value};

/// Widest padding, in characters: a longer number is unreadable anyway.
const WIDTH_MAX: u32 = 64;
/// Most digits of a number.
const DIGITS_MAX: u32 = 15;
/// Members that make an object a rule, whichever the format.
const RULE_MEMBERS: [&str; 8] =
    ["start", "prefix", "suffix", "padding", "pad", "format", "pattern", "increment"];
/// Members a rule may have where none is passed over.
const MEMBERS: [&str; 13] = [
    "prefix",
    "suffix",
    "start",
    "increment",
    "format",
    "pattern",
    "padding",
    "pad",
    "padChar",
    "padWith",
    "delimiter",
    "counterField",
    "description",
];

/// A numbering rule that cannot be read: where, what is wrong, what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("sequence rule {place}: {problem}")]
pub struct BadRule {
    /// Which rule, such as `branches.dar.pos.order_header.id`.
    pub place: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl SequenceRule {
    /// Reads one rule.
    ///
    /// # Errors
    /// [`BadRule`] naming the member that cannot be read.
    pub fn from_doc(doc: &Value) -> Result<Self, BadRule> {
        let wrong = |problem| BadRule { place: doc.to_json(), problem };
        let rule = doc.as_object().ok_or_else(|| wrong("a rule is an object".to_owned()))?;
        let pattern = pattern(rule).map_err(wrong)?;
        let increment = number(rule, "increment").map_err(wrong)?.unwrap_or(1);
        if increment == 0 {
            return Err(wrong("increment is 0; it is at least 1".to_owned()));
        }
        Ok(Self {
            start: number(rule, "start").map_err(wrong)?.unwrap_or(1),
            increment,
            pattern,
            counter_field: text(rule, "counterField").map_err(wrong)?,
            source: doc.clone(),
        })
    }

    /// Reads one rule that is asked for now, rather than found in a file: nothing of it is passed
    /// over, and its numbers have at most 15 digits.
    ///
    /// # Errors
    /// [`BadRule`] naming the member that is unknown, has no effect, or is out of bounds.
    pub fn from_request(doc: &Value) -> Result<Self, BadRule> {
        let wrong = |problem| BadRule { place: doc.to_json(), problem };
        // What was in a file stays readable as it always was; what is asked for today must be
        // meant.
        let rule = Self::from_doc(doc)?;
        let members = doc.as_object().expect("a rule is an object");
        if let Some((name, _)) = members.iter().find(|(name, _)| !MEMBERS.contains(&&***name)) {
            let known = MEMBERS.join(", ");
            return Err(wrong(format!("{name:?} is no member of a rule; known are {known}")));
        }
        no_effect(members).map_err(wrong)?;
        short(members, &rule.pattern).map_err(wrong)?;
        let width = rule.pattern.iter().map(|piece| match piece {
            PatternPart::Number { width, .. } => *width,
            PatternPart::Text(_) | PatternPart::BranchPrefix => 0,
        });
        if width.max().unwrap_or(0) > DIGITS_MAX {
            return Err(wrong(format!("its numbers are padded to more than {DIGITS_MAX} digits")));
        }
        for (name, value) in [("start", rule.start), ("increment", rule.increment)] {
            if value > SEQUENCE_NUMBER_MAX {
                return Err(wrong(format!("{name} is {value}, more than {DIGITS_MAX} digits")));
            }
        }
        Ok(rule)
    }

    /// Whether a field can hold what this rule writes.
    ///
    /// # Errors
    /// What is wrong and what would be right.
    pub fn check_field(&self, field: &Field) -> Result<(), String> {
        match field.kind {
            FieldType::Integer | FieldType::Number => {
                let plain = matches!(self.pattern[..], [PatternPart::Number { width: 0, .. }]);
                let wrong = "it holds numbers: its rule has no text around them and no padding";
                if plain { Ok(()) } else { Err(wrong.to_owned()) }
            }
            FieldType::String | FieldType::Opaque => {
                // The first number: later ones may be longer, and are refused when they come.
                let length = self.render(self.start).chars().count();
                match field.max_length.and_then(|max| usize::try_from(max).ok()) {
                    Some(max) if length > max => {
                        Err(format!("it holds {max} characters, and the rule writes {length}"))
                    }
                    Some(_) | None => Ok(()),
                }
            }
            FieldType::Boolean
            | FieldType::Json
            | FieldType::Date
            | FieldType::Time
            | FieldType::Timestamp => {
                Err("only a field of text or of numbers has a sequence".to_owned())
            }
        }
    }

    /// Whether a field of numbers has room for the first one that this rule writes; a text's room
    /// [`check_field`](Self::check_field) looks at.
    ///
    /// # Errors
    /// The rule of the field that no number of this rule keeps.
    pub fn check_first(&self, field: &Field) -> Result<(), String> {
        if !matches!(field.kind, FieldType::Integer | FieldType::Number) {
            return Ok(());
        }
        let first = Value::from(self.start);
        let refused = field.sized(&first).err();
        refused.map_or(Ok(()), |rule| Err(format!("its first number {} {rule}", self.start)))
    }

    /// Whether an object is a rule, rather than rules by name.
    pub(super) fn is_rule(doc: &Object) -> bool {
        RULE_MEMBERS
            .iter()
            .any(|name| doc.get(name).is_some_and(|member| member.as_object().is_none()))
    }
}

/// Refuses members that say nothing beside a template: what is passed over is not what was meant.
fn no_effect(rule: &Object) -> Result<(), String> {
    let has = |name: &str| rule.get(name).is_some_and(|value| !value.is_null());
    if has("pattern") && has("format") {
        return Err("it has a pattern and a format; one of them is right".to_owned());
    }
    let template = text(rule, "pattern")?.map_or_else(|| text(rule, "format"), |t| Ok(Some(t)))?;
    let Some(template) = template else { return Ok(()) };
    for name in ["prefix", "suffix"] {
        if has(name) && !template.contains(&format!("{{{name}}}")) {
            return Err(format!(
                "{template:?} has no place for the {name}: write {{{name}}} in it"
            ));
        }
    }
    if has("delimiter") {
        return Err(format!("the delimiter stands in {template:?} itself"));
    }
    Ok(())
}

/// Refuses texts that are too long, each by itself and all around the number.
fn short(rule: &Object, pattern: &[PatternPart]) -> Result<(), String> {
    for (name, value) in rule.iter() {
        let bytes = value.as_str().map_or(0, str::len);
        let max = match &**name {
            "description" => SEQUENCE_NOTE_BYTES_MAX,
            _ => SEQUENCE_TEXT_BYTES_MAX,
        };
        if bytes > max {
            return Err(format!("its {name} has {bytes} bytes; at most {max} are allowed"));
        }
    }
    let around = pattern.iter().map(|piece| match piece {
        PatternPart::Text(text) => text.len(),
        PatternPart::Number { .. } | PatternPart::BranchPrefix => 0,
    });
    let (bytes, max) = (around.sum::<usize>(), SEQUENCE_TEXT_BYTES_MAX);
    if bytes > max {
        return Err(format!(
            "the text around its number has {bytes} bytes; at most {max} are allowed"
        ));
    }
    Ok(())
}

fn pattern(rule: &Object) -> Result<Vec<PatternPart>, String> {
    match text(rule, "pattern")?.map_or_else(|| text(rule, "format"), |text| Ok(Some(text)))? {
        Some(template) => from_template(rule, &template),
        None => from_parts(rule),
    }
}

/// Prefix, number and suffix, those that are there, joined by the delimiter.
fn from_parts(rule: &Object) -> Result<Vec<PatternPart>, String> {
    let delimiter = text(rule, "delimiter")?.unwrap_or_else(|| "-".to_owned());
    let mut pieces = Vec::new();
    if let Some(prefix) = text(rule, "prefix")?.filter(|prefix| !prefix.is_empty()) {
        pieces.push(PatternPart::Text(prefix + &delimiter));
    }
    pieces.push(number_piece(rule, None)?);
    if let Some(suffix) = text(rule, "suffix")?.filter(|suffix| !suffix.is_empty()) {
        pieces.push(PatternPart::Text(delimiter + &suffix));
    }
    Ok(pieces)
}

/// Reads `{prefix}-{number:05d}` and its kin.
fn from_template(rule: &Object, template: &str) -> Result<Vec<PatternPart>, String> {
    let wrong = |found: &str| {
        format!(
            "{template:?} has {found}; known are {{prefix}}, {{suffix}}, {{branchPrefix}} and one \
             number, such as {{number}}, {{number:05d}} or {{seq:6}}"
        )
    };
    let mut pieces = Vec::new();
    let push_text = |pieces: &mut Vec<PatternPart>, text: &str| match pieces.last_mut() {
        _ if text.is_empty() => {}
        Some(PatternPart::Text(before)) => before.push_str(text),
        Some(PatternPart::Number { .. } | PatternPart::BranchPrefix) | None => {
            pieces.push(PatternPart::Text(text.to_owned()));
        }
    };
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        push_text(&mut pieces, before);
        let (inside, after) = after.split_once('}').ok_or_else(|| wrong("a brace left open"))?;
        let (name, size) = inside.split_once(':').map_or((inside, None), |(n, s)| (n, Some(s)));
        match name.trim() {
            "prefix" => push_text(&mut pieces, &text(rule, "prefix")?.unwrap_or_default()),
            "suffix" => push_text(&mut pieces, &text(rule, "suffix")?.unwrap_or_default()),
            "branchPrefix" => pieces.push(PatternPart::BranchPrefix),
            "number" | "seq" => pieces.push(number_piece(rule, size)?),
            _ => return Err(wrong(&format!("{{{inside}}}"))),
        }
        rest = after;
    }
    push_text(&mut pieces, rest);
    let numbers = pieces.iter().filter(|piece| matches!(piece, PatternPart::Number { .. })).count();
    if numbers == 1 { Ok(pieces) } else { Err(wrong(&format!("{numbers} numbers"))) }
}

/// The number's piece; a size in the template wins over the rule's padding.
fn number_piece(rule: &Object, size: Option<&str>) -> Result<PatternPart, String> {
    let width = match size {
        Some(size) => {
            let digits = size.trim().trim_end_matches('d');
            let wrong = || format!("the size {size:?} of the number is none; \"05d\" or \"6\" is");
            digits.parse::<u64>().map_err(|_| wrong())?
        }
        None => number(rule, "padding")?
            .map_or_else(|| number(rule, "pad"), |n| Ok(Some(n)))?
            .unwrap_or(0),
    };
    let width = u32::try_from(width).ok().filter(|width| *width <= WIDTH_MAX);
    let width = width.ok_or_else(|| format!("the padding is wider than {WIDTH_MAX} characters"))?;
    let pad = text(rule, "padChar")?.map_or_else(|| text(rule, "padWith"), |pad| Ok(Some(pad)))?;
    let pad = pad.and_then(|pad| pad.chars().next()).unwrap_or('0');
    Ok(PatternPart::Number { width, pad })
}

fn text(rule: &Object, name: &str) -> Result<Option<String>, String> {
    match rule.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(_) | Value::Object(_)) => Err(format!("{name} is not text")),
        Some(value) => Ok(value.key_text().map(str::to_owned)),
    }
}

fn number(rule: &Object, name: &str) -> Result<Option<u64>, String> {
    match rule.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let read = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
            let wrong = || format!("{name} is {}; it is a whole number from 0", value.to_json());
            read.map(Some).ok_or_else(wrong)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(doc: &str) -> Result<SequenceRule, BadRule> {
        SequenceRule::from_doc(&Value::from_json(doc.as_bytes()).unwrap())
    }

    #[test]
    fn the_three_formats_render() {
        for (doc, number, text) in [
            (r#"{"prefix":"DAR","start":1001,"padding":6}"#, 1020, "DAR-001020"),
            (r#"{"prefix":"X","pad":4,"padWith":"*","delimiter":"/"}"#, 7, "X/***7"),
            (r#"{"prefix":"X","delimiter":"","padding":3,"suffix":"Z"}"#, 7, "X007Z"),
            (r#"{"prefix":"A","suffix":"B"}"#, 7, "A-7-B"),
            ("{}", 7, "7"),
            (r#"{"prefix":"INV","start":10000,"format":"{prefix}-{number:05d}"}"#, 42, "INV-00042"),
            (r#"{"prefix":"INV","format":"{prefix}/{number}","padding":3}"#, 42, "INV/042"),
            (r#"{"pattern":"{branchPrefix}-{seq:6}","start":1,"increment":2}"#, 9, "B-000009"),
            (r#"{"pattern":"2026/{seq}"}"#, 9, "2026/9"),
        ] {
            assert_eq!(read(doc).unwrap().for_branch("B").render(number), text, "{doc}");
        }
        let rule = read(r#"{"start":"1001","increment":5,"counterField":"n"}"#).unwrap();
        assert_eq!((rule.start, rule.increment), (1001, 5));
        assert_eq!(rule.counter_field.as_deref(), Some("n"));
    }

    #[test]
    fn nothing_of_a_rule_that_is_asked_for_is_passed_over() {
        let asked =
            |doc: &str| SequenceRule::from_request(&Value::from_json(doc.as_bytes()).unwrap());
        let (long, half, note) = ("x".repeat(65), "x".repeat(40), "x".repeat(1025));
        for (doc, part) in [
            (r#"{"prefx":"A"}"#, "\"prefx\" is no member of a rule; known are prefix, suffix"),
            (r#"{"prefix":"A","format":"{number}"}"#, "no place for the prefix"),
            (r#"{"delimiter":"/","pattern":"{seq}"}"#, "delimiter"),
            (r#"{"pattern":"{seq}","format":"{number}"}"#, "one of them"),
            (r#"{"padding":16}"#, "more than 15 digits"),
            (r#"{"start":1000000000000000}"#, "start is 1000000000000000"),
            (r#"{"format":"{year}-{number}"}"#, "{year}"),
            (&format!(r#"{{"suffix":"{long}"}}"#), "its suffix has 65 bytes; at most 64"),
            (&format!(r#"{{"format":"{long}{{number}}"}}"#), "its format has 73 bytes"),
            (
                &format!(r#"{{"prefix":"{half}","suffix":"{half}"}}"#),
                "the text around its number has 82 bytes; at most 64",
            ),
            (&format!(r#"{{"description":"{note}"}}"#), "its description has 1025 bytes"),
        ] {
            let error = asked(doc).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let rule = asked(r#"{"prefix":"INV","start":10000,"format":"{prefix}-{number:05d}"}"#);
        assert_eq!(rule.unwrap().render(10000), "INV-10000");
    }

    #[test]
    fn a_rule_that_cannot_be_says_what_would_be_right() {
        for (doc, part) in [
            (r#"{"pattern":"ORDER"}"#, "0 numbers"),
            (r#"{"pattern":"{seq}{seq}"}"#, "2 numbers"),
            (r#"{"pattern":"{yyyy}-{seq}"}"#, "{yyyy}"),
            (r#"{"format":"{number"}"#, "brace left open"),
            (r#"{"format":"{number:x}"}"#, "\"05d\" or \"6\""),
            (r#"{"padding":1000}"#, "wider than 64"),
            (r#"{"start":-1}"#, "start is -1; it is a whole number from 0"),
            (r#"{"increment":0}"#, "at least 1"),
            (r#"{"prefix":{}}"#, "prefix is not text"),
            ("[]", "a rule is an object"),
        ] {
            let error = read(doc).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
