//! Formats: every way a module's tables are written down, read into one [`Schema`].
//!
//! Told apart by shape alone (docs/original/schemas.md#formats): `{schema: {tables: […]}}`,
//! `{tables: {name: {fields: {…}}}}`, `{name: {fields: […]}}`, `{tables: [{columns: […]}]}`, and a
//! plain list of tables, at the top or under `tables`. Of a table or field written twice the last
//! one wins, in the first one's place.
//!
//! Promise: what is wrong is noted, naming table and field and what would be right, and everything
//! else loads; whoever asked decides whether notes are warnings (lenient) or a refusal (strict).
//! Refused at once: what has no tables, or tables in two places.

mod contradictions;
mod default;
mod field;
mod members;
mod reference;
mod shape;
mod table;
mod types;
mod unenforced;

use std::fmt;
use std::sync::Arc;

use crate::ids::TableName;
use crate::reject::Reject;
use crate::schema::{Conventions, Schema, Table};
use crate::value::Value;

/// What is said of one field: what cannot be, and what is only worth knowing.
#[derive(Debug, Default)]
struct FieldDiagnostics {
    problems: Vec<String>,
    advice: Vec<String>,
}

/// Something of a definition that cannot be: where, what is wrong, what would be right.
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
    /// Whether it is no more than worth knowing: strict does not refuse it.
    pub is_advice: bool,
}

/// A definition as far as it can be read.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedSchema {
    /// The tables.
    pub schema: Schema,
    /// What was left out of them or changed, in the order found.
    pub notes: Vec<BadSchema>,
}

impl ParsedSchema {
    /// The tables of a strict module.
    ///
    /// # Errors
    /// The first note that is more than advice.
    pub fn strict(self) -> Result<Schema, BadSchema> {
        match self.notes.into_iter().find(|note| !note.is_advice) {
            Some(note) => Err(note),
            None => Ok(self.schema),
        }
    }

    /// What a lenient module is warned of: nothing of what only strict ones enforce.
    pub fn warnings(&self) -> impl Iterator<Item = &BadSchema> {
        self.notes.iter().filter(|note| !note.is_advice)
    }
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
    /// [`BadSchema`] where there are no tables, or it cannot be told which they are.
    pub fn read(module: &str, doc: &Value) -> Result<ParsedSchema, BadSchema> {
        Self::read_under(module, doc, &Conventions::default())
    }

    /// The same, under what the clients of its trade take for granted.
    ///
    /// # Errors
    /// As [`Schema::read`].
    pub fn read_under(
        module: &str,
        doc: &Value,
        conventions: &Conventions,
    ) -> Result<ParsedSchema, BadSchema> {
        let listed =
            shape::listed(doc).map_err(|problems| Diagnostic::new(problems).of_module(module))?;
        let (mut tables, mut notes): (Vec<Table>, _) = (Vec::new(), listed.notes);
        for (name, doc) in listed.tables {
            let mut problems = Vec::new();
            let versioned = conventions.versioned.contains(&name);
            match table::read(&name, doc, versioned, &mut problems) {
                Ok(table) => match tables.iter_mut().find(|known| known.name == table.name) {
                    Some(known) => {
                        problems
                            .push(Diagnostic::new("it is written twice; the last one is taken"));
                        *known = table;
                    }
                    None => tables.push(table),
                },
                Err(wrong) if problems.is_empty() => problems.push(wrong),
                Err(_) => {}
            }
            notes.extend(problems.into_iter().map(|wrong| wrong.in_table(&name)));
        }
        if tables.is_empty()
            && let Some(first) = notes.first()
        {
            return Err(first.clone().of_module(module));
        }
        // Once all tables are known: a reference may point at a table that is written later.
        notes.extend(reference::resolve(module, &mut tables));
        let notes = notes.into_iter().map(|wrong| wrong.of_module(module)).collect();
        let schema = Self::under(tables.into_iter().map(Arc::new).collect(), conventions);
        Ok(ParsedSchema { schema, notes })
    }

    /// The tables of a definition, for who has read its notes elsewhere.
    ///
    /// # Errors
    /// As [`Schema::read`].
    pub fn from_definition(module: &str, doc: &Value) -> Result<Self, BadSchema> {
        Self::read(module, doc).map(|read| read.schema)
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
        // Stable, so that the tables nobody named keep their order.
        self.tables.sort_by_key(place);
        self
    }
}

/// A problem of a definition, before its module is known.
#[derive(Debug, Clone)]
struct Diagnostic {
    table: Option<String>,
    field: Option<String>,
    problem: String,
    is_advice: bool,
}

impl Diagnostic {
    fn new(problem: impl Into<String>) -> Self {
        Self { table: None, field: None, problem: problem.into(), is_advice: false }
    }

    fn in_table(mut self, name: &str) -> Self {
        self.table = Some(name.to_owned());
        self
    }

    fn in_field(name: &str, problem: String) -> Self {
        Self { field: Some(name.to_owned()), ..Self::new(problem) }
    }

    fn into_advice(mut self) -> Self {
        self.is_advice = true;
        self
    }

    fn of_module(self, module: &str) -> BadSchema {
        let Self { table, field, problem, is_advice } = self;
        BadSchema { module: module.to_owned(), table, field, problem, is_advice }
    }
}

#[cfg(test)]
mod tests;
