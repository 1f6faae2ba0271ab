//! Cluster: nodes inside this process, on real sockets, for stories that only talk to them.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::{Context, Result};
use model::NodeId;
use node::{CatalogueSource, Config, Node, Sockets};
use tempfile::TempDir;
use tokio::sync::MutexGuard;

use crate::client::Client;
use crate::process_cluster::alone;
use crate::wait::{WaitState, until};

/// Nodes inside this process.
pub struct InProcessCluster {
    nodes: BTreeMap<u64, Node>,
    _home: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl InProcessCluster {
    /// Starts this many nodes with the sample branches and waits until all serve.
    ///
    /// # Errors
    /// They do not come to serve.
    pub async fn start(count: u64) -> Result<Self> {
        let alone = alone().await;
        let home = tempfile::tempdir()?;
        let sockets = (1..=count).map(|id| Ok((id, sockets()?))).collect::<Result<Vec<_>>>()?;
        let peers = sockets
            .iter()
            .map(|(id, sockets)| Ok((NodeId(*id), sockets.peer.local_addr()?.to_string())));
        let peers: BTreeMap<NodeId, String> = peers.collect::<Result<_>>()?;
        let mut nodes = BTreeMap::new();
        for (id, sockets) in sockets {
            let config = Config {
                node: NodeId(id),
                name: format!("node-{id}"),
                peers: peers.clone(),
                listen: sockets.http.local_addr()?,
                peer_listen: sockets.peer.local_addr()?,
                catalogue: CatalogueSource::Sample,
                ..Config::new(home.path().join(format!("node-{id}")))
            };
            let on_fatal = Arc::new(|reason| panic!("a node's disk failed: {reason}"));
            nodes.insert(id, Box::pin(Node::start_on(config, sockets, on_fatal)).await?);
        }
        let cluster = Self { nodes, _home: home, _alone: alone };
        cluster.wait_until_ready().await?;
        Ok(cluster)
    }

    async fn wait_until_ready(&self) -> Result<()> {
        for id in self.ids() {
            let client = self.client(id);
            until(&format!("node {id} serves"), async || {
                WaitState::when(client.is_ready().await, (), || "it does not yet".to_owned())
            })
            .await?;
        }
        Ok(())
    }

    /// The nodes.
    pub fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    /// Where clients reach a node.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn http(&self, node: u64) -> SocketAddr {
        self.nodes.get(&node).expect("a story names its own nodes").http_addr()
    }

    /// A client of a node.
    pub fn client(&self, node: u64) -> Client {
        Client::new(self.http(node))
    }

    /// Stops a node well.
    ///
    /// # Errors
    /// It does not run.
    pub async fn stop(&mut self, node: u64) -> Result<()> {
        self.nodes.remove(&node).context("the node runs")?.stop().await;
        Ok(())
    }

    /// Stops all nodes well. A story that fails may drop them instead.
    pub async fn stop_all(self) {
        for node in self.nodes.into_values() {
            node.stop().await;
        }
    }
}

fn sockets() -> Result<Sockets> {
    let bind = || TcpListener::bind("127.0.0.1:0").context("finding a free port");
    Ok(Sockets { http: bind()?, peer: bind()? })
}
