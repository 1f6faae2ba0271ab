//! Schema: a module's tables, normalised from any of the formats the original's users have.
//!
//! Readers are in `schema/formats.rs`. What the store does with a record is listed from outside in:
//! `project` (what was sent becomes what is stored) draws on `foreign`, `defaults`, `coerce`
//! (lenient) and `validate` (strict); `key` names it by what its values say (`spelling`); `aliases`
//! and `seeds` find its table.
//!
//! Refused: nothing here knows other records, so uniqueness and foreign keys are the branch's.

mod aliases;
mod amount;
mod coerce;
mod conventions;
mod decimals;
mod defaults;
mod foreign;
mod formats;
mod key;
mod project;
mod seeds;
mod spelling;
mod validate;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::TableName;
use crate::sequence::SequenceRule;
use crate::value::Value;

pub use amount::Rounding;
pub use conventions::{Alias, ChildLink, Conventions};
pub use formats::{BadSchema, ParsedSchema};
pub use project::InsertContext;
pub use seeds::SkippedRows;
pub(crate) use spelling::TypedValue;

/// A module's tables, in the order shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Schema {
    /// In order; names are unique.
    pub tables: Vec<Arc<Table>>,
    /// What is taken for granted about them.
    pub conventions: Conventions,
}

crate::versioned!(Schema => Schema);

impl Schema {
    /// The table of this canonical name.
    pub fn table(&self, name: &str) -> Option<&Arc<Table>> {
        self.tables.iter().find(|table| table.name.as_str() == name)
    }

    /// These tables, under what is taken for granted about them.
    pub fn under(tables: Vec<Arc<Table>>, conventions: &Conventions) -> Self {
        let mut schema = Self { tables, conventions: Conventions::default() };
        schema.conventions = conventions.of_tables(&schema);
        schema
    }
}

/// One table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Its canonical name.
    pub name: TableName,
    /// What people call it.
    pub label: String,
    /// In the order records show them.
    pub fields: Vec<Field>,
    /// Names of the fields whose values make the key: all primary keys, else `id`, else the first.
    pub key: Arc<[Arc<str>]>,
    /// Whether records carry a version that every change is checked against.
    pub versioned: bool,
    /// Sets of fields whose values together are unique, besides unique fields.
    pub unique: Vec<Vec<Arc<str>>>,
}

impl Table {
    /// The field of this name, or whose column has it.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields
            .iter()
            .find(|field| &*field.name == name)
            .or_else(|| self.fields.iter().find(|field| &*field.column == name))
    }

    /// The field that names the record each row is a part of, and the table of that record: the
    /// first whose reference cascades. None where that field belongs to the key, for a row cannot
    /// then be another record's.
    pub(crate) fn parent(&self) -> Option<(&Field, &str)> {
        let cascading = |field: &Field| field.references.as_ref().is_some_and(|to| to.cascades);
        let field = self.fields.iter().find(|field| cascading(field))?;
        let table = field.references.as_ref()?.table.as_str();
        (!field.primary_key).then_some((field, table))
    }
}

/// One field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// Its name in records, for example `shiftId`.
    pub name: Arc<str>,
    /// Its snake_case form, accepted where a record is read, for example `shift_id`.
    pub column: Arc<str>,
    /// What it holds.
    pub kind: FieldType,
    /// Whether `null` is a value.
    pub nullable: bool,
    /// Whether it is (part of) the key.
    pub primary_key: bool,
    /// Whether no two records may share a value.
    pub unique: bool,
    /// Longest text, in characters.
    pub max_length: Option<u32>,
    /// Most digits of a decimal.
    pub precision: Option<u32>,
    /// Digits of a decimal after the point.
    pub scale: Option<u32>,
    /// What stands in where nothing was sent.
    pub default: Option<Default>,
    /// The only values allowed, if any are listed.
    pub allowed: Vec<Value>,
    /// The record it points at.
    pub references: Option<Reference>,
    /// How an amount that the store derives is made to fit `scale`.
    pub rounding: Rounding,
    /// How its numbers are made, where the definition says so; the numbering rules of the cluster
    /// and of the branch hold instead. A branch's prefix is not in its place yet.
    pub sequence: Option<Arc<SequenceRule>>,
}

/// What a field holds (docs/original/schemas.md#types).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FieldType {
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// An exact decimal.
    Number,
    /// `true` or `false`.
    Boolean,
    /// Any JSON.
    Json,
    /// A day, kept as sent.
    Date,
    /// A time of day, kept as sent.
    Time,
    /// An instant, kept as sent.
    Timestamp,
    /// Anything else (`uuid`, …), kept as sent.
    Opaque,
}

/// What stands in where nothing was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Default {
    /// This value.
    Value(Value),
    /// The commit time, as ISO text (`defaultFn: NOW_ISO`, `getdate()`).
    Now,
    /// A new uuid.
    Uuid,
}

/// A foreign key.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// The table pointed at, as the definition names it; it may not exist (the original's POS
    /// schema has such) and is then not enforced.
    pub table: String,
    /// The field pointed at there; it too may not exist, and is then not enforced.
    pub field: String,
    /// Another module, where the definition names one: refused by strict validation.
    pub module: Option<String>,
    /// Whether the definition says `onDelete: CASCADE`: what points is a part of what it points
    /// at, and means nothing without it.
    pub cascades: bool,
}
