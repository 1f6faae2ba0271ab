//! What a definition says against itself is refused by strict, and lenient is warned of it.

use crate::schema::{BadSchema, Default, FieldType, ParsedSchema, Schema};
use crate::value::Value;

/// A table `t` with these fields and members besides its `id`, and a table `u` with a key of two.
fn doc(fields: &str, more: &str) -> Value {
    let doc = format!(
        r#"[{{"name":"t","fields":[{{"name":"id","type":"text","primaryKey":true}}{fields}]{more}}},
            {{"name":"u","fields":[{{"name":"id","type":"text","primaryKey":true}},
                {{"name":"no","type":"text","primaryKey":true}},
                {{"name":"code","type":"text","unique":true}},
                {{"name":"name","type":"text"}},{{"name":"seat","type":"text"}}],
              "indexes":[{{"columns":["seat"],"unique":true}},
                {{"columns":["name","no"],"unique":true}}]}}]"#
    );
    Value::from_json(doc.as_bytes()).unwrap_or_else(|error| panic!("{error}: {doc}"))
}

fn strictly(fields: &str, more: &str) -> Result<Schema, BadSchema> {
    Schema::read("pos", &doc(fields, more)).and_then(ParsedSchema::strict)
}

/// Each is refused by strict with these words, and a lenient module is warned in the same.
fn clash(cases: &[(&str, &str, &str)]) {
    for &(fields, more, words) in cases {
        let refused = strictly(fields, more).map(|_| ()).unwrap_err();
        assert_eq!(refused.table.as_deref(), Some("t"), "{fields}{more}");
        assert!(refused.to_string().contains(words), "{refused} for {fields}{more}");
        if !fields.is_empty() {
            assert!(refused.field.is_some(), "{refused} names its field");
        }
        let read = Schema::read("pos", &doc(fields, more)).unwrap();
        let warnings: Vec<String> = read.warnings().map(ToString::to_string).collect();
        assert_eq!(warnings, [refused.to_string()], "one thing is said once");
        assert_eq!(read.schema.tables.len(), 2, "{fields}{more}");
    }
}

#[test]
fn a_default_keeps_the_rules_of_its_field() {
    clash(&[
        (
            r#",{"name":"f","type":"text","enum":["a","b"],"default":"'c'"}"#,
            "",
            r#"its default "c" must be one of "a", "b""#,
        ),
        (
            r#",{"name":"f","type":"boolean","default":"maybe"}"#,
            "",
            r#"its default "maybe" must be true or false"#,
        ),
        (r#",{"name":"f","type":"date","default":"'soon'"}"#, "", "must be a day such as"),
        (r#",{"name":"f","type":"text","default":7}"#, "", "its default 7 must be text"),
        (
            r#",{"name":"f","type":"varchar(3)","default":"'abcd'"}"#,
            "",
            r#"its default "abcd" must be at most 3 characters"#,
        ),
        (
            r#",{"name":"f","type":"DECIMAL(5,2)","defaultValue":1000}"#,
            "",
            "must have at most 3 digits before the point",
        ),
        (
            r#",{"name":"f","type":"boolean","default":"getdate()"}"#,
            "",
            "its default, the time of the insert, must be true or false",
        ),
        (
            r#",{"name":"f","type":"char(8)","defaultFn":"UUID"}"#,
            "",
            "its default, a new uuid, must be at most 8 characters",
        ),
        (
            r#",{"name":"f","type":"text","required":true,"default":"NULL"}"#,
            "",
            "its default is NULL, which is no value of it",
        ),
        (
            r#",{"name":"f","type":"text","default":"'a'","defaultValue":"b"}"#,
            "",
            "its defaultValue and its default say different things",
        ),
    ]);
    for right in [
        r#",{"name":"f","type":"text","enum":["a","b"],"default":"'b'"}"#,
        r#",{"name":"f","type":"boolean","default":"((0))"}"#,
        r#",{"name":"f","type":"DECIMAL(5,2)","default":"0.50"}"#,
        r#",{"name":"f","type":"DECIMAL(5,2)","default":0.125}"#, // It is rounded to its scale.
        r#",{"name":"f","type":"integer","default":"getdate()"}"#,
        r#",{"name":"f","type":"char(36)","defaultFn":"UUID"}"#,
        r#",{"name":"f","type":"text","default":"NULL"}"#,
        r#",{"name":"f","type":"text","required":true,"default":null}"#,
        r#",{"name":"f","type":"timestamp","default":"now()","defaultFn":"NOW_ISO"}"#,
    ] {
        strictly(right, "").unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn lenient_takes_a_default_that_cannot_be_as_before() {
    let default = |field: &str| {
        let read = Schema::read("pos", &doc(field, "")).unwrap();
        read.schema.tables[0].fields[1].default.clone()
    };
    let value = |json: &str| Some(Default::Value(Value::from_json(json.as_bytes()).unwrap()));
    assert_eq!(
        default(r#",{"name":"f","type":"text","enum":["a"],"default":"'c'"}"#),
        value(r#""c""#)
    );
    assert_eq!(default(r#",{"name":"f","type":"DECIMAL(5,2)","default":1000}"#), value("1000"));
    assert_eq!(default(r#",{"name":"f","type":"boolean","default":"maybe"}"#), value("false"));
}

#[test]
fn a_required_or_key_field_is_not_nullable() {
    clash(&[
        (
            r#",{"name":"f","type":"text","required":true,"nullable":true}"#,
            "",
            "it is required and nullable",
        ),
        (
            r#",{"name":"f","type":"text","primaryKey":true,"nullable":true}"#,
            "",
            "it is part of the key and nullable",
        ),
    ]);
    let named = r#",{"name":"f","type":"text","nullable":true}"#;
    clash(&[(named, r#","primaryKey":["id","f"]"#, "it is part of the key and nullable")]);
    clash(&[(
        r#",{"name":"f","type":"text","required":false,"nullable":false}"#,
        "",
        "it is not required and not nullable, but what is left out is null",
    )]);
    for filled in [
        r#""f","type":"text","default":"'a'""#,
        r#""f","type":"integer","sequence":true"#,
        r#""f","type":"text","primaryKey":true"#,
        r#""createdAt","type":"timestamp""#,
        r#""branchId","type":"text""#,
    ] {
        let field = format!(r#",{{"name":{filled},"required":false,"nullable":false}}"#);
        strictly(&field, "").unwrap_or_else(|error| panic!("{error}"));
    }
    let read = Schema::read("pos", &doc(named, r#","primaryKey":["id","f"]"#)).unwrap();
    assert!(!read.schema.tables[0].fields[1].nullable, "a key has no null");
}

#[test]
fn an_index_has_a_name_and_a_rule_of_its_own() {
    let fields = r#",{"name":"a","type":"text"},{"name":"b","type":"text"}"#;
    for (indexes, words, kept) in [
        (
            r#"{"name":"i","fields":["a"],"unique":true},{"name":"i","fields":["b"],"unique":true}"#,
            r#"two indexes are called "i"; the first is taken"#,
            vec![vec!["a"]],
        ),
        (
            r#"{"name":"i","fields":["a"]},{"name":"i","fields":["b"],"unique":true}"#,
            r#"two indexes are called "i"; the first is taken"#,
            vec![],
        ),
        (
            r#"{"name":"i","fields":["a","b"],"unique":true},
               {"name":"j","fields":["b","a"],"unique":true}"#,
            r#"unique index "j" has the same fields as one before it"#,
            vec![vec!["a", "b"]],
        ),
        (
            r#"{"name":"i","fields":["a","a"],"unique":true}"#,
            r#"unique index "i" names "a" twice"#,
            vec![vec!["a"]],
        ),
        (
            r#"{"name":"i","fields":["a"],"columns":["b"],"unique":true}"#,
            r#"unique index "i" has both "fields" and "columns""#,
            vec![vec!["b"]],
        ),
    ] {
        let more = format!(r#","indexes":[{indexes}]"#);
        let refused = strictly(fields, &more).unwrap_err().to_string();
        assert!(refused.contains("table \"t\"") && refused.contains(words), "{refused}");
        let read = Schema::read("pos", &doc(fields, &more)).unwrap();
        let warnings: Vec<String> = read.warnings().map(ToString::to_string).collect();
        assert_eq!(warnings, [refused]);
        let sets: Vec<Vec<&str>> = read.schema.tables[0]
            .unique
            .iter()
            .map(|set| set.iter().map(|name| &**name).collect())
            .collect();
        assert_eq!(sets, kept);
    }
    let twice = r#","indexes":[{"fields":["f"],"unique":true}]"#;
    strictly(r#",{"name":"f","type":"text","unique":true}"#, twice)
        .expect("said of the field and as an index, it is the same rule");
}

#[test]
fn a_size_is_said_once_and_can_be() {
    clash(&[
        (r#",{"name":"f","type":"DECIMAL(2,4)"}"#, "", "its scale 4 is more than its precision 2"),
        (
            r#",{"name":"f","type":"decimal","precision":0}"#,
            "",
            "precision is 0; it is a whole number from 1",
        ),
        (
            r#",{"name":"f","type":"decimal","precision":-2}"#,
            "",
            "precision is -2; it is a whole number from 1",
        ),
        (r#",{"name":"f","type":"text","maxLength":0}"#, "", "maxLength is 0; it is"),
        (
            r#",{"name":"f","type":"varchar(60)","maxLength":40}"#,
            "",
            "its maxLength is 40, and its type says 60",
        ),
        (
            r#",{"name":"f","type":"DECIMAL(10,2)","scale":3}"#,
            "",
            "its scale is 3, and its type says 2",
        ),
    ]);
    for (field, words) in [
        (r#""type":"integer","maxLength":5"#, "its maxLength is without effect: only texts"),
        (r#""type":"decimal","maxLength":5"#, "its maxLength is without effect: only texts"),
        (r#""type":"boolean","maxLength":5"#, "its maxLength is without effect: only texts"),
        (r#""type":"text","scale":2"#, "its scale is without effect: only decimals"),
        (r#""type":"integer","scale":2"#, "its scale is without effect: only decimals"),
        (r#""type":"integer","precision":9"#, "its precision is without effect: only decimals"),
        (r#""type":"date","precision":9"#, "its precision is without effect: only decimals"),
        (r#""type":"decimal(40,2)""#, "its precision is 40; a decimal has at most 28 digits"),
        (r#""type":"decimal","precision":29"#, "its precision is 29; a decimal has at most 28"),
        (r#""type":"decimal","scale":29"#, "its scale is 29; a decimal has at most 28 digits"),
    ] {
        clash(&[(&format!(r#",{{"name":"f",{field}}}"#), "", words)]);
    }
    for right in [
        r#""type":"decimal(28,28)""#,
        r#""type":"integer","scale":0"#,
        r#""type":"INT(11)""#,
        r#""type":"uuid","maxLength":36"#,
        r#""type":"text","scale":null,"precision":null"#,
    ] {
        strictly(&format!(r#",{{"name":"f",{right}}}"#), "").unwrap();
    }
    let sizes = |field: &str| {
        let read = Schema::read("pos", &doc(field, "")).unwrap();
        let field = &read.schema.tables[0].fields[1];
        (field.precision, field.scale)
    };
    assert_eq!(sizes(r#",{"name":"f","type":"DECIMAL(2,4)"}"#), (None, Some(4)));
    assert_eq!(sizes(r#",{"name":"f","type":"DECIMAL(0,2)"}"#), (None, Some(2)));
    strictly(r#",{"name":"f","type":"varchar(60)","maxLength":60}"#, "").unwrap();
}

#[test]
fn a_reference_names_one_record() {
    let words = r#"it refers to "name" of table "u", which several records may have alike"#;
    clash(&[
        (r#",{"name":"f","type":"text","references":"u(name)"}"#, "", words),
        (
            r#",{"name":"f","type":"text","references":"u"}"#,
            "",
            r#"it refers to "id" of table "u", which several records may have alike"#,
        ),
        (
            r#",{"name":"f","type":"text","references":"u(code)","foreignKey":"t(id)"}"#,
            "",
            "its references and its foreignKey name different tables",
        ),
    ]);
    let beside = r#","foreignKeys":[{"field":"f","references":"t"}]"#;
    let field = r#",{"name":"f","type":"text","references":"u(code)"}"#;
    clash(&[(field, beside, r#"it refers to "u" and, in foreignKeys, to "t""#)]);
    strictly(field, r#","foreignKeys":[{"field":"f","references":"u","referencesField":"code"}]"#)
        .unwrap();
    strictly(r#",{"name":"f","type":"text","references":"u(seat)"}"#, "").unwrap();
    strictly(r#",{"name":"f","type":"text","references":"t"}"#, "").unwrap();
}

#[test]
fn an_enum_lists_what_its_field_can_hold_once() {
    clash(&[
        (
            r#",{"name":"f","type":"varchar(3)","enum":["a","abcd"]}"#,
            "",
            r#"enum lists "abcd", but a value must be at most 3 characters"#,
        ),
        (
            r#",{"name":"f","type":"text","enum":["a",1]}"#,
            "",
            "enum lists 1, but a value must be text",
        ),
        (r#",{"name":"f","type":"text","enum":["a","b","a"]}"#, "", r#"enum lists "a" twice"#),
        (
            r#",{"name":"f","type":"text","enum":["a",null],"required":true}"#,
            "",
            "enum lists null, which is no value of it",
        ),
        (
            r#",{"name":"f","type":"ENUM('a','b')","enum":["a","c"]}"#,
            "",
            "its type and its enum list different values",
        ),
    ]);
    for (field, words) in [
        (r#""type":"decimal","enum":["1.0","1"]"#, r#"enum lists "1" twice"#),
        (r#""type":"time","enum":["18:30","18:30:00"]"#, r#"enum lists "18:30:00" twice"#),
        (
            r#""type":"timestamp","enum":["2026-11-21T10:00:00Z","2026-11-21T12:00:00+02:00"]"#,
            r#"enum lists "2026-11-21T12:00:00+02:00" twice"#,
        ),
        (
            r#""type":"json","enum":[{"a":1,"b":2},{"b":2,"a":1}]"#,
            r#"enum lists {"b":2,"a":1} twice"#,
        ),
        (r#""type":"enum('a','b','a')""#, r#"its type lists "a" twice"#),
    ] {
        clash(&[(&format!(r#",{{"name":"f",{field}}}"#), "", words)]);
    }
    strictly(r#",{"name":"f","type":"text","enum":["a",null]}"#, "").unwrap();
    strictly(r#",{"name":"f","type":"ENUM('a','b')","enum":["b","a"]}"#, "").unwrap();
}

#[test]
fn a_key_and_a_version_are_what_is_said_of_them() {
    clash(&[
        (
            r#",{"name":"f","type":"text","primaryKey":true}"#,
            r#","primaryKey":["id"]"#,
            r#"it is marked primaryKey, but the table's primaryKey is "id""#,
        ),
        (
            r#",{"name":"f","type":"text","columnName":"g","column":"h"}"#,
            "",
            r#"its columnName is "g" and its column "h""#,
        ),
        (
            r#",{"name":"version","type":"text"}"#,
            r#","versioned":true"#,
            "the table is versioned, and a version is a whole number",
        ),
    ]);
    clash(&[("", r#","primaryKey":["id","id"]"#, r#"its primaryKey names "id" twice"#)]);
    let alike = r#"[{"name":"t","fields":[{"name":"id","type":"text","primaryKey":true,
        "default":"'x'"}]}]"#;
    let alike = Value::from_json(alike.as_bytes()).unwrap();
    let refused = Schema::read("pos", &alike).and_then(ParsedSchema::strict).unwrap_err();
    assert!(refused.to_string().contains("no two records have the same key"), "{refused}");
    for version in [r#","default":1"#, r#","default":"NULL""#, r#","nullable":false"#, ""] {
        let field = format!(r#",{{"name":"version","type":"integer"{version}}}"#);
        strictly(&field, r#","versioned":true"#).unwrap();
    }
    for (said, words) in [
        (r#""default":5"#, "leave out default"),
        (r#""default":0"#, "leave out default"),
        (r#""sequence":true"#, "leave out sequence"),
        (r#""unique":true"#, "leave out unique"),
        (r#""enum":[1,2]"#, "leave out enum"),
    ] {
        let field = format!(r#",{{"name":"version","type":"integer",{said}}}"#);
        clash(&[(&field, r#","versioned":true"#, words)]);
        strictly(&field, "").unwrap();
    }
}

#[test]
fn a_sequence_gives_what_its_field_can_hold() {
    clash(&[
        (
            r#",{"name":"f","type":"integer","sequence":true,"default":0}"#,
            "",
            "it has a sequence and a default",
        ),
        (
            r#",{"name":"f","type":"text","sequence":true,"references":"u(code)"}"#,
            "",
            r#"it has a sequence, and refers to "u""#,
        ),
        (
            r#",{"name":"f","type":"integer","sequence":true,"enum":[1,2]}"#,
            "",
            "it has a sequence and an enum",
        ),
        (
            r#",{"name":"f","type":"integer","sequence":{"prefix":"INV"}}"#,
            "",
            "its sequence cannot be: it holds numbers",
        ),
        (
            r#",{"name":"f","type":"date","sequence":true}"#,
            "",
            "its sequence cannot be: only a field of text or of numbers",
        ),
        (
            r#",{"name":"f","type":"text","sequence":{"prefix":"INV","counterField":"gone"}}"#,
            "",
            r#"its sequence's counterField is "gone"; the table has no such field"#,
        ),
    ]);
    for (field, words) in [
        (
            r#""type":"decimal(3,0)","sequence":{"start":5000}"#,
            "of its sequence, its first number 5000 must have at most 3 digits before the point",
        ),
        (
            r#""type":"decimal(2,2)","sequence":true"#,
            "of its sequence, its first number 1 must have at most 0 digits before the point",
        ),
        (
            r#""type":"varchar(4)","sequence":{"prefix":"INV","start":1}"#,
            "its sequence cannot be: it holds 4 characters, and the rule writes 5",
        ),
        (
            r#""type":"text","maxLength":4,"sequence":{"padding":6}"#,
            "its sequence cannot be: it holds 4 characters, and the rule writes 6",
        ),
        (
            r#""type":"text","sequence":{"prefix":"INV","counterField":"id"}"#,
            r#"its sequence's counterField is "id"; its first number 1 must be text"#,
        ),
    ] {
        clash(&[(&format!(r#",{{"name":"f",{field}}}"#), "", words)]);
    }
    strictly(r#",{"name":"f","type":"decimal(3,0)","sequence":{"start":999}}"#, "").unwrap();
    let long = "x".repeat(65);
    let long = format!(r#",{{"name":"f","type":"text","sequence":{{"prefix":"{long}"}}}}"#);
    clash(&[(&long, "", "its sequence: its prefix has 65 bytes; at most 64 are allowed")]);
    let right = r#",{"name":"f","type":"text","sequence":{"prefix":"INV"},"default":"NULL"}"#;
    assert!(strictly(right, "").unwrap().tables[0].fields[1].sequence.is_some());
}

#[test]
fn what_is_unique_has_no_default_that_two_records_would_have() {
    let words = "it is unique and has a default, but no two records have the same";
    clash(&[(r#",{"name":"f","type":"text","unique":true,"default":"'a'"}"#, "", words)]);
    let index = r#","indexes":[{"fields":["f"],"unique":true}]"#;
    clash(&[(r#",{"name":"f","type":"integer","default":0}"#, index, words)]);
    for right in [
        r#",{"name":"f","type":"text","unique":true,"default":"NULL"}"#,
        r#",{"name":"f","type":"char(36)","unique":true,"default":"newid()"}"#,
    ] {
        strictly(right, index).unwrap();
    }
    let both = r#","indexes":[{"fields":["f","g"],"unique":true}]"#;
    strictly(r#",{"name":"f","type":"integer","default":0},{"name":"g","type":"date"}"#, both)
        .unwrap();
}

#[test]
fn a_member_that_belongs_inside_references_is_shown_there() {
    for name in ["onDelete", "onUpdate", "module"] {
        let field = format!(r#",{{"name":"f","type":"text","references":"t","{name}":"CASCADE"}}"#);
        let words = format!(
            r#""{name}" is not known of a field; it belongs inside its references, {{"references": {{"table": …, "{name}": …}}}}"#
        );
        clash(&[(&field, "", &words)]);
    }
}

#[test]
fn a_member_that_is_null_says_nothing() {
    let field = r#",{"name":"f","type":"text","required":true,"nullable":null,"enum":null,
        "maxLength":null,"references":null,"sequence":null,"default":null}"#;
    let schema = strictly(field, "").unwrap();
    assert_eq!(schema.tables[0].fields[1].kind, FieldType::String);
}
