//! Stories about looking for rows by what is in them.

use crate::client::{Answered, Rest, members};

const QUERY: &str = "/api/query/module";

async fn shop() -> Rest {
    let rest = Rest::with_till();
    for (id, title, n) in [("a", "Soup", "3"), ("b", "Bread", "10.50"), ("c", "Tea", "3")] {
        let body = format!(r#"{{"id":"{id}","title":"{title}","n":{n}}}"#);
        let made = rest.post("/api/branches/dar/modules/pos/tables/tickets", &body).await;
        assert_eq!(made.status, 201, "{}", made.raw);
    }
    rest
}

async fn ask(rest: &Rest, more: &str) -> Answered {
    let body = format!(r#"{{"branchId":"dar","moduleId":"pos","table":"tickets"{more}}}"#);
    rest.post(QUERY, &body).await
}

fn ids(answer: &Answered) -> String {
    let rows = answer.body.get("rows").and_then(|rows| rows.as_array());
    let rows = rows.unwrap_or_else(|| panic!("{}", answer.raw)).iter();
    rows.map(|row| row.get("id").unwrap().as_str().unwrap()).collect()
}

#[tokio::test]
async fn rows_are_found_by_conditions_sorted_and_cut() {
    let rest = shop().await;
    let answer = ask(
        &rest,
        r#","where":{"n":{"operator":">=","value":3}},"orderBy":[{"field":"n","direction":"desc"}],
        "limit":2,"lang":"en""#,
    )
    .await;
    assert_eq!((answer.status, ids(&answer)), (200, "ba".into()));
    assert_eq!(members(&answer.body), "branchId moduleId table count rows meta");
    assert_eq!(answer.body.get("count").unwrap().to_json(), "2");
    let meta = answer.body.get("meta").unwrap();
    assert_eq!(members(meta), "queryTime limit offset lang fallbackLang");
    assert!(
        meta.to_json().ends_with(r#""limit":2,"offset":null,"lang":"en","fallbackLang":"ar"}"#)
    );
    assert!(answer.raw.contains(r#""n":10.50"#), "numbers stay as they are");
    assert_eq!(
        ids(&ask(&rest, r#","filter":[{"title":{"operator":"like","value":"%E_"}}]"#).await),
        "bc"
    );
    assert_eq!(ids(&ask(&rest, r#","where":{"n":"3"},"sortBy":["title","desc"]"#).await), "ca");
    assert_eq!(ids(&ask(&rest, r#","offset":1,"limit":1"#).await), "b");
}

#[tokio::test]
async fn what_is_wrong_with_a_query_is_said() {
    let rest = shop().await;
    for body in ["", "{}", r#"{"branchId":"dar","moduleId":"pos"}"#] {
        assert_eq!(rest.post(QUERY, body).await.code(), (400, "missing-table"));
    }
    let nowhere = rest.post(QUERY, r#"{"table":"tickets","moduleId":"pos"}"#).await;
    assert_eq!(nowhere.code(), (400, "invalid-body"));
    assert_eq!(nowhere.text("message"), "branchId must be given");
    let unknown = ask(&rest, r#","table":"zz""#).await;
    assert_eq!(unknown.code(), (404, "table-not-found"));
    let module = rest.post(QUERY, r#"{"branchId":"dar","moduleId":"zz","table":"t"}"#).await;
    assert_eq!(module.code(), (404, "module-not-found"));
    let operator = ask(&rest, r#","where":{"n":{"operator":"between","value":1}}"#).await;
    assert_eq!(operator.code(), (400, "invalid-body"));
    assert!(operator.text("message").contains("not in, like"), "{}", operator.raw);
    let bad_level = [("x-mishkah-read", "fresh")];
    assert_eq!(rest.send("POST", QUERY, "{}", &bad_level).await.code(), (400, "invalid-header"));
}

#[tokio::test]
async fn there_is_no_sql_and_the_answer_says_where_to_go() {
    let rest = Rest::new();
    for (method, path, instead) in [
        ("POST", "/api/query", "POST /api/query/module"),
        ("POST", "/api/query/raw", "POST /api/query/module"),
        ("GET", "/api/schema/database", "GET /api/schema"),
    ] {
        let answer = rest.send(method, path, r#"{"sql":"select 1"}"#, &[]).await;
        assert_eq!(answer.code(), (404, "not-supported"), "{path}");
        assert!(answer.text("message").ends_with(instead), "{}", answer.raw);
    }
    assert_eq!(rest.get(QUERY).await.code(), (405, "method-not-allowed"));
}
