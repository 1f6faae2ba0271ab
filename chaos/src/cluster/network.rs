//! Network: a link from each node to a switch of the run's own, which drops, delays, duplicates and
//! cuts packets. Only in namespaces.
//!
//! Promise: each direction between two nodes is controlled by itself. Links between nodes and
//! clients always work: what a client sees comes from the nodes.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::native_tools::{ControlPage, NativeTools, run};
use history::NodeId;

/// Ports of the switch; `PORTS_MAX` in `native/tool.c`.
const PORTS_MAX: usize = 8;
/// Numbers on the control page for one direction of one link; `struct link` in `native/tool.c`.
const NUMBERS_PER_LINK: usize = 6;
/// The largest packet, in bytes. Larger packets are fewer packets, which costs the switch less
/// time.
const MTU: &str = "9000";

/// What the switch does to packets from one node to another. The default forwards them unchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkQuality {
    /// Packets dropped, of a million.
    pub loss_ppm: i64,
    /// Delay of each packet, in microseconds.
    pub delay_us: i64,
    /// Largest random addition to the delay, in microseconds.
    pub jitter_us: i64,
    /// Packets duplicated, of a million.
    pub duplicate_ppm: i64,
    /// Bandwidth, in bytes a second; 0 is no limit.
    pub bytes_per_second: i64,
    /// A TCP port to and from which packets are dropped; 0 is none.
    pub closed_port: i64,
}

impl LinkQuality {
    /// Drops every packet.
    pub const CUT: Self = Self {
        loss_ppm: 1_000_000,
        delay_us: 0,
        jitter_us: 0,
        duplicate_ppm: 0,
        bytes_per_second: 0,
        closed_port: 0,
    };
}

/// The links and the switch.
#[derive(Debug)]
pub struct TestNetwork {
    page: ControlPage,
    nodes: u64,
    switch: Child,
}

impl TestNetwork {
    /// Creates a namespace for each node and starts the switch between them and this namespace.
    ///
    /// # Errors
    /// There are too many nodes, or the kernel refuses a mount, a namespace or a device.
    pub(super) fn new(dir: &Path, tools: &NativeTools, nodes: u64, seed: u64) -> Result<Self> {
        ensure!(nodes < PORTS_MAX as u64, "the switch has {} ports for nodes", PORTS_MAX - 1);
        std::fs::create_dir_all("/run/netns")?;
        // A mount of this run's own: the names n1, n2 … may exist on the machine.
        run(Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run/netns"]))?;
        for node in 1..=nodes {
            run(Command::new("ip").args(["netns", "add", &format!("n{node}")]))?;
        }
        let page = ControlPage::new(dir.join("switch.page"))?;
        let mut switch = Command::new(&tools.tool)
            .arg("switch")
            .arg(&page.path)
            .args([seed.to_string(), nodes.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        // The switch creates the devices; they can be given addresses only after it says so.
        let mut line = String::new();
        let out = switch.stdout.take().context("the switch's output was asked for")?;
        BufReader::new(out).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "the switch did not start");
        for node in 1..=nodes {
            bring_up(&["-n", &format!("n{node}")], "eth0", &address(node))?;
        }
        bring_up(&[], "chaos0", "10.77.0.254")?;
        Ok(Self { page, nodes, switch })
    }

    /// Sets what happens to packets from one node to another, in this direction only.
    ///
    /// # Errors
    /// The control page cannot be written.
    pub fn set(&self, from: NodeId, to: NodeId, link: LinkQuality) -> Result<()> {
        let port = |node: NodeId| usize::try_from(node - 1).context("a node has a small number");
        let first = (port(from)? * PORTS_MAX + port(to)?) * NUMBERS_PER_LINK;
        let LinkQuality {
            loss_ppm,
            delay_us,
            jitter_us,
            duplicate_ppm,
            bytes_per_second,
            closed_port,
        } = link;
        // In the order of `struct link` in `native/tool.c`.
        let numbers = [loss_ppm, delay_us, jitter_us, duplicate_ppm, bytes_per_second, closed_port];
        for (offset, number) in numbers.into_iter().enumerate() {
            self.page.set(first + offset, number)?;
        }
        Ok(())
    }

    /// Sets it for every direction between nodes; links to clients are left as they are.
    ///
    /// # Errors
    /// The control page cannot be written.
    pub fn set_all(&self, link: LinkQuality) -> Result<()> {
        for from in 1..=self.nodes {
            for to in (1..=self.nodes).filter(|to| *to != from) {
                self.set(from, to, link)?;
            }
        }
        Ok(())
    }
}

impl Drop for TestNetwork {
    fn drop(&mut self) {
        // It fails if the switch has exited already, which is what is wanted.
        let _ = self.switch.kill();
        let _ = self.switch.wait();
    }
}

/// The address of a node in its namespace.
pub(super) fn address(node: NodeId) -> String {
    format!("10.77.0.{node}")
}

/// Gives a device its address and size, and enables it and loopback, in one namespace.
fn bring_up(namespace: &[&str], device: &str, address: &str) -> Result<()> {
    let ip = |arguments: &[&str]| run(Command::new("ip").args(namespace).args(arguments));
    ip(&["link", "set", "lo", "up"])?;
    ip(&["addr", "add", &format!("{address}/24"), "dev", device])?;
    ip(&["link", "set", device, "mtu", MTU, "up"])?;
    Ok(())
}
