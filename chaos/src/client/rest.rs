//! REST client: sends one request over HTTP and interprets the response.
//!
//! Promise: a request that no node can have received is reported as unavailable, not as unknown.

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    ATTEMPT_TIMEOUT, Acknowledgement, AttemptResult, RecordWrite, WorkloadRequest, cursor_of,
    module_path, mutation_json, record_json,
};
use history::{BranchModule, LogPosition};

/// A client of all nodes; it keeps its connections.
#[derive(Debug, Clone)]
pub struct RestClient {
    http: reqwest::Client,
}

impl RestClient {
    /// A client without connections.
    ///
    /// # Errors
    /// The HTTP client cannot be created.
    pub fn new() -> Result<Self> {
        Ok(Self { http: reqwest::Client::builder().no_proxy().timeout(ATTEMPT_TIMEOUT).build()? })
    }

    /// Sends a request to a node. A request with the same idempotency key takes effect once.
    pub async fn send(
        &self,
        node: &str,
        branch_key: &BranchModule,
        key: &str,
        request: &WorkloadRequest,
    ) -> AttemptResult {
        let module = module_path(branch_key);
        let (method, path, body) = match request {
            WorkloadRequest::Write(mutations) => match mutations.as_slice() {
                [mutation] => {
                    let path = format!("{module}/tables/{}", mutation.table);
                    (method(mutation), path, json!({"record": record_json(mutation)}))
                }
                mutations => {
                    let mutations: Vec<Value> = mutations.iter().map(mutation_json).collect();
                    ("POST", format!("{module}/batch"), json!({"verbs": mutations}))
                }
            },
            WorkloadRequest::Query { table, filter } => (
                "POST",
                "/api/query/module".to_owned(),
                json!({"branchId": branch_key.branch, "moduleId": branch_key.module, "table": table,
                       "where": filter}),
            ),
        };
        self.call(node, method, &path, key, &body).await
    }

    /// Sends a JSON body and interprets the response.
    pub async fn call(
        &self,
        node: &str,
        method: &str,
        path: &str,
        key: &str,
        body: &Value,
    ) -> AttemptResult {
        let method = match method {
            "PUT" => reqwest::Method::PUT,
            "PATCH" => reqwest::Method::PATCH,
            _ => reqwest::Method::POST,
        };
        let request = self
            .http
            .request(method, format!("http://{node}{path}"))
            .header("idempotency-key", key)
            .header("content-type", "application/json")
            .body(body.to_string());
        let response = match request.send().await {
            Ok(response) => response,
            // Without a connection the node has received nothing.
            Err(error) if error.is_connect() => {
                return AttemptResult::Unavailable(format!("{error:#}"));
            }
            Err(error) => return AttemptResult::Unknown(format!("{error:#}")),
        };
        let status = response.status().as_u16();
        let cursor = response.headers().get("x-mishkah-cursor").and_then(|value| {
            let (epoch, sequence) = value.to_str().ok()?.split_once('.')?;
            Some(LogPosition { epoch: epoch.parse().ok()?, sequence: sequence.parse().ok()? })
        });
        // Without its body a response has neither code nor cursor: the result is unknown then,
        // whatever the status says.
        match response.text().await {
            Ok(text) => interpret(status, cursor, &text),
            Err(error) if (200..300).contains(&status) => {
                AttemptResult::Unknown(format!("{error:#}"))
            }
            Err(error) => AttemptResult::Unknown(format!("{status}, then {error:#}")),
        }
    }
}

fn method(mutation: &RecordWrite) -> &'static str {
    match mutation.action {
        "insert" => "POST",
        "merge" => "PATCH",
        _ => "PUT",
    }
}

/// What a response means.
fn interpret(status: u16, cursor: Option<LogPosition>, text: &str) -> AttemptResult {
    let body: Value = match serde_json::from_str(text) {
        Ok(body) => body,
        Err(error) => return AttemptResult::Unknown(format!("{status} without JSON: {error}")),
    };
    let code = body["error"].as_str().unwrap_or("no code").to_owned();
    match status {
        200..300 => match body.get("rows").and_then(Value::as_array) {
            Some(rows) => AttemptResult::Rows(rows.clone()),
            None => {
                // A batch shows its records under `results`, a single write under `record`.
                let first = &body["results"][0]["record"];
                let record = if first.is_null() { body["record"].clone() } else { first.clone() };
                AttemptResult::Acknowledged(Acknowledgement {
                    cursor: cursor.or_else(|| cursor_of(&body["cursor"])),
                    record,
                })
            }
        },
        // Before the other 4xx: these three promise that nothing was done.
        408 | 429 | 503 => AttemptResult::Unavailable(code),
        400..500 => AttemptResult::Refused(code),
        500 => AttemptResult::Defect(text.to_owned()),
        _ => AttemptResult::Unknown(format!("{status} {code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_means_what_the_protocol_says_and_no_more() {
        let result_of = |status, text: &str| interpret(status, None, text);
        assert!(matches!(
            result_of(200, r#"{"record":{"id":"a"}}"#),
            AttemptResult::Acknowledged(_)
        ));
        assert!(
            matches!(result_of(200, r#"{"rows":[]}"#), AttemptResult::Rows(rows) if rows.is_empty())
        );
        let refused = result_of(409, r#"{"error":"version-conflict"}"#);
        assert_eq!(refused, AttemptResult::Refused("version-conflict".to_owned()));
        assert!(matches!(
            result_of(503, r#"{"error":"unavailable"}"#),
            AttemptResult::Unavailable(_)
        ));
        assert!(matches!(
            result_of(504, r#"{"error":"outcome-unknown"}"#),
            AttemptResult::Unknown(_)
        ));
        assert!(matches!(result_of(500, "{}"), AttemptResult::Defect(_)));
        assert!(matches!(result_of(507, "{}"), AttemptResult::Unknown(_)));
        assert!(matches!(result_of(200, r#"{"rec"#), AttemptResult::Unknown(_)));
    }
}
