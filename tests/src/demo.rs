//! Demo: `mishkah demo` as a newcomer starts it, with free ports and a folder of its own.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::sync::MutexGuard;

use crate::binary::mishkah;
use crate::client::Client;
use crate::process::children;
use crate::process_cluster::alone;
use crate::wait::{WaitState, until};

/// How the lines to try begin: by then the demo has seen its cluster form.
const QUICKSTART: &str = "Try it";
/// How often another place for the ports is tried.
const PLACES_TRIED: usize = 100;

/// A running demo.
pub struct Demo {
    child: Child,
    nodes: u16,
    port: u16,
    /// How often it was started: each time it says what to try, once.
    starts: usize,
    home: TempDir,
    /// What its nodes serve to browsers, if anything.
    files: Option<PathBuf>,
    _alone: MutexGuard<'static, ()>,
}

impl Demo {
    /// Starts a demo and waits until every node serves.
    ///
    /// # Errors
    /// It ends instead, or takes too long.
    pub async fn start(nodes: u16) -> Result<Self> {
        Self::start_serving(nodes, None).await
    }

    /// Starts a demo whose nodes also serve the files of a folder.
    ///
    /// # Errors
    /// It ends instead, or takes too long.
    pub async fn start_with_files(nodes: u16, files: &Path) -> Result<Self> {
        Self::start_serving(nodes, Some(files.to_owned())).await
    }

    async fn start_serving(nodes: u16, files: Option<PathBuf>) -> Result<Self> {
        let alone = alone().await;
        let home = tempfile::tempdir()?;
        let port = free_row(nodes * 2)?;
        let child = launch(nodes, port, home.path(), files.as_deref())?;
        let mut demo = Self { child, nodes, port, starts: 1, home, files, _alone: alone };
        demo.wait_until_ready().await?;
        Ok(demo)
    }

    /// Starts it again, after it was stopped, where its data is.
    ///
    /// # Errors
    /// It ends instead, or takes too long.
    pub async fn start_again(&mut self) -> Result<()> {
        self.child = launch(self.nodes, self.port, self.home.path(), self.files.as_deref())?;
        self.starts += 1;
        self.wait_until_ready().await
    }

    /// Waits until every node serves.
    ///
    /// # Errors
    /// The demo ends instead, or takes too long.
    pub async fn wait_until_ready(&mut self) -> Result<()> {
        for node in self.ids() {
            let client = self.client(node);
            let child = &mut self.child;
            let ended = until(&format!("node {node} of the demo serves"), async || {
                if let Ok(Some(ended)) = child.try_wait() {
                    return WaitState::Done(Some(ended));
                }
                WaitState::when(client.is_ready().await, None, || "it does not yet".to_owned())
            })
            .await?;
            if let Some(ended) = ended {
                bail!("the demo ended ({ended}) before it served:\n{}", self.said());
            }
        }
        until("the demo has said what to try", async || {
            let is_printed = self.said().matches(QUICKSTART).count() == self.starts;
            WaitState::when(is_printed, (), || self.said())
        })
        .await
    }

    /// Its nodes.
    pub fn ids(&self) -> Vec<u64> {
        (1..=u64::from(self.nodes)).collect()
    }

    /// Where clients reach a node.
    pub fn http(&self, node: u64) -> SocketAddr {
        let at = u16::try_from(node - 1).expect("a demo is small");
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port + at))
    }

    /// A client of a node.
    pub fn client(&self, node: u64) -> Client {
        Client::new(self.http(node))
    }

    /// The processes of its nodes, in order.
    ///
    /// # Errors
    /// One of them does not run.
    pub fn pids(&self) -> Result<Vec<u32>> {
        let children = children(self.child.id())?;
        let pid = |node: u64| {
            let port = self.http(node).port().to_string();
            let mine = children.iter().find(|(_, line)| line.contains(&port));
            mine.map(|(pid, _)| *pid).with_context(|| format!("node {node} runs on port {port}"))
        };
        self.ids().into_iter().map(pid).collect()
    }

    /// Kills the process of a node, as by accident.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&self, node: u64) -> Result<()> {
        let at = usize::try_from(node - 1)?;
        let pid = Pid::from_raw(i32::try_from(self.pids()?[at])?).context("a process has an id")?;
        Ok(kill_process(pid, Signal::KILL)?)
    }

    /// Stops it as Ctrl-C does, and waits until it and its nodes are gone.
    ///
    /// # Errors
    /// It ends otherwise than well, or leaves a node behind.
    pub async fn stop(&mut self) -> Result<()> {
        let nodes = self.pids()?;
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        let child = &mut self.child;
        let ended = until("the demo has stopped", async || match child.try_wait() {
            Ok(Some(ended)) => WaitState::Done(ended),
            other => WaitState::NotYet(format!("{other:?}")),
        })
        .await?;
        if !ended.success() {
            bail!("the demo stopped with {ended}:\n{}", self.said());
        }
        match nodes.iter().find(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
            Some(left) => bail!("the demo left process {left} behind"),
            None => Ok(()),
        }
    }

    /// What it printed so far.
    pub fn said(&self) -> String {
        fs::read_to_string(self.home.path().join("said")).unwrap_or_default()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Its nodes end with it when it is asked; killed, it could not take them along.
        // It may be gone already; then there is nobody to ask.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

fn launch(nodes: u16, port: u16, home: &Path, files: Option<&Path>) -> Result<Child> {
    let said = File::options().create(true).append(true).open(home.join("said"))?;
    let mut command = mishkah()?;
    command.args(["demo", "--nodes", &nodes.to_string(), "--port", &port.to_string()]);
    command.arg("--data").arg(home.join("data"));
    if let Some(files) = files {
        command.arg("--static").arg(files);
    }
    command.stdin(Stdio::null()).stdout(Stdio::from(said.try_clone()?)).stderr(Stdio::from(said));
    command.spawn().context("starting the demo")
}

/// The first of so many free ports in a row.
fn free_row(count: u16) -> Result<u16> {
    for _ in 0..PLACES_TRIED {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let Some(end) = first.checked_add(count) else { continue };
        if (first..end).all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
            return Ok(first);
        }
    }
    bail!("no {count} free ports in a row")
}
