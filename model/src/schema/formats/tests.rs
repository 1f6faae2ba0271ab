//! Every format gives the same schema; what is none is refused in words.

use super::*;
use crate::codec;
use crate::schema::{Default, FieldType};
use crate::testing::conventions;

/// As a strict module reads it.
fn strictly(doc: &str) -> Result<Schema, BadSchema> {
    let doc = Value::from_json(doc.as_bytes()).unwrap();
    Schema::read_under("pos", &doc, &conventions()).and_then(ParsedSchema::strict)
}

/// What a lenient module loads of it, and what it is warned of.
fn leniently(doc: &str) -> (Schema, Vec<String>) {
    let doc = Value::from_json(doc.as_bytes()).unwrap();
    let read = Schema::read_under("pos", &doc, &conventions()).unwrap();
    let warnings = read.warnings().map(ToString::to_string).collect();
    (read.schema, warnings)
}

fn read(doc: &str) -> Result<Schema, BadSchema> {
    let doc = Value::from_json(doc.as_bytes()).unwrap();
    Schema::read_under("pos", &doc, &conventions()).map(|read| read.schema)
}

/// The same two tables in every format of docs/original/schemas.md#formats.
const FORMATS: [(&str, &str); 7] = [
    (
        "A",
        r#"{"name":"pos","schema":{"name":"x","version":1,"tables":[
        {"name":"roles","label":"roles","sqlName":"roles","layout":{"x":0},"fields":[
          {"name":"id","columnName":"id","type":"string","nullable":false,"primaryKey":true},
          {"name":"title","columnName":"title","type":"string","nullable":false,"maxLength":40}],
          "indexes":[{"name":"i","columns":["title"],"unique":true}]},
        {"name":"users","label":"users","fields":[
          {"name":"id","columnName":"id","type":"string","nullable":false,"primaryKey":true},
          {"name":"roleId","columnName":"role_id","type":"string","nullable":true,
           "references":{"table":"roles","column":"id","onDelete":"RESTRICT"}},
          {"name":"createdAt","columnName":"created_at","type":"timestamp","nullable":true,
           "default":"now()"}],"indexes":[{"columns":["role_id"]}]}]}}"#,
    ),
    (
        "B",
        r#"{"version":1,"moduleId":"pos","description":"","tables":{
        "roles":{"fields":{"id":{"type":"string","primaryKey":true},
          "title":{"type":"varchar(40)","required":true}},
          "indexes":[{"fields":["title"],"unique":true}]},
        "users":{"fields":{"id":{"type":"string","primaryKey":true},
          "roleId":{"type":"string","references":"roles(id)"},
          "createdAt":{"type":"timestamp","defaultFn":"NOW"}}}}}"#,
    ),
    (
        "C",
        r#"{"roles":{"fields":[{"name":"id","type":"TEXT","primaryKey":true},
          {"name":"title","type":"TEXT","maxLength":40,"required":true}],
          "indexes":[{"fields":["title"],"unique":true}]},
        "users":{"fields":[{"name":"id","type":"TEXT","primaryKey":true},
          {"name":"roleId","type":"TEXT"},
          {"name":"createdAt","type":"TIMESTAMP","defaultFn":"NOW_ISO"}],
          "foreignKeys":[{"field":"roleId","references":"roles","referencesField":"id"}]}}"#,
    ),
    (
        "D",
        r#"{"version":"1.0","description":"x","tables":[
        {"name":"roles","columns":[{"name":"id","type":"NVARCHAR","primaryKey":true},
          {"name":"title","type":"NVARCHAR(40)","nullable":false}],
          "indexes":[{"name":"i","columns":["title"],"unique":true}]},
        {"name":"users","columns":[{"name":"id","type":"NVARCHAR","primaryKey":true},
          {"name":"roleId","type":"NVARCHAR","foreignKey":"Roles(ID)"},
          {"name":"createdAt","type":"DATETIME","default":"getdate()"}]}]}"#,
    ),
    (
        "flat",
        r#"{"tables":[{"name":"roles","fields":[{"name":"id","type":"text","primaryKey":true},
          {"name":"title","type":"text","maxLength":40,"nullable":false}],
          "indexes":[{"columns":["title"],"unique":true}]},
        {"name":"users","fields":[{"name":"id","type":"text","primaryKey":true},
          {"name":"roleId","type":"text","references":"roles.id"},
          {"name":"createdAt","type":"timestamp","default":"(getdate())"}]}]}"#,
    ),
    (
        "list",
        r#"[{"name":"roles","fields":{"id":{"type":"text","primaryKey":true},
          "title":{"type":"text","maxLength":40,"nullable":false}},
          "indexes":[{"columns":["title"],"unique":true}]},
        {"name":"users","fields":{"id":{"type":"text","primaryKey":true},
          "roleId":{"type":"text","references":"roles"},
          "createdAt":{"type":"timestamp","defaultFn":"now_iso"}}}]"#,
    ),
    (
        "list in schema",
        r#"{"schema":[{"name":"roles","columns":[{"name":"id","type":"text","primaryKey":true},
          {"name":"title","type":"char(40)","nullable":false}],
          "indexes":[{"columns":["title"],"unique":true}]},
        {"name":"users","columns":[{"name":"id","type":"text","primaryKey":true},
          {"name":"roleId","type":"text","references":{"table":"roles","module":"pos"}},
          {"name":"createdAt","type":"datetime2","default":"sysdatetime()"}]}]}"#,
    ),
];

#[test]
fn every_format_gives_the_same_schema() {
    let first = read(FORMATS[0].1).unwrap();
    assert_eq!(first.tables.len(), 2);
    let roles = &first.tables[0];
    assert_eq!(roles.unique, [[Arc::<str>::from("title")]]);
    assert_eq!(roles.fields[1].max_length, Some(40));
    let created = &first.tables[1].fields[2];
    assert_eq!((created.kind, &created.default), (FieldType::Timestamp, &Some(Default::Now)));
    for (name, doc) in FORMATS {
        assert_eq!(strictly(doc).as_ref(), Ok(&first), "format {name}");
    }
}

#[test]
fn of_a_table_written_twice_the_last_wins_in_the_first_place() {
    let schema = read(
        r#"[{"name":"a","fields":[{"name":"x","type":"text"}]},
            {"name":"b","fields":[{"name":"x","type":"text"}]},
            {"name":"a","fields":[{"name":"y","type":"text"}]}]"#,
    )
    .unwrap();
    let tables: Vec<_> =
        schema.tables.iter().map(|t| (t.name.as_str(), &*t.fields[0].name)).collect();
    assert_eq!(tables, [("a", "y"), ("b", "x")]);
}

#[test]
fn the_key_is_all_primary_keys_else_id_else_the_first_field() {
    let key = |fields: &str| {
        let schema = read(&format!(r#"[{{"name":"t","fields":[{fields}]}}]"#)).unwrap();
        schema.tables[0].key.iter().map(|name| name.to_string()).collect::<Vec<_>>()
    };
    let (a, b) = (
        r#"{"name":"a","type":"text","primaryKey":true}"#,
        r#"{"name":"b","type":"text","primaryKey":true}"#,
    );
    assert_eq!(key(&format!("{a},{b}")), ["a", "b"]);
    assert_eq!(key(r#"{"name":"a","type":"text"},{"name":"id","type":"text"}"#), ["id"]);
    assert_eq!(key(r#"{"name":"a","type":"text"},{"name":"b","type":"text"}"#), ["a"]);
}

#[test]
fn tables_are_versioned_by_convention_where_nothing_is_said() {
    let versioned = |table: &str| {
        let doc = format!(r#"[{{{table},"fields":[{{"name":"id","type":"text"}}]}}]"#);
        read(&doc).unwrap().tables[0].versioned
    };
    assert!(versioned(r#""name":"order_header""#));
    assert!(versioned(r#""name":"order_line""#));
    assert!(!versioned(r#""name":"menu_items""#));
    assert!(versioned(r#""name":"menu_items","versioned":true"#));
    assert!(!versioned(r#""name":"order_line","versioned":false"#));
}

#[test]
fn another_modules_table_is_refused_by_strict() {
    let schema = read(
        r#"[{"name":"t","fields":[{"name":"b","type":"text","references":"erp.branches(id)"}]}]"#,
    )
    .unwrap();
    let refused = schema.check_strict().unwrap_err();
    assert_eq!(refused.code(), "cross-module-reference");
    assert_eq!(
        refused.to_string(),
        "t.b refers to \"branches\" of module \"erp\"; a strict module refers only to its own tables"
    );
}

#[test]
fn what_is_no_definition_is_refused_in_words() {
    let field = |field: &str| format!(r#"[{{"name":"t","fields":[{field}]}}]"#);
    for (doc, error) in [
        ("7".to_owned(), "definition of module \"pos\": there are no tables in it; known are"),
        ("{}".to_owned(), "definition of module \"pos\": there are no tables in it"),
        (r#"{"tables":7}"#.to_owned(), "definition of module \"pos\": there are no tables in it"),
        (r#"{"a":{"b":1}}"#.to_owned(), "definition of module \"pos\": \"a\" has neither fields"),
        (
            r#"["users"]"#.to_owned(),
            "definition of module \"pos\": table 1 of the list is \"users\"",
        ),
        (
            r#"[{"name":"1st","fields":[]}]"#.to_owned(),
            "definition of module \"pos\", table \"1st\": table name \"1st\" is not allowed: a letter",
        ),
        (
            r#"[{"name":"t"}]"#.to_owned(),
            "definition of module \"pos\", table \"t\": it has no fields",
        ),
        (
            field(r#""id""#),
            "definition of module \"pos\", table \"t\": field 1 is \"id\"; a field has a name",
        ),
        (
            field(r#"{"name":"x"}"#),
            "definition of module \"pos\", table \"t\", field \"x\": it has no type",
        ),
        (
            field(r#"{"name":"","type":"text"}"#),
            "definition of module \"pos\", table \"t\", field \"\": its name is not allowed",
        ),
        (
            field(r#"{"name":"x","type":"text","nullable":"no"}"#),
            "definition of module \"pos\", table \"t\", field \"x\": nullable is \"no\"; it is true",
        ),
        (
            field(r#"{"name":"x","type":"text","maxLength":-1}"#),
            "definition of module \"pos\", table \"t\", field \"x\": maxLength is -1; it is a whole",
        ),
        (
            field(r#"{"name":"x","type":"text"},{"name":"x","type":"text"}"#),
            "definition of module \"pos\", table \"t\", field \"x\": it is written twice",
        ),
        (
            field(r#"{"name":"x","type":"text","enum":"a"}"#),
            "definition of module \"pos\", table \"t\", field \"x\": enum is \"a\"; it is a list",
        ),
    ] {
        let found = strictly(&doc).unwrap_err().to_string();
        assert!(found.starts_with(error), "{found}");
    }
    let index = r#"[{"name":"t","fields":[{"name":"x","type":"text"}],
        "indexes":[{"columns":["y"],"unique":true}]}]"#;
    let found = strictly(index).unwrap_err().to_string();
    assert!(found.ends_with("a unique index names \"y\", which is no column of it"), "{found}");
}

/// Words that are also members of definitions.
const WORDS: [&str; 6] = ["tables", "columns", "fields", "schema", "name", "type"];

#[test]
fn tables_and_fields_may_have_the_names_of_members() {
    let list = |fields: &str| {
        let items: Vec<String> =
            WORDS.iter().map(|word| format!(r#"{{"name":"{word}","type":"text"}}"#)).collect();
        format!(r#""{fields}":[{}]"#, items.join(","))
    };
    let map = |fields: &str| {
        let items: Vec<String> =
            WORDS.iter().map(|word| format!(r#""{word}":{{"type":"text"}}"#)).collect();
        format!(r#""{fields}":{{{}}}"#, items.join(","))
    };
    let tables: Vec<&[&str]> = WORDS.chunks(1).chain([&WORDS[..]]).collect();
    for words in tables {
        for fields in [list("fields"), list("columns"), map("fields"), map("columns")] {
            let named: Vec<String> =
                words.iter().map(|word| format!(r#""{word}":{{{fields}}}"#)).collect();
            let listed: Vec<String> =
                words.iter().map(|word| format!(r#"{{"name":"{word}",{fields}}}"#)).collect();
            let (named, listed) = (named.join(","), listed.join(","));
            for doc in [
                format!(r#"{{"schema":{{"name":"x","tables":[{listed}]}}}}"#),
                format!(r#"{{"schema":{{"tables":{{{named}}}}}}}"#),
                format!(r#"{{"schema":[{listed}]}}"#),
                format!(r#"{{"schema":{{{named}}}}}"#),
                format!(r#"{{"version":1,"tables":{{{named}}}}}"#),
                format!(r#"{{"tables":[{listed}]}}"#),
                format!("{{{named}}}"),
                format!("[{listed}]"),
            ] {
                let schema = strictly(&doc).unwrap_or_else(|error| panic!("{error}: {doc}"));
                let found: Vec<&str> = schema.tables.iter().map(|t| t.name.as_str()).collect();
                assert_eq!(found, words, "{doc}");
                let names: Vec<&str> = schema.tables[0].fields.iter().map(|f| &*f.name).collect();
                assert_eq!(names, WORDS, "{doc}");
            }
        }
    }
}

#[test]
fn a_table_named_columns_has_a_field_of_its_own() {
    let schema = strictly(r#"{"tables":{"columns":{"fields":{"id":{"type":"text"}}}}}"#).unwrap();
    assert_eq!(schema.tables[0].name.as_str(), "columns");
    assert_eq!(&*schema.tables[0].fields[0].name, "id");
    let schema = strictly(r#"{"tables":{"columns":{"fields":{"type":"text"}}}}"#).unwrap();
    assert_eq!(
        (schema.tables[0].name.as_str(), &*schema.tables[0].fields[0].name),
        ("tables", "fields")
    );
}

#[test]
fn what_may_mean_two_things_is_refused_in_words() {
    for (doc, words) in [
        (
            r#"{"tables":{"columns":{"fields":{"type":"x","id":{"type":"text"}}}}}"#,
            "tables stand under \"tables\" and as members of the definition itself",
        ),
        (
            r#"{"tables":[{"name":"a","fields":[]}],"b":{"fields":{"id":{"type":"text"}}}}"#,
            "tables stand under \"tables\" and as members of the definition itself",
        ),
        (
            r#"{"schema":[{"name":"a"}],"tables":[{"name":"a"}]}"#,
            "tables stand under \"schema\" and under \"tables\"",
        ),
        (
            r#"[{"name":"t","fields":[{"name":"id","type":"text"}],"columns":[]}]"#,
            "it has both \"fields\" and \"columns\": which are meant?",
        ),
    ] {
        let doc = Value::from_json(doc.as_bytes()).unwrap();
        let error = Schema::read("pos", &doc).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

/// Fields and members of a table that are wrong, and what is said of them.
const SLOPPY: &[(&str, &str, &str)] = &[
    (
        "",
        r#","indexes":[{"name":"i","columns":["gone"],"unique":true}]"#,
        r#"unique index "i" names "gone", which is no column"#,
    ),
    (
        "",
        r#","indexes":[{"columns":["id","gone"]}]"#,
        r#"an index names "gone", which is no column"#,
    ),
    ("", r#","indexes":[{"name":"i","unique":true}]"#, r#"unique index "i" names no columns"#),
    ("", r#","indexes":["id"]"#, "is not an object with columns"),
    ("", r#","indexes":{"i":["id"]}"#, "it is a list of indexes"),
    ("", r#","foreignKeys":[{"field":"gone","references":"u"}]"#, "names no field of this table"),
    (
        "",
        r#","foreignKeys":[{"field":"id","references":"gone"}]"#,
        r#"refers to table "gone", which is not defined"#,
    ),
    ("", r#","foreignKeys":{"id":"u"}"#, "it is a list of foreign keys"),
    ("", r#","primaryKey":["id","gone"]"#, r#"its primaryKey names "gone", which is no field"#),
    ("", r#","versioned":"yes""#, "versioned is"),
    ("", r#","colour":"red""#, r#""colour" is not known of a table; known are"#),
    (
        r#",{"name":"f","type":"text","references":"gone(id)"}"#,
        "",
        r#"refers to table "gone", which is not defined"#,
    ),
    (
        r#",{"name":"f","type":"text","references":"u(gone)"}"#,
        "",
        r#"refers to "gone" of table "u""#,
    ),
    (r#",{"name":"f","type":"text","references":7}"#, "", "the reference 7 cannot be read"),
    (r#",{"name":"f","enum":["a","b"]}"#, "", "its enum has no type"),
    (
        r#",{"name":"f","type":"integer","enum":["a"]}"#,
        "",
        r#"enum lists "a", which is no value of its type"#,
    ),
    (r#",{"name":"f","type":"text","enum":[]}"#, "", "enum is empty"),
    (r#",{"name":"f","type":"enum"}"#, "", "an enum without values"),
    (r#",{"name":"f"}"#, "", "it has no type"),
    (r#",{"name":"f","type":"quantity"}"#, "", r#"the type "quantity" is not known"#),
    (r#",{"name":"f","type":"text","maxLenght":5}"#, "", r#""maxLenght" is not known of a field"#),
    (r#",{"name":"f","type":"integer","default":"many"}"#, "", "is not a number"),
    (r#",{"name":"f","type":"text"},{"name":"f","type":"integer"}"#, "", "it is written twice"),
    (
        r#",{"name":"f","type":"text","columnName":"id"}"#,
        "",
        r#"its column "id" is also a name of field "id""#,
    ),
    (r#",{"type":"text"}"#, "", "field 2 is"),
    (
        r#",{"name":"t2","type":"text"}]},{"name":"t","fields":[{"name":"id","type":"text"}"#,
        "",
        "it is written twice; the last one is taken",
    ),
    (
        r#"]},{"name":"1st","fields":[{"name":"id","type":"text"}"#,
        "",
        r#"table "1st": table name "1st" is not allowed"#,
    ),
];

#[test]
fn lenient_loads_what_is_meant_and_warns_of_the_rest() {
    let table = |fields: &str, more: &str| {
        format!(
            r#"[{{"name":"t","fields":[{{"name":"id","type":"text","primaryKey":true}}{fields}]{more}}},
                {{"name":"u","fields":[{{"name":"id","type":"text","primaryKey":true}}]}}]"#
        )
    };
    for &(fields, more, warning) in SLOPPY {
        let doc = table(fields, more);
        let refused = strictly(&doc).unwrap_err().to_string();
        assert!(refused.contains(warning), "{refused} for {doc}");
        let (schema, warnings) = leniently(&doc);
        assert_eq!(schema.tables.len(), 2, "{doc}");
        assert_eq!(schema.tables[0].field("id").unwrap().kind, FieldType::String, "{doc}");
        assert!(warnings.iter().any(|said| said.contains(warning)), "{warnings:?} for {doc}");
        assert!(warnings[0].contains("table \"t\"") || warnings[0].contains("1st"), "{warnings:?}");
    }
}

#[test]
fn a_key_may_be_named_by_the_table() {
    let doc = r#"[{"name":"t","primaryKey":["b","a"],"fields":[{"name":"a","type":"text"},
        {"name":"b","type":"text"},{"name":"kind","type":"ENUM('x','y')"}]}]"#;
    let schema = strictly(doc).unwrap();
    assert_eq!(*schema.tables[0].key, [Arc::<str>::from("b"), Arc::from("a")]);
    assert!(schema.tables[0].fields[0].primary_key && !schema.tables[0].fields[0].nullable);
    assert_eq!(schema.tables[0].fields[2].allowed, [Value::from("x"), Value::from("y")]);
}

#[test]
fn a_cascading_reference_names_the_parent_of_a_row() {
    let parent = |doc: &str| {
        let schema = read(doc).unwrap();
        let (field, table) = schema.tables[1].parent()?;
        Some((field.name.to_string(), table.to_owned()))
    };
    let bills = r#"{"name":"bills","fields":[{"name":"id","type":"text","primaryKey":true}]}"#;
    let lines = |key: &str, reference: &str, beside: &str| {
        format!(
            r#"[{bills},{{"name":"lines","fields":[{{"name":"id","type":"text","primaryKey":true}},
                {{"name":"bill","type":"text"{key}{reference}}}]{beside}}}]"#
        )
    };
    let to = |action: &str| format!(r#","references":{{"table":"bills","onDelete":"{action}"}}"#);
    let found = Some(("bill".to_owned(), "bills".to_owned()));
    assert_eq!(parent(&lines("", &to("cascade"), "")), found);
    let beside = r#","foreignKeys":[{"field":"bill","references":"bills","onDelete":"CASCADE"}]"#;
    assert_eq!(parent(&lines("", "", beside)), found);
    assert_eq!(parent(&lines("", &to("RESTRICT"), "")), None);
    let in_key = lines(r#","primaryKey":true"#, &to("CASCADE"), "");
    assert_eq!(parent(&in_key), None, "a row cannot be another record's");
}

#[test]
fn a_schema_is_pinned_as_bytes() {
    let schema = read(
        r#"[{"name":"t","label":"T","versioned":true,"fields":[
            {"name":"id","type":"text","primaryKey":true,"maxLength":9},
            {"name":"paidBy","type":"DECIMAL(7,2)","defaultValue":0,"enum":[0,1],
             "references":"u(k)"}],"indexes":[{"columns":["paid_by"],"unique":true}]}]"#,
    )
    .unwrap();
    let bytes = codec::encode(&schema);
    assert_eq!(codec::decode::<Schema>(&bytes).unwrap(), schema);
    #[rustfmt::skip]
    let golden = [
        21, 1, 1, // kind, version, one table
        1, b't', 1, b'T', 2, // name, label, two fields
        2, b'i', b'd', 2, b'i', b'd', 0, 0, 1, 0, 1, 9, 0, 0, 0, 0, 0, 0, 0, // id
        6, b'p', b'a', b'i', b'd', b'B', b'y', 7, b'p', b'a', b'i', b'd', b'_', b'b', b'y',
        2, 1, 0, 0, 0, 1, 7, 1, 2, // kind, flags, precision, scale
        1, 0, 2, 1, b'0', // default: the value 0
        2, 2, 1, b'0', 2, 1, b'1', // allowed: 0 and 1
        1, 1, b'u', 1, b'k', 0, 0, // references u(k), does not cascade
        0, 0, // rounding, no sequence
        1, 2, b'i', b'd', 1, // key, versioned
        1, 1, 6, b'p', b'a', b'i', b'd', b'B', b'y', // unique
        0, 0, 0, 0, 0, 0, 0, // no conventions
    ];
    assert_eq!(bytes, golden, "golden bytes");
}
