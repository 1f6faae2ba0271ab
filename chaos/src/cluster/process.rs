//! Member: one node: its process, its disk, and the page by which it can be made ill.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tokio::time::{Instant, sleep};

use super::disk::Disk;
use super::native_tools::ControlPage;
use crate::history::NodeId;

/// How long a node may take to stop well.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);
/// Lines of a log that are shown when a node ended unasked.
const LOG_TAIL_LINES: usize = 12;
/// The kernel's ticks in a second, for all of user space (`getconf CLK_TCK`).
const TICKS_PER_SECOND: u64 = 100;

/// What a node is made of.
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
    /// Every sync fails with this error number.
    SyncFails = 0,
    /// Every sync takes this many microseconds longer.
    SyncIsSlow = 1,
    /// Every write to a file fails with this error number.
    WriteFails = 2,
}

/// The slot of the wall clock's offset, after those of the disk faults.
const CLOCK_OFFSET_SLOT: usize = 3;

/// A node.
#[derive(Debug)]
pub struct NodeProcess {
    /// Its number.
    pub id: NodeId,
    /// Where clients reach it, as `host:port`.
    pub http: String,
    /// Its data directory.
    pub data: PathBuf,
    /// What it logged since it first started.
    pub log: PathBuf,
    disk: Option<Disk>,
    page: ControlPage,
    binary: PathBuf,
    arguments: Vec<String>,
    preload: PathBuf,
    mutant: Option<String>,
    child: Option<Child>,
    /// Processor time of its earlier lives.
    past_cpu_ms: u64,
    /// Where in its log its present life begins.
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
    /// On loopback it has none of its own.
    pub fn disk(&self) -> Result<&Disk> {
        self.disk.as_ref().context("on loopback no node has a disk of its own")
    }

    /// Starts its process; does not wait.
    ///
    /// # Errors
    /// It runs already, or cannot be started.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "node {} runs already", self.id);
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        self.log_offset = usize::try_from(log.metadata()?.len())?;
        let mut command = match self.disk {
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

    /// Whether its process runs; notices one that ended.
    pub fn is_running(&mut self) -> bool {
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

    /// Kills it: nothing is told to it. One that ended by itself is left so.
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

    /// Asks it to stop and waits until it has.
    ///
    /// # Errors
    /// It does not run, or takes too long, or ends otherwise than well.
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

    /// Sends its process a signal.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    /// Lets it have no more memory than it has: the next it asks for ends it.
    ///
    /// # Errors
    /// It does not run.
    pub fn deny_further_memory(&self) -> Result<()> {
        self.limit_memory(Some(1 << 20))
    }

    /// Lets it have as much memory as there is.
    ///
    /// # Errors
    /// It does not run.
    pub fn lift_memory_limit(&self) -> Result<()> {
        self.limit_memory(None)
    }

    fn limit_memory(&self, bytes: Option<u64>) -> Result<()> {
        // Only the soft limit: it can be taken back without privileges.
        prlimit(Some(self.pid()?), Resource::As, Rlimit { current: bytes, maximum: None })?;
        Ok(())
    }

    /// Makes it suffer from now on, or no more with 0. Lasts over restarts.
    ///
    /// # Errors
    /// It cannot be told.
    pub fn set_disk_fault(&self, fault: DiskFault, number: i64) -> Result<()> {
        self.page.set(fault as usize, number)
    }

    /// Shifts the wall clock that it reads by this many seconds. Lasts over restarts.
    ///
    /// # Errors
    /// The control page cannot be written.
    pub fn set_clock_offset_s(&self, seconds: i64) -> Result<()> {
        self.page.set(CLOCK_OFFSET_SLOT, seconds)
    }

    /// Processor time since the beginning, over all its lives, in milliseconds.
    pub fn cpu_ms(&mut self) -> u64 {
        self.past_cpu_ms + self.current_cpu_ms()
    }

    /// Whether it has said a word since it was last started.
    pub fn has_logged(&self, text: &str) -> bool {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.get(self.log_offset..).unwrap_or_default().contains(text)
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    /// Puts everything away that it must not forget; returns where.
    ///
    /// # Errors
    /// It runs, or has nothing.
    pub fn move_data_away(&self) -> Result<PathBuf> {
        ensure!(self.child.is_none(), "node {} runs", self.id);
        let moved_to = self.data.with_extension("away");
        fs::rename(&self.data, &moved_to)?;
        self.sync_parent()?;
        Ok(moved_to)
    }

    /// Gives it back what was put away, instead of what it has now.
    ///
    /// # Errors
    /// It runs, or nothing was put away there.
    pub fn restore_data(&self, moved_to: &Path) -> Result<()> {
        ensure!(self.child.is_none(), "node {} runs", self.id);
        if self.data.exists() {
            fs::remove_dir_all(&self.data)?;
        }
        fs::rename(moved_to, &self.data)?;
        self.sync_parent()
    }

    /// What is gone stays gone, also when the power is cut next.
    fn sync_parent(&self) -> Result<()> {
        if let Some(parent) = self.data.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }

    /// Its process.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid(&self) -> Result<Pid> {
        let child = self.child.as_ref();
        Ok(Pid::from_child(child.with_context(|| format!("node {} does not run", self.id))?))
    }

    /// Processor time of its process: user and system, fields 14 and 15 of proc(5)'s `stat`.
    fn current_cpu_ms(&self) -> u64 {
        let Some(child) = &self.child else { return 0 };
        let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", child.id())) else { return 0 };
        let Some((_, fields)) = stat.rsplit_once(')') else { return 0 };
        let ticks = fields.split_whitespace().skip(11).take(2);
        ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 1000 / TICKS_PER_SECOND
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.kill();
    }
}
