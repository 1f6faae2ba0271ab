//! Translate: what `{table}_lang` says about each row: `{<lang>: {field: text}}`.
//!
//! The translations of a table are an ordinary table whose records point at the translated one and
//! name a language; everything else they hold, keys and times aside, is a translation.

use std::collections::BTreeMap;

use crate::module::{Module, Row};
use crate::query::times;
use crate::schema::{FieldType, Schema, Table};
use crate::value::{Object, Value};

const LANGUAGE: [&str; 6] = ["lang", "language", "locale", "langCode", "lang_code", "languageCode"];

/// For each row its translations; `None` where no table of translations is registered.
pub(crate) fn translations(
    schema: &Schema,
    module: &Module,
    table: &Table,
    rows: &[&Row],
) -> Option<Vec<Value>> {
    let lang_table = schema.table(&format!("{}_lang", table.name))?;
    // One pass over the translations, not one for each row.
    let mut by_key: BTreeMap<String, Object> = BTreeMap::new();
    let points_at = reference(lang_table, table);
    if let (Some(lang_rows), Some(points_at)) = (module.rows(&lang_table.name), &points_at) {
        for (_, row) in lang_rows.iter() {
            let key = row.record.get(points_at).and_then(|to| table.name_kind().name_text(to));
            let lang = LANGUAGE.iter().find_map(|name| row.record.get(name)?.key_text());
            if let (Some(key), Some(lang)) = (key, lang) {
                let texts = texts(lang_table, points_at, &row.record);
                by_key.entry(key).or_default().insert(lang, Value::Object(texts));
            }
        }
    }
    let of = |row: &&Row| Value::Object(by_key.get(row.key.as_str()).cloned().unwrap_or_default());
    Some(rows.iter().map(of).collect())
}

/// The field of the translations that points at the translated table: declared, else by its name.
fn reference(lang_table: &Table, table: &Table) -> Option<String> {
    let declared = lang_table
        .fields
        .iter()
        .find(|field| field.references.as_ref().is_some_and(|to| to.table == table.name.as_str()));
    let name = table.name.as_str();
    let stems = [name, name.strip_suffix('s').unwrap_or(name)];
    let by_name = || {
        let guesses = stems.iter().flat_map(|stem| [format!("{stem}_id"), format!("{stem}Id")]);
        guesses.into_iter().find_map(|guess| lang_table.field(&guess))
    };
    declared.or_else(by_name).map(|field| field.name.to_string())
}

fn texts(lang_table: &Table, points_at: &str, record: &Object) -> Object {
    let is_text = |name: &str| {
        name != points_at
            && !LANGUAGE.contains(&name)
            && !times::is_time(name)
            && !lang_table.key.iter().any(|key| &**key == name)
            && lang_table.field(name).is_none_or(|field| {
                field.references.is_none()
                    && !matches!(field.kind, FieldType::Timestamp | FieldType::Date)
            })
    };
    let members = record.iter().filter(|(name, _)| is_text(name));
    members.map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ids::{RecordKey, TableName};
    use crate::module::Relations;
    use crate::query::page::page;
    use crate::read::PageQuery;
    use crate::testing::{object, schema};

    #[test]
    fn each_row_gets_its_translations_by_language() {
        let schema = schema(&[
            ("dishes", &["id"]),
            ("dishes_lang", &["id", "dishes_id", "lang", "name", "createdAt"]),
        ]);
        let mut module = Module::default();
        let mut put = |table: &str, id: &str, json: &str| {
            let table = TableName::parse(table).unwrap();
            let record = Arc::new(object(json));
            module.put(&table, RecordKey(id.into()), record, &Relations::default());
        };
        put("dishes", "1", r#"{"id":"1"}"#);
        put("dishes", "2", r#"{"id":"2"}"#);
        put("dishes_lang", "a", r#"{"id":"a","dishes_id":"1","lang":"ar","name":"شوربة"}"#);
        put("dishes_lang", "b", r#"{"id":"b","dishes_id":"1","lang":"en","name":"soup"}"#);
        let query = PageQuery { table: "dishes".to_owned(), ..PageQuery::default() };
        let found = page(&schema, &module, ("pos", crate::ids::Incarnation(1)), &query)
            .unwrap()
            .translations
            .unwrap();
        assert_eq!(found[0].to_json(), r#"{"ar":{"name":"شوربة"},"en":{"name":"soup"}}"#);
        assert_eq!(found[1].to_json(), "{}");
        let lang = PageQuery { table: "dishes_lang".to_owned(), ..PageQuery::default() };
        assert_eq!(
            page(&schema, &module, ("pos", crate::ids::Incarnation(1)), &lang)
                .unwrap()
                .translations,
            None
        );
    }
}
