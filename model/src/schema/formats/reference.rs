//! Reference: foreign keys in all their spellings, and what they point at.
//!
//! Read first as written, settled once all tables are known: the POS schema names a target's
//! column, SQL its table in another case, and `a.b` is a field of table `a` if this module has
//! one, else table `b` of module `a`. A target that does not exist is kept as written: the
//! original's POS schema has such, and it is then not enforced.

use std::sync::Arc;

use crate::schema::formats::{Diagnostic, FieldDiagnostics, members};
use crate::schema::{Field, Reference, Table};
use crate::value::{Object, Value};

/// Reads `"Roles(ID)"`, `"roles"`, `"erp.roles(id)"` or `{table, column|field, module}`.
pub(super) fn read(value: &Value, notes: &mut FieldDiagnostics) -> Result<Reference, String> {
    if let Value::Object(doc) = value {
        notes.problems.extend(members::REFERENCE.check(doc));
        note_actions(doc, notes);
    }
    let wrong = || {
        format!(
            "the reference {} cannot be read; right are \"Roles(ID)\" and \
             {{\"table\": \"roles\", \"column\": \"id\"}}",
            value.to_json()
        )
    };
    let reference = match value {
        Value::String(text) => in_text(text).ok_or_else(wrong)?,
        Value::Object(doc) => in_object(doc).ok_or_else(wrong)?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => return Err(wrong()),
    };
    if reference.table.is_empty() { Err(wrong()) } else { Ok(reference) }
}

fn in_text(text: &str) -> Option<Reference> {
    let (table, field) = match text.split_once('(') {
        Some((table, rest)) => (table, rest.trim().strip_suffix(')')?),
        None => (text, ""),
    };
    Some(Reference {
        table: table.trim().into(),
        field: field.trim().into(),
        ..Reference::default()
    })
}

fn in_object(doc: &Object) -> Option<Reference> {
    let text = |name: &str| doc.get(name).and_then(Value::as_str).map(str::to_owned);
    Some(Reference {
        table: text("table")?,
        field: text("column").or_else(|| text("field")).unwrap_or_default(),
        module: text("module"),
        cascades: cascades(doc),
    })
}

/// Whether what points goes with what it points at: it is a part of it.
pub(super) fn cascades(doc: &Object) -> bool {
    let action = doc.get("onDelete").and_then(Value::as_str);
    action.is_some_and(|action| action.trim().eq_ignore_ascii_case("cascade"))
}

/// Notes what a strict module does not do: a record that others point at stays, whatever is
/// written.
pub(super) fn note_actions(doc: &Object, notes: &mut FieldDiagnostics) {
    for name in ["onDelete", "onUpdate"] {
        let Some(action) = doc.get(name).and_then(Value::as_str) else { continue };
        let word = action.trim().to_ascii_uppercase().replace('_', " ");
        if !matches!(word.as_str(), "" | "RESTRICT" | "NO ACTION") {
            notes.advice.push(format!(
                "{name} {action:?} is not done: what is pointed at cannot be removed (RESTRICT)"
            ));
        }
    }
}

/// Gives every reference its target's canonical table and field names. What points nowhere is
/// noted.
pub(super) fn resolve(module: &str, tables: &mut [Table]) -> Vec<Diagnostic> {
    let known: Vec<Arc<Table>> = tables.iter().cloned().map(Arc::new).collect();
    let mut notes = Vec::new();
    for table in tables {
        for field in &mut table.fields {
            if let Some(reference) = &mut field.references {
                resolve_one(module, &known, reference);
                if let Some(problem) = dangling(&known, reference) {
                    let wrong = Diagnostic::in_field(&field.name, problem);
                    notes.push(wrong.in_table(table.name.as_str()));
                }
            }
        }
    }
    notes
}

/// What is wrong with a reference whose target is not there, or not one record. Other modules are
/// not looked into.
fn dangling(tables: &[Arc<Table>], reference: &Reference) -> Option<String> {
    if reference.module.is_some() {
        return None;
    }
    let Some(target) = find(tables, &reference.table) else {
        return Some(format!("it refers to table {:?}, which is not defined", reference.table));
    };
    let what = || format!("it refers to {:?} of table {:?}", reference.field, target.name.as_str());
    match target.fields.iter().find(|field| *field.name == *reference.field) {
        None => Some(format!("{}, which has no such field", what())),
        Some(field) if !names_one(target, field) => Some(format!(
            "{}, which several records may have alike; make it unique, or refer to a field that is",
            what()
        )),
        Some(_) => None,
    }
}

/// Whether no two records of the table have the same value in this field.
fn names_one(table: &Table, field: &Field) -> bool {
    let alone = |set: &[Arc<str>]| matches!(set, [only] if *only == field.name);
    field.unique || alone(&table.key) || table.unique.iter().any(|set| alone(set))
}

fn resolve_one(module: &str, tables: &[Arc<Table>], reference: &mut Reference) {
    if reference.module.is_none()
        && let Some((left, right)) = reference.table.clone().split_once('.')
    {
        // `a.b` means two things; the tables of this module decide which.
        if reference.field.is_empty() && find(tables, left).is_some() {
            (reference.table, reference.field) = (left.to_owned(), right.to_owned());
        } else {
            (reference.module, reference.table) = (Some(left.to_owned()), right.to_owned());
        }
    }
    // A module may name itself: then the reference is enforced like any other.
    reference.module.take_if(|named| named == module);
    let target = if reference.module.is_none() { find(tables, &reference.table) } else { None };
    let Some(target) = target else {
        if reference.field.is_empty() {
            "id".clone_into(&mut reference.field);
        }
        return;
    };
    target.name.as_str().clone_into(&mut reference.table);
    reference.field = match target.field(&reference.field).or_else(|| {
        target.fields.iter().find(|field| field.name.eq_ignore_ascii_case(&reference.field))
    }) {
        Some(field) => field.name.to_string(),
        None if reference.field.is_empty() => target.key[0].to_string(),
        None => return,
    };
}

fn find<'a>(tables: &'a [Arc<Table>], name: &str) -> Option<&'a Arc<Table>> {
    tables
        .iter()
        .find(|table| table.name.as_str() == name)
        .or_else(|| tables.iter().find(|table| table.name.as_str().eq_ignore_ascii_case(name)))
}

#[cfg(test)]
mod tests {
    use super::FieldDiagnostics;
    use crate::schema::Schema;
    use crate::value::Value;

    fn settled(reference: &str) -> (String, String, Option<String>) {
        let doc = format!(
            r#"[{{"name":"Roles","fields":[{{"name":"id","columnName":"role_id","type":"text"}}]}},
               {{"name":"users","fields":[{{"name":"id","type":"text"}},
                 {{"name":"role","type":"text",{reference}}}]}}]"#
        );
        let doc = Value::from_json(doc.as_bytes()).unwrap();
        let schema = Schema::from_definition("erp", &doc).unwrap();
        let reference = schema.tables[1].fields[1].references.clone().unwrap();
        (reference.table, reference.field, reference.module)
    }

    #[test]
    fn every_spelling_finds_its_target() {
        let roles = ("Roles".to_owned(), "id".to_owned(), None);
        for spelling in [
            r#""foreignKey":"Roles(ID)""#,
            r#""foreignKey":"roles( id )""#,
            r#""references":"Roles""#,
            r#""references":"Roles.id""#,
            r#""references":{"table":"Roles","column":"role_id"}"#,
            r#""references":{"table":"Roles"}"#,
            r#""references":{"table":"Roles","field":"id","module":"erp"}"#,
            r#""references":"erp.Roles(ID)""#,
        ] {
            assert_eq!(settled(spelling), roles, "{spelling}");
        }
    }

    #[test]
    fn another_module_is_named_and_a_missing_target_kept() {
        let other = Some("pos".to_owned());
        assert_eq!(
            settled(r#""references":"pos.branches""#),
            ("branches".into(), "id".into(), other.clone())
        );
        assert_eq!(
            settled(r#""references":{"module":"pos","table":"branches","field":"uid"}"#),
            ("branches".into(), "uid".into(), other)
        );
        assert_eq!(
            settled(r#""references":{"table":"pos_terminal","column":"terminal_id"}"#),
            ("pos_terminal".into(), "terminal_id".into(), None)
        );
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for bad in [r#"7"#, r#""""#, r#"{"column":"id"}"#, r#""Roles(ID""#] {
            let value = Value::from_json(bad.as_bytes()).unwrap();
            assert!(super::read(&value, &mut FieldDiagnostics::default()).is_err(), "{bad}");
        }
    }
}
