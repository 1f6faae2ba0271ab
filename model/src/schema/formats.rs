//! Formats: every way a module's tables are written down, read into one [`Schema`].
//!
//! Told apart by shape alone (contract.md 4.1): `{schema: {tables: […]}}`, `{tables: {name:
//! {fields: {…}}}}`, `{name: {fields: […]}}`, `{tables: [{columns: […]}]}`, and a plain list of
//! tables, at the top or under `tables`. Of a table written twice the last one wins, in the first
//! one's place. Refused, naming table and field and what would be right: any other shape, a bad
//! table name, a field without a type or written twice, a default that is not of the field's kind.

mod default;
mod field;
mod reference;
mod types;

use std::fmt;
use std::sync::Arc;

use crate::ids::TableName;
use crate::reject::Reject;
use crate::schema::{Field, Schema, Table};
use crate::value::{Object, Value};

/// Tables whose records the original checks the version of, in every module.
const VERSIONED: [&str; 2] = ["order_header", "order_line"];

/// A definition that cannot be read: where, what is wrong, what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSchema {
    /// The module it was meant for.
    pub module: String,
    /// The table, as written or as its place in the list, if it is about one.
    pub table: Option<String>,
    /// The field, if it is about one.
    pub field: Option<String>,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl fmt::Display for BadSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "definition of module {:?}", self.module)?;
        if let Some(table) = &self.table {
            write!(f, ", table {table:?}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ", field {field:?}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for BadSchema {}

impl Schema {
    /// Reads a module's definition in any of the known formats.
    ///
    /// # Errors
    /// [`BadSchema`] naming the first thing that cannot be read.
    pub fn from_definition(module: &str, doc: &Value) -> Result<Self, BadSchema> {
        let wrong = |wrong: Wrong| BadSchema {
            module: module.to_owned(),
            table: wrong.table,
            field: wrong.field,
            problem: wrong.problem,
        };
        let mut tables: Vec<Table> = Vec::new();
        for (name, doc) in listed(doc).map_err(Wrong::new).map_err(wrong)? {
            let table = read_table(&name, doc).map_err(|e| wrong(e.in_table(&name)))?;
            match tables.iter_mut().find(|known| known.name == table.name) {
                Some(known) => *known = table,
                None => tables.push(table),
            }
        }
        reference::settle(module, &mut tables);
        Ok(Self { tables: tables.into_iter().map(Arc::new).collect() })
    }

    /// What a strict module refuses of a definition as a whole.
    ///
    /// # Errors
    /// [`Reject::BadDefinition`] `cross-module-reference` for a field that points into another
    /// module: records are only consistent within one branch:module.
    pub fn check_strict(&self) -> Result<(), Reject> {
        for table in &self.tables {
            for field in &table.fields {
                let Some(reference) = &field.references else { continue };
                let Some(module) = &reference.module else { continue };
                return Err(Reject::BadDefinition {
                    code: "cross-module-reference".to_owned(),
                    message: format!(
                        "{}.{} refers to \"{}\" of module \"{module}\"; a strict module refers \
                         only to its own tables",
                        table.name, field.name, reference.table
                    ),
                });
            }
        }
        Ok(())
    }

    /// The same tables, those named first, in that order, then the rest as they stand.
    #[must_use]
    pub fn in_order(mut self, names: &[TableName]) -> Self {
        let place = |table: &Arc<Table>| {
            names.iter().position(|name| *name == table.name).unwrap_or(names.len())
        };
        self.tables.sort_by_key(place);
        self
    }
}

/// Something wrong, not yet told of which table and field.
struct Wrong {
    table: Option<String>,
    field: Option<String>,
    problem: String,
}

impl Wrong {
    fn new(problem: impl Into<String>) -> Self {
        Self { table: None, field: None, problem: problem.into() }
    }

    fn in_table(mut self, name: &str) -> Self {
        self.table = Some(name.to_owned());
        self
    }

    fn in_field(name: &str, problem: String) -> Self {
        Self { table: None, field: Some(name.to_owned()), problem }
    }
}

/// The tables a definition lists, with their names, whatever its shape.
fn listed(doc: &Value) -> Result<Vec<(String, &Object)>, String> {
    match doc {
        Value::Array(items) => in_list(items),
        Value::Object(members) => in_object(members),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Err(unknown_shape()),
    }
}

fn in_object(members: &Object) -> Result<Vec<(String, &Object)>, String> {
    match members.get("schema") {
        Some(Value::Array(items)) => return in_list(items),
        Some(Value::Object(inner)) if !is_table(inner) && inner.get("schema").is_none() => {
            return in_object(inner);
        }
        Some(_) | None => {}
    }
    match members.get("tables") {
        Some(Value::Array(items)) => in_list(items),
        Some(Value::Object(tables)) if !is_table(tables) => by_name(tables),
        Some(_) | None => by_name(members),
    }
}

fn in_list(items: &[Value]) -> Result<Vec<(String, &Object)>, String> {
    let mut tables = Vec::with_capacity(items.len());
    for (place, item) in items.iter().enumerate() {
        let doc = item.as_object();
        match (doc, item.get("name").and_then(Value::as_str)) {
            (Some(doc), Some(name)) => tables.push((name.to_owned(), doc)),
            (None | Some(_), _) => {
                return Err(format!(
                    "table {} of the list is {}; a table is an object with a name and fields",
                    place + 1,
                    Reject::show(item)
                ));
            }
        }
    }
    Ok(tables)
}

/// Tables under their names, with `version`, `description` and the like beside them.
fn by_name(members: &Object) -> Result<Vec<(String, &Object)>, String> {
    let mut tables = Vec::new();
    for (name, member) in members.iter() {
        match member {
            Value::Object(doc) if is_table(doc) => tables.push((name.to_string(), doc)),
            Value::Object(_) | Value::Array(_) => {
                return Err(format!("{name:?} has neither fields nor columns; {}", known_shapes()));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    if tables.is_empty() { Err(unknown_shape()) } else { Ok(tables) }
}

/// Whether it looks like a table: it has fields, and they are many.
fn is_table(doc: &Object) -> bool {
    let fields = doc.get("fields").or_else(|| doc.get("columns"));
    matches!(fields, Some(Value::Array(_) | Value::Object(_)))
}

fn unknown_shape() -> String {
    format!("there are no tables in it; {}", known_shapes())
}

fn known_shapes() -> &'static str {
    "known are {\"schema\": {\"tables\": [table, …]}}, {\"tables\": [table, …]}, \
     {\"tables\": {name: table, …}}, {name: table, …} and [table, …], where a table has \
     \"fields\" or \"columns\""
}

fn read_table(name: &str, doc: &Object) -> Result<Table, Wrong> {
    let table_name = TableName::parse(name).map_err(|error| Wrong::new(error.to_string()))?;
    let mut fields = read_fields(doc)?;
    table_references(doc, &mut fields)?;
    let unique = unique_sets(doc, &fields)?;
    let versioned = field::flag(doc, "versioned").map_err(Wrong::new)?;
    let label = doc.get("label").or_else(|| doc.get("title")).and_then(Value::as_str);
    Ok(Table {
        label: label.unwrap_or(name).to_owned(),
        key: key_of(&fields),
        versioned: versioned.unwrap_or_else(|| VERSIONED.contains(&name)),
        name: table_name,
        fields,
        unique,
    })
}

fn read_fields(doc: &Object) -> Result<Vec<Field>, Wrong> {
    let mut fields: Vec<Field> = Vec::new();
    let mut add = |name: &str, doc: &Value| {
        let doc = doc.as_object().ok_or_else(|| {
            let problem = format!("it is {}; a field is an object with a type", doc.to_json());
            Wrong::in_field(name, problem)
        })?;
        if fields.iter().any(|known| &*known.name == name) {
            return Err(Wrong::in_field(name, "it is written twice; once is right".to_owned()));
        }
        let read = field::check_name(name).and_then(|()| field::read(name, doc));
        fields.push(read.map_err(|problem| Wrong::in_field(name, problem))?);
        Ok(())
    };
    match doc.get("fields").or_else(|| doc.get("columns")) {
        Some(Value::Array(items)) => {
            for (place, item) in items.iter().enumerate() {
                let name = item.get("name").and_then(Value::as_str).ok_or_else(|| {
                    let (place, shown) = (place + 1, Reject::show(item));
                    Wrong::new(format!("field {place} is {shown}; a field has a name and a type"))
                })?;
                add(name, item)?;
            }
        }
        Some(Value::Object(members)) => {
            for (name, item) in members.iter() {
                add(name, item)?;
            }
        }
        Some(_) | None => {}
    }
    if fields.is_empty() {
        return Err(Wrong::new("it has no fields; give it \"fields\" or \"columns\""));
    }
    Ok(fields)
}

/// `foreignKeys: [{field, references, referencesField}]`, beside the fields.
fn table_references(doc: &Object, fields: &mut [Field]) -> Result<(), Wrong> {
    let Some(list) = doc.get("foreignKeys").and_then(Value::as_array) else { return Ok(()) };
    for item in list {
        let name = item.get("field").and_then(Value::as_str).unwrap_or_default();
        let named = |field: &&mut Field| &*field.name == name || &*field.column == name;
        let field = fields.iter_mut().find(named).ok_or_else(|| {
            let shown = item.to_json();
            Wrong::new(format!("the foreign key {shown} names no field of this table"))
        })?;
        let problem = |problem| Wrong::in_field(name, problem);
        let target = item.get("references").unwrap_or(&Value::Null);
        let mut read = reference::read(target).map_err(problem)?;
        if let Some(target_field) = item.get("referencesField").and_then(Value::as_str) {
            target_field.clone_into(&mut read.field);
        }
        if let Some(module) = item.get("module").and_then(Value::as_str) {
            read.module = Some(module.to_owned());
        }
        field.references = Some(read);
    }
    Ok(())
}

/// Unique indexes, as sets of field names; they are written with columns or fields.
fn unique_sets(doc: &Object, fields: &[Field]) -> Result<Vec<Vec<Arc<str>>>, Wrong> {
    let mut sets = Vec::new();
    for index in doc.get("indexes").and_then(Value::as_array).unwrap_or_default() {
        let index = index.as_object().ok_or_else(|| {
            Wrong::new(format!("the index {} is not an object with columns", index.to_json()))
        })?;
        if field::flag(index, "unique").map_err(Wrong::new)? != Some(true) {
            continue;
        }
        let names = index.get("columns").or_else(|| index.get("fields")).and_then(Value::as_array);
        let mut set = Vec::new();
        for name in names.unwrap_or_default() {
            let text = name.as_str().unwrap_or_default();
            let field = fields
                .iter()
                .find(|field| &*field.column == text)
                .or_else(|| fields.iter().find(|field| &*field.name == text));
            match field {
                Some(field) => set.push(field.name.clone()),
                None => {
                    let shown = name.to_json();
                    let problem = format!("a unique index names {shown}, which is no column of it");
                    return Err(Wrong::new(problem));
                }
            }
        }
        if !set.is_empty() {
            sets.push(set);
        }
    }
    Ok(sets)
}

/// All primary keys, else `id`, else the first field.
fn key_of(fields: &[Field]) -> Arc<[Arc<str>]> {
    let keys: Vec<_> = fields.iter().filter(|f| f.primary_key).map(|f| f.name.clone()).collect();
    if !keys.is_empty() {
        return keys.into();
    }
    let id = fields.iter().find(|field| &*field.name == "id").unwrap_or(&fields[0]);
    [id.name.clone()].into()
}

#[cfg(test)]
mod tests;
