//! Fields: the tables and fields that the workload writes and the checkers read.
//!
//! Promise: a number is read whether the store shows it as a number or as a text. Every record of
//! an operation has [`OP`]; those of the setup have none, and precede the first operation of a
//! branch.

use crate::LogEvent;

/// Registers: one record per key, with [`VALUE`].
pub const REGISTERS: &str = "registers";
/// Elements: one record per list and element, under any key, with [`LIST`] and [`ELEMENT`].
pub const ELEMENTS: &str = "elements";
/// Accounts: one record per key, with [`BALANCE`].
pub const ACCOUNTS: &str = "accounts";
/// Tickets: one record per ticket, under any key, with [`NUMBER`], which the store takes.
pub const TICKETS: &str = "tickets";
/// Counters: one record per key, with [`VALUE`].
pub const COUNTERS: &str = "counters";
/// Stock: one record per item, with [`LEFT`].
pub const STOCK: &str = "stock";

/// The key of the register that the first write to a new branch sets.
pub const FIRST: &str = "first";

/// The id of the operation that wrote the record.
pub const OP: &str = "op";
/// The record's version, which the store sets.
pub const VERSION: &str = "version";
/// The value of a register or counter.
pub const VALUE: &str = "value";
/// The list to which an element belongs.
pub const LIST: &str = "list";
/// The element.
pub const ELEMENT: &str = "element";
/// The balance of an account.
pub const BALANCE: &str = "balance";
/// A ticket's number.
pub const NUMBER: &str = "number";
/// The pieces that are left of an item.
pub const LEFT: &str = "left";

/// An integer field of the record after an event; `None` if the record has no such integer.
pub fn number(event: &LogEvent, field: &str) -> Option<i128> {
    let value = event.row.as_ref()?.get(field)?;
    let whole = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
    whole.or_else(|| value.as_str()?.parse().ok())
}

/// The number at the end of a field: 7 for `7`, `"7"` and `"T-0007"`.
pub fn number_at_end(event: &LogEvent, field: &str) -> Option<i128> {
    number(event, field).or_else(|| {
        let text = event.row.as_ref()?.get(field)?.as_str()?;
        let digits = text.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        text[digits..].parse().ok()
    })
}

/// A text field of the record after an event.
pub fn text<'a>(event: &'a LogEvent, field: &str) -> Option<&'a str> {
    event.row.as_ref()?.get(field)?.as_str()
}

/// The record's version after the event.
pub fn version(event: &LogEvent) -> Option<u64> {
    number(event, VERSION).and_then(|version| version.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::log_event;

    #[test]
    fn a_number_is_parsed_from_a_number_or_a_text() {
        for (json, is) in [(r#"7"#, Some(7)), (r#""7""#, Some(7)), (r#""x""#, None)] {
            let event = log_event(1, STOCK, "tea", None, &format!(r#"{{"left":{json}}}"#));
            assert_eq!(number(&event, LEFT), is, "{json}");
        }
        let ticket = log_event(1, TICKETS, "t", None, r#"{"number":"T-0007"}"#);
        assert_eq!(number_at_end(&ticket, NUMBER), Some(7));
        assert_eq!(number_at_end(&ticket, VALUE), None);
    }
}
