//! Form: watches the nodes of a demo become a cluster.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use actors::status::ClusterStatus;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use super::child::ChildEvent;
use super::{DemoPlan, out};
use crate::cli::node_client::NodeClient;

/// A cluster that is not there by then will not be without help.
const FORM_MAX: Duration = Duration::from_secs(120);
/// How often the nodes are asked.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How much of a node's log is shown when it ends while the cluster forms.
const LOG_LINES: usize = 12;

/// What came of it.
pub(super) enum FormOutcome {
    /// All nodes serve: the cluster, and the nodes' processes.
    Ready(Box<ClusterStatus>, BTreeMap<u16, u32>),
    /// A node ended, or it took too long.
    Failed(String),
    /// It was asked to stop.
    Stopped,
}

/// Shows how far it is: a line that changes on a terminal, else a line for each step.
struct FormProgress {
    bar: Option<ProgressBar>,
    last: String,
}

impl FormProgress {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
            let bar = ProgressBar::new_spinner();
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(ASK_EVERY);
            bar
        });
        Self { bar, last: String::new() }
    }

    fn show(&mut self, text: String) {
        if text == self.last {
            return;
        }
        match &self.bar {
            Some(bar) => bar.set_message(text.clone()),
            None => out::note(format!("- {text}")),
        }
        self.last = text;
    }
}

impl Drop for FormProgress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Waits until every node serves and every partition has a leader.
pub(super) async fn form(
    plan: &DemoPlan,
    happened: &mut mpsc::Receiver<ChildEvent>,
) -> FormOutcome {
    let mut progress = FormProgress::new();
    let nodes: Vec<NodeClient> = plan.all().map(|node| NodeClient::new(&plan.url(node))).collect();
    let mut pids = BTreeMap::new();
    let began = Instant::now();
    loop {
        while let Ok(event) = happened.try_recv() {
            match event {
                ChildEvent::Started { node, pid } => {
                    pids.insert(node, pid);
                }
                ChildEvent::Ended { node, how } => {
                    return FormOutcome::Failed(ended(plan, node, &how));
                }
                ChildEvent::NotStarted { node, reason } => {
                    return FormOutcome::Failed(format!("node {node} cannot be started: {reason}"));
                }
            }
        }
        match look(&nodes).await {
            Ok(status) if pids.len() == nodes.len() => {
                return FormOutcome::Ready(Box::new(status), pids);
            }
            Ok(_) => {}
            Err(missing) => progress.show(missing),
        }
        if began.elapsed() > FORM_MAX {
            return FormOutcome::Failed(format!(
                "the cluster did not form within {} s ({}); the logs are {}/node-*/log",
                FORM_MAX.as_secs(),
                progress.last,
                plan.data.display()
            ));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// The cluster if it is whole; else what is missing, in words.
async fn look(nodes: &[NodeClient]) -> Result<ClusterStatus, String> {
    let mut ready = 0;
    let mut missing = String::new();
    for node in nodes {
        match node.ready().await {
            Ok(()) => ready += 1,
            Err(why) => missing = why,
        }
    }
    if ready < nodes.len() {
        let why = missing.lines().next().unwrap_or_default();
        return Err(format!("{ready} of {} nodes are ready: {why}", nodes.len()));
    }
    let first = nodes.first().ok_or_else(|| "there are no nodes".to_owned())?;
    let (_, status) = first.status().await.map_err(|error| error.to_string())?;
    let led = status.partitions.iter().filter(|partition| partition.leader.is_some()).count();
    if status.partitions.is_empty() || led < status.partitions.len() {
        return Err(format!("{led} of {} partitions have a leader", status.partitions.len()));
    }
    if status.branches.is_empty() {
        return Err("the sample data is not there yet".to_owned());
    }
    Ok(status)
}

fn ended(plan: &DemoPlan, node: u16, how: &str) -> String {
    let log = plan.log(node);
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ");
    format!("node {node} ended ({how}) while the cluster formed; {} says:\n  {last}", log.display())
}
