//! Client: calls to one node, as a till would make them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use history::LogPosition;
use model::BranchId;
use serde_json::{Value, json};

/// Longer than a request may take on the other side, so that the node answers first.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// A client of one node.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct HttpReply {
    /// The status.
    pub status: u16,
    /// The body; null if it was no JSON.
    pub body: Value,
    /// Where in the branch's log the answer stands, if it says so.
    pub cursor: Option<LogPosition>,
}

impl HttpReply {
    /// The body of a success.
    ///
    /// # Errors
    /// Any other answer, shown whole.
    pub fn ok(self) -> Result<Value> {
        ensure!((200..300).contains(&self.status), "answered {}: {}", self.status, self.body);
        Ok(self.body)
    }
}

impl Client {
    /// A client of the node at this address, with connections of its own.
    ///
    /// # Panics
    /// If this machine cannot open a client at all.
    pub fn new(node: SocketAddr) -> Self {
        let http = reqwest::Client::builder()
            .timeout(CALL_TIMEOUT)
            .no_proxy()
            .build()
            .expect("a client without TLS needs nothing of the machine");
        Self { http, base: format!("http://{node}") }
    }

    /// The node's address with scheme.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Reads.
    ///
    /// # Errors
    /// No answer came.
    pub async fn get(&self, path: &str) -> Result<HttpReply> {
        self.send(self.http.get(format!("{}{path}", self.base))).await
    }

    /// Sends a body, under a key if one is given: the same key is the same command.
    ///
    /// # Errors
    /// No answer came: whether it counts is not known.
    pub async fn send_json(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: &Value,
    ) -> Result<HttpReply> {
        let method = reqwest::Method::from_bytes(method.as_bytes())?;
        let mut request = self.http.request(method, format!("{}{path}", self.base)).json(body);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.send(request).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<HttpReply> {
        let response = request.send().await?;
        let status = response.status().as_u16();
        let cursor = response.headers().get("x-mishkah-cursor").and_then(|it| it.to_str().ok());
        let cursor = cursor.and_then(|text| {
            let (epoch, sequence) = text.split_once('.')?;
            Some(LogPosition { epoch: epoch.parse().ok()?, sequence: sequence.parse().ok()? })
        });
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(HttpReply { status, body, cursor })
    }

    /// Inserts a record.
    ///
    /// # Errors
    /// No answer came.
    pub async fn insert(
        &self,
        at: &TablePath<'_>,
        key: Option<&str>,
        record: &Value,
    ) -> Result<HttpReply> {
        self.send_json("POST", &at.path(), key, &json!({ "record": record })).await
    }

    /// All rows of a table.
    ///
    /// # Errors
    /// No answer, or no success.
    pub async fn rows(&self, at: &TablePath<'_>) -> Result<Vec<Value>> {
        let body = self.get(&format!("{}?limit=0", at.path())).await?.ok()?;
        let rows = body["rows"].as_array().context("a table's answer has rows")?;
        Ok(rows.clone())
    }

    /// The cluster as this node sees it.
    ///
    /// # Errors
    /// No answer, or no success.
    pub async fn status(&self) -> Result<Value> {
        self.get("/api/cluster/status").await?.ok()
    }

    /// Whether the node serves.
    pub async fn is_ready(&self) -> bool {
        self.get("/readyz").await.is_ok_and(|reply| reply.status == 200)
    }
}

/// A table of a branch:module.
#[derive(Debug, Clone, Copy)]
pub struct TablePath<'a> {
    /// The branch.
    pub branch: &'a str,
    /// The module.
    pub module: &'a str,
    /// The table.
    pub table: &'a str,
}

impl<'a> TablePath<'a> {
    /// A table of a branch's `pos`.
    pub fn pos(branch: &'a str, table: &'a str) -> Self {
        Self { branch, module: "pos", table }
    }

    /// Where its module is found.
    ///
    /// # Panics
    /// If the branch has a name no branch can have.
    pub fn module_path(&self) -> String {
        BranchId::parse(self.branch).expect("a story names branches that can be");
        let branch = self.branch.replace(':', "%3A");
        format!("/api/branches/{branch}/modules/{}", self.module)
    }

    /// Where it is found.
    pub fn path(&self) -> String {
        format!("{}/tables/{}", self.module_path(), self.table)
    }
}
