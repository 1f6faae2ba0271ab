//! Network: one wire from each node to a switch of the storm's own, which loses, delays, doubles
//! and cuts what goes over it. Only in namespaces.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::native_tools::{ControlPage, NativeTools, run};
use crate::history::NodeId;

/// Ports of the switch, as its program counts them.
const PORTS_MAX: usize = 8;
/// Numbers of one direction of one link, as its program reads them.
const NUMBERS_PER_LINK: usize = 6;
/// Larger packets are fewer packets; the wires carry nothing else.
const MTU: &str = "9000";

/// What happens to packets from one to another. The default lets them pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Link {
    /// Packets lost, of a million.
    pub loss_ppm: i64,
    /// How much later each arrives, in microseconds.
    pub delay_us: i64,
    /// Up to how much more, by chance.
    pub jitter_us: i64,
    /// Packets that arrive twice, of a million.
    pub duplicate_ppm: i64,
    /// How much passes in a second; 0 is no limit.
    pub bytes_per_second: i64,
    /// A TCP port to or from which nothing passes; 0 is none.
    pub closed_port: i64,
}

impl Link {
    /// Nothing passes.
    pub const CUT: Self = Self {
        loss_ppm: 1_000_000,
        delay_us: 0,
        jitter_us: 0,
        duplicate_ppm: 0,
        bytes_per_second: 0,
        closed_port: 0,
    };
}

/// The wires and the switch.
#[derive(Debug)]
pub struct Network {
    page: ControlPage,
    nodes: u64,
    switch: Child,
}

impl Network {
    /// Makes a namespace for each node, and the switch between them and this one.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn new(dir: &Path, tools: &NativeTools, nodes: u64, seed: u64) -> Result<Self> {
        ensure!(nodes < PORTS_MAX as u64, "the switch has {} ports for nodes", PORTS_MAX - 1);
        std::fs::create_dir_all("/run/netns")?;
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
        let mut line = String::new();
        let out = switch.stdout.take().context("the switch's output was asked for")?;
        BufReader::new(out).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "the switch did not start");
        for node in 1..=nodes {
            bring_up(&["-n", &format!("n{node}")], "eth0", &address(node))?;
        }
        bring_up(&[], "storm0", "10.77.0.254")?;
        Ok(Self { page, nodes, switch })
    }

    /// Says what happens from one node to another, in this direction alone.
    ///
    /// # Errors
    /// The switch cannot be told.
    pub fn set(&self, from: NodeId, to: NodeId, link: Link) -> Result<()> {
        let port = |node: NodeId| usize::try_from(node - 1).context("a node has a small number");
        let first = (port(from)? * PORTS_MAX + port(to)?) * NUMBERS_PER_LINK;
        let Link { loss_ppm, delay_us, jitter_us, duplicate_ppm, bytes_per_second, closed_port } =
            link;
        let numbers = [loss_ppm, delay_us, jitter_us, duplicate_ppm, bytes_per_second, closed_port];
        for (offset, number) in numbers.into_iter().enumerate() {
            self.page.set(first + offset, number)?;
        }
        Ok(())
    }

    /// Says it of all directions between nodes; those to clients are left as they are.
    ///
    /// # Errors
    /// The switch cannot be told.
    pub fn set_all(&self, link: Link) -> Result<()> {
        for from in 1..=self.nodes {
            for to in (1..=self.nodes).filter(|to| *to != from) {
                self.set(from, to, link)?;
            }
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.switch.kill();
        let _ = self.switch.wait();
    }
}

/// Where a node is on the wires.
pub(super) fn address(node: NodeId) -> String {
    format!("10.77.0.{node}")
}

fn bring_up(namespace: &[&str], device: &str, address: &str) -> Result<()> {
    let ip = |arguments: &[&str]| run(Command::new("ip").args(namespace).args(arguments));
    ip(&["link", "set", "lo", "up"])?;
    ip(&["addr", "add", &format!("{address}/24"), "dev", device])?;
    ip(&["link", "set", device, "mtu", MTU, "up"])?;
    Ok(())
}
