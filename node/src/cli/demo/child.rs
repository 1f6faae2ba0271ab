//! Child: one node's process: started, watched, started again, stopped.

use std::ffi::OsStr;
use std::fs::File;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::DemoPlan;

/// How long a node that ended stays away: long enough to watch the others take over.
pub(super) const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long a node may take to stop before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(35);

/// What happened to a node.
#[derive(Debug)]
pub(super) enum ChildEvent {
    /// Its process runs.
    Started { node: u16, pid: u32 },
    /// Its process ended by itself, or was killed.
    Ended { node: u16, how: String },
    /// Its process could not be made.
    NotStarted { node: u16, reason: String },
}

/// Keeps one node running until it shall stop. The second token kills without grace.
pub(super) async fn supervise(
    plan: DemoPlan,
    node: u16,
    events: mpsc::Sender<ChildEvent>,
    (stopping, killing): (CancellationToken, CancellationToken),
) {
    while !stopping.is_cancelled() {
        match start(&plan, node) {
            Ok(mut child) => {
                let pid = child.id().unwrap_or_default();
                // Kept here, because waiting for a process closes its input.
                let input = child.stdin.take();
                let _ = events.send(ChildEvent::Started { node, pid }).await;
                let how = tokio::select! {
                    ended = child.wait() => describe(ended),
                    () = stopping.cancelled() => {
                        // All nodes stop: none needs to hand over to another.
                        drop(input);
                        stop(&mut child, &killing).await;
                        return;
                    }
                };
                let _ = events.send(ChildEvent::Ended { node, how }).await;
            }
            Err(error) => {
                let reason = error.to_string();
                let _ = events.send(ChildEvent::NotStarted { node, reason }).await;
            }
        }
        stopping.run_until_cancelled(sleep(AGAIN_AFTER)).await;
    }
}

fn start(plan: &DemoPlan, node: u16) -> std::io::Result<Child> {
    let log = File::options().create(true).append(true).open(plan.log(node))?;
    let mut command = Command::new(&plan.program);
    // What this process was told in its environment is not meant for the nodes.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("MISHKAH_")) {
            command.env_remove(name);
        }
    }
    command
        .args(["start", "--stop-with-input", "--sample", "--cluster", "demo"])
        .args(["--node", &node.to_string(), "--peers", &plan.peers()])
        .args(["--listen", &plan.http(node), "--peer-listen", &plan.peer(node)])
        .arg("--data")
        .arg(plan.dir(node))
        .args(plan.static_files.iter().flat_map(|dir| [OsStr::new("--static"), dir.as_os_str()]))
        // Open as long as this process lives: the node stops when it closes.
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A Ctrl-C in the terminal is for this process, which stops the nodes in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Asks it to stop, waits, and kills it when it takes too long.
async fn stop(child: &mut Child, killing: &CancellationToken) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, Signal::TERM);
    }
    let stopped = killing.run_until_cancelled(timeout(STOP_GRACE, child.wait())).await;
    if !matches!(stopped, Some(Ok(_))) {
        let _ = child.kill().await;
    }
}

fn describe(ended: std::io::Result<ExitStatus>) -> String {
    match ended {
        Ok(status) => status.to_string(),
        Err(error) => format!("in an unknown way: {error}"),
    }
}
