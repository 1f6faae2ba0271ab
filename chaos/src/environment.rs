//! Environment: where the nodes of a run are isolated from this machine and from each other.
//!
//! As root a run has namespaces of its own. The program starts itself again as their first process;
//! when that process ends, for whatever reason, the kernel removes its processes, mounts and
//! interfaces. Without root the nodes run on loopback, and only faults without privileges are
//! injected.
//!
//! Promise: no interface, mount or process of the machine is changed, and none is left behind.
//! Refused: a run in namespaces where one program or permission is missing; the reason is named.

use std::env;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

/// Set for the process inside the namespaces: its work directory.
const WORK_DIR_VARIABLE: &str = "STORM_ENCLOSED";
/// The programs that a run in namespaces calls.
const REQUIRED_PROGRAMS: [&str; 6] = ["unshare", "nsenter", "ip", "mount", "umount", "mkfs.ext4"];

/// Where the nodes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// Every node has a network namespace and a disk of its own.
    Namespaces,
    /// All nodes are on 127.0.0.1 and share this machine's disk.
    Loopback,
}

/// What is missing for namespaces, for people; `None` if they can be made.
pub fn missing_for_namespaces() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root".to_owned());
    }
    let is_installed = |program: &str| {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).any(|folder| folder.join(program).is_file())
    };
    let missing: Vec<&str> =
        REQUIRED_PROGRAMS.into_iter().filter(|program| !is_installed(program)).collect();
    if !missing.is_empty() {
        return Some(format!(
            "the programs {} are not installed (Debian: apt-get install iproute2 util-linux mount \
             e2fsprogs)",
            missing.join(", ")
        ));
    }
    // Containers often run as root without the capabilities: only an attempt tells.
    let probe_script = "mount -t tmpfs tmpfs /mnt && ip tuntap add chaos0 mode tap";
    let result = unshare_command().args(["sh", "-c", probe_script]).output();
    match result {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!(
            "the kernel refuses namespaces, mounts or TAP devices: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Some(format!("unshare cannot be run: {error}")),
    }
}

/// Runs this program again in namespaces of its own, with the same arguments and some more. That
/// process finds its work directory by [`work_dir_in_namespaces`].
///
/// # Errors
/// The process cannot be started, or this program received a termination signal. It then ends the
/// process inside as well.
pub async fn run_in_namespaces(
    work_dir: &std::path::Path,
    extra_arguments: &[String],
) -> Result<ExitStatus> {
    let program = env::current_exe().context("this program has a file")?;
    let mut child = unshare_command();
    child
        .arg(program)
        .args(env::args_os().skip(1))
        .args(extra_arguments)
        .env(WORK_DIR_VARIABLE, work_dir);
    let mut child = tokio::process::Command::from(child);
    let mut child =
        child.kill_on_drop(true).spawn().context("starting the process in namespaces")?;
    // SIGTERM reaches this process alone. `--kill-child` makes the end of `unshare` end the process
    // that it started, and with it all others in the namespace.
    tokio::select! {
        status = child.wait() => status.context("waiting for the process in namespaces"),
        signalled = termination_signal() => {
            signalled?;
            child.kill().await.context("ending the process in namespaces")?;
            bail!("the run was interrupted: it says nothing about the store")
        }
    }
}

/// Waits for SIGINT or SIGTERM.
///
/// # Errors
/// The signal handlers cannot be installed.
pub async fn termination_signal() -> Result<()> {
    let mut terminated = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("waiting for SIGINT"),
        _ = terminated.recv() => Ok(()),
    }
}

/// The work directory of the process inside the namespaces; `None` in any other process.
pub fn work_dir_in_namespaces() -> Option<std::path::PathBuf> {
    env::var_os(WORK_DIR_VARIABLE).map(Into::into)
}

fn unshare_command() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command
}
