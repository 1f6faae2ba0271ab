//! Node process: one node of a test cluster, with its disk and the control page of its preload
//! library.
//!
//! Promise: the process ends with this value or with this program, whichever ends first.
//! Refused: a second process for the same node, and a change of its data while it runs.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tokio::time::{Instant, sleep};

use super::disk::Disk;
use super::native_tools::ControlPage;
use history::NodeId;

/// How long a node may take to exit after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);
/// How many lines of a node's log an error shows.
const LOG_TAIL_LINES: usize = 12;
/// The kernel's clock ticks in a second as user space sees them (`getconf CLK_TCK`).
const TICKS_PER_SECOND: u64 = 100;

/// What a node process is created from. The fields are those of [`NodeProcess`].
#[derive(Debug)]
pub(super) struct NodeConfig {
    pub(super) id: NodeId,
    pub(super) http: String,
    pub(super) data: PathBuf,
    pub(super) disk: Option<Disk>,
    pub(super) page: ControlPage,
    pub(super) log: PathBuf,
    pub(super) binary: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) preload: PathBuf,
    pub(super) mutant: Option<String>,
}

/// A disk fault that the preload library applies. The discriminant is its slot on the control page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    /// Every sync fails with this `errno`; 0 lets it succeed.
    SyncFails = 0,
    /// Every sync takes this many microseconds longer; 0 is no delay.
    SyncIsSlow = 1,
    /// Every write to a file fails with this `errno`; 0 lets it succeed.
    WriteFails = 2,
}

/// The slot of the wall clock's offset, after those of the disk faults.
const CLOCK_OFFSET_SLOT: usize = 3;

/// A node as a process, which may run or not.
#[derive(Debug)]
pub struct NodeProcess {
    /// Its number, from 1.
    pub id: NodeId,
    /// Its address for clients, as `host:port`.
    pub http: String,
    /// Its data directory.
    pub data: PathBuf,
    /// The file with its log since the first start.
    pub log: PathBuf,
    disk: Option<Disk>,
    page: ControlPage,
    binary: PathBuf,
    arguments: Vec<String>,
    preload: PathBuf,
    mutant: Option<String>,
    child: Option<Child>,
    /// Processor time of its earlier processes, in milliseconds.
    past_cpu_ms: u64,
    /// Where the log of the present process begins, in bytes.
    log_offset: usize,
}

impl NodeProcess {
    pub(super) fn new(config: NodeConfig) -> Self {
        let NodeConfig { id, http, data, disk, page, log, binary, arguments, preload, mutant } =
            config;
        Self {
            id,
            http,
            data,
            log,
            disk,
            page,
            binary,
            arguments,
            preload,
            mutant,
            child: None,
            past_cpu_ms: 0,
            log_offset: 0,
        }
    }

    /// Its disk.
    ///
    /// # Errors
    /// On loopback it has no disk of its own.
    pub fn disk(&self) -> Result<&Disk> {
        self.disk.as_ref().context("on loopback no node has a disk of its own")
    }

    /// Starts the process. Does not wait until the node is ready.
    ///
    /// # Errors
    /// The node runs already, or it cannot be started.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "node {} runs already", self.id);
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        self.log_offset = usize::try_from(log.metadata()?.len())?;
        let mut command = match self.disk {
            // A node with a disk is a node in namespaces: it has a network of its own too.
            // `nsenter` replaces itself with the node, so the child's process id is the node's.
            Some(_) => {
                let mut inside = Command::new("nsenter");
                inside.arg(format!("--net=/run/netns/n{}", self.id)).arg(&self.binary);
                inside
            }
            None => Command::new(&self.binary),
        };
        command.args(&self.arguments).env("LD_PRELOAD", &self.preload);
        command.env("STORM_CONTROL", &self.page.path);
        if let Some(mutant) = &self.mutant {
            command.env("MISHKAH_MUTANT", mutant);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().context("starting a node")?);
        Ok(())
    }

    /// Whether the process runs. Releases a process that has exited.
    pub fn is_running(&mut self) -> bool {
        // Read first: `try_wait` releases an exited process, and its times with it.
        let cpu_ms = self.current_cpu_ms();
        let Some(child) = self.child.as_mut() else { return false };
        match child.try_wait() {
            Ok(None) => true,
            Ok(Some(_)) | Err(_) => {
                self.past_cpu_ms += cpu_ms;
                self.child = None;
                false
            }
        }
    }

    /// Kills the process with SIGKILL and waits for its end. Does nothing if none runs.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.past_cpu_ms += self.current_cpu_ms();
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks the node to stop with SIGTERM and waits until it has exited.
    ///
    /// # Errors
    /// The node does not run, does not exit in time, or exits with a failure.
    pub async fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let end = Instant::now() + STOP_TIMEOUT;
        let cpu_ms = self.current_cpu_ms();
        let child = self.child.as_mut().context("it was signalled")?;
        let status = loop {
            match child.try_wait()? {
                Some(status) => break status,
                None if Instant::now() > end => bail!("node {} does not stop", self.id),
                None => sleep(Duration::from_millis(20)).await,
            }
        };
        self.past_cpu_ms += cpu_ms;
        self.child = None;
        ensure!(status.success(), "node {} stopped with {status}", self.id);
        Ok(())
    }

    /// Sends a signal to the process.
    ///
    /// # Errors
    /// The node does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    /// Limits its address space to less than it uses: its next allocation fails.
    ///
    /// # Errors
    /// The node does not run.
    pub fn deny_further_memory(&self) -> Result<()> {
        self.limit_memory(Some(1 << 20))
    }

    /// Removes the limit of its address space.
    ///
    /// # Errors
    /// The node does not run.
    pub fn lift_memory_limit(&self) -> Result<()> {
        self.limit_memory(None)
    }

    fn limit_memory(&self, bytes: Option<u64>) -> Result<()> {
        // Only the soft limit: raising a hard limit again needs privileges.
        prlimit(Some(self.pid()?), Resource::As, Rlimit { current: bytes, maximum: None })?;
        Ok(())
    }

    /// Sets a disk fault from now on; 0 ends it. It lasts over restarts.
    ///
    /// # Errors
    /// The control page cannot be written.
    pub fn set_disk_fault(&self, fault: DiskFault, number: i64) -> Result<()> {
        self.page.set(fault as usize, number)
    }

    /// Shifts the wall clock that the node reads, in seconds; 0 ends it. It lasts over restarts.
    ///
    /// # Errors
    /// The control page cannot be written.
    pub fn set_clock_offset_s(&self, seconds: i64) -> Result<()> {
        self.page.set(CLOCK_OFFSET_SLOT, seconds)
    }

    /// Processor time of all its processes so far, in milliseconds.
    pub fn cpu_ms(&mut self) -> u64 {
        self.past_cpu_ms + self.current_cpu_ms()
    }

    /// Whether the present process, or the last one, has logged a text.
    pub fn has_logged(&self, text: &str) -> bool {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.get(self.log_offset..).unwrap_or_default().contains(text)
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    /// Moves its data directory away, so that it starts with an empty disk; returns the new path.
    ///
    /// # Errors
    /// The node runs, or it has no data directory.
    pub fn move_data_away(&self) -> Result<PathBuf> {
        ensure!(self.child.is_none(), "node {} runs", self.id);
        let moved_to = self.data.with_extension("away");
        fs::rename(&self.data, &moved_to)?;
        self.sync_parent()?;
        Ok(moved_to)
    }

    /// Replaces its data directory with the one that was moved away.
    ///
    /// # Errors
    /// The node runs, or there is no directory at that path.
    pub fn restore_data(&self, moved_to: &Path) -> Result<()> {
        ensure!(self.child.is_none(), "node {} runs", self.id);
        if self.data.exists() {
            fs::remove_dir_all(&self.data)?;
        }
        fs::rename(moved_to, &self.data)?;
        self.sync_parent()
    }

    /// Makes a rename durable: a later power cut must not undo it.
    fn sync_parent(&self) -> Result<()> {
        if let Some(parent) = self.data.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }

    /// The process id.
    ///
    /// # Errors
    /// The node does not run.
    pub fn pid(&self) -> Result<Pid> {
        let child = self.child.as_ref();
        Ok(Pid::from_child(child.with_context(|| format!("node {} does not run", self.id))?))
    }

    /// Processor time of the present process, in milliseconds; 0 if none runs. User and system time
    /// are fields 14 and 15 of `stat` in proc(5).
    fn current_cpu_ms(&self) -> u64 {
        let Some(child) = &self.child else { return 0 };
        let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", child.id())) else { return 0 };
        // Field 2 is the program's name in parentheses and may contain spaces: fields are counted
        // from behind it, where field 3 is the first.
        let Some((_, fields)) = stat.rsplit_once(')') else { return 0 };
        let ticks = fields.split_whitespace().skip(11).take(2);
        ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 1000 / TICKS_PER_SECOND
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // It fails if the process has exited already, which is what is wanted.
        let _ = self.kill();
    }
}
