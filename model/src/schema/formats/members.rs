//! Members: what each part of a definition may contain, in one table. What is not in it is noted: a
//! strict module refuses it, a lenient one loads without it and warns. Members of the simplest
//! kinds are read here too.

use crate::value::{Object, Value};

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

/// The values of a type such as `ENUM('new','paid')`.
pub(super) fn of_type(doc: &Object, problems: &mut Vec<String>) -> Vec<Value> {
    let text = doc.get("type").and_then(Value::as_str).unwrap_or_default().trim();
    let is_enum = text.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("enum"));
    if !is_enum {
        return Vec::new();
    }
    let inside = text.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'));
    let inside = inside.map_or("", |(inside, _)| inside);
    let quoted = |part: &str| part.trim().trim_matches(['\'', '"']).to_owned();
    let mut values: Vec<Value> = Vec::new();
    for value in inside.split(',').map(quoted).filter(|value| !value.is_empty()) {
        let read = Value::from(value.as_str());
        if values.contains(&read) {
            problems.push(format!("its type lists {value:?} twice"));
        } else {
            values.push(read);
        }
    }
    if values.is_empty() {
        problems.push("it is an enum without values; list them as \"enum\"".to_owned());
    }
    values
}

/// A member that is `true` or `false`; anything else is noted and says nothing.
pub(super) fn flag(doc: &Object, name: &str, problems: &mut Vec<String>) -> Option<bool> {
    match doc.get(name) {
        None | Some(Value::Null) => None,
        Some(Value::Bool(value)) => Some(*value),
        Some(other) => {
            problems.push(format!("{name} is {}; it is true or false", other.to_json()));
            None
        }
    }
}

/// A member that is a whole number from `least`; anything else is noted and says nothing.
pub(super) fn count(
    doc: &Object,
    name: &str,
    least: u32,
    problems: &mut Vec<String>,
) -> Option<u32> {
    match doc.get(name) {
        None | Some(Value::Null) => None,
        Some(value) => {
            let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
            let count = count.filter(|count| *count >= least);
            if count.is_none() {
                let shown = value.to_json();
                problems.push(format!("{name} is {shown}; it is a whole number from {least}"));
            }
            count
        }
    }
}
