//! Fit: whether stored records satisfy a definition, and what brings them up to it.
//!
//! Only what the new definition asks for and the old one did not is looked at: what broke a rule
//! before stays until somebody changes it. A field that may be null and has no default is satisfied
//! by its absence. Filling gives missing fields their defaults, reads values as their new type
//! where nothing is lost by it, and leaves out fields that a strict definition no longer has;
//! whatever else does not fit is never changed, so that a definition is refused rather than data
//! guessed. A table that is no longer defined must be empty: what nobody sees any more is lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::definition::{Definition, Validation};
use crate::ids::RecordKey;
use crate::limits::VIOLATIONS_SHOWN;
use crate::module::Module;
use crate::module::index::{names, values_text};
use crate::module::plan::RecordDiff;
use crate::module::relations::{Link, Relations};
use crate::module::version::{Lock, risen, stored};
use crate::read::Violation;
use crate::reject::Reject;
use crate::schema::{Default, Field, InsertContext, Table};
use crate::value::{Object, Value};

/// The first records that satisfied the old definition and do not satisfy the new one. `module`
/// holds them under the new one's keys and indexes; `filled` were changed to satisfy the new one.
pub(crate) fn violations(
    (old, new): (&Definition, &Definition),
    (was, relations): (&Relations, &Relations),
    module: &Module,
    filled: &[RecordDiff],
) -> Vec<Violation> {
    let mut found = without_table(old, new, module);
    found.truncate(VIOLATIONS_SHOWN);
    let filled: BTreeSet<_> = filled.iter().map(|diff| (&diff.table, &diff.key)).collect();
    for table in &new.schema.tables {
        let Some(rows) = module.rows(&table.name) else { continue };
        let before = old.schema.table(table.name.as_str());
        for (_, row) in rows.iter() {
            let mut problems = problems(table, &row.record, new.validation);
            if let Some(before) = before.filter(|_| !problems.is_empty()) {
                let known = self::problems(before, &row.record, old.validation);
                problems.retain(|problem| !known.contains(problem));
            }
            // What holds between records was true of what was stored, not of what was filled in.
            let was = (!filled.contains(&(&table.name, &row.key))).then_some(was);
            let between = between((was, relations), module, table, (&row.key, &row.record));
            for problem in problems.into_iter().chain(between) {
                found.push(Violation {
                    table: table.name.to_string(),
                    key: row.key.clone(),
                    problem,
                });
                if found.len() >= VIOLATIONS_SHOWN {
                    return found;
                }
            }
        }
    }
    found
}

/// The first record of each table that the new definition does not have.
fn without_table(old: &Definition, new: &Definition, module: &Module) -> Vec<Violation> {
    let gone =
        old.schema.tables.iter().filter(|table| new.schema.table(table.name.as_str()).is_none());
    let first = |table: &Arc<Table>| {
        let rows = module.rows(&table.name)?;
        let (_, row) = rows.iter().next()?;
        let problem = format!(
            "its table is no longer defined; remove its {} records first, or keep the table",
            rows.len()
        );
        Some(Violation { table: table.name.to_string(), key: row.key.clone(), problem })
    };
    gone.filter_map(first).collect()
}

/// What of one record a definition's table does not allow.
pub(crate) fn problems(table: &Table, record: &Object, validation: Validation) -> Vec<String> {
    let mut problems = Vec::new();
    for field in &table.fields {
        match (record.get(&field.name), validation) {
            (None, _) => {
                let no_default = matches!(&field.default, None | Some(Default::Value(Value::Null)));
                // It was called so before.
                if table.column_value(record, field).is_some() {
                    problems.push(format!("{} is still called {}", field.name, field.column));
                } else if &*field.name != "version" && !(field.nullable && no_default) {
                    problems.push(format!("{} is missing", field.name));
                }
            }
            (Some(value), Validation::Strict) => match field.validate(table.name.as_str(), value) {
                Err(reject) => problems.push(reject.to_string()),
                Ok(stored) if stored != *value => problems.push(of_other_type(field, value)),
                Ok(_) => {}
            },
            (Some(value), Validation::Lenient) => {
                if field.coerce(value) != *value {
                    problems.push(of_other_type(field, value));
                }
            }
        }
    }
    if validation == Validation::Strict {
        for (name, _) in record.iter() {
            if &**name != "version" && !table.fields.iter().any(|field| field.name == *name) {
                problems.push(format!(
                    "{name} is no field of this table; filling leaves its value out, unless a \
                     field names it as its columnName"
                ));
            }
        }
    }
    problems
}

/// A value that the field would store in another way.
fn of_other_type(field: &Field, value: &Value) -> String {
    format!("{} is not of its type, but {}", field.name, Reject::show(value))
}

/// What of one record a new rule between records does not allow.
fn between(
    (was, relations): (Option<&Relations>, &Relations),
    module: &Module,
    table: &Table,
    (key, record): (&RecordKey, &Object),
) -> Vec<String> {
    let mut problems = Vec::new();
    let (Some(rules), Some(rows)) = (relations.table(&table.name), module.rows(&table.name)) else {
        return problems;
    };
    let indexes = relations.indexes(&table.name);
    let old_indexes = was.map_or(&[][..], |was| was.indexes(&table.name));
    let old = was.and_then(|was| was.table(&table.name));
    for &place in &rules.unique {
        let fields = &indexes[place];
        let held = old.is_some_and(|old| old.unique.iter().any(|at| old_indexes[*at] == *fields));
        let text = values_text(record, fields).filter(|_| !held);
        let other = text.and_then(|text| rows.index_at(place)?.find(&text, Some(key)).cloned());
        if let Some(other) = other {
            let fields = names(fields);
            problems.push(format!("{fields} is not unique: record \"{other}\" has the same"));
        }
    }
    for link in &rules.outgoing {
        let same = |held: &Link| {
            held.near_field == link.near_field
                && held.far == link.far
                && held.far_field == link.far_field
                && held.kind == link.kind
        };
        let held = old.is_some_and(|old| old.outgoing.iter().any(same));
        let value = record.get(&link.near_field).filter(|_| !held);
        if let Some(text) = value.and_then(|value| link.text(value))
            && !points_somewhere(link, module, &text)
        {
            problems.push(format!(
                "{} = \"{text}\" points at no record of {}",
                link.near_field, link.far
            ));
        }
    }
    problems
}

fn points_somewhere(link: &Link, module: &Module, text: &Arc<str>) -> bool {
    let Some(far) = module.rows(&link.far) else { return false };
    match link.far_index {
        None => far.get(&RecordKey(Arc::clone(text))).is_some(),
        Some(place) => far.index_at(place).is_some_and(|index| index.find(text, None).is_some()),
    }
}

/// Brings every record that lacks something up to a definition; what was changed, in order.
pub(crate) fn fill(
    (old, new): (&Definition, &Definition),
    relations: &Relations,
    module: &mut Module,
    mut context: impl FnMut() -> crate::module::fit::Context,
) -> Vec<RecordDiff> {
    let mut diffs = Vec::new();
    for table in &new.schema.tables {
        let Some(rows) = module.rows(&table.name).cloned() else { continue };
        let (lock, was) = (Lock::of(new, table), old.schema.table(table.name.as_str()));
        for (_, row) in rows.iter() {
            let problems = problems(table, &row.record, new.validation);
            let known = was.map(|was| self::problems(was, &row.record, old.validation));
            let known = known.unwrap_or_default();
            if problems.iter().all(|problem| known.contains(problem)) {
                continue;
            }
            let mut context = context();
            let mut ctx = InsertContext {
                validation: new.validation,
                branch: &context.branch,
                client: None,
                at: context.at,
                entropy: &mut context.entropy,
            };
            let mut record = table.project_fill(&row.record, &mut ctx);
            if record == *row.record {
                continue;
            }
            lock.set(&mut record, risen(stored(&row.record)));
            let (before, after) = (Arc::clone(&row.record), Arc::new(record));
            module.put(&table.name, row.key.clone(), Arc::clone(&after), relations);
            diffs.push(RecordDiff {
                table: table.name.clone(),
                key: row.key.clone(),
                before: Some(before),
                after: Some(after),
            });
        }
    }
    diffs
}

/// What a default may draw on.
pub(crate) struct Context {
    pub(crate) branch: crate::ids::BranchId,
    pub(crate) at: crate::ids::Timestamp,
    pub(crate) entropy: crate::entropy::Entropy,
}

/// How a definition is refused whose records do not fit.
pub(crate) fn refusal(found: &[Violation]) -> Reject {
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    Reject::BadDefinition {
        code: "records-do-not-fit".to_owned(),
        message: format!("stored records do not satisfy this definition: {}", shown.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::Request;
    use crate::definition::{Definition, Validation};
    use crate::outcome::Acceptance;
    use crate::read::{Answer, Read};
    use crate::reject::Reject;
    use crate::schema::Schema;
    use crate::testing::Shop;
    use crate::value::Value;

    const OLD: &str = r#"{"tables":{
        "staff":{"fields":{"id":{"type":"text","primaryKey":true},"name":{"type":"text"},
            "phone":{"type":"text"},"room":{"type":"text"}}},
        "rooms":{"fields":{"id":{"type":"text","primaryKey":true}}}}}"#;

    fn schema(doc: &str) -> Arc<Schema> {
        let doc = Value::from_json(doc.as_bytes()).unwrap();
        Arc::new(crate::testing::conventional(&doc))
    }

    fn shop(validation: Validation) -> Shop {
        let mut shop = match validation {
            Validation::Strict => Shop::strict(),
            Validation::Lenient => Shop::lenient(),
        };
        shop.redefine(|definition| definition.schema = schema(OLD)).unwrap();
        for id in 0..12 {
            let record = format!(r#"{{"id":"{id}","name":"Mona","phone":"5","room":"r"}}"#);
            shop.insert("staff", &record).unwrap();
        }
        shop
    }

    /// The old table with one field changed or added, or one of its members.
    fn changed(field: &str, more: &str) -> Arc<Schema> {
        let mut fields = String::new();
        for old in ["id", "name", "phone", "room"] {
            if !field.starts_with(&format!("\"{old}\"")) && !field.contains(&format!("-{old}")) {
                let key = if old == "id" { r#","primaryKey":true"# } else { "" };
                fields.push_str(&format!(r#""{old}":{{"type":"text"{key}}},"#));
            }
        }
        let field = field.split(" -").next().unwrap();
        schema(&format!(
            r#"{{"tables":{{"staff":{{"fields":{{{fields}{field}}}{more}}},
            "rooms":{{"fields":{{"id":{{"type":"text","primaryKey":true}}}}}}}}}}"#
        ))
    }

    fn take(shop: &mut Shop, new: Arc<Schema>, fill: bool) -> Result<Acceptance, Reject> {
        let mut definition: Definition = (**shop.branch().definition().unwrap()).clone();
        definition.schema = new;
        let definition = Arc::new(definition);
        let read = Read::DefinitionCheck { definition: Arc::clone(&definition), fill };
        let Ok(Answer::DefinitionCheck(fit)) = shop.branch().read(&read) else {
            panic!("an answer")
        };
        let request = if fill { Request::Fill(definition) } else { Request::Define(definition) };
        let taken = shop.run(request);
        assert_eq!(fit.violations.is_empty(), taken.is_ok(), "the look and the command agree");
        taken
    }

    #[test]
    fn records_that_do_not_satisfy_a_definition_refuse_it() {
        for (field, more, problem) in [
            (r#""tier":{"type":"text","default":"'gold'"}"#, "", "tier is missing"),
            (r#""mobile":{"type":"text","nullable":false} -phone"#, "", "mobile is missing"),
            (r#""name":{"type":"text","maxLength":3}"#, "", "must be at most 3 characters"),
            (r#""name":{"type":"text","enum":["Ali"]}"#, "", "must be one of"),
            (r#""name":{"type":"integer"}"#, "", "must be a whole number"),
            (r#""name":{"type":"text","unique":true}"#, "", "name is not unique"),
            (
                r#""room":{"type":"text","references":"rooms(id)"}"#,
                "",
                "points at no record of rooms",
            ),
            (
                r#""name":{"type":"text"}"#,
                r#","indexes":[{"columns":["name","room"],"unique":true}]"#,
                "name, room is not unique",
            ),
        ] {
            let mut shop = shop(Validation::Strict);
            let before = shop.rows("staff");
            let refused = take(&mut shop, changed(field, more), false).unwrap_err();
            assert_eq!(refused.code(), "records-do-not-fit", "{field}: {refused}");
            assert!(refused.to_string().contains(problem), "{field}: {refused}");
            assert_eq!(shop.rows("staff"), before);
            shop.insert("staff", r#"{"id":"new","name":"Omar","phone":"6","room":"r"}"#).unwrap();
        }
    }

    #[test]
    fn filling_brings_records_up_to_a_definition_and_tells_it() {
        for validation in [Validation::Strict, Validation::Lenient] {
            let mut shop = shop(validation);
            let new = changed(r#""tier":{"type":"text","default":"'gold'"}"#, "");
            assert!(take(&mut shop, Arc::clone(&new), false).is_err());
            let taken = take(&mut shop, new, true).unwrap();
            assert_eq!(taken.delta.events.len(), 1, "one event tells of all");
            assert!(shop.rows("staff").iter().all(|row| row.contains(r#""tier":"gold""#)));
            let rows = shop.rows("staff");
            let version = r#""version":2"#;
            let is_strict = validation == Validation::Strict;
            assert!(rows.iter().all(|row| row.contains(version) == is_strict), "{rows:?}");
        }
    }

    #[test]
    fn a_renamed_column_is_filled_from_its_old_name() {
        let mut shop = shop(Validation::Strict);
        let field = r#""mobile":{"type":"text","columnName":"phone","nullable":false} -phone"#;
        let new = changed(field, "");
        assert!(take(&mut shop, Arc::clone(&new), false).is_err());
        take(&mut shop, new, true).unwrap();
        let rows = shop.rows("staff");
        assert!(rows[0].contains(r#""mobile":"5""#) && !rows[0].contains("phone"), "{rows:?}");
    }

    #[test]
    fn filling_guesses_nothing() {
        for field in [
            r#""name":{"type":"text","maxLength":3}"#,
            r#""name":{"type":"text","unique":true}"#,
            r#""must":{"type":"integer","nullable":false}"#,
            r#""name":{"type":"integer"}"#,
        ] {
            let mut shop = shop(Validation::Strict);
            let before = shop.rows("staff");
            assert!(take(&mut shop, changed(field, ""), true).is_err(), "{field}");
            assert_eq!(shop.rows("staff"), before);
        }
        let mut shop = shop(Validation::Strict);
        take(&mut shop, changed(r#""phone":{"type":"integer"}"#, ""), true).unwrap();
        take(&mut shop, changed(r#""phone":{"type":"integer"},"note":{"type":"text"}"#, ""), false)
            .unwrap();
    }

    #[test]
    fn a_module_that_becomes_strict_asks_more_of_its_records() {
        let mut shop = shop(Validation::Lenient);
        shop.insert("staff", r#"{"id":"x","name":5}"#).unwrap();
        let refused = shop.redefine(|definition| definition.validation = Validation::Strict);
        assert_eq!(refused.unwrap_err().code(), "records-do-not-fit");
        shop.merge("staff", r#"{"id":"x","name":"five"}"#).unwrap();
        shop.redefine(|definition| definition.validation = Validation::Strict).unwrap();
    }

    #[test]
    fn what_is_filled_in_keeps_the_rules_between_records() {
        let doc = |code: &str| {
            schema(&format!(
                r#"{{"tables":{{"staff":{{"fields":{{"id":{{"type":"text","primaryKey":true}},
                    {code}}}}}}}}}"#
            ))
        };
        let mut shop = Shop::strict();
        let free = r#""code":{"type":"text","unique":true,"nullable":true}"#;
        shop.redefine(|definition| definition.schema = doc(free)).unwrap();
        shop.insert("staff", r#"{"id":"1"}"#).unwrap();
        shop.insert("staff", r#"{"id":"2"}"#).unwrap();
        let same = r#""code":{"type":"text","unique":true,"nullable":false,"default":"'x'"}"#;
        let refused = take(&mut shop, doc(same), true).unwrap_err();
        assert!(refused.to_string().contains("code is not unique"), "{refused}");
    }

    #[test]
    fn a_value_of_another_type_fits_only_after_a_fill() {
        let doc = |a: &str| {
            schema(&format!(
                r#"{{"tables":{{"staff":{{"fields":{{"id":{{"type":"text","primaryKey":true}},
                    "a":{a}}}}}}}}}"#
            ))
        };
        for (a, sent, stored) in [
            (r#"{"type":"integer","nullable":true}"#, r#""12""#, "12"),
            (r#"{"type":"boolean","nullable":true}"#, r#""true""#, "true"),
            (r#"{"type":"json","nullable":true}"#, r#""{\"b\":1}""#, r#"{"b":1}"#),
        ] {
            let mut shop = Shop::strict();
            let text = doc(r#"{"type":"text","nullable":true}"#);
            shop.redefine(|definition| definition.schema = text).unwrap();
            shop.insert("staff", &format!(r#"{{"id":"1","a":{sent}}}"#)).unwrap();
            let refused = take(&mut shop, doc(a), false).unwrap_err();
            assert!(refused.to_string().contains("a is not of its type"), "{refused}");
            take(&mut shop, doc(a), true).unwrap();
            let row = shop.rows("staff").remove(0);
            assert!(row.contains(&format!(r#""a":{stored}"#)), "{row}");
        }
        let mut shop = Shop::strict();
        let text = doc(r#"{"type":"text","nullable":true}"#);
        shop.redefine(|definition| definition.schema = text).unwrap();
        shop.insert("staff", r#"{"id":"1","a":"1.50"}"#).unwrap();
        shop.insert("staff", r#"{"id":"2","a":"1.5"}"#).unwrap();
        let unique = doc(r#"{"type":"decimal","scale":2,"unique":true,"nullable":true}"#);
        let refused = take(&mut shop, unique, true).unwrap_err();
        assert!(refused.to_string().contains("a is not unique"), "{refused}");
    }

    /// Every type with values as it stores them, and what filling makes of each as another type:
    /// nothing where it stays, and the definition is refused.
    #[test]
    fn filling_reads_a_value_as_any_type_that_says_the_same() {
        const TYPES: [&str; 8] =
            ["text", "integer", "decimal", "boolean", "json", "date", "time", "timestamp"];
        let stored: [(&str, &str, [&str; 8]); 19] = [
            ("text", r#""007""#, ["=", "", "", "", "=", "", "", ""]),
            ("text", r#""12""#, ["=", "12", "12", "", "=", "", "=", ""]),
            ("text", r#""1.50""#, ["=", "", "1.50", "", "=", "", "", ""]),
            ("text", r#""true""#, ["=", "", "", "true", "=", "", "", ""]),
            ("text", r#""{\"a\":1}""#, ["=", "", "", "", r#"{"a":1}"#, "", "", ""]),
            ("text", r#""a word""#, ["=", "", "", "", "=", "", "", ""]),
            ("integer", "100200", [r#""100200""#, "=", "=", "", "=", "", "", ""]),
            ("integer", "1", [r#""1""#, "=", "=", "true", "=", "", "", ""]),
            ("decimal", "1.50", [r#""1.50""#, "", "=", "", "=", "", "", ""]),
            ("decimal", "2.0", [r#""2.0""#, "=", "=", "", "=", "", "", ""]),
            ("boolean", "true", [r#""true""#, "1", "1", "=", "=", "", "", ""]),
            ("boolean", "false", [r#""false""#, "0", "0", "=", "=", "", "", ""]),
            ("json", "7", [r#""7""#, "=", "=", "", "=", "", "", ""]),
            ("json", r#"{"a":[1]}"#, [r#""{\"a\":[1]}""#, "", "", "", "=", "", "", ""]),
            ("json", "[1]", [r#""[1]""#, "", "", "", "=", "", "", ""]),
            ("date", r#""2026-11-21""#, ["=", "", "", "", "=", "=", "", "="]),
            ("time", r#""18:30""#, ["=", "", "", "", "=", "", "=", ""]),
            ("timestamp", r#""2026-11-21T18:30:00Z""#, ["=", "", "", "", "=", "=", "", "="]),
            ("timestamp", r#""2026-11-21T18:30:00+02:00""#, ["=", "", "", "", "=", "=", "", "="]),
        ];
        let doc = |kind: &str| {
            schema(&format!(
                r#"{{"tables":{{"staff":{{"fields":{{"id":{{"type":"text","primaryKey":true}},
                    "a":{{"type":"{kind}"}}}}}}}}}}"#
            ))
        };
        for (kind, value, made) in stored {
            for (other, made) in TYPES.into_iter().zip(made) {
                let mut shop = Shop::strict();
                shop.redefine(|definition| definition.schema = doc(kind)).unwrap();
                shop.insert("staff", &format!(r#"{{"id":"1","a":{value}}}"#)).unwrap();
                let taken = take(&mut shop, doc(other), true);
                let what = format!("{kind} {value} as {other}: {taken:?}");
                assert_eq!(taken.is_ok(), !made.is_empty(), "{what}");
                let kept = if matches!(made, "" | "=") { value } else { made };
                let row = shop.rows("staff").remove(0);
                assert!(row.contains(&format!(r#""a":{kept},"#)), "{row} for {what}");
            }
        }
    }

    #[test]
    fn a_key_that_becomes_text_is_still_referred_to() {
        let doc = |kind: &str| {
            schema(&format!(
                r#"{{"tables":{{"rooms":{{"fields":{{"id":{{"type":"{kind}","primaryKey":true}}}}}},
                    "staff":{{"fields":{{"id":{{"type":"{kind}","primaryKey":true}},
                    "room":{{"type":"{kind}","references":"rooms(id)"}}}}}}}}}}"#
            ))
        };
        let mut shop = Shop::strict();
        shop.redefine(|definition| definition.schema = doc("decimal")).unwrap();
        shop.insert("rooms", r#"{"id":1.50}"#).unwrap();
        shop.insert("staff", r#"{"id":7,"room":1.5}"#).unwrap();
        take(&mut shop, doc("text"), true).unwrap();
        assert!(shop.rows("rooms")[0].contains(r#""id":"1.5""#), "{:?}", shop.rows("rooms"));
        assert!(shop.rows("staff")[0].contains(r#""id":"7","room":"1.5""#));
        shop.delete("staff", r#"{"id":"7"}"#).unwrap();
        shop.delete("rooms", r#"{"id":"1.5"}"#).unwrap();
    }

    #[test]
    fn a_lenient_fill_drops_old_names_and_invents_nothing() {
        let mut shop = shop(Validation::Lenient);
        let renamed = r#""mobile":{"type":"text","columnName":"phone"} -phone"#;
        take(&mut shop, changed(renamed, ""), true).unwrap();
        let row = shop.rows("staff").remove(0);
        assert!(row.contains(r#""mobile":"5""#) && !row.contains("phone"), "{row}");
        let needed = r#""age":{"type":"integer","nullable":false}"#;
        let refused = take(&mut shop, changed(needed, ""), true).unwrap_err();
        assert!(refused.to_string().contains("age is missing"), "{refused}");
    }
}
