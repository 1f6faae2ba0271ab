//! Pieces: JSON text with many rows in it, written piece by piece as it is sent.
//!
//! The text is first written with a mark in the place of each list's rows: its outline, small
//! whatever the rows are. The rows are written into it one after the other, when they are asked
//! for.
//!
//! Promise: the pieces are the text as it would be written at once, and none is larger than
//! `PIECE_BYTES`; beside what is shown, which is shared, memory holds the outline, one piece and
//! one row.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use model::{ModuleSnapshot, Object, Value};

use crate::error::{ApiError, Problem};
use crate::limits::PIECE_BYTES;

/// What stands in an outline in the place of rows: nothing a client can guess.
pub(crate) struct Placeholder(String);

impl Placeholder {
    pub(crate) fn new() -> Self {
        Self(uuid::Uuid::new_v4().to_string())
    }

    /// A list of rows in an outline; an empty one is as it is.
    pub(crate) fn list(&self, index: usize, rows: &[Arc<Object>]) -> Vec<Arc<Object>> {
        let index = u64::try_from(index).unwrap_or(u64::MAX);
        let mark = || [(self.0.as_str(), Value::from(index))].into_iter().collect::<Object>();
        if rows.is_empty() { Vec::new() } else { vec![Arc::new(mark())] }
    }

    /// The modules of an outline: their counters, and marks for the rows of their tables.
    pub(crate) fn modules(&self, modules: &[Arc<ModuleSnapshot>]) -> Vec<Arc<ModuleSnapshot>> {
        let mut index = 0;
        let marked = modules.iter().map(|module| {
            let tables = module.tables.iter().map(|(name, rows)| {
                let list = self.list(index, rows);
                // Also for an empty table: lists are found by their place among all tables.
                index += 1;
                (name.clone(), list)
            });
            let tables = tables.collect();
            Arc::new(ModuleSnapshot { head: module.head.clone(), tables })
        });
        marked.collect()
    }
}

/// What is shown: the lists in the order in which they are marked.
pub(crate) enum RowLists {
    /// The tables of modules.
    Modules(Vec<Arc<ModuleSnapshot>>),
    /// The rows of one list.
    Rows(Vec<Arc<Object>>),
}

impl RowLists {
    fn get(&self, index: usize) -> &[Arc<Object>] {
        match self {
            Self::Modules(modules) => {
                let mut tables = modules.iter().flat_map(|module| &module.tables);
                tables.nth(index).map_or(&[], |(_, rows)| rows)
            }
            Self::Rows(rows) => rows,
        }
    }
}

enum OutlinePart {
    Text(Bytes),
    List(usize),
}

/// A text that is written as it is taken.
pub(crate) struct Pieces {
    lists: RowLists,
    parts: VecDeque<OutlinePart>,
    /// The next row of the first part.
    row: usize,
    /// What is written and not taken.
    buffer: BytesMut,
}

/// A text in the form in which it is sent.
pub(crate) enum RenderedJson {
    /// A small one.
    Whole(Bytes),
    /// A large one, and how many bytes it has.
    Pieces(Box<Pieces>, u64),
}

impl Pieces {
    /// A text by its outline.
    pub(crate) fn new(
        outline: &Bytes,
        mark: &Placeholder,
        lists: RowLists,
    ) -> Result<Self, ApiError> {
        let defect = || {
            tracing::error!("an outline has marks that cannot be read");
            ApiError::new(Problem::Defect, "the answer could not be written")
        };
        let text = std::str::from_utf8(outline).map_err(|_| defect())?;
        let begin = format!("{{\"{}\":", mark.0);
        let mut parts = VecDeque::new();
        let mut from = 0;
        for (at, _) in text.match_indices(&begin) {
            let index = &text[at + begin.len()..];
            let index = index.split_once('}').ok_or_else(defect)?.0;
            parts.push_back(OutlinePart::Text(outline.slice(from..at)));
            parts.push_back(OutlinePart::List(index.parse().map_err(|_| defect())?));
            from = at + begin.len() + index.len() + 1;
        }
        parts.push_back(OutlinePart::Text(outline.slice(from..)));
        Ok(Self { lists, parts, row: 0, buffer: BytesMut::new() })
    }

    /// Writes until so many bytes wait, and says whether that is all.
    pub(super) fn fill(&mut self, enough: usize) -> Result<bool, ApiError> {
        while self.buffer.len() < enough {
            let rows = match self.parts.front() {
                None => return Ok(true),
                Some(OutlinePart::Text(text)) => {
                    self.buffer.extend_from_slice(text);
                    self.parts.pop_front();
                    continue;
                }
                Some(OutlinePart::List(index)) => self.lists.get(*index),
            };
            if let Some(row) = rows.get(self.row) {
                write_row(&mut self.buffer, self.row, row)?;
                self.row += 1;
            } else {
                self.parts.pop_front();
                self.row = 0;
            }
        }
        Ok(self.parts.is_empty())
    }

    /// Counts what has not been taken, and gives up beyond `max`.
    pub(super) fn count(&self, max: u64) -> Result<u64, ApiError> {
        let mut counted = ByteCounter(0);
        let mut row = self.row;
        for part in &self.parts {
            match part {
                OutlinePart::Text(text) => counted.0 += text.len() as u64,
                OutlinePart::List(index) => {
                    let rows = self.lists.get(*index);
                    for (place, row) in rows.iter().enumerate().skip(row) {
                        write_row(&mut counted, place, row)?;
                        if counted.0 > max {
                            return Err(too_large(max));
                        }
                    }
                    // Only the first list has been begun.
                    row = 0;
                }
            }
        }
        let size = counted.0 + self.buffer.len() as u64;
        if size > max { Err(too_large(max)) } else { Ok(size) }
    }

    /// All that was written and not taken.
    pub(super) fn into_written(self) -> Bytes {
        self.buffer.freeze()
    }

    /// The next piece, and whether it is the last.
    ///
    /// # Errors
    /// A row cannot be written: a defect, as its bytes were counted before.
    pub(crate) fn next(&mut self) -> Result<Option<(Bytes, bool)>, ApiError> {
        self.fill(PIECE_BYTES)?;
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let piece = self.buffer.split_to(self.buffer.len().min(PIECE_BYTES)).freeze();
        Ok(Some((piece, self.buffer.is_empty() && self.parts.is_empty())))
    }
}

fn too_large(max: u64) -> ApiError {
    let message = format!(
        "the snapshot has more than {max} bytes, the most this node sends (setting \
         snapshot_max_mib): read its tables in pages (GET …/tables/<table>?limit=500&afterKey=…) \
         and follow its log (GET …/events?after=…), or raise the setting"
    );
    ApiError::new(Problem::SnapshotTooLarge, message).details([("max", max.into())])
}

fn write_row(to: &mut impl RowWriter, place: usize, row: &Object) -> Result<(), ApiError> {
    let failed = |error: serde_json::Error| {
        tracing::error!(%error, "a row could not be written");
        ApiError::new(Problem::Defect, "the answer could not be written")
    };
    if place > 0 {
        to.comma();
    }
    to.row(row).map_err(failed)
}

/// Where rows are written.
trait RowWriter {
    fn comma(&mut self);
    fn row(&mut self, row: &Object) -> serde_json::Result<()>;
}

impl RowWriter for BytesMut {
    fn comma(&mut self) {
        self.put_u8(b',');
    }

    fn row(&mut self, row: &Object) -> serde_json::Result<()> {
        serde_json::to_writer(self.writer(), row)
    }
}

/// Counts bytes.
struct ByteCounter(u64);

impl RowWriter for ByteCounter {
    fn comma(&mut self) {
        self.0 += 1;
    }

    fn row(&mut self, row: &Object) -> serde_json::Result<()> {
        serde_json::to_writer(self, row)
    }
}

impl io::Write for ByteCounter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use actors::{Requester, TurnQueue};
    use model::{
        BranchId, BranchKey, Head, Incarnation, ModuleId, Offset, Revision, TableName, Timestamp,
    };

    use super::*;
    use crate::limits::WHOLE_BYTES_MAX;
    use crate::render::Renderer;
    use crate::wire::ModuleShape;

    fn module(rows: &[(&str, usize, usize)]) -> Arc<ModuleSnapshot> {
        let row = |n: usize, bytes: usize| {
            let text = format!("{{\"{}", "x".repeat(bytes));
            Arc::new([("n", Value::from(n as u64)), ("text", text.into())].into_iter().collect())
        };
        let tables = rows.iter().map(|(name, count, bytes)| {
            let rows = (0..*count).map(|n| row(n, *bytes)).collect();
            (TableName::parse(name).unwrap(), rows)
        });
        let branch = BranchId::parse("dar").unwrap();
        let head = Head {
            key: BranchKey::new(branch, ModuleId::parse("pos").unwrap()),
            incarnation: Incarnation(1),
            offset: Offset(7),
            revision: Revision(8),
            last_updated_at: Timestamp(0),
            rows: 1,
        };
        Arc::new(ModuleSnapshot { head, tables: tables.collect() })
    }

    async fn write(module: &Arc<ModuleSnapshot>, max: u64) -> Result<RenderedJson, ApiError> {
        let module = Arc::clone(module);
        let outline = move || {
            let (mark, modules) = (Placeholder::new(), vec![module]);
            let outline = serde_json::to_vec(&ModuleShape(&mark.modules(&modules)[0])).unwrap();
            Pieces::new(&outline.into(), &mark, RowLists::Modules(modules))
        };
        let (turns, requester) = (TurnQueue::new(1), Requester::default());
        Renderer { turns, requester, bytes_max: max }.written(1, outline).await
    }

    #[tokio::test]
    async fn pieces_are_the_text_as_it_is_written_at_once() {
        for rows in [
            &[][..],
            &[("a", 0, 0), ("b", 3, 5), ("c", 0, 0)],
            &[("a", 3, 900_000), ("b", 0, 0), ("c", 20_000, 20)],
            &[("a", 1, 3_000_000)],
        ] {
            let module = module(rows);
            let whole = serde_json::to_vec(&ModuleShape(&module)).unwrap();
            match write(&module, 100_000_000).await.unwrap() {
                RenderedJson::Whole(bytes) => {
                    assert!(bytes == whole && whole.len() <= WHOLE_BYTES_MAX);
                }
                RenderedJson::Pieces(mut pieces, size) => {
                    let mut text = Vec::new();
                    while let Some((piece, is_last)) = pieces.next().unwrap() {
                        text.extend_from_slice(&piece);
                        assert!(piece.len() <= PIECE_BYTES);
                        assert_eq!(is_last, text.len() as u64 == size);
                    }
                    assert!(text == whole && size == whole.len() as u64);
                }
            }
        }
    }

    #[tokio::test]
    async fn what_is_larger_than_the_limit_is_refused_in_words() {
        let module = module(&[("a", 3, 900_000)]);
        let size = serde_json::to_vec(&ModuleShape(&module)).unwrap().len() as u64;
        assert!(write(&module, size).await.is_ok());
        let Err(error) = write(&module, size - 1).await else { panic!("it was written") };
        assert_eq!(error.code(), "snapshot-too-large");
        assert!(error.message().contains("snapshot_max_mib"), "{}", error.message());
    }
}
