//! Process cluster: nodes as processes of their own, to be stopped, killed and started again.
//!
//! Every node keeps its addresses and its data directory for the life of the cluster. Only one
//! cluster runs at a time, of processes or not, in this process: three nodes are enough for a small
//! machine. At its end a cluster prints the end of each node's log, which is shown if the story
//! failed.

use std::fs::{self, OpenOptions};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

use crate::binary::{call, mishkah};
use crate::client::Client;
use crate::status::Status;
use crate::wait::{WaitState, until};

/// Held by whoever runs nodes.
static ALONE: Mutex<()> = Mutex::const_new(());
/// Lines of each node's log shown when a story fails.
const LOG_LINES_SHOWN: usize = 40;

/// Waits for the right to run nodes.
pub async fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().await
}

/// What a node is given besides its place.
#[derive(Debug, Clone)]
pub enum Contents {
    /// The sample branches.
    Sample,
    /// A data directory of the original.
    Original(PathBuf),
}

/// Nodes as processes.
pub struct ProcessCluster {
    members: Vec<ClusterMember>,
    contents: Contents,
    settings: Vec<String>,
    file_limit: Option<u32>,
    is_quiet: bool,
    home: TempDir,
    _alone: MutexGuard<'static, ()>,
}

struct ClusterMember {
    id: u64,
    http: SocketAddr,
    peer: SocketAddr,
    data: PathBuf,
    child: Option<Child>,
    /// Another build than the others run.
    build: Option<PathBuf>,
}

impl ProcessCluster {
    /// Starts this many nodes with the sample branches and waits until all serve.
    ///
    /// # Errors
    /// They do not come to serve.
    pub async fn start(nodes: usize) -> Result<Self> {
        let mut cluster = Self::plan(nodes, Contents::Sample).await?;
        cluster.start_all().await?;
        Ok(cluster)
    }

    /// Chooses addresses and folders; starts nothing yet.
    ///
    /// # Errors
    /// No folder, or no free ports.
    pub async fn plan(nodes: usize, contents: Contents) -> Result<Self> {
        let alone = alone().await;
        let home = tempfile::tempdir()?;
        let ports = free_addresses(nodes * 2)?;
        let members = (0..nodes)
            .map(|at| ClusterMember {
                id: at as u64 + 1,
                http: ports[at],
                peer: ports[nodes + at],
                data: home.path().join(format!("node-{}", at + 1)),
                child: None,
                build: None,
            })
            .collect();
        Ok(Self {
            members,
            contents,
            settings: Vec::new(),
            file_limit: None,
            is_quiet: false,
            home,
            _alone: alone,
        })
    }

    /// Puts a node's data elsewhere. Before it is started.
    pub fn put_data(&mut self, node: u64, data: &Path) {
        self.member_mut(node).data = data.to_owned();
    }

    /// Gives a node another build, from its next start on; `None`: the one the others run.
    pub fn install(&mut self, node: u64, build: Option<&Path>) {
        self.member_mut(node).build = build.map(Path::to_owned);
    }

    /// Prints no logs at the end: for programs that print what they measured.
    pub fn keep_quiet(&mut self) {
        self.is_quiet = true;
    }

    /// Tells every node this too, from its next start on.
    pub fn tell(&mut self, setting: &str, value: impl ToString) {
        self.settings.extend([setting.to_owned(), value.to_string()]);
    }

    /// Lets every node have so many open files, from its next start on.
    pub fn limit_files(&mut self, most: u32) {
        self.file_limit = Some(most);
    }

    /// What a node has logged since it first started.
    pub fn logged(&self, node: u64) -> String {
        fs::read_to_string(self.log(node)).unwrap_or_default()
    }

    /// A node's data directory.
    pub fn data(&self, node: u64) -> &Path {
        &self.member(node).data
    }

    /// The nodes, running or not.
    pub fn ids(&self) -> Vec<u64> {
        self.members.iter().map(|member| member.id).collect()
    }

    /// Where clients reach a node.
    pub fn http(&self, node: u64) -> SocketAddr {
        self.member(node).http
    }

    /// A client of a node.
    pub fn client(&self, node: u64) -> Client {
        Client::new(self.http(node))
    }

    /// Clients of these nodes.
    pub fn clients(&self, nodes: &[u64]) -> Vec<Client> {
        nodes.iter().map(|node| self.client(*node)).collect()
    }

    /// A node's process.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid(&self, node: u64) -> Result<u32> {
        Ok(self.member(node).child.as_ref().context("the node does not run")?.id())
    }

    /// Starts every node that does not run, and waits until all serve.
    ///
    /// # Errors
    /// They do not come to serve.
    pub async fn start_all(&mut self) -> Result<()> {
        for node in self.ids() {
            if self.member(node).child.is_none() {
                self.launch(node)?;
            }
        }
        for node in self.ids() {
            self.wait_until_ready(node).await?;
        }
        Ok(())
    }

    /// Starts a node again and waits until it serves.
    ///
    /// # Errors
    /// It does not come to serve.
    pub async fn restart(&mut self, node: u64) -> Result<()> {
        self.launch(node)?;
        self.wait_until_ready(node).await
    }

    /// Starts a node's process; does not wait.
    ///
    /// # Errors
    /// It runs already, or cannot be started.
    pub fn launch(&mut self, node: u64) -> Result<()> {
        if self.member(node).child.is_some() {
            bail!("node {node} runs already");
        }
        let log = self.log(node);
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = self.command(node)?;
        command.stdin(Stdio::null()).stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log));
        self.member_mut(node).child = Some(command.spawn().context("starting a node")?);
        Ok(())
    }

    fn command(&self, node: u64) -> Result<Command> {
        let member = self.member(node);
        let mut command = match &member.build {
            Some(build) => call(build),
            None => mishkah()?,
        };
        command.args(["start", "--cluster", "story"]).arg("--data").arg(&member.data);
        command.arg("--listen").arg(member.http.to_string());
        match &self.contents {
            Contents::Sample => command.arg("--sample"),
            Contents::Original(dir) => command.arg("--original").arg(dir),
        };
        if self.members.len() > 1 {
            let peers: Vec<String> =
                self.members.iter().map(|other| format!("{}={}", other.id, other.peer)).collect();
            command.args(["--node", &node.to_string(), "--peers", &peers.join(",")]);
        }
        command.args(&self.settings);
        Ok(self.limited(command))
    }

    /// The same command, under the limit of open files: set before the program begins.
    fn limited(&self, command: Command) -> Command {
        let Some(most) = self.file_limit else { return command };
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -n \"$0\"; exec \"$@\"", &most.to_string()]);
        limited.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                limited.env(name, value);
            }
        }
        limited
    }

    /// Waits until a node serves.
    ///
    /// # Errors
    /// It ends instead, or takes too long.
    pub async fn wait_until_ready(&mut self, node: u64) -> Result<()> {
        let client = self.client(node);
        let child = self.member_mut(node).child.as_mut().context("the node does not run")?;
        let ended = until(&format!("node {node} serves"), async || {
            if let Ok(Some(ended)) = child.try_wait() {
                return WaitState::Done(Some(ended));
            }
            WaitState::when(client.is_ready().await, None, || "it does not yet".to_owned())
        })
        .await?;
        match ended {
            Some(ended) => bail!("node {node} ended ({ended}) before it served"),
            None => Ok(()),
        }
    }

    /// Kills a node as a power switch would kill its process: it gets no warning.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self, node: u64) -> Result<()> {
        let mut child = self.take(node)?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Asks a node to stop and waits until it has.
    ///
    /// # Errors
    /// It does not run, or ends otherwise than well.
    pub async fn stop(&mut self, node: u64) -> Result<()> {
        let mut child = self.take(node)?;
        let pid = Pid::from_child(&child);
        kill_process(pid, Signal::TERM)?;
        let status = until(&format!("node {node} has stopped"), async || match child.try_wait() {
            Ok(Some(status)) => WaitState::Done(status),
            other => WaitState::NotYet(format!("{other:?}")),
        })
        .await?;
        if !status.success() {
            bail!("node {node} stopped with {status}");
        }
        Ok(())
    }

    fn take(&mut self, node: u64) -> Result<Child> {
        self.member_mut(node).child.take().with_context(|| format!("node {node} does not run"))
    }

    /// The cluster as a node sees it.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn status(&self, node: u64) -> Result<Status> {
        Status::of(&self.client(node)).await
    }

    /// Waits until a node knows who leads a branch:module.
    ///
    /// # Errors
    /// Nobody comes to lead it.
    pub async fn leader(&self, asked: u64, branch: &str, module: &str) -> Result<u64> {
        let client = self.client(asked);
        until(&format!("{branch}:{module} has a leader"), async || {
            match Status::of(&client).await {
                Ok(status) => match status.leader_of(branch, module) {
                    Some(leader) => WaitState::Done(leader),
                    None => WaitState::NotYet("none is known".to_owned()),
                },
                Err(error) => WaitState::NotYet(format!("{error:#}")),
            }
        })
        .await
    }

    /// Waits until every partition is led by the node that should lead it.
    ///
    /// # Errors
    /// They do not return.
    pub async fn leaders_return(&self) -> Result<()> {
        let asked = self.members.iter().find(|member| member.child.is_some());
        let asked = self.client(asked.context("a node runs")?.id);
        until("every leader is on its preferred node", async || match Status::of(&asked).await {
            Ok(status) => {
                let elsewhere = status.led_elsewhere();
                WaitState::when(elsewhere.is_empty(), (), || {
                    format!("partitions {elsewhere:?} are not")
                })
            }
            Err(error) => WaitState::NotYet(format!("{error:#}")),
        })
        .await
    }

    /// Every other node than this one.
    pub fn others(&self, node: u64) -> Vec<u64> {
        self.ids().into_iter().filter(|id| *id != node).collect()
    }

    fn log(&self, node: u64) -> PathBuf {
        self.home.path().join(format!("node-{node}.log"))
    }

    fn member(&self, node: u64) -> &ClusterMember {
        let at = usize::try_from(node - 1).expect("a cluster is small");
        &self.members[at]
    }

    fn member_mut(&mut self, node: u64) -> &mut ClusterMember {
        let at = usize::try_from(node - 1).expect("a cluster is small");
        &mut self.members[at]
    }

    #[allow(clippy::print_stderr, reason = "a story that fails shows what its nodes said")]
    fn show_logs(&self) {
        for node in self.ids() {
            let text = self.logged(node);
            let lines: Vec<&str> = text.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            eprintln!("--- the end of node {node}'s log ---\n{}", shown.join("\n"));
        }
    }
}

impl Drop for ProcessCluster {
    fn drop(&mut self) {
        for child in self.members.iter_mut().filter_map(|member| member.child.as_mut()) {
            // It may have ended by itself; then there is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
        }
        if !self.is_quiet {
            self.show_logs();
        }
    }
}

/// Addresses on loopback that are free now.
fn free_addresses(count: usize) -> Result<Vec<SocketAddr>> {
    // All are held at once, so that none is given twice.
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()
        .context("finding free ports")?;
    held.iter().map(|listener| Ok(listener.local_addr()?)).collect()
}
