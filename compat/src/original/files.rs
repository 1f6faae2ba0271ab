//! Files: the directory's files by path, and the complaint about one of them.

use std::collections::BTreeMap;

use model::{ModuleId, Object, Reject, TableName, Value};

/// A file of the original's directory that cannot be read, and where in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct BadOriginal {
    /// Its path, relative to the directory.
    pub file: String,
    /// What is wrong, where, and what would be right.
    pub problem: String,
}

impl BadOriginal {
    pub(super) fn new(file: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { file: file.into(), problem: problem.into() }
    }
}

/// The files, by path without a leading `./`.
pub(super) struct OriginalFiles<'a>(BTreeMap<&'a str, &'a [u8]>);

impl<'a> OriginalFiles<'a> {
    pub(super) fn new(files: &'a BTreeMap<String, Vec<u8>>) -> Self {
        let files = files.iter();
        Self(files.map(|(path, bytes)| (plain(path), bytes.as_slice())).collect())
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &'a str> {
        self.0.keys().copied()
    }

    /// A file's JSON; `None` if there is no such file. Editors' byte order marks are passed over.
    pub(super) fn json(&self, path: &str) -> Result<Option<Value>, BadOriginal> {
        let Some(bytes) = self.0.get(path) else { return Ok(None) };
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let read = Value::from_json(bytes);
        read.map(Some).map_err(|error| BadOriginal::new(path, format!("no JSON: {error}")))
    }

    /// A seed file's JSON, which has rows by table.
    pub(super) fn seed(&self, path: &str) -> Result<Option<Value>, BadOriginal> {
        let doc = self.json(path)?;
        if doc.as_ref().is_some_and(|doc| super::seed_of(doc).is_none()) {
            let problem = "it has no \"tables\": a seed is {\"tables\": {name: [row, …]}}";
            return Err(BadOriginal::new(path, problem));
        }
        Ok(doc)
    }
}

/// A path written in `modules.json` is relative to the directory above: `data/schemas/x.json` is
/// `schemas/x.json` here.
pub(super) fn central(path: &str) -> &str {
    let path = plain(path);
    path.strip_prefix("data/").unwrap_or(path)
}

fn plain(path: &str) -> &str {
    path.trim_start_matches("./").trim_start_matches('/')
}

/// A member's text, empty if there is none.
pub(super) fn text<'v>(doc: &'v Object, name: &str) -> Option<&'v str> {
    doc.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// A list of module ids; nothing where there is no list.
pub(super) fn module_ids(
    file: &str,
    place: &str,
    list: Option<&Value>,
) -> Result<Vec<ModuleId>, BadOriginal> {
    names(file, place, list)?.into_iter().map(|name| module_id(file, place, name)).collect()
}

pub(super) fn module_id(file: &str, place: &str, name: &str) -> Result<ModuleId, BadOriginal> {
    ModuleId::parse(name).map_err(|error| BadOriginal::new(file, format!("{place}: {error}")))
}

/// A list of table names; nothing where there is no list. A name no table can have is noted: what
/// the definition calls so is left out too.
pub(super) fn table_names(
    file: &str,
    place: &str,
    list: Option<&Value>,
    notes: &mut Vec<String>,
) -> Result<Vec<TableName>, BadOriginal> {
    let mut tables: Vec<TableName> = Vec::new();
    for name in names(file, place, list)? {
        match TableName::parse(name) {
            Ok(name) if !tables.contains(&name) => tables.push(name),
            Ok(_) => {}
            Err(error) => notes.push(format!("{file}: {place}: {error}: it is left out")),
        }
    }
    Ok(tables)
}

fn names<'v>(
    file: &str,
    place: &str,
    list: Option<&'v Value>,
) -> Result<Vec<&'v str>, BadOriginal> {
    let wrong = |value: &Value| {
        let shown = Reject::show(value);
        BadOriginal::new(file, format!("{place} is {shown}; it is a list of names"))
    };
    match list {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => {
            items.iter().map(|item| item.as_str().ok_or_else(|| wrong(item))).collect()
        }
        Some(other) => Err(wrong(other)),
    }
}

/// Undoes JavaScript's `encodeURIComponent`; `None` if it is not one's work.
pub(super) fn decoded(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            // `encodeURIComponent` writes a percent sign as `%25`: one without two digits behind it
            // is not its work.
            let digit = |place| char::from(*after.get(place)?).to_digit(16);
            let byte = digit(0)? * 16 + digit(1)?;
            bytes.push(u8::try_from(byte).expect("two hexadecimal digits are a byte"));
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}
