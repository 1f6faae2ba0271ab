//! Members: what each part of a definition may contain, in one table. What is not in it is noted: a
//! strict module refuses it, a lenient one loads without it and warns.

use crate::value::Object;

/// One kind of part, what it is called, and its members.
pub(super) struct PartMembers {
    what: &'static str,
    members: &'static [&'static str],
}

/// The definition as a whole, and what it may wrap as `schema`.
pub(super) const DOCUMENT: PartMembers = PartMembers {
    what: "a definition",
    members: &[
        "$schema",
        "comment",
        "description",
        "id",
        "label",
        "meta",
        "module",
        "moduleId",
        "name",
        "notes",
        "schema",
        "tables",
        "title",
        "version",
    ],
};
/// A table.
pub(super) const TABLE: PartMembers = PartMembers {
    what: "a table",
    members: &[
        "classCode",
        "columns",
        "comment",
        "description",
        "fields",
        "foreignKeys",
        "indexes",
        "label",
        "layout",
        "name",
        "notes",
        "primaryKey",
        "sqlName",
        "title",
        "versioned",
    ],
};
/// A field.
pub(super) const FIELD: PartMembers = PartMembers {
    what: "a field",
    members: &[
        "column",
        "columnName",
        "comment",
        "default",
        "defaultFn",
        "defaultValue",
        "description",
        "enum",
        "foreignKey",
        "index",
        "label",
        "maxLength",
        "name",
        "notes",
        "nullable",
        "precision",
        "primaryKey",
        "references",
        "required",
        "rounding",
        "scale",
        "sequence",
        "title",
        "type",
        "unique",
    ],
};
/// An index.
pub(super) const INDEX: PartMembers = PartMembers {
    what: "an index",
    members: &["columns", "comment", "description", "fields", "name", "notes", "unique"],
};
/// An entry of `foreignKeys`.
pub(super) const FOREIGN_KEY: PartMembers = PartMembers {
    what: "a foreign key",
    members: &[
        "column",
        "comment",
        "field",
        "module",
        "name",
        "onDelete",
        "onUpdate",
        "references",
        "referencesField",
    ],
};
/// A reference written as an object.
pub(super) const REFERENCE: PartMembers = PartMembers {
    what: "a reference",
    members: &["column", "comment", "field", "module", "name", "onDelete", "onUpdate", "table"],
};

impl PartMembers {
    /// Whether it has a member of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains(&name)
    }

    /// What is said of one that it does not have.
    pub(super) fn unknown(&self, name: &str) -> String {
        if self.what == FIELD.what && REFERENCE.has(name) {
            return format!(
                "{name:?} is not known of a field; it belongs inside its references, \
                 {{\"references\": {{\"table\": …, {name:?}: …}}}}"
            );
        }
        format!("{name:?} is not known of {}; known are {}", self.what, self.members.join(", "))
    }

    /// What is said of each member of a part that it does not have.
    pub(super) fn check<'a>(&'a self, doc: &'a Object) -> impl Iterator<Item = String> + 'a {
        let unknown = doc.iter().map(|(name, _)| &**name).filter(|name| !self.has(name));
        unknown.map(|name| self.unknown(name))
    }
}
