//! Node client: how the client subcommands speak to a node.

use std::time::Duration;

use actors::status::ClusterStatus;
use reqwest::{Client, StatusCode};

/// A node on this machine or near it answers within this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// One node, by its URL.
pub(super) struct NodeClient {
    url: String,
    client: Client,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NodeClientError {
    #[error("no node answers at {url} ({reason}); is it running? name another with --node URL")]
    Unreachable { url: String, reason: String },
    #[error("what answers at {url} is not a Mishkah node: {reason}")]
    Strange { url: String, reason: String },
    #[error("the node at {url} refused: {reason}")]
    Refused { url: String, reason: String },
}

impl NodeClient {
    /// A node by its URL, or its address alone.
    pub(super) fn new(url: &str) -> Self {
        let url = url.trim_end_matches('/');
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let client = Client::builder().timeout(ANSWER_TIMEOUT).build().unwrap_or_default();
        Self { url, client }
    }

    /// Its URL.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Whether it can serve; what is missing where it says so.
    pub(super) async fn ready(&self) -> Result<(), String> {
        let answer = self.client.get(format!("{}/readyz", self.url)).send().await;
        let answer = answer.map_err(|_| "it does not answer yet".to_owned())?;
        if answer.status() == StatusCode::OK {
            return Ok(());
        }
        let code = answer.status();
        let text = answer.text().await.unwrap_or_default();
        let problem: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        Err(problem["message"].as_str().map_or_else(|| format!("status {code}"), str::to_owned))
    }

    /// Asks it to do something; its answer.
    pub(super) async fn post(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<serde_json::Value, NodeClientError> {
        let unreachable = |error: reqwest::Error| NodeClientError::Unreachable {
            url: self.url.clone(),
            reason: root_cause(&error),
        };
        let request = self.client.post(format!("{}{path}", self.url));
        let request = request.header("content-type", "application/json").body(body.to_string());
        let answer = request.send().await.map_err(unreachable)?;
        let code = answer.status();
        let text = answer.text().await.map_err(unreachable)?;
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        if code.is_success() {
            return Ok(answer);
        }
        let reason =
            answer["message"].as_str().map_or_else(|| format!("status {code}"), str::to_owned);
        Err(NodeClientError::Refused { url: self.url.clone(), reason })
    }

    /// The cluster as it sees it: the text as it came, and read.
    pub(super) async fn status(&self) -> Result<(String, ClusterStatus), NodeClientError> {
        let unreachable = |error: reqwest::Error| NodeClientError::Unreachable {
            url: self.url.clone(),
            reason: root_cause(&error),
        };
        let strange = |reason: String| NodeClientError::Strange { url: self.url.clone(), reason };
        let answer = self.client.get(format!("{}/api/cluster/status", self.url)).send().await;
        let answer = answer.map_err(unreachable)?;
        let code = answer.status();
        let text = answer.text().await.map_err(unreachable)?;
        if code != StatusCode::OK {
            return Err(strange(format!("status {code}")));
        }
        match serde_json::from_str(&text) {
            Ok(status) => Ok((text, status)),
            Err(error) => Err(strange(error.to_string())),
        }
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
