//! Unenforced: what a definition says and a lenient module does not check, so that nobody believes
//! in a rule that is not kept. One note a table: definitions of the original have hundreds of
//! such rules.

use std::sync::Arc;

use crate::schema::formats::BadSchema;
use crate::schema::{Field, Schema, Table};

/// Fields named of one rule of a table; the others are counted.
const FIELDS_NAMED: usize = 16;

impl Schema {
    /// What a lenient module of these tables does not check, a note for each table that says any.
    pub fn unenforced(&self, module: &str) -> Vec<BadSchema> {
        let of_table = |table: &Arc<Table>| {
            let rules = self.rules(table);
            let rules: Vec<String> = rules.iter().map(|(rule, of)| with_fields(rule, of)).collect();
            (!rules.is_empty()).then(|| BadSchema {
                module: module.to_owned(),
                table: Some(table.name.to_string()),
                field: None,
                problem: message(module, &rules.join(", ")),
                is_advice: true,
            })
        };
        self.tables.iter().filter_map(of_table).collect()
    }

    /// The same in one line, for a log.
    pub fn unenforced_in_short(&self, module: &str) -> Option<String> {
        let all: Vec<_> = self.tables.iter().map(|table| self.rules(table)).collect();
        let tables = all.iter().filter(|rules| !rules.is_empty()).count();
        let mut names: Vec<&str> = all.iter().flatten().map(|(rule, _)| *rule).collect();
        names.sort_unstable();
        names.dedup();
        let many = if tables == 1 { "table" } else { "tables" };
        let what = format!("{} of {tables} {many}", names.join(", "));
        (tables > 0).then(|| format!("module {module:?}: {}", message(module, &what)))
    }

    /// The rules of a table that only strict enforces, and the fields they are said of.
    fn rules(&self, table: &Table) -> Vec<(&'static str, Vec<String>)> {
        // A key is asked for, and one record has it, in a lenient module too.
        let in_key = |field: &Field| table.key.contains(&field.name);
        let is_key = |set: &[Arc<str>]| *set == table.key[..];
        let points = |field: &Field| {
            let reference = field.references.as_ref().filter(|to| to.module.is_none());
            // A reference to what is not there is not enforced by a strict module either.
            let far = reference.and_then(|to| Some((self.table(&to.table)?, &to.field)));
            far.is_some_and(|(far, name)| far.field(name).is_some())
        };
        let named = |says: &dyn Fn(&Field) -> bool| -> Vec<String> {
            let fields = table.fields.iter().filter(|field| says(field));
            fields.map(|field| field.name.to_string()).collect()
        };
        let alone = |field: &Field| is_key(std::slice::from_ref(&field.name));
        let mut unique = named(&|field| field.unique && !alone(field));
        let sets = table.unique.iter().filter(|set| !is_key(set)).map(|set| set.join(" with "));
        for set in sets {
            if !unique.contains(&set) {
                unique.push(set);
            }
        }
        let mut rules = vec![
            ("unique", unique),
            ("required", named(&|field| !field.nullable && !in_key(field))),
            ("enum", named(&|field| !field.allowed.is_empty())),
            ("maxLength", named(&|field| field.max_length.is_some())),
            ("precision", named(&|field| field.precision.or(field.scale).is_some())),
            ("references", named(&points)),
        ];
        rules.retain(|(_, fields)| !fields.is_empty());
        rules
    }
}

fn message(module: &str, what: &str) -> String {
    format!(
        "a lenient module does not check {what}; PATCH /api/modules/{module} with \
         {{\"validation\": \"strict\"}} makes it strict"
    )
}

/// A rule with the fields it is said of.
fn with_fields(rule: &str, fields: &[String]) -> String {
    let named = fields.iter().take(FIELDS_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match fields.len().checked_sub(FIELDS_NAMED) {
        None | Some(0) => format!("{rule} ({named})"),
        Some(more) => format!("{rule} ({named} and {more} more)"),
    }
}

#[cfg(test)]
mod tests {
    use crate::schema::Schema;
    use crate::value::Value;

    fn schema(doc: &str) -> Schema {
        Schema::from_definition("pos", &Value::from_json(doc.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn one_note_a_table_lists_what_lenient_does_not_check() {
        let schema = schema(
            r#"[{"name":"t","fields":[{"name":"id","type":"text","primaryKey":true,"unique":true},
                {"name":"phone","type":"text","unique":true,"maxLength":20},
                {"name":"name","type":"text","required":true},
                {"name":"tier","type":"text","enum":["a"]},
                {"name":"sum","type":"DECIMAL(9,2)"},
                {"name":"day","type":"date"},
                {"name":"of","type":"text","references":"u"}],
              "indexes":[{"columns":["of","day"],"unique":true},
                {"columns":["phone"],"unique":true},{"columns":["id"],"unique":true}]},
              {"name":"u","fields":[{"name":"id","type":"text","primaryKey":true},
                {"name":"free","type":"text"},{"name":"lost","type":"text","references":"x"}]}]"#,
        );
        let notes: Vec<String> = schema.unenforced("pos").iter().map(ToString::to_string).collect();
        assert_eq!(
            notes,
            ["definition of module \"pos\", table \"t\": a lenient module does not check unique \
              (phone, of with day), required (name), enum (tier), maxLength (phone), precision \
              (sum), references (of); PATCH /api/modules/pos with {\"validation\": \"strict\"} \
              makes it strict"]
        );
        assert_eq!(
            schema.unenforced_in_short("pos").unwrap(),
            "module \"pos\": a lenient module does not check enum, maxLength, precision, \
             references, required, unique of 1 table; PATCH /api/modules/pos with \
             {\"validation\": \"strict\"} makes it strict"
        );
    }

    #[test]
    fn what_says_no_rule_is_not_warned_of() {
        let free = schema(
            r#"[{"name":"t","fields":[{"name":"id","type":"text","primaryKey":true},
                {"name":"a","type":"text"},{"name":"b","type":"integer"}]}]"#,
        );
        assert!(free.unenforced("pos").is_empty());
        assert_eq!(free.unenforced_in_short("pos"), None);
        let fields: Vec<String> = (0..20)
            .map(|n| format!(r#"{{"name":"f{n}","type":"text","required":true}}"#))
            .collect();
        let many = schema(&format!(r#"[{{"name":"t","fields":[{}]}}]"#, fields.join(",")));
        let note = many.unenforced("pos").remove(0).to_string();
        assert!(note.contains("f1, f2,") && note.contains("f16 and 3 more)"), "{note}");
    }
}
