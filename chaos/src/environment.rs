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
const ENCLOSED: &str = "STORM_ENCLOSED";
/// What a storm in namespaces calls.
const TOOLS: [&str; 6] = ["unshare", "nsenter", "ip", "mount", "umount", "mkfs.ext4"];

/// Where a storm takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// Every node has a network namespace and a disk of its own.
    Namespaces,
    /// All nodes are on 127.0.0.1 and share this machine's disk.
    Loopback,
}

/// What is missing for namespaces, in words; nothing if they can be made.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root".to_owned());
    }
    let is_there = |tool: &str| {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).any(|folder| folder.join(tool).is_file())
    };
    let absent: Vec<&str> = TOOLS.into_iter().filter(|tool| !is_there(tool)).collect();
    if !absent.is_empty() {
        return Some(format!(
            "the programs {} are not there (Debian: apt-get install iproute2 util-linux mount \
             e2fsprogs)",
            absent.join(", ")
        ));
    }
    let trial = "mount -t tmpfs tmpfs /mnt && ip tuntap add storm0 mode tap";
    let tried = unshare().args(["sh", "-c", trial]).output();
    match tried {
        Ok(done) if done.status.success() => None,
        Ok(done) => Some(format!(
            "the kernel refuses namespaces, mounts or TAP devices: {}",
            String::from_utf8_lossy(&done.stderr).trim()
        )),
        Err(error) => Some(format!("unshare cannot be run: {error}")),
    }
}

/// Runs this program again, with the same arguments and a few more, in namespaces of its own. It
/// finds its folder by [`enclosed_work`].
///
/// # Errors
/// It cannot be started, or this program was told to end: then what is inside is ended too.
pub async fn enclose(work: &std::path::Path, more: &[String]) -> Result<ExitStatus> {
    let program = env::current_exe().context("this program has a file")?;
    let mut inside = unshare();
    inside.arg(program).args(env::args_os().skip(1)).args(more).env(ENCLOSED, work);
    let mut inside = tokio::process::Command::from(inside);
    let mut inside = inside.kill_on_drop(true).spawn().context("starting inside")?;
    tokio::select! {
        status = inside.wait() => status.context("waiting for what is inside"),
        told = told_to_end() => {
            told?;
            inside.kill().await.context("ending what is inside")?;
            bail!("told to end: nothing is said about the store")
        }
    }
}

/// Waits until somebody ends this program, from the terminal or with SIGTERM.
///
/// # Errors
/// Signals cannot be waited for.
pub async fn told_to_end() -> Result<()> {
    let mut terminated = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("waiting for SIGINT"),
        _ = terminated.recv() => Ok(()),
    }
}

/// The folder that was made for the process inside; nothing in any other process.
pub fn enclosed_work() -> Option<std::path::PathBuf> {
    env::var_os(ENCLOSED).map(Into::into)
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command
}
