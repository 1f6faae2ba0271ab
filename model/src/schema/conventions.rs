//! Conventions: what the clients of a trade take for granted about its tables, beyond what a
//! definition says.
//!
//! They are data: whoever reads a definition gives them ([`Schema::read_under`]), and they go with
//! the schema into the log and into checkpoints, so that every replica means the same. A schema
//! only keeps those that speak of its own tables.

use serde::{Deserialize, Serialize};

use crate::schema::Schema;

/// What is taken for granted about tables. Empty by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conventions {
    /// What clients call a table besides its name.
    pub aliases: Vec<Alias>,
    /// What people who empty tables say besides.
    pub purge_aliases: Vec<Alias>,
    /// What seed files say besides.
    pub seed_aliases: Vec<Alias>,
    /// Tables whose rows are parts of other records, in any mode; the first of a table is the one
    /// without which its others do not count.
    pub children: Vec<ChildLink>,
    /// Fields that must say something in any mode: table and field.
    pub required: Vec<(String, String)>,
    /// Tables whose records carry a version where the definition does not say.
    pub versioned: Vec<String>,
    /// What messages call a record of a table, where that is not "record": table and noun.
    pub nouns: Vec<(String, String)>,
}

/// Another name of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// What is said.
    pub name: String,
    /// The table that is meant.
    pub table: String,
}

/// A table whose rows are parts of other records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildLink {
    /// The table of the parts.
    pub table: String,
    /// The field that names the record each row is a part of.
    pub field: String,
    /// The table of those records.
    pub parent: String,
}

impl Conventions {
    /// Those that speak of a schema's tables.
    pub(super) fn of_tables(&self, schema: &Schema) -> Self {
        let has = |table: &str| schema.table(table).is_some();
        let known =
            |aliases: &[Alias]| aliases.iter().filter(|alias| has(&alias.table)).cloned().collect();
        let pairs = |pairs: &[(String, String)]| {
            pairs.iter().filter(|(table, _)| has(table)).cloned().collect()
        };
        Self {
            aliases: known(&self.aliases),
            purge_aliases: known(&self.purge_aliases),
            seed_aliases: known(&self.seed_aliases),
            children: self.children.iter().filter(|link| has(&link.table)).cloned().collect(),
            required: pairs(&self.required),
            versioned: self.versioned.iter().filter(|table| has(table)).cloned().collect(),
            nouns: pairs(&self.nouns),
        }
    }

    /// The records of which a table's rows are parts.
    pub(crate) fn children_of(&self, table: &str) -> impl Iterator<Item = &ChildLink> {
        self.children.iter().filter(move |link| link.table == table)
    }

    /// The fields of a table that must say something.
    pub(crate) fn required_of(&self, table: &str) -> impl Iterator<Item = &str> {
        let required = self.required.iter().filter(move |(of, _)| of == table);
        required.map(|(_, field)| field.as_str())
    }

    /// What messages call a record of a table.
    pub(crate) fn noun(&self, table: &str) -> &str {
        let noun = self.nouns.iter().find(|(of, _)| of == table);
        noun.map_or("record", |(_, noun)| noun.as_str())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{conventions, schema};

    #[test]
    fn a_schema_keeps_only_the_conventions_of_its_tables() {
        let clinic = schema(&[("appointment", &["id"]), ("treatment", &["id"])]);
        assert_eq!(clinic.conventions, super::Conventions::default());
        let shop = schema(&[("order_line", &["id"])]).conventions;
        assert!(shop.aliases.iter().all(|alias| alias.table == "order_line"));
        assert_eq!((shop.children.len(), shop.required.len(), shop.nouns.len()), (1, 1, 1));
        assert!(shop.aliases.len() < conventions().aliases.len());
    }
}
