//! Test cluster: real nodes as processes, in namespaces each with a network interface and a disk of
//! its own.
//!
//! Promise: a node keeps its address and its disk as long as the cluster exists. Only the nemesis
//! or the node itself ends a node.
//! Refused: a restart that no caller requested. A node that exited stays down until it is started.

mod disk;
mod native_tools;
mod network;
mod process;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep};

pub use disk::Disk;
use native_tools::{ControlPage, NativeTools};
pub use network::{LinkQuality, TestNetwork};
pub use process::{DiskFault, NodeProcess};

use crate::environment::Environment;
use history::NodeId;

/// The port for clients of a node in its own namespace.
const HTTP_PORT: u16 = 3200;
/// The port for peers of a node in its own namespace.
const PEER_PORT: u16 = 3300;

/// What a test cluster consists of.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Where the nodes run.
    pub environment: Environment,
    /// How many nodes, from 1.
    pub nodes: u64,
    /// The program of the nodes.
    pub binary: PathBuf,
    /// An empty directory for all files of the run.
    pub work_dir: PathBuf,
    /// The seed of the switch's random packet loss, delay and duplication.
    pub seed: u64,
    /// The mutant that the nodes activate, by name.
    pub mutant: Option<String>,
}

/// Nodes as processes, and the network between them.
#[derive(Debug)]
pub struct TestCluster {
    /// The nodes; node n is at index n - 1.
    pub processes: Vec<NodeProcess>,
    /// The network, in namespaces; `None` on loopback.
    pub network: Option<TestNetwork>,
    /// Where the nodes run.
    pub environment: Environment,
    tools: NativeTools,
}

impl TestCluster {
    /// Creates the network, the disks and the directories. Starts no node.
    ///
    /// # Errors
    /// The machine lacks a program or a permission, which the error names.
    pub fn new(config: &ClusterConfig) -> Result<Self> {
        let tools = NativeTools::build(&config.work_dir)?;
        let network = match config.environment {
            Environment::Namespaces => Some(
                TestNetwork::new(&config.work_dir, &tools, config.nodes, config.seed)
                    .context("creating the network")?,
            ),
            Environment::Loopback => None,
        };
        let addresses = addresses(config)?;
        let peers: Vec<String> =
            addresses.iter().map(|(node, _, peer)| format!("{node}={peer}")).collect();
        let peers = peers.join(",");
        let mut processes = Vec::new();
        for (node, http, _) in addresses {
            let disk = match config.environment {
                Environment::Namespaces => Some(
                    Disk::new(&config.work_dir, &format!("n{node}")).context("creating a disk")?,
                ),
                Environment::Loopback => None,
            };
            let dir = disk.as_ref().map_or(config.work_dir.as_path(), Disk::path);
            let data = dir.join(format!("data-{node}"));
            let page = ControlPage::new(config.work_dir.join(format!("n{node}.page")))?;
            let log = config.work_dir.join(format!("n{node}.log"));
            let arguments = arguments(config, node, &http, &peers, &data);
            let preload = tools.preload.clone();
            let mutant = config.mutant.clone();
            processes.push(NodeProcess::new(process::NodeConfig {
                id: node,
                http,
                data,
                disk,
                page,
                log,
                binary: config.binary.clone(),
                arguments,
                preload,
                mutant,
            }));
        }
        Ok(Self { processes, network, environment: config.environment, tools })
    }

    /// The numbers of all nodes.
    pub fn ids(&self) -> Vec<NodeId> {
        self.processes.iter().map(|process| process.id).collect()
    }

    /// The process of a node.
    ///
    /// # Panics
    /// If the cluster has no such node.
    pub fn process(&mut self, node: NodeId) -> &mut NodeProcess {
        let index = usize::try_from(node - 1).expect("a test cluster is small");
        &mut self.processes[index]
    }

    /// The network.
    ///
    /// # Errors
    /// On loopback there is none.
    pub fn network(&self) -> Result<&TestNetwork> {
        self.network.as_ref().context("on loopback there are no links to cut")
    }

    /// Cuts the power of these nodes: stops their disks, kills the nodes, and mounts the disks
    /// again with what survived. Starts no node.
    ///
    /// # Errors
    /// A node has no disk of its own, or a disk did not lose what it should have lost.
    pub fn cut_power(&mut self, nodes: &[NodeId]) -> Result<()> {
        let targets = || self.processes.iter().filter(|process| nodes.contains(&process.id));
        // The disks stop before the processes end: a dying process must not write anything out.
        // Each step runs for all nodes even if it fails for one, so that every disk is mounted
        // again.
        let cut_results: Vec<Result<()>> =
            targets().map(|target| target.disk()?.cut(&self.tools)).collect();
        let kill_results: Vec<Result<()>> =
            nodes.iter().map(|node| self.process(*node).kill()).collect();
        let restore_results: Vec<Result<()>> =
            nodes.iter().map(|node| self.process(*node).disk()?.restore()).collect();
        cut_results.into_iter().chain(kill_results).chain(restore_results).collect()
    }

    /// Starts every node that does not run, and waits until all are ready.
    ///
    /// # Errors
    /// A node cannot be started, exits, or is not ready within the timeout.
    pub async fn start_all(&mut self, timeout: Duration) -> Result<()> {
        for process in &mut self.processes {
            if !process.is_running() {
                process.start()?;
            }
        }
        self.wait_until_ready(timeout).await
    }

    /// Waits until all nodes are ready.
    ///
    /// # Errors
    /// A node exits, or is not ready within the timeout.
    pub async fn wait_until_ready(&mut self, timeout: Duration) -> Result<()> {
        let end = Instant::now() + timeout;
        let client = crate::client::http_client()?;
        for process in &mut self.processes {
            loop {
                if !process.is_running() {
                    bail!(
                        "node {} exited instead of becoming ready:\n{}",
                        process.id,
                        process.log_tail()
                    );
                }
                if crate::client::is_ready(&client, &process.http).await {
                    break;
                }
                if Instant::now() > end {
                    bail!(
                        "node {} is not ready after {timeout:?}:\n{}",
                        process.id,
                        process.log_tail()
                    );
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Processor time of all nodes since they were first started, in milliseconds.
    pub fn cpu_ms(&mut self) -> u64 {
        self.processes.iter_mut().map(NodeProcess::cpu_ms).sum()
    }

    /// Disk space of all nodes, in MiB, by subdirectory.
    pub fn disk_mib(&self) -> BTreeMap<&'static str, u64> {
        let size_of = |part: &'static str| {
            let bytes = |process: &NodeProcess| {
                disk::allocated_bytes(&process.data.join("raft").join(part))
            };
            (part, self.processes.iter().map(bytes).sum::<u64>() >> 20)
        };
        ["log", "checkpoints", "store"].map(size_of).into()
    }
}

/// Each node's number, its address for clients, and its address for peers.
fn addresses(config: &ClusterConfig) -> Result<Vec<(NodeId, String, String)>> {
    let nodes = 1..=config.nodes;
    if config.environment == Environment::Namespaces {
        let at = |node, port| format!("{}:{port}", network::address(node));
        return Ok(nodes.map(|node| (node, at(node, HTTP_PORT), at(node, PEER_PORT))).collect());
    }
    // All listeners stay open until every port is known: the kernel gives no port twice then.
    let listeners: Vec<(TcpListener, TcpListener)> = nodes
        .clone()
        .map(|_| Ok((TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?)))
        .collect::<Result<_>>()
        .context("finding free ports")?;
    nodes
        .zip(&listeners)
        .map(|(node, (http, peer))| {
            Ok((node, http.local_addr()?.to_string(), peer.local_addr()?.to_string()))
        })
        .collect()
}

/// The command line of one node.
fn arguments(
    config: &ClusterConfig,
    node: NodeId,
    http: &str,
    peers: &str,
    data: &Path,
) -> Vec<String> {
    let mut arguments = vec!["start".to_owned()];
    let mut push_option =
        |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    push_option("cluster", "chaos".to_owned());
    push_option("node", node.to_string());
    push_option("peers", peers.to_owned());
    push_option("data", data.display().to_string());
    push_option("listen", http.to_owned());
    // Few partitions, so that each receives many writes, and small checkpoints, so that faults
    // interrupt many of them.
    push_option("partitions", "4".to_owned());
    push_option("checkpoint-log-mib", "1".to_owned());
    if config.environment == Environment::Namespaces {
        // A node refuses an address other than loopback without it.
        arguments.push("--open".to_owned());
    }
    arguments
}
