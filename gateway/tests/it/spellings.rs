//! Stories of spellings: one value is one, however a client writes it.

use crate::client::{Rest, Served, at};
use crate::keys::{encoded, key, seen};

/// A branch with a module of this validation, whose visits are keyed by an instant.
async fn diary(rest: &Rest, validation: &str) -> String {
    let module = format!(
        r#"{{"id":"diary","validation":"{validation}","schema":{{"tables":{{"visits":{{"fields":{{
        "at":{{"type":"timestamp","primaryKey":true}},"paid":{{"type":"boolean"}},
        "sum":{{"type":"decimal"}},"n":{{"type":"integer"}}}}}}}}}}}}"#
    );
    let made = rest.post("/api/modules", &module).await;
    assert_eq!(made.status, 201, "{}", made.raw);
    let made = rest.post("/api/branches", r#"{"id":"clinic","modules":["diary"]}"#).await;
    assert_eq!(made.status, 201, "{}", made.raw);
    "/api/branches/clinic/modules/diary/tables/visits".to_owned()
}

const SPELLINGS: [&str; 3] =
    ["2026-01-01T10:00:00Z", "2026-01-01T10:00:00.000Z", "2026-01-01T12:00:00+02:00"];

#[tokio::test]
async fn an_instant_names_one_record_in_any_spelling() {
    for validation in ["strict", "lenient"] {
        let rest = Rest::new();
        let path = diary(&rest, validation).await;
        let made = rest.post(&path, &format!(r#"{{"at":"{}","n":1}}"#, SPELLINGS[2])).await;
        assert_eq!((made.status, key(&made).as_str()), (201, SPELLINGS[1]), "{}", made.raw);
        rest.post(&path, r#"{"at":"2026-01-02T10:00:00Z","n":2}"#).await;
        for at_sent in SPELLINGS {
            let read = rest.get(&format!("{path}/{}", encoded(at_sent))).await;
            assert_eq!(at(&read.body, &["record", "at"]).as_str(), Some(SPELLINGS[2]));
            let page = rest.get(&format!("{path}?afterKey={}", encoded(at_sent))).await;
            assert_eq!(seen(&page, "n"), ["2"], "{}", page.raw);
            let delta = format!(r#"{{"lastTableIds":{{"visits":"{at_sent}"}}}}"#);
            let lacks = rest.post("/api/sync/clinic/diary/delta", &delta).await;
            assert_eq!(lacks.raw.matches(r#""cursorMatched":true"#).count(), 1, "{}", lacks.raw);
        }
        for at_sent in SPELLINGS {
            let changed = rest.put(&path, &format!(r#"{{"at":"{at_sent}","n":9}}"#)).await;
            assert!(changed.status < 500, "{}", changed.raw);
            assert_eq!(seen(&rest.get(&path).await, "n").len(), 2, "no second record");
        }
        let gone = rest.delete(&format!("{path}?id={}", encoded(SPELLINGS[0])), "").await;
        assert_eq!((gone.status, key(&gone).as_str()), (200, SPELLINGS[1]), "{}", gone.raw);
        assert_eq!(seen(&rest.get(&path).await, "n"), ["2"]);
    }
}

#[tokio::test]
async fn a_condition_is_read_as_its_fields_type() {
    for validation in ["strict", "lenient"] {
        let rest = Rest::new();
        let path = diary(&rest, validation).await;
        let first = format!(r#"{{"at":"{}","paid":true,"sum":1.50,"n":7}}"#, SPELLINGS[0]);
        for visit in [&first, r#"{"at":"2026-01-02T10:00:00Z","paid":false,"sum":2,"n":8}"#] {
            assert_eq!(rest.post(&path, visit).await.status, 201);
        }
        let ask = async |condition: &str| {
            let query = format!(
                r#"{{"branchId":"clinic","moduleId":"diary","table":"visits",{condition}}}"#
            );
            rest.post("/api/query/module", &query).await
        };
        for condition in [
            r#"{"paid":"yes"}"#,
            r#"{"paid":1}"#,
            r#"{"paid":{"operator":"!=","value":"0"}}"#,
            r#"{"sum":"1.5"}"#,
            r#"{"sum":{"operator":"in","value":["15e-1"]}}"#,
            r#"{"sum":{"operator":"<","value":" 2.0"}}"#,
            r#"{"n":"7.0"}"#,
            r#"{"at":"2026-01-01T12:00:00+02:00"}"#,
            r#"{"at":{"operator":"<=","value":"2026-01-01T13:00:00+03:00"}}"#,
            r#"{"at":{"operator":"not in","value":["2026-01-02T09:00:00-01:00"]}}"#,
        ] {
            let found = ask(&format!(r#""where":{condition}"#)).await;
            assert_eq!(seen(&found, "n"), ["7"], "{validation} {condition} {}", found.raw);
            assert!(found.body.get("warnings").is_none(), "{}", found.raw);
        }
        let sorted = ask(r#""orderBy":["at","desc"]"#).await;
        assert_eq!(seen(&sorted, "n"), ["8", "7"]);
        let wrong = ask(r#""where":{"sum":{"operator":"in","value":[1,"abc"]}}"#).await;
        let said = r#"visits.sum must be a number, but the condition says \"abc\""#;
        assert!(wrong.raw.contains(said), "{}", wrong.raw);
        if validation == "strict" {
            assert_eq!(wrong.code(), (400, "invalid-body"));
            assert_eq!(at(&wrong.body, &["details", "field"]).as_str(), Some("sum"));
        } else {
            assert_eq!((wrong.status, seen(&wrong, "n").len()), (200, 0), "{}", wrong.raw);
        }
    }
}

#[tokio::test]
async fn a_sockets_filter_is_read_as_its_fields_type() {
    let served = Served::new(|_| ()).await;
    let mut socket = served.enter("dar").await;
    for filter in [r#"{"b":"1"}"#, r#"{"b":1.0,"a":"x"}"#, r#"{"n":"5.00"}"#] {
        socket
            .say(&format!(
                r#"{{"type":"client:query","moduleId":"pos","table":"thing","filter":{filter}}}"#
            ))
            .await;
        let frame = socket.expect("server:query:result").await;
        assert_eq!(at(&frame, &["result"]).as_array().unwrap().len(), 1, "{filter}");
    }
}

#[tokio::test]
async fn a_condition_on_the_version_is_a_number_in_any_spelling() {
    let rest = Rest::new();
    let path = diary(&rest, "strict").await;
    rest.post(&path, r#"{"at":"2026-01-01T10:00:00Z"}"#).await;
    let query = |version: &str| {
        format!(
            r#"{{"branchId":"clinic","moduleId":"diary","table":"visits","where":{{"version":{version}}}}}"#
        )
    };
    for version in ["1", r#""1""#, "1.0"] {
        let found = rest.post("/api/query/module", &query(version)).await;
        assert_eq!(at(&found.body, &["count"]).as_u64(), Some(1), "{version}: {}", found.raw);
    }
    let refused = rest.post("/api/query/module", &query(r#""x""#)).await;
    assert_eq!(refused.code(), (400, "invalid-body"), "{}", refused.raw);
    assert!(refused.text("message").contains("version must be a number"), "{}", refused.raw);
}
