//! Fuzz: what this crate reads that others wrote, as functions of bytes, for the fuzzers in
//! tests/fuzz. Their corpora run here as plain tests.
//!
//! Promise: whatever the bytes, each target returns; what it read, it can write and read again.

use crate::codec;
use crate::partition::Partition;
use crate::schema::Schema;
use crate::sequence::SequenceRules;
use crate::value::Value;

/// A definition file, in any of its formats.
pub fn definition(data: &[u8]) {
    let Ok(source) = Value::from_json(data) else { return };
    let Ok(schema) = Schema::from_definition("m", &source) else { return };
    let again: Schema = codec::decode(&codec::encode(&schema)).expect("it was just encoded");
    assert_eq!(again, schema, "a schema decodes to itself");
}

/// A file of sequence rules, in any of its formats.
pub fn sequence_rules(data: &[u8]) {
    let Ok(source) = Value::from_json(data) else { return };
    let Ok(rules) = SequenceRules::from_doc(&source) else { return };
    let bytes = codec::encode_as(codec::FormatKind::Test, &rules);
    let again: SequenceRules =
        codec::decode_as(codec::FormatKind::Test, &bytes).expect("it was just encoded");
    assert_eq!(again, rules, "rules decode to themselves");
}

/// JSON of any kind: what is read is written as it was meant.
pub fn json(data: &[u8]) {
    let Ok(value) = Value::from_json(data) else { return };
    let text = value.to_json();
    let again = Value::from_json(text.as_bytes()).expect("what is written is JSON");
    assert_eq!(again, value, "a value is read as it was written");
}

/// Bytes out of a log, a checkpoint or a link.
pub fn stored(data: &[u8]) {
    let _ = crate::batch_piece::PartitionEntry::decode(data);
    let _ = codec::decode_entry::<crate::cluster::CatalogueEntry>(data);
    let _ = Partition::read_segment(data);
}

#[cfg(test)]
#[path = "../../tests/fuzz/seeds.rs"]
mod seeds;

#[cfg(test)]
mod tests {
    use super::seeds::all;

    #[test]
    fn the_corpus_of_definition_is_taken_without_harm() {
        all("definition", super::definition);
    }

    #[test]
    fn the_corpus_of_sequence_rules_is_taken_without_harm() {
        all("sequence_rules", super::sequence_rules);
    }

    #[test]
    fn the_corpus_of_json_is_taken_without_harm() {
        all("json", super::json);
    }

    #[test]
    fn the_corpus_of_stored_is_taken_without_harm() {
        all("stored", super::stored);
    }
}
