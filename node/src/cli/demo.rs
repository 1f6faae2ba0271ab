//! Demo: a whole cluster of real processes on this machine, to try things on and to kill nodes of.
//!
//! Promise: every node is a process of its own with a directory and a log of its own; it is the
//! same `mishkah start` anybody runs. When this process ends, however it ends, its nodes stop:
//! asked by signal, else because their standard input closes.
//! Refused: ports in use, and a directory made for another number of nodes, before anything runs.

mod child;
mod form;
mod quickstart;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{CliError, DemoArgs, out};
use crate::signals::Signals;

use child::{ChildEvent, supervise};
use form::{FormOutcome, form};

pub(super) const EXAMPLES: &str = "\
Examples:
  mishkah demo
  mishkah demo --nodes 5 --port 4200 --data /tmp/shop

It keeps its data: started again with the same --data it goes on where it was.
Kill one of its processes to see the others take over; it is started again after five seconds.";

/// Things that happen to nodes, waiting to be told.
const EVENTS_WAITING: usize = 64;

/// What all parts of a demo know.
#[derive(Debug, Clone)]
struct DemoPlan {
    /// This program.
    program: PathBuf,
    nodes: u16,
    data: PathBuf,
    port: u16,
    static_files: Option<PathBuf>,
}

impl DemoPlan {
    /// Checks that it can be done.
    fn new(args: DemoArgs) -> Result<Self, CliError> {
        let program = std::env::current_exe()?;
        let DemoArgs { nodes, data, port, static_files } = args;
        if port == 0 || u32::from(port) + 2 * u32::from(nodes) > 65_536 {
            return Err(
                format!("--port {port}: {} ports from there on are needed", 2 * nodes).into()
            );
        }
        let data = std::path::absolute(data)?;
        let static_files = static_files.map(std::path::absolute).transpose()?;
        let plan = Self { program, nodes, data, port, static_files };
        plan.check_data()?;
        plan.check_ports()?;
        Ok(plan)
    }

    fn check_data(&self) -> Result<(), CliError> {
        let made = (1..=9).filter(|node| self.dir(*node).join("node.json").exists()).count();
        if made != 0 && made != usize::from(self.nodes) {
            return Err(format!(
                "{} holds a demo of {made} nodes; say --nodes {made}, or another --data",
                self.data.display()
            )
            .into());
        }
        for node in self.all() {
            let dir = self.dir(node);
            std::fs::create_dir_all(&dir).map_err(|error| {
                format!("cannot make {}: {error}; name another place with --data", dir.display())
            })?;
        }
        Ok(())
    }

    fn check_ports(&self) -> Result<(), CliError> {
        for port in self.port..self.port + 2 * self.nodes {
            TcpListener::bind(("127.0.0.1", port)).map_err(|error| {
                format!(
                    "port {port} cannot be used ({error}); is another demo running? the demo needs \
                     {} to {}: choose others with --port",
                    self.port,
                    self.port + 2 * self.nodes - 1
                )
            })?;
        }
        Ok(())
    }

    fn all(&self) -> impl Iterator<Item = u16> + use<> {
        1..=self.nodes
    }

    fn dir(&self, node: u16) -> PathBuf {
        self.data.join(format!("node-{node}"))
    }

    fn log(&self, node: u16) -> PathBuf {
        self.dir(node).join("log")
    }

    fn http(&self, node: u16) -> String {
        format!("127.0.0.1:{}", self.port + node - 1)
    }

    fn url(&self, node: u16) -> String {
        format!("http://{}", self.http(node))
    }

    fn peer(&self, node: u16) -> String {
        format!("127.0.0.1:{}", self.port + self.nodes + node - 1)
    }

    fn peers(&self) -> String {
        let peers: Vec<String> =
            self.all().map(|node| format!("{node}={}", self.peer(node))).collect();
        peers.join(",")
    }
}

pub(super) async fn run(args: DemoArgs) -> Result<ExitCode, CliError> {
    let plan = DemoPlan::new(args)?;
    let mut signals = Signals::new()?;
    out::line(format!("{} nodes, with their data in {}", plan.nodes, plan.data.display()));
    let (events, mut happened) = mpsc::channel(EVENTS_WAITING);
    let (stopping, killing) = (CancellationToken::new(), CancellationToken::new());
    let nodes = TaskTracker::new();
    for node in plan.all() {
        let (plan, events) = (plan.clone(), events.clone());
        let tokens = (stopping.clone(), killing.clone());
        nodes.spawn(supervise(plan, node, events, tokens));
    }
    nodes.close();

    let mut result = Ok(());
    let formed = tokio::select! {
        formed = form(&plan, &mut happened) => formed,
        signal = signals.next() => {
            out::note(format!("- {signal}"));
            FormOutcome::Stopped
        }
    };
    match formed {
        FormOutcome::Ready(status, pids) => {
            quickstart::show(&plan, &status, &pids);
            tokio::select! {
                // Whoever was to read this is gone, and would be the one to stop it.
                () = std::future::ready(()), if out::is_closed() => {}
                () = tell(&plan, &mut happened) => {}
                signal = signals.next() => out::note(format!("- {signal}")),
            }
        }
        FormOutcome::Failed(reason) => result = Err(reason.into()),
        FormOutcome::Stopped => {}
    }

    out::note("- stopping all nodes; once more ends them at once");
    stopping.cancel();
    loop {
        tokio::select! {
            () = nodes.wait() => break,
            _ = signals.next() => killing.cancel(),
            // Nobody listens any more, but nobody may be blocked telling.
            Some(_) = happened.recv() => {}
        }
    }
    out::note(format!("- stopped; the data stays in {}", plan.data.display()));
    result.map(|()| ExitCode::SUCCESS)
}

/// Tells what happens to nodes.
async fn tell(plan: &DemoPlan, happened: &mut mpsc::Receiver<ChildEvent>) {
    while let Some(event) = happened.recv().await {
        match event {
            ChildEvent::Started { node, pid } => {
                out::note(format!("- node {node} runs again, as process {pid}"));
            }
            ChildEvent::Ended { node, how } => out::note(format!(
                "- node {node} ended ({how}); it is started again in {} s; its log is {}",
                child::AGAIN_AFTER.as_secs(),
                plan.log(node).display()
            )),
            ChildEvent::NotStarted { node, reason } => {
                out::note(format!("- node {node} cannot be started: {reason}"));
            }
        }
    }
}
