//! Arena: the nodes of a storm as real processes, each with a place on the network and a disk.
//!
//! Every node keeps its address and its disk for the life of the arena. What ends a node is only
//! what a nemesis does to it, or the node itself; the arena starts nothing again by itself.

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
pub use network::{Link, Network};
pub use process::{DiskFault, NodeProcess};

use crate::environment::Environment;
use crate::history::NodeId;

/// Ports of a node in a namespace of its own.
const HTTP_PORT: u16 = 3200;
const PEER_PORT: u16 = 3300;

/// What an arena is made of.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Where.
    pub environment: Environment,
    /// How many nodes.
    pub nodes: u64,
    /// The program of a node.
    pub binary: PathBuf,
    /// A folder for everything, empty.
    pub work_dir: PathBuf,
    /// For what the switch leaves to chance.
    pub seed: u64,
    /// A broken build's bug, by name.
    pub mutant: Option<String>,
}

/// Nodes as processes.
#[derive(Debug)]
pub struct TestCluster {
    /// The nodes; number n stands at n - 1.
    pub processes: Vec<NodeProcess>,
    /// The wires, in namespaces.
    pub network: Option<Network>,
    /// Where it is.
    pub environment: Environment,
    tools: NativeTools,
}

impl TestCluster {
    /// Makes wires, disks and folders; starts nothing yet.
    ///
    /// # Errors
    /// The machine lacks something, which is named.
    pub fn new(config: &ClusterConfig) -> Result<Self> {
        let tools = NativeTools::build(&config.work_dir)?;
        let network = match config.environment {
            Environment::Namespaces => Some(
                Network::new(&config.work_dir, &tools, config.nodes, config.seed)
                    .context("making the network")?,
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
                    Disk::new(&config.work_dir, &format!("n{node}")).context("making a disk")?,
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

    /// The nodes' numbers.
    pub fn ids(&self) -> Vec<NodeId> {
        self.processes.iter().map(|process| process.id).collect()
    }

    /// A node.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn process(&mut self, node: NodeId) -> &mut NodeProcess {
        let index = usize::try_from(node - 1).expect("a test cluster is small");
        &mut self.processes[index]
    }

    /// The wires.
    ///
    /// # Errors
    /// There are none on loopback.
    pub fn network(&self) -> Result<&Network> {
        self.network.as_ref().context("on loopback there are no wires to cut")
    }

    /// Cuts the power of these nodes' disks at once, ends the nodes, and gives the power back.
    ///
    /// # Errors
    /// A node has no disk of its own, or the cut was none.
    pub fn cut_power(&mut self, nodes: &[NodeId]) -> Result<()> {
        let targets = || self.processes.iter().filter(|process| nodes.contains(&process.id));
        // All have power again, whatever is wrong with one.
        let cut_results: Vec<Result<()>> =
            targets().map(|target| target.disk()?.cut(&self.tools)).collect();
        let kill_results: Vec<Result<()>> =
            nodes.iter().map(|node| self.process(*node).kill()).collect();
        let restore_results: Vec<Result<()>> =
            nodes.iter().map(|node| self.process(*node).disk()?.restore()).collect();
        cut_results.into_iter().chain(kill_results).chain(restore_results).collect()
    }

    /// Starts every node that does not run, and waits until all serve.
    ///
    /// # Errors
    /// They do not come to serve within the time.
    pub async fn start_all(&mut self, timeout: Duration) -> Result<()> {
        for process in &mut self.processes {
            if !process.is_running() {
                process.start()?;
            }
        }
        self.wait_until_ready(timeout).await
    }

    /// Waits until all nodes serve.
    ///
    /// # Errors
    /// A node ends instead, or the time is over.
    pub async fn wait_until_ready(&mut self, timeout: Duration) -> Result<()> {
        let end = Instant::now() + timeout;
        let client = crate::client::http_client()?;
        for process in &mut self.processes {
            loop {
                if !process.is_running() {
                    bail!("node {} ended instead of serving:\n{}", process.id, process.log_tail());
                }
                if crate::client::is_ready(&client, &process.http).await {
                    break;
                }
                if Instant::now() > end {
                    bail!(
                        "node {} does not serve after {timeout:?}:\n{}",
                        process.id,
                        process.log_tail()
                    );
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Processor time of all nodes since the beginning, in milliseconds.
    pub fn cpu_ms(&mut self) -> u64 {
        self.processes.iter_mut().map(NodeProcess::cpu_ms).sum()
    }

    /// What all nodes hold on their disks, in MiB, by what it is for.
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

/// Each node's number, where clients reach it, and where peers do.
fn addresses(config: &ClusterConfig) -> Result<Vec<(NodeId, String, String)>> {
    let nodes = 1..=config.nodes;
    if config.environment == Environment::Namespaces {
        let at = |node, port| format!("{}:{port}", network::address(node));
        return Ok(nodes.map(|node| (node, at(node, HTTP_PORT), at(node, PEER_PORT))).collect());
    }
    // All are held until all are known, so that none is given twice.
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
    push_option("cluster", "storm".to_owned());
    push_option("node", node.to_string());
    push_option("peers", peers.to_owned());
    push_option("data", data.display().to_string());
    push_option("listen", http.to_owned());
    // Few, so that each is written to much; and checkpoints often, so that many are cut short.
    push_option("partitions", "4".to_owned());
    push_option("checkpoint-log-mib", "1".to_owned());
    if config.environment == Environment::Namespaces {
        arguments.push("--open".to_owned());
    }
    arguments
}
