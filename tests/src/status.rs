//! Status: the cluster as one node sees it, with the questions stories ask.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::client::Client;

/// The answer of `GET /api/cluster/status`.
#[derive(Debug, Clone)]
pub struct Status(pub Value);

impl Status {
    /// Asks a node.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn of(node: &Client) -> Result<Self> {
        Ok(Self(node.status().await?))
    }

    /// A list of the answer.
    pub fn list(&self, name: &str) -> &[Value] {
        self.0[name].as_array().map_or(&[], Vec::as_slice)
    }

    /// Who leads a branch:module, if the node knows.
    pub fn leader_of(&self, branch: &str, module: &str) -> Option<u64> {
        self.branch(branch, module)?["leader"].as_u64()
    }

    fn branch(&self, branch: &str, module: &str) -> Option<&Value> {
        self.list("branches").iter().find(|b| b["branch"] == branch && b["module"] == module)
    }

    /// The partition of a branch:module.
    ///
    /// # Errors
    /// The branch is not listed.
    pub fn partition_of(&self, branch: &str, module: &str) -> Result<&Value> {
        let listed = self.branch(branch, module).context("the branch is listed")?;
        let wanted = &listed["partition"];
        let found = self.list("partitions").iter().find(|partition| partition["id"] == *wanted);
        found.context("the branch's partition is listed")
    }

    /// How many entries a node's replica of a branch:module lacks, if a leader said.
    pub fn lag_of(&self, branch: &str, module: &str, node: u64) -> Option<u64> {
        let partition = self.partition_of(branch, module).ok()?;
        let replicas = partition["replicas"].as_array()?;
        replicas.iter().find(|replica| replica["node"].as_u64() == Some(node))?["lag"].as_u64()
    }

    /// How many partitions each of these nodes leads.
    pub fn leads(&self, nodes: &[u64]) -> Vec<usize> {
        let leads = |node: &u64| {
            self.list("partitions").iter().filter(|p| p["leader"].as_u64() == Some(*node)).count()
        };
        nodes.iter().map(leads).collect()
    }

    /// Partitions whose leader is another than the preferred one, or unknown.
    pub fn led_elsewhere(&self) -> Vec<u64> {
        let elsewhere = |p: &&Value| p["leader"].as_u64() != p["preferred"].as_u64();
        self.list("partitions").iter().filter(elsewhere).filter_map(|p| p["id"].as_u64()).collect()
    }
}
