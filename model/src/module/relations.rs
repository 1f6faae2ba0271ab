//! Relations: what a strict definition says must be unique and what must point at what, worked out
//! once per definition; and, in any definition, which rows are parts of which records by
//! convention. Derived, never stored: two replicas derive the same.
//!
//! A foreign key is enforced where both ends are in this definition. A table it does not know (the
//! original's POS schema names some) is not enforced; another module is refused by `define`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::definition::{Definition, Validation};
use crate::ids::TableName;
use crate::module::index::{IndexField, IndexFields};
use crate::schema::{FieldType, Schema, Table};
use crate::value::Value;

/// What must be looked up, by table. A lenient definition only has what its conventions say.
#[derive(Debug, Default)]
pub(crate) struct Relations {
    tables: BTreeMap<TableName, TableRelations>,
}

/// One table's part.
#[derive(Debug, Default)]
pub(crate) struct TableRelations {
    indexes: Vec<IndexFields>,
    /// Places in `indexes` whose values no two records may share.
    pub(crate) unique: Vec<usize>,
    /// What this table's records point at.
    pub(crate) outgoing: Vec<Link>,
    /// What points at this table's records.
    pub(crate) incoming: Vec<Link>,
}

/// One foreign key, from its near end to its far end.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) near: TableName,
    pub(crate) near_field: Arc<str>,
    /// Place of the near field's index in the near table.
    pub(crate) near_index: usize,
    pub(crate) far: TableName,
    pub(crate) far_field: Arc<str>,
    /// Place of the far field's index in the far table; `None` where it is the whole key.
    pub(crate) far_index: Option<usize>,
    /// What both ends' values are read as.
    pub(crate) kind: FieldType,
}

impl Link {
    /// The text of a value at either end; `None` for null, which points at nothing.
    pub(crate) fn text(&self, value: &Value) -> Option<Arc<str>> {
        self.kind.name_text(value).map(Arc::from)
    }
}

impl Relations {
    pub(crate) fn of(definition: &Definition) -> Self {
        Self::of_schema(&definition.schema, definition.validation)
    }

    /// They follow from these alone, so definitions that differ in the rest may share them.
    pub(crate) fn of_schema(schema: &Schema, validation: Validation) -> Self {
        let mut relations = Self::default();
        for link in &schema.conventions.children {
            let Some(table) = schema.table(&link.table) else { continue };
            if let Some(field) = table.fields.iter().find(|field| *field.name == *link.field) {
                let parent = schema.table(&link.parent);
                let kind = parent.map_or(field.kind, |parent| parent.name_kind());
                let field = IndexField { name: Arc::clone(&field.name), kind };
                relations.add_index(&table.name, vec![field]);
            }
        }
        match validation {
            Validation::Lenient => return relations,
            Validation::Strict => {}
        }
        for table in &schema.tables {
            relations.add_unique(table);
        }
        for table in &schema.tables {
            relations.add_links(schema, table);
        }
        relations
    }

    /// The indexes a table has, in their places.
    pub(crate) fn indexes(&self, table: &TableName) -> &[IndexFields] {
        self.tables.get(table).map_or(&[], |relations| &relations.indexes)
    }

    /// The place of a table's index by one field, and what the field's values are read as.
    pub(crate) fn by_field(&self, table: &TableName, field: &str) -> Option<(usize, FieldType)> {
        self.indexes(table).iter().enumerate().find_map(|(place, fields)| match &fields[..] {
            [one] if *one.name == *field => Some((place, one.kind)),
            _ => None,
        })
    }

    pub(crate) fn table(&self, table: &TableName) -> Option<&TableRelations> {
        self.tables.get(table)
    }

    fn add_unique(&mut self, table: &Table) {
        let fields = table.fields.iter().filter(|field| field.unique);
        let sets = fields.map(|field| vec![Arc::clone(&field.name)]).chain(table.unique.clone());
        for set in sets {
            // The key itself is looked up by key.
            if !set.is_empty() && set[..] != table.key[..] {
                let fields = set.iter().map(|name| IndexField::of(table, name)).collect();
                let place = self.add_index(&table.name, fields);
                let unique = &mut self.tables.entry(table.name.clone()).or_default().unique;
                if !unique.contains(&place) {
                    unique.push(place);
                }
            }
        }
    }

    fn add_links(&mut self, schema: &Schema, table: &Table) {
        for field in &table.fields {
            let Some(reference) = &field.references else { continue };
            let Some(far) = schema.table(&reference.table) else { continue };
            let Some(far_field) = far.field(&reference.field) else { continue };
            let whole_key = far.key.len() == 1 && far.key[0] == far_field.name;
            let kind = far_field.kind;
            let by = |name: &Arc<str>| vec![IndexField { name: Arc::clone(name), kind }];
            let link = Link {
                near: table.name.clone(),
                near_field: Arc::clone(&field.name),
                near_index: self.add_index(&table.name, by(&field.name)),
                far: far.name.clone(),
                far_field: Arc::clone(&far_field.name),
                far_index: (!whole_key).then(|| self.add_index(&far.name, by(&far_field.name))),
                kind,
            };
            self.tables.entry(far.name.clone()).or_default().incoming.push(link.clone());
            self.tables.entry(table.name.clone()).or_default().outgoing.push(link);
        }
    }

    fn add_index(&mut self, table: &TableName, fields: IndexFields) -> usize {
        let indexes = &mut self.tables.entry(table.clone()).or_default().indexes;
        indexes.iter().position(|known| *known == fields).unwrap_or_else(|| {
            indexes.push(fields);
            indexes.len() - 1
        })
    }
}
