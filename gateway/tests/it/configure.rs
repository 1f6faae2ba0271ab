//! Stories of configuring: modules, branches, stored definitions and seeds, made over HTTP.

use model::{Validation, Value, VersionRule};

use crate::client::{Answered, Rest, members};

/// The definition of the recordings of the original.
const THING: &str = r#"{"schema":{"tables":[{"name":"thing","fields":[
    {"name":"a","type":"string","primaryKey":true},
    {"name":"b","type":"integer","primaryKey":true},
    {"name":"branchId","type":"string"},
    {"name":"version","type":"integer","defaultValue":1},
    {"name":"updatedAt","type":"timestamp"},
    {"name":"d","type":"date"},
    {"name":"u","type":"uuid"},
    {"name":"ok","type":"boolean","defaultValue":true},
    {"name":"nn","type":"decimal","nullable":true}]}]}}"#;
const SMALL: &str = r#"{"tables":[{"name":"notes","fields":[{"name":"id","type":"string"}]}]}"#;

/// A cluster whose modules are all as those of an original's directory.
fn original() -> Rest {
    let rest = Rest::new();
    rest.fake.reconfigure(|catalogue| {
        catalogue.modules.retain(|module| module.validation == Validation::Lenient);
    });
    rest
}

async fn keyed(rest: &Rest, key: &str, path: &str, body: &str) -> Answered {
    rest.send("POST", path, body, &[("idempotency-key", key)]).await
}

#[tokio::test]
async fn a_module_and_a_branch_are_made_and_used_as_on_the_original() {
    let rest = original();
    let body = format!(
        r#"{{"id":"Test Mod","label":"T","tables":["thing"],"schema":{THING},"validation":"lenient","versionRule":"next"}}"#
    );
    let made = rest.post("/api/modules", &body).await;
    assert_eq!(
        (made.status, made.raw.as_str()),
        (
            201,
            r#"{"moduleId":"test_mod","label":"T","tables":["thing"],"schemaFallbackPath":"data/schemas/test_mod.json","validation":"lenient","versionRule":"next"}"#
        )
    );
    let again = rest.post("/api/modules", r#"{"id":"test_mod"}"#).await;
    assert_eq!((again.code(), again.text("moduleId")), ((409, "module-exists"), "test_mod"));

    let body = r#"{"id":"New Branch","label":"NB","modules":["test_mod"]}"#;
    let made = rest.post("/api/branches", body).await;
    assert_eq!(made.status, 201);
    assert_eq!(made.raw, r#"{"branchId":"new_branch","label":"NB","modules":["test_mod"]}"#);
    let again = rest.post("/api/branches", r#"{"id":"new_branch"}"#).await;
    assert_eq!((again.code(), again.text("branchId")), ((409, "branch-exists"), "new_branch"));
    let unknown = rest.post("/api/branches", r#"{"id":"nb2","modules":["zzz"]}"#).await;
    assert_eq!(unknown.code(), (400, "module-not-registered"));
    assert_eq!(unknown.text("moduleId"), "zzz");
    assert_eq!(rest.post("/api/branches", "{}").await.code(), (400, "missing-branch-id"));
    let given = rest.post("/api/branches/new_branch/modules", r#"{"moduleId":"pos"}"#).await;
    assert_eq!(
        (given.status, given.raw.as_str()),
        (200, r#"{"branchId":"new_branch","modules":["test_mod","pos"]}"#)
    );
    let unknown = rest.post("/api/branches/new_branch/modules", r#"{"moduleId":"zzz"}"#).await;
    assert_eq!((unknown.code(), unknown.text("moduleId")), ((404, "module-not-found"), "zzz"));

    let table = "/api/branches/new_branch/modules/test_mod/tables/thing";
    let first = rest.post(table, r#"{"record":{"a":"x","b":1}}"#).await;
    let record = first.body.get("record").unwrap();
    assert_eq!(first.status, 201, "{}", first.raw);
    assert_eq!(members(record), "a b branchId version updatedAt d u ok nn");
    assert_eq!(record.get("branchId").and_then(Value::as_str), Some("new_branch"));
    let key = rest.post(table, r#"{"record":{"a":"y"}}"#).await;
    assert_eq!(key.status, 201, "part of the key is made up: {}", key.raw);
    let body = r#"{"record":{"a":"x","b":1,"ok":"off","version":55}}"#;
    let changed = rest.patch(table, body).await;
    assert_eq!(changed.status, 200, "{}", changed.raw);
    assert!(changed.raw.contains(r#""version":55,"#) && changed.raw.contains(r#""ok":false"#));
    let by_key = rest.delete(&format!("{table}?key=x::1"), "").await;
    assert_eq!(by_key.status, 200, "{}", by_key.raw);
    let gone = rest.delete(table, r#"{"record":{"a":"x","b":1}}"#).await;
    assert_eq!(gone.code(), (404, "module-event-failed"));
}

#[tokio::test]
async fn a_new_module_is_strict_and_read_unless_it_says_otherwise() {
    let rules = |rest: &Rest, id: &str| {
        let catalogue = actors::Store::catalogue(&rest.fake);
        let module = catalogue.modules.iter().find(|module| module.id.as_str() == id).unwrap();
        (module.validation, module.version_rule)
    };
    for rest in [original(), Rest::new()] {
        let body = format!(r#"{{"id":"plain","schema":{SMALL}}}"#);
        let made = rest.post("/api/modules", &body).await;
        assert_eq!((made.status, made.text("validation")), (201, "strict"), "{}", made.raw);
        assert_eq!(made.text("versionRule"), "read");
        assert_eq!(rules(&rest, "plain"), (Validation::Strict, VersionRule::Read));
        let body = format!(
            r#"{{"id":"told","schema":{SMALL},"validation":"lenient","versionRule":"next"}}"#
        );
        let made = rest.post("/api/modules", &body).await;
        assert_eq!((made.status, made.text("validation")), (201, "lenient"), "{}", made.raw);
        assert_eq!(rules(&rest, "told"), (Validation::Lenient, VersionRule::Next));
    }
}

#[tokio::test]
async fn the_settings_of_a_module_are_changed_by_patch() {
    let rest = Rest::new();
    let body = r#"{"validation":"lenient","versionRule":"next","label":"Screens"}"#;
    let changed = rest.patch("/api/modules/kds", body).await;
    assert_eq!((changed.status, changed.text("validation")), (200, "lenient"), "{}", changed.raw);
    assert_eq!((changed.text("label"), changed.text("versionRule")), ("Screens", "next"));
    let back = rest.patch("/api/modules/kds", r#"{"validation":"strict"}"#).await;
    assert_eq!((back.text("label"), back.text("validation")), ("Screens", "strict"));
    let bound = rest.patch("/api/modules/kds", r#"{"dedupBytes":65536}"#).await;
    assert!(bound.raw.contains(r#""dedupBytes":65536"#), "{}", bound.raw);
    let small = rest.patch("/api/modules/kds", r#"{"dedupBytes":10}"#).await;
    assert_eq!(small.code(), (400, "invalid-body"));
    let gone = rest.patch("/api/modules/gone", "{}").await;
    assert_eq!(gone.code(), (404, "module-not-found"));
    let unknown = rest.patch("/api/modules/kds", r#"{"validaton":"lenient"}"#).await;
    assert_eq!(unknown.code(), (400, "invalid-body"));
    assert!(unknown.text("message").contains("known are label, description"), "{}", unknown.raw);
    for body in [r#"{"validation":5}"#, r#"{"versionRule":"latest"}"#] {
        assert_eq!(rest.patch("/api/modules/kds", body).await.code(), (400, "invalid-body"));
    }
    let sloppy = r#"{"id":"sloppy","validation":"lenient","schema":{"tables":[{"name":"t",
        "fields":[{"name":"id","type":"text"}],"indexes":[{"columns":["gone"],"unique":true}]}]}}"#;
    let made = rest.post("/api/modules", sloppy).await;
    assert_eq!(made.status, 201, "{}", made.raw);
    assert!(made.raw.contains(r#"a unique index names \"gone\""#), "{}", made.raw);
    let strict = rest.patch("/api/modules/sloppy", r#"{"validation":"strict"}"#).await;
    assert_eq!(strict.code(), (400, "invalid-definition"));
    let shown = rest.get("/api/schema?module=sloppy").await;
    assert!(shown.raw.contains(r#""table":"t""#) && shown.raw.contains("gone"), "{}", shown.raw);
}

#[tokio::test]
async fn a_lenient_module_warns_once_a_table_of_unchecked_rules() {
    let rest = Rest::new();
    let schema = r#"{"tables":{"people":{"fields":{"id":{"type":"text","primaryKey":true},
        "phone":{"type":"text","unique":true},"name":{"type":"text","required":true}}},
        "notes":{"fields":{"id":{"type":"text","primaryKey":true},"text":{"type":"text"}}}}}"#;
    let body = format!(r#"{{"id":"crm","validation":"lenient","schema":{schema}}}"#);
    let said = "does not check unique (phone), required (name); PATCH /api/modules/crm with";
    let made = rest.post("/api/modules", &body).await;
    assert_eq!(made.status, 201, "{}", made.raw);
    let shown = rest.get("/api/schema?module=crm").await;
    let stored = rest.post("/api/schemas/global/crm", &format!(r#"{{"schema":{schema}}}"#)).await;
    for answer in [&made, &shown, &stored] {
        let warnings = answer.body.get("warnings").and_then(Value::as_array).unwrap();
        assert_eq!(warnings.len(), 1, "the other table has no such rule: {}", answer.raw);
        assert!(answer.raw.contains(said), "{}", answer.raw);
    }
    assert!(shown.raw.contains(r#""table":"people""#), "{}", shown.raw);
    let strict = rest.patch("/api/modules/crm", r#"{"validation":"strict"}"#).await;
    assert!(strict.status == 200 && !strict.raw.contains("warnings"), "{}", strict.raw);
    assert!(!rest.get("/api/schema?module=crm").await.raw.contains("warnings"));
}

#[tokio::test]
async fn a_contradictory_definition_is_refused_by_table_and_field() {
    let rest = Rest::new();
    let schema = r#"{"tables":{"t":{"fields":{"id":{"type":"text","primaryKey":true},
        "tier":{"type":"text","enum":["a"],"default":"'b'"}}}}}"#;
    let refused = rest.post("/api/modules", &format!(r#"{{"id":"m","schema":{schema}}}"#)).await;
    assert_eq!(refused.code(), (400, "invalid-definition"));
    assert_eq!((refused.detail("table"), refused.detail("field")), ("t", "tier"));
    assert!(refused.text("message").ends_with(r#"its default "b" must be one of "a""#));
    let body = format!(r#"{{"id":"m","validation":"lenient","schema":{schema}}}"#);
    let warned = rest.post("/api/modules", &body).await;
    assert_eq!(warned.status, 201, "{}", warned.raw);
    assert!(warned.raw.contains(r#"field \"tier\": its default"#), "{}", warned.raw);
}

#[tokio::test]
async fn what_is_not_known_is_refused_or_warned_of() {
    let rest = Rest::new();
    // `kds` is strict, `pos` is lenient.
    for (method, path, body) in [
        ("GET", "/api/branches/two/modules/kds/tables/screens?limt=5", ""),
        ("GET", "/api/branches/two/modules/kds/tables/screens?order=newest", ""),
        ("GET", "/api/branches/two/modules/kds/events?afterr=5", ""),
        ("POST", "/api/modules", r#"{"id":"m","validaton":"lenient"}"#),
        ("POST", "/api/branches", r#"{"id":"b","module":["pos"]}"#),
        ("POST", "/api/branches/two/modules", r#"{"id":"kds","shcema":{}}"#),
        (
            "POST",
            "/api/query/module",
            r#"{"branchId":"two","moduleId":"kds","table":"screens","were":{}}"#,
        ),
        (
            "POST",
            "/api/query/module",
            r#"{"branchId":"two","moduleId":"kds","table":"screens","where":{"colour":1}}"#,
        ),
        (
            "POST",
            "/api/query/module",
            r#"{"branchId":"two","moduleId":"kds","table":"screens","where":{"id":{"op":">","value":1}}}"#,
        ),
        (
            "POST",
            "/api/query/module",
            r#"{"branchId":"two","moduleId":"kds","table":"screens","orderBy":"colour"}"#,
        ),
    ] {
        let refused = rest.send(method, path, body, &[]).await;
        assert_eq!(refused.status, 400, "{path} {body}: {}", refused.raw);
        assert!(
            refused.text("message").contains("known")
                || refused.text("message").contains("asc or desc"),
            "{}",
            refused.raw
        );
        let lenient = (path.replace("/two/", "/dar/").replace("/kds/", "/pos/"), body);
        let path = lenient.0.replace("screens", "tickets");
        let body = lenient
            .1
            .replace(r#""two""#, r#""dar""#)
            .replace("kds", "pos")
            .replace("screens", "tickets")
            .replace(r#""id":"m""#, r#""id":"m","validation":"lenient""#)
            .replace(r#""id":"b""#, r#""id":"b","modules":["pos"]"#);
        let warned = rest.send(method, &path, &body, &[]).await;
        assert!(matches!(warned.status, 200 | 201), "{path} {body}: {}", warned.raw);
        assert!(warned.raw.contains(r#""warnings":[""#), "{path} {body}: {}", warned.raw);
    }
    let quiet = rest.get("/api/branches/dar/modules/pos/tables/tickets?limit=5&take=5").await;
    assert!(!quiet.raw.contains("warnings"), "{}", quiet.raw);
}

#[tokio::test]
async fn a_strict_modules_write_refuses_what_nobody_reads() {
    const M: &str = "/api/branches/two/modules/kds";
    let rest = Rest::new();
    // Each with the name that is wrong; the same without it is none of these refusals.
    for (path, body) in [
        ("/batch", r#"{"vrbs":[],"verbs":[{"table":"screens","record":{"id":"s"}}]}"#),
        ("/batch", r#"{"verbs":[{"table":"screens","record":{"id":"s"},"expectdVersion":3}]}"#),
        ("/save", r#"{"table":"screens","record":{"id":"s"},"expectedVersion":3}"#),
        ("/save?version=3", r#"{"table":"screens","record":{"id":"s"}}"#),
        ("/events", r#"{"table":"screens","record":{"id":"s"},"expectedVersion":3}"#),
        ("/events/batch", r#"{"lastAckId":null,"evnts":[]}"#),
        ("/events/batch", r#"{"lastAckId":null,"events":[{"tabel":"screens"}]}"#),
        ("/sequences", r#"{"table":"screens","field":"id","count":5}"#),
        ("/reset", r#"{"keepRecords":true}"#),
        ("SYNC", r#"{"snapshot":{"tables":{},"rows":{}}}"#),
        ("SYNC", r#"{"snapshot":{"tables":{}},"merge":true}"#),
        ("SYNC/delta", r#"{"lastTableId":{"screens":"s"}}"#),
        ("MANAGE/full-sync", r#"{"branchId":"two","modul":"kds"}"#),
        ("MANAGE/purge-history", r#"{"branchId":"two","moduleId":"kds","entryId":"e","md":"x"}"#),
    ] {
        let url = match path.strip_prefix("SYNC") {
            Some(rest) => format!("/api/sync/two/kds{rest}"),
            None => match path.strip_prefix("MANAGE") {
                Some(rest) => format!("/api/manage{rest}"),
                None => format!("{M}{path}"),
            },
        };
        let refused = rest.post(&url, body).await;
        assert_eq!(refused.status, 400, "{url} {body}: {}", refused.raw);
        assert!(refused.text("message").contains("is not known of"), "{url}: {}", refused.raw);
    }
    for path in ["", "/version", "/sequences", "/tables/screens/s", "/events?form=9"] {
        let joint = if path.contains('?') { "&" } else { "?" };
        let refused = rest.get(&format!("{M}{path}{joint}colour=red")).await;
        assert_eq!(refused.code(), (400, "invalid-parameter"), "{path}: {}", refused.raw);
    }
    rest.fake.reconfigure(|catalogue| catalogue.modules.retain(|it| it.id.as_str() == "kds"));
    for (method, path) in
        [("GET", "/api/branches"), ("GET", "/api/modules"), ("GET", "/api/schemas")]
            .into_iter()
            .chain([("POST", "/api/modules"), ("POST", "/api/branches")])
    {
        let refused = rest.send(method, &format!("{path}?x=1"), "", &[]).await;
        assert_eq!(refused.code(), (400, "invalid-parameter"), "{path}: {}", refused.raw);
    }
}

#[tokio::test]
async fn reading_definitions_refuses_or_warns_of_unknown_parameters() {
    let rest = Rest::new();
    let schema = rest.get("/api/schema?module=kds&branches=two").await;
    assert_eq!(schema.code(), (400, "invalid-parameter"));
    let lenient = rest.get("/api/schema?module=pos&branches=two").await;
    assert!(lenient.raw.contains(r#""warning":"\"branches\" is not known"#), "{}", lenient.raw);
}

#[tokio::test]
async fn a_stored_definition_says_whether_anything_changed() {
    let rest = Rest::new();
    let body = format!(r#"{{"schema":{SMALL}}}"#);
    let kept = rest.post("/api/schemas/global/nobodys", &body).await;
    assert!(kept.text("message").contains("no module follows it"), "{}", kept.raw);
    let again = rest.post("/api/schemas/global/nobodys", &body).await;
    assert!(again.text("message").starts_with("Nothing changed"), "{}", again.raw);
    assert_eq!(again.body.get("changed").and_then(Value::as_bool), Some(false));
}

#[tokio::test]
async fn an_unknown_branch_is_not_found_anywhere() {
    let rest = Rest::new();
    rest.fake.reconfigure(|catalogue| catalogue.default_modules.clear());
    let query = r#"{"branchId":"nowhere","moduleId":"pos","table":"tickets"}"#;
    for (method, path, body) in [
        ("GET", "/api/branches/nowhere", ""),
        ("GET", "/api/branches/nowhere/modules", ""),
        ("GET", "/api/branches/nowhere/modules/pos", ""),
        ("GET", "/api/branches/nowhere/modules/pos/tables/tickets", ""),
        ("POST", "/api/branches/nowhere/modules/pos/tables/tickets", r#"{"title":"x"}"#),
        ("POST", "/api/branches/nowhere/modules/pos/events", "{}"),
        ("POST", "/api/branches/nowhere/modules/pos/reset", ""),
        ("POST", "/api/branches/nowhere/modules", r#"{"id":"pos"}"#),
        ("GET", "/api/state?branch=nowhere", ""),
        ("GET", "/api/schema?branch=nowhere", ""),
        ("GET", "/api/sync/nowhere/pos", ""),
        ("POST", "/api/sync/nowhere/pos/delta", "{}"),
        ("POST", "/api/query/module", query),
        ("GET", "/api/manage/full-sync?branch=nowhere", ""),
        ("POST", "/api/manage/full-sync", r#"{"branchId":"nowhere"}"#),
        ("POST", "/api/manage/daily-reset", r#"{"branchId":"nowhere"}"#),
        ("POST", "/api/manage/purge-live-data", r#"{"branchId":"nowhere"}"#),
        ("POST", "/api/seeds", r#"{"branchId":"nowhere","moduleId":"pos","seeds":{}}"#),
    ] {
        let answered = rest.send(method, path, body, &[]).await;
        assert_eq!(answered.code(), (404, "branch-not-found"), "{method} {path}");
    }
    assert_eq!(rest.get("/api/branches/lab:1").await.status, 200, "a pattern names it");
    assert_eq!(rest.get("/api/branches/dar").await.status, 200);
}

#[tokio::test]
async fn what_is_wrong_with_a_module_or_branch_is_said() {
    let rest = Rest::new();
    for (path, body, code) in [
        ("/api/modules", r#"{"label":"x"}"#, "missing-module-id"),
        ("/api/modules", r#"{"id":"a/b"}"#, "invalid-name"),
        ("/api/modules", r#"{"id":"../x"}"#, "invalid-name"),
        ("/api/modules", r#"{"id":"m","tables":5}"#, "invalid-body"),
        ("/api/modules", r#"{"id":"m","tables":["a b"]}"#, "invalid-name"),
        ("/api/modules", r#"{"id":"m","validation":"some"}"#, "invalid-body"),
        ("/api/modules", r#"{"id":"m","versionRule":"some"}"#, "invalid-body"),
        (
            "/api/modules",
            r#"{"id":"m","schemaFallbackPath":"/etc/passwd"}"#,
            "invalid-schema-fallback-path",
        ),
        (
            "/api/modules",
            r#"{"id":"m","schemaFallbackPath":"data/../../x.json"}"#,
            "invalid-schema-fallback-path",
        ),
        (
            "/api/modules",
            r#"{"id":"m","seedFallbackPath":"seeds/x.json"}"#,
            "invalid-schema-fallback-path",
        ),
        ("/api/branches", r#"{"id":"a/b"}"#, "invalid-name"),
        ("/api/branches", r#"{"id":".."}"#, "invalid-name"),
        ("/api/branches", r#"{"id":"b","modules":[5]}"#, "invalid-body"),
        ("/api/branches", r#"{"id":"b","schemas":[]}"#, "invalid-body"),
        ("/api/branches", r#"{"id":"b","schemas":{"zzz":{}}}"#, "module-not-registered"),
        ("/api/branches", r#"{"id":"b","schemas":{"pos":{}}}"#, "invalid-definition"),
        ("/api/branches/dar/modules", "{}", "missing-module-id"),
        ("/api/branches/dar/modules", r#"{"id":"pos","schema":5}"#, "invalid-definition"),
        ("/api/modules", "[]", "invalid-body"),
        ("/api/modules", "{", "invalid-json"),
    ] {
        assert_eq!(rest.post(path, body).await.code(), (400, code), "{path} {body}");
    }
    let bad = r#"{"id":"m","schema":{"tables":[{"name":"t","fields":[{"name":"f","type":"text","maxLength":"x"}]}]}}"#;
    let bad = rest.post("/api/modules", bad).await;
    assert_eq!(bad.code(), (400, "invalid-definition"));
    assert_eq!((bad.detail("table"), bad.detail("field")), ("t", "f"));
    let listed = format!(r#"{{"id":"m","tables":["other"],"schema":{SMALL}}}"#);
    let listed = rest.post("/api/modules", &listed).await;
    assert_eq!((listed.code(), listed.detail("table")), ((400, "invalid-definition"), "other"));
    let elsewhere = r#"{"id":"m","schema":{"tables":[{"name":"t","fields":[{"name":"id","type":"text"},
        {"name":"x","type":"text","references":{"module":"pos","table":"thing"}}]}]}}"#;
    let elsewhere = rest.post("/api/modules", elsewhere).await;
    assert_eq!(elsewhere.code(), (400, "invalid-definition"));
    assert!(elsewhere.text("message").contains("refers to"), "{}", elsewhere.raw);
    assert!(!rest.get("/api/modules").await.raw.contains(r#""id":"m""#), "nothing was made");
}

#[tokio::test]
async fn a_repeated_request_is_answered_alike_another_is_refused() {
    let rest = Rest::new();
    let body = format!(r#"{{"id":"m","schema":{SMALL}}}"#);
    let first = keyed(&rest, "k:1", "/api/modules", &body).await;
    let again = keyed(&rest, "k:1", "/api/modules", &body).await;
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.raw, again.raw);
    let other = keyed(&rest, "k:1", "/api/modules", r#"{"id":"n"}"#).await;
    assert_eq!(other.code(), (422, "idempotency-key-reused"));
    let elsewhere = keyed(&rest, "k:1", "/api/branches", r#"{"id":"m"}"#).await;
    assert_eq!(elsewhere.code(), (422, "idempotency-key-reused"));
    assert_eq!(keyed(&rest, "k", "/api/modules", r#"{"id":"n"}"#).await.status, 201);

    let seeds = r#"{"branchId":"dar","moduleId":"pos","seeds":{"tickets":[{"id":"1"}]}}"#;
    let first = keyed(&rest, "s", "/api/seeds", seeds).await;
    let again = keyed(&rest, "s", "/api/seeds", seeds).await;
    assert_eq!(first.raw, again.raw, "the file keeps its name");
    assert_eq!(actors::Store::catalogue(&rest.fake).seed_files.len(), 1);
}

#[tokio::test]
async fn definitions_are_stored_by_name_and_a_module_follows_its_own() {
    let rest = Rest::new();
    assert_eq!(rest.get("/api/schemas").await.raw, r#"{"global":[],"branches":{}}"#);
    let none = rest.get("/api/schemas/branch/dar/pos").await;
    assert_eq!(none.code(), (404, "schema-not-found"));

    assert_eq!(rest.post("/api/modules", r#"{"id":"later"}"#).await.status, 201);
    let empty = rest.get("/api/schema?module=later").await;
    assert!(empty.raw.contains(r#""warning":"schema-not-found""#), "{}", empty.raw);
    let stored =
        rest.post("/api/schemas/global/later_schema", &format!(r#"{{"schema":{SMALL}}}"#)).await;
    assert_eq!(
        stored.raw,
        r#"{"success":true,"path":"data/schemas/later_schema.json","message":"Schema saved; module later follows it","changed":true}"#
    );
    rest.post("/api/branches/dar/modules", r#"{"id":"later"}"#).await;
    let made = rest.post("/api/branches/dar/modules/later/tables/notes", r#"{"id":"n"}"#).await;
    assert_eq!(made.status, 201, "{}", made.raw);
    let bad = r#"{"schema":{"tables":[{"name":"t"}]}}"#;
    let refused = rest.post("/api/schemas/global/later_schema", bad).await;
    assert_eq!((refused.code(), refused.detail("table")), ((400, "invalid-definition"), "t"));
    assert_eq!(rest.post("/api/schemas/global/nobodys", bad).await.status, 200, "only kept");

    let own = format!(r#"{{"schema":{SMALL}}}"#);
    let stored = rest.post("/api/schemas/branch/lab%3Ax/later", &own).await;
    assert_eq!(stored.text("path"), "data/branches/lab:x/modules/later/schema/definition.json");
    let list = rest.get("/api/schemas").await;
    assert_eq!(list.raw, r#"{"global":["later_schema","nobodys"],"branches":{"lab:x":["later"]}}"#);
    let shown = rest.get("/api/schemas/branch/lab:x/later").await;
    assert_eq!(members(&shown.body), "success path schema");
    for (path, code) in [
        ("/api/schemas/global/..", "invalid-path"),
        ("/api/schemas/global/..%2f..%2fmodules", "invalid-path"),
        ("/api/schemas/global/a%5cb", "invalid-path"),
        ("/api/schemas/branch/..%2fx/pos", "invalid-name"),
        ("/api/schemas/branch/dar/..%2fx", "invalid-name"),
    ] {
        assert_eq!(rest.get(path).await.code(), (400, code), "{path}");
        assert_eq!(rest.post(path, &own).await.code(), (400, code), "{path}");
    }
    let none = rest.post("/api/schemas/global/x", "{}").await;
    assert_eq!(none.code(), (400, "missing-schema"));
}

#[tokio::test]
async fn seeds_are_stored_and_large_bodies_taken_where_they_belong() {
    let rest = Rest::new();
    let seeds = r#"{"branchId":"dar","moduleId":"pos",
        "seeds":{"tickets":[{"id":"1"},{"id":"2"}],"thing":[]}}"#;
    let stored = rest.post("/api/seeds", seeds).await;
    assert_eq!(members(&stored.body), "success file message tables recordCount");
    assert!(stored.text("file").starts_with("seeds/seeds-"), "{}", stored.raw);
    assert!(stored.raw.ends_with(r#""tables":["tickets","thing"],"recordCount":2}"#));
    for (body, code) in [
        (r#"{"moduleId":"pos","seeds":{}}"#, (400, "missing-branch-id")),
        (r#"{"branchId":"dar","seeds":{}}"#, (400, "missing-module-id")),
        (r#"{"branchId":"dar","moduleId":"zzz","seeds":{}}"#, (404, "module-not-found")),
        (r#"{"branchId":"dar","moduleId":"pos"}"#, (400, "invalid-body")),
        (r#"{"branchId":"dar","moduleId":"pos","seeds":{"t":[]}}"#, (404, "table-not-found")),
        (r#"{"branchId":"dar","moduleId":"pos","seeds":{"thing":[1]}}"#, (400, "invalid-body")),
    ] {
        assert_eq!(rest.post("/api/seeds", body).await.code(), code, "{body}");
    }
    let keyless = r#"{"branchId":"dar","moduleId":"pos","seeds":{"tickets":[{"id":""}]}}"#;
    let warned = rest.post("/api/seeds", keyless).await;
    assert!(warned.raw.contains("1 rows of tickets have an empty"), "{}", warned.raw);
    let keyless = r#"{"branchId":"two","moduleId":"kds","seeds":{"screens":[{"id":""}]}}"#;
    let refused = rest.post("/api/seeds", keyless).await;
    assert_eq!((refused.code(), refused.detail("table")), ((400, "invalid-body"), "screens"));
    let twice =
        r#"{"branchId":"dar","moduleId":"pos","seeds":{"tickets":[{"id":"a"},{"id":"a"}]}}"#;
    let warned = rest.post("/api/seeds", twice).await;
    assert!(warned.raw.contains("1 rows of tickets have the key of a later"), "{}", warned.raw);
    let twice = r#"{"branchId":"two","moduleId":"kds","seeds":{"screens":[{"id":1},{"id":"1"}]}}"#;
    let refused = rest.post("/api/seeds", twice).await;
    assert_eq!((refused.code(), refused.detail("table")), ((400, "invalid-body"), "screens"));
    let pad = " ".repeat(2 * 1024 * 1024);
    assert_eq!(rest.post("/api/seeds", &format!("{seeds}{pad}")).await.status, 200);
    let stored = rest.post("/api/schemas/global/x", &format!(r#"{{"schema":{SMALL}}}{pad}"#)).await;
    assert_eq!(stored.status, 200);
    let table = "/api/branches/dar/modules/pos/tables/tickets";
    assert_eq!(rest.post(table, &format!("{{}}{pad}")).await.code(), (413, "body-too-large"));
    let huge = " ".repeat(33 * 1024 * 1024);
    assert_eq!(rest.post("/api/seeds", &huge).await.code(), (413, "body-too-large"));
}

#[tokio::test]
async fn a_definition_records_do_not_satisfy_is_refused_or_filled() {
    let rest = Rest::new();
    let old = r#"{"tables":{"staff":{"fields":{"id":{"type":"text","primaryKey":true},"name":{"type":"text"}}}}}"#;
    let made = rest.post("/api/modules", &format!(r#"{{"id":"hr","schema":{old}}}"#)).await;
    assert_eq!(made.status, 201, "{}", made.raw);
    for branch in ["dar", "two"] {
        let path = format!("/api/branches/{branch}/modules");
        assert_eq!(rest.post(&path, r#"{"id":"hr"}"#).await.status, 200);
    }
    let table = "/api/branches/dar/modules/hr/tables/staff";
    for id in 0..12 {
        let record = format!(r#"{{"id":"{id}","name":"Mona"}}"#);
        assert_eq!(rest.post(table, &record).await.status, 201);
    }
    let new = r#"{"schema":{"tables":{"staff":{"fields":{"id":{"type":"text","primaryKey":true},
        "name":{"type":"text"},"tier":{"type":"text","required":true,"default":"'gold'"}}}}}}"#;
    let refused = rest.post("/api/schemas/global/hr", new).await;
    assert_eq!(refused.code(), (409, "records-do-not-fit"), "{}", refused.raw);
    let records = refused.body.get("details").unwrap().get("records").unwrap();
    let records = records.as_array().unwrap();
    assert_eq!(records.len(), 10, "the first ten");
    for (member, value) in [("branchId", "dar"), ("table", "staff"), ("key", "0")] {
        assert_eq!(records[0].get(member).and_then(Value::as_str), Some(value));
    }
    assert!(!rest.get("/api/schema?module=hr").await.raw.contains("tier"), "nothing changed");
    let odd = rest.post("/api/schemas/global/hr?fill=nulls", new).await;
    assert_eq!(odd.code(), (400, "invalid-parameter"));

    let filled = rest.post("/api/schemas/global/hr?fill=defaults", new).await;
    assert_eq!(filled.status, 200, "{}", filled.raw);
    assert!(!filled.raw.contains("warnings"), "{}", filled.raw);
    let rows = rest.get(table).await;
    assert_eq!(rows.raw.matches(r#""tier":"gold""#).count(), 12, "{}", rows.raw);

    let unique =
        new.replace(r#""name":{"type":"text"}"#, r#""name":{"type":"text","unique":true}"#);
    for path in ["/api/schemas/global/hr", "/api/schemas/global/hr?fill=defaults"] {
        assert_eq!(rest.post(path, &unique).await.code(), (409, "records-do-not-fit"));
    }
    let lenient = rest.patch("/api/modules/hr", r#"{"validation":"lenient"}"#).await;
    assert_eq!(lenient.status, 200, "{}", lenient.raw);
    rest.post(table, r#"{"id":"odd","name":5}"#).await;
    let strict = rest.patch("/api/modules/hr", r#"{"validation":"strict"}"#).await;
    assert_eq!(strict.code(), (409, "records-do-not-fit"), "{}", strict.raw);
}
