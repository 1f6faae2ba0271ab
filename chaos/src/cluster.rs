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
pub use process::{Illness, NodeProcess};

use crate::environment::Environment;
use crate::history::NodeId;

/// Ports of a node in a namespace of its own.
const HTTP_PORT: u16 = 3200;
const PEER_PORT: u16 = 3300;

/// What an arena is made of.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Where.
    pub ground: Environment,
    /// How many nodes.
    pub nodes: u64,
    /// The program of a node.
    pub binary: PathBuf,
    /// A folder for everything, empty.
    pub work: PathBuf,
    /// For what the switch leaves to chance.
    pub seed: u64,
    /// A broken build's bug, by name.
    pub mutant: Option<String>,
}

/// Nodes as processes.
#[derive(Debug)]
pub struct TestCluster {
    /// The nodes; number n stands at n - 1.
    pub members: Vec<NodeProcess>,
    /// The wires, in namespaces.
    pub network: Option<Network>,
    /// Where it is.
    pub ground: Environment,
    tools: NativeTools,
}

impl TestCluster {
    /// Makes wires, disks and folders; starts nothing yet.
    ///
    /// # Errors
    /// The machine lacks something, which is named.
    pub fn raise(plan: &ClusterConfig) -> Result<Self> {
        let tools = NativeTools::build(&plan.work)?;
        let network = match plan.ground {
            Environment::Namespaces => Some(
                Network::raise(&plan.work, &tools, plan.nodes, plan.seed)
                    .context("making the network")?,
            ),
            Environment::Loopback => None,
        };
        let addresses = addresses(plan)?;
        let peers: Vec<String> =
            addresses.iter().map(|(node, _, peer)| format!("{node}={peer}")).collect();
        let peers = peers.join(",");
        let mut members = Vec::new();
        for (node, http, _) in addresses {
            let disk = match plan.ground {
                Environment::Namespaces => {
                    Some(Disk::new(&plan.work, &format!("n{node}")).context("making a disk")?)
                }
                Environment::Loopback => None,
            };
            let folder = disk.as_ref().map_or(plan.work.as_path(), Disk::path);
            let data = folder.join(format!("data-{node}"));
            let page = ControlPage::new(plan.work.join(format!("n{node}.page")))?;
            let log = plan.work.join(format!("n{node}.log"));
            let arguments = arguments(plan, node, &http, &peers, &data);
            let preload = tools.preload.clone();
            let mutant = plan.mutant.clone();
            members.push(NodeProcess::new(process::NodeConfig {
                id: node,
                http,
                data,
                disk,
                page,
                log,
                binary: plan.binary.clone(),
                arguments,
                preload,
                mutant,
            }));
        }
        Ok(Self { members, network, ground: plan.ground, tools })
    }

    /// The nodes' numbers.
    pub fn ids(&self) -> Vec<NodeId> {
        self.members.iter().map(|member| member.id).collect()
    }

    /// A node.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn member(&mut self, node: NodeId) -> &mut NodeProcess {
        let at = usize::try_from(node - 1).expect("an arena is small");
        &mut self.members[at]
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
        let struck = || self.members.iter().filter(|member| nodes.contains(&member.id));
        // All have power again, whatever is wrong with one.
        let cut: Vec<Result<()>> = struck().map(|one| one.disk()?.cut(&self.tools)).collect();
        let killed: Vec<Result<()>> = nodes.iter().map(|node| self.member(*node).kill()).collect();
        let restored: Vec<Result<()>> =
            nodes.iter().map(|node| self.member(*node).disk()?.restore()).collect();
        cut.into_iter().chain(killed).chain(restored).collect()
    }

    /// Starts every node that does not run, and waits until all serve.
    ///
    /// # Errors
    /// They do not come to serve within the time.
    pub async fn start_all(&mut self, within: Duration) -> Result<()> {
        for member in &mut self.members {
            if !member.is_running() {
                member.start()?;
            }
        }
        self.wait_until_ready(within).await
    }

    /// Waits until all nodes serve.
    ///
    /// # Errors
    /// A node ends instead, or the time is over.
    pub async fn wait_until_ready(&mut self, within: Duration) -> Result<()> {
        let end = Instant::now() + within;
        let client = crate::client::plain()?;
        for member in &mut self.members {
            loop {
                if !member.is_running() {
                    bail!("node {} ended instead of serving:\n{}", member.id, member.last_words());
                }
                if crate::client::is_ready(&client, &member.http).await {
                    break;
                }
                if Instant::now() > end {
                    bail!(
                        "node {} does not serve after {within:?}:\n{}",
                        member.id,
                        member.last_words()
                    );
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Processor time of all nodes since the beginning, in milliseconds.
    pub fn cpu_ms(&mut self) -> u64 {
        self.members.iter_mut().map(NodeProcess::cpu_ms).sum()
    }

    /// What all nodes hold on their disks, in MiB, by what it is for.
    pub fn disk_mib(&self) -> BTreeMap<&'static str, u64> {
        let of = |part: &'static str| {
            let bytes = |member: &NodeProcess| disk::bytes(&member.data.join("raft").join(part));
            (part, self.members.iter().map(bytes).sum::<u64>() >> 20)
        };
        ["log", "checkpoints", "store"].map(of).into()
    }
}

/// Each node's number, where clients reach it, and where peers do.
fn addresses(plan: &ClusterConfig) -> Result<Vec<(NodeId, String, String)>> {
    let nodes = 1..=plan.nodes;
    if plan.ground == Environment::Namespaces {
        let at = |node, port| format!("{}:{port}", network::address(node));
        return Ok(nodes.map(|node| (node, at(node, HTTP_PORT), at(node, PEER_PORT))).collect());
    }
    // All are held until all are known, so that none is given twice.
    let held: Vec<(TcpListener, TcpListener)> = nodes
        .clone()
        .map(|_| Ok((TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?)))
        .collect::<Result<_>>()
        .context("finding free ports")?;
    nodes
        .zip(&held)
        .map(|(node, (http, peer))| {
            Ok((node, http.local_addr()?.to_string(), peer.local_addr()?.to_string()))
        })
        .collect()
}

fn arguments(
    plan: &ClusterConfig,
    node: NodeId,
    http: &str,
    peers: &str,
    data: &Path,
) -> Vec<String> {
    let mut words = vec!["start".to_owned()];
    let mut say = |name: &str, value: String| words.extend([format!("--{name}"), value]);
    say("cluster", "storm".to_owned());
    say("node", node.to_string());
    say("peers", peers.to_owned());
    say("data", data.display().to_string());
    say("listen", http.to_owned());
    // Few, so that each is written to much; and checkpoints often, so that many are cut short.
    say("partitions", "4".to_owned());
    say("checkpoint-log-mib", "1".to_owned());
    if plan.ground == Environment::Namespaces {
        words.push("--open".to_owned());
    }
    words
}
