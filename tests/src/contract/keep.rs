//! Keep: our own answers in the form of a recording, so that a clone without the original's
//! recordings can be held to what was answered before.
//!
//! Long lists keep their beginning and their length, tables without records are counted: a change
//! of the sample data then changes few lines.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::compare::{CUT_LIST, CUT_TABLES};
use super::recording::{RecordedAnswer, RecordedCall};

/// Longer lists are cut to [`KEPT`].
const LIST_MAX: usize = 4;
/// See [`LIST_MAX`].
const KEPT: usize = 2;
/// What holds tables by name.
const TABLES: &str = "tables";

/// What happened, by file, in order.
#[derive(Debug, Clone, Default)]
pub struct KeptEvents(BTreeMap<String, Vec<Value>>);

impl KeptEvents {
    /// A call was answered.
    pub fn called(&mut self, file: &str, name: &str, call: &RecordedCall, answer: &RecordedAnswer) {
        let body = cut(&answer.body);
        self.add(
            file,
            json!({
                "name": name,
                "request": { "method": call.method, "path": call.path, "body": call.body },
                "response": { "status": answer.status, "headers": answer.headers, "body": body },
            }),
        );
    }

    /// A client opened a socket.
    pub fn opened(&mut self, file: &str, client: &str, path: &str) {
        self.add(file, json!({ "client": client, "dir": "open", "url": path }));
    }

    /// A client sent a frame.
    pub fn sent(&mut self, file: &str, client: &str, frame: &Value) {
        self.add(file, json!({ "client": client, "dir": "client->server", "frame": frame }));
    }

    /// A client was sent a frame.
    pub fn came(&mut self, file: &str, client: &str, frame: &Value) {
        let frame = cut(frame);
        self.add(file, json!({ "client": client, "dir": "server->client", "frame": frame }));
    }

    /// A client closed its socket.
    pub fn closed(&mut self, file: &str, client: &str) {
        self.add(file, json!({ "client": client, "dir": "close" }));
    }

    /// Words stood between the frames.
    pub fn noted(&mut self, file: &str, words: &str) {
        self.add(file, json!({ "note": words }));
    }

    /// Writes every file, a line for each thing that happened; returns their names.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<Vec<String>> {
        fs::create_dir_all(folder)?;
        let mut written = Vec::new();
        for (file, items) in &self.0 {
            let lines: Vec<String> = items.iter().map(Value::to_string).collect();
            fs::write(
                folder.join(format!("{file}.json")),
                format!("[\n{}\n]\n", lines.join(",\n")),
            )?;
            written.push(file.clone());
        }
        Ok(written)
    }

    fn add(&mut self, file: &str, item: Value) {
        self.0.entry(file.to_owned()).or_default().push(item);
    }
}

/// A value with its long lists cut.
fn cut(value: &Value) -> Value {
    match value {
        Value::Array(items) if items.len() > LIST_MAX => {
            let mut kept: Vec<Value> = items.iter().take(KEPT).map(cut).collect();
            let left = items.len() - KEPT;
            kept.push(format!("{CUT_LIST}{left} more of {}>>", items.len()).into());
            Value::Array(kept)
        }
        Value::Array(items) => items.iter().map(cut).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| {
                let tables = value.as_object().filter(|_| name == TABLES);
                let cut = tables.map_or_else(|| cut(value), cut_tables);
                (name.clone(), cut)
            })
            .collect(),
        Value::String(text) => figures(text).into(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// Tables by name, those without records counted.
fn cut_tables(tables: &Map<String, Value>) -> Value {
    let is_empty = |rows: &Value| rows.as_array().is_some_and(Vec::is_empty);
    let empty = tables.values().filter(|rows| is_empty(rows)).count();
    let shown = tables.iter().filter(|(_, rows)| !is_empty(rows));
    let mut kept: Map<String, Value> =
        shown.map(|(name, rows)| (name.clone(), cut(rows))).collect();
    if empty > 0 {
        kept.insert(CUT_TABLES.to_owned(), empty.into());
    }
    Value::Object(kept)
}

/// Of a text of metrics, which there are.
fn figures(text: &str) -> String {
    if !text.contains("# TYPE ") {
        return text.to_owned();
    }
    text.lines().filter(|line| line.starts_with("# TYPE ")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_keeps_its_beginning_and_its_length() {
        let long = json!({ "rows": [1, 2, 3, 4, 5], "tables": { "a": [], "b": [1] } });
        let short = json!({
            "rows": [1, 2, "<<trimmed: 3 more of 5>>"],
            "tables": { "b": [1], "<<trimmed-empty-tables>>": 1 },
        });
        assert_eq!(cut(&long), short);
    }
}
