//! Rows: the tables and fields the workload writes and the properties read, named once for both.
//!
//! Promise: a number is read alike whether the store shows it as a number or as a text. Every row
//! of the workload has [`OP`]; rows that prepare a place (accounts, stock, counters, registers)
//! have none and are written before the first operation of that place.

use crate::history::LogEvent;

/// Registers: one row per key, with [`VALUE`].
pub const REGISTERS: &str = "registers";
/// One row per list and element, under any key, with [`LIST`] and [`ELEMENT`].
pub const ELEMENTS: &str = "elements";
/// Accounts: one row per key, with [`BALANCE`].
pub const ACCOUNTS: &str = "accounts";
/// One row per ticket, under any key, with [`NUMBER`] taken by the store.
pub const TICKETS: &str = "tickets";
/// Counters: one row per key, with [`VALUE`].
pub const COUNTERS: &str = "counters";
/// Stock: one row per item, with [`LEFT`].
pub const STOCK: &str = "stock";

/// The key of the register that the first write to a branch sets.
pub const FIRST: &str = "first";

/// The id of the operation that wrote the row.
pub const OP: &str = "op";
/// The record's version, set by the store.
pub const VERSION: &str = "version";
/// What a register or counter holds.
pub const VALUE: &str = "value";
/// The list an element belongs to.
pub const LIST: &str = "list";
/// The element.
pub const ELEMENT: &str = "element";
/// What an account holds.
pub const BALANCE: &str = "balance";
/// A ticket's number.
pub const NUMBER: &str = "number";
/// Pieces left of an item.
pub const LEFT: &str = "left";

/// A whole number of a row; nothing where the row has none under this name.
pub fn number(event: &LogEvent, field: &str) -> Option<i128> {
    let value = event.row.as_ref()?.get(field)?;
    let whole = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
    whole.or_else(|| value.as_str()?.parse().ok())
}

/// The number at the end of a field: of `7`, `"7"` and `"T-0007"` it is 7.
pub fn number_at_end(event: &LogEvent, field: &str) -> Option<i128> {
    number(event, field).or_else(|| {
        let text = event.row.as_ref()?.get(field)?.as_str()?;
        let digits = text.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        text[digits..].parse().ok()
    })
}

/// A text of a row.
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
