//! Sequence: the counters people read, such as order numbers `DAR-001020`.
//!
//! A number is taken in the same commit as the record that carries it: a refused write takes none,
//! so the numbers are gapless. Rules are read in `sequence/rule.rs` and `sequence/rules.rs`, the
//! last numbers taken are kept in `sequence/counters.rs`.

mod counters;
mod rule;
mod rules;

use serde::{Deserialize, Serialize};

use crate::ids::BranchId;
use crate::value::{Number, Object, Value};

pub use counters::SequenceCounters;
pub use rule::BadRule;
pub use rules::{SequenceRules, TableRules};

/// How one field's numbers are made; normalised from the three formats of
/// docs/original/schemas.md#sequence-rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SequenceRule {
    /// The first number.
    pub start: u64,
    /// How far apart two numbers are; at least 1.
    pub increment: u64,
    /// The text around the number, in order; exactly one piece is the number.
    pub pattern: Vec<PatternPart>,
    /// A field that gets the number itself, if the schema has it.
    pub counter_field: Option<String>,
    /// The rule as it was written, for `POST …/sequences` to show.
    pub source: Value,
}

/// One piece of a sequence's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PatternPart {
    /// This text.
    Text(String),
    /// The number, padded on the left to `width` with `pad`.
    Number {
        /// At least this many characters.
        width: u32,
        /// What fills them.
        pad: char,
    },
    /// The branch's prefix: `SequenceRules::rules_for` puts the text in its place.
    BranchPrefix,
}

impl SequenceRule {
    /// The rule of a sequence nobody configured: 1, 2, 3, …
    pub fn plain() -> Self {
        let source = [
            ("start", Value::from(1_u64)),
            ("prefix", "".into()),
            ("suffix", "".into()),
            ("delimiter", "".into()),
            ("padding", 0_u64.into()),
        ];
        Self {
            start: 1,
            increment: 1,
            pattern: vec![PatternPart::Number { width: 0, pad: '0' }],
            counter_field: None,
            source: source.into_iter().collect::<Object>().into(),
        }
    }

    /// The text people read. Before `for_branch`, a branch's prefix is empty.
    pub fn render(&self, number: u64) -> String {
        let mut text = String::new();
        for piece in &self.pattern {
            match piece {
                PatternPart::Text(part) => text.push_str(part),
                PatternPart::BranchPrefix => {}
                PatternPart::Number { width, pad } => {
                    let digits = number.to_string();
                    let width = usize::try_from(*width).unwrap_or(usize::MAX);
                    text.extend(std::iter::repeat_n(*pad, width.saturating_sub(digits.len())));
                    text.push_str(&digits);
                }
            }
        }
        text
    }

    /// The number a text of this sequence carries; `None` for any other text. For finding where a
    /// sequence stands in records that existed before it.
    pub fn parse(&self, text: &str) -> Option<u64> {
        let (before, pad, after) = self.around();
        let middle = text.strip_prefix(before.as_str())?.strip_suffix(after.as_str())?;
        // A number of nothing but padding is zero: one pad stays to be read.
        let digits = middle.trim_start_matches(pad);
        let number = if digits.is_empty() { middle } else { digits }.parse().ok()?;
        // A pad may be a digit other than 0: only what renders to this very text is its number.
        (self.render(number) == text).then_some(number)
    }

    /// This rule with the branch's prefix in its place.
    #[must_use]
    pub fn for_branch(&self, prefix: &str) -> Self {
        let mut rule = self.clone();
        for piece in &mut rule.pattern {
            if *piece == PatternPart::BranchPrefix {
                *piece = PatternPart::Text(prefix.to_owned());
            }
        }
        rule
    }

    /// The number as a record's counter field holds it.
    pub fn counter_value(number: u64) -> Value {
        Value::Number(Number::from(number))
    }

    fn around(&self) -> (String, char, String) {
        let (mut before, mut pad, mut after) = (String::new(), None, String::new());
        for piece in &self.pattern {
            match piece {
                PatternPart::Number { pad: fill, .. } => pad = Some(*fill),
                PatternPart::Text(part) if pad.is_none() => before.push_str(part),
                PatternPart::Text(part) => after.push_str(part),
                PatternPart::BranchPrefix => {}
            }
        }
        (before, pad.unwrap_or('0'), after)
    }
}

/// A branch's prefix where none was configured: its id in capitals.
pub(crate) fn prefix_of(branch: &BranchId) -> String {
    branch.as_str().to_uppercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec;

    fn rule(pattern: Vec<PatternPart>) -> SequenceRule {
        SequenceRule { pattern, ..SequenceRule::plain() }
    }

    #[test]
    fn a_plain_rule_counts_and_shows_itself_as_the_original_does() {
        let plain = SequenceRule::plain();
        assert_eq!(plain.render(3), "3");
        assert_eq!(
            plain.source.to_json(),
            r#"{"start":1,"prefix":"","suffix":"","delimiter":"","padding":0}"#
        );
    }

    #[test]
    fn only_a_text_of_the_sequence_has_a_number() {
        let rule = rule(vec![
            PatternPart::Text("DAR-".into()),
            PatternPart::Number { width: 6, pad: '0' },
        ]);
        assert_eq!(rule.render(1020), "DAR-001020");
        assert_eq!(rule.parse("DAR-001020"), Some(1020));
        assert_eq!(rule.parse("DAR-000000"), Some(0));
        assert_eq!(rule.parse("DAR-1234567"), Some(1_234_567));
        for other in ["DAR-1020", "REM-001020", "DAR-", "DAR-00102x", "DAR-+01020", ""] {
            assert_eq!(rule.parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_branch_prefix_is_put_in_its_place() {
        let rule = rule(vec![
            PatternPart::BranchPrefix,
            PatternPart::Text("/".into()),
            PatternPart::Number { width: 0, pad: '0' },
        ]);
        let branch = BranchId::parse("dar").unwrap();
        assert_eq!(rule.for_branch(&prefix_of(&branch)).render(7), "DAR/7");
    }

    #[test]
    fn a_rule_is_pinned_as_bytes() {
        let rule = SequenceRule {
            source: Value::Null,
            ..rule(vec![PatternPart::Text("A".into()), PatternPart::Number { width: 6, pad: '0' }])
        };
        let bytes = codec::encode_as(codec::FormatKind::Test, &rule);
        let golden = [240, 1, 1, 1, 2, 0, 1, b'A', 1, 6, 1, b'0', 0, 0];
        assert_eq!(bytes, golden, "golden bytes");
        assert_eq!(
            codec::decode_as::<SequenceRule>(codec::FormatKind::Test, &bytes).unwrap(),
            rule
        );
    }

    proptest! {
        #[test]
        fn a_rendered_number_reads_back(
            number: u64,
            width in 0..24_u32,
            pad in prop::sample::select(vec!['0', ' ', 'x', '7']),
            before in "[A-Z0-9-]{0,6}",
            after in "[A-Z0-9-]{0,6}",
        ) {
            let rule = rule(vec![
                PatternPart::Text(before), PatternPart::Number { width, pad }, PatternPart::Text(after),
            ]);
            let text = rule.render(number);
            match rule.parse(&text) {
                Some(read) => prop_assert_eq!(rule.render(read), text),
                None => prop_assert!(pad == '7', "only a digit as pad can hide a number"),
            }
            if pad != '7' {
                prop_assert_eq!(rule.parse(&rule.render(number)), Some(number));
            }
        }
    }
}
