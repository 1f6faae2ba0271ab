//! Ground: where a storm takes place.
//!
//! As root it takes place in namespaces of its own: the program starts itself again as the first
//! process there, and when that ends, however it ends, the kernel takes its processes, mounts and
//! interfaces away with it. Without root it takes place on loopback, with the faults that need no
//! privileges.

use std::env;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

/// Set for the process inside.
const WORK_DIR_VARIABLE: &str = "STORM_ENCLOSED";
/// What a storm in namespaces calls.
const REQUIRED_PROGRAMS: [&str; 6] = ["unshare", "nsenter", "ip", "mount", "umount", "mkfs.ext4"];

/// Where a storm takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// Every node has a network namespace and a disk of its own.
    Namespaces,
    /// All nodes are on 127.0.0.1 and share this machine's disk.
    Loopback,
}

/// What is missing for namespaces, in words; nothing if they can be made.
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
            "the programs {} are not there (Debian: apt-get install iproute2 util-linux mount \
             e2fsprogs)",
            missing.join(", ")
        ));
    }
    let probe_script = "mount -t tmpfs tmpfs /mnt && ip tuntap add storm0 mode tap";
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

/// Runs this program again, with the same arguments and a few more, in namespaces of its own. It
/// finds its folder by [`work_dir_in_namespaces`].
///
/// # Errors
/// It cannot be started, or this program was told to end: then what is inside is ended too.
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
    let mut child = child.kill_on_drop(true).spawn().context("starting inside")?;
    tokio::select! {
        status = child.wait() => status.context("waiting for what is inside"),
        signalled = termination_signal() => {
            signalled?;
            child.kill().await.context("ending what is inside")?;
            bail!("the run was interrupted: it says nothing about the store")
        }
    }
}

/// Waits until somebody ends this program, from the terminal or with SIGTERM.
///
/// # Errors
/// Signals cannot be waited for.
pub async fn termination_signal() -> Result<()> {
    let mut terminated = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("waiting for SIGINT"),
        _ = terminated.recv() => Ok(()),
    }
}

/// The folder that was made for the process inside; nothing in any other process.
pub fn work_dir_in_namespaces() -> Option<std::path::PathBuf> {
    env::var_os(WORK_DIR_VARIABLE).map(Into::into)
}

fn unshare_command() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command
}
