//! Cursor: where something stands: in one incarnation of a module's log, or among the events of a
//! command.

use actors::Cursor;
use model::{Event, Incarnation, Object, Offset, Part, Value};
use serde::Serialize;

/// `cursor`: where a client that has seen this goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct WireCursor {
    epoch: u64,
    sequence: u64,
}

impl WireCursor {
    pub(crate) fn new(incarnation: Incarnation, offset: Offset) -> Self {
        Self { epoch: incarnation.0, sequence: offset.0 }
    }

    /// Reads `{epoch, sequence}`.
    pub(crate) fn read(cursor: &Object) -> Option<Cursor> {
        let number = |name| cursor.get(name).and_then(Value::as_u64);
        let (epoch, sequence) = (number("epoch")?, number("sequence")?);
        Some(Cursor { incarnation: Incarnation(epoch), offset: Offset(sequence) })
    }
}

impl From<Cursor> for WireCursor {
    fn from(cursor: Cursor) -> Self {
        Self::new(cursor.incarnation, cursor.offset)
    }
}

/// `batch`: which of its command's events this is.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct BatchPart<'a> {
    index: u32,
    count: u32,
    id: &'a str,
}

impl<'a> BatchPart<'a> {
    /// Of an event that is one of several.
    pub(crate) fn of(event: &'a Event) -> Option<Self> {
        let Part { index, count } = event.part?;
        Some(Self { index, count, id: &event.command.request })
    }
}
