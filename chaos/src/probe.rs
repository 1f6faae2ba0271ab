//! Disk probe: writes to the disk that all nodes share, so that a report can tell stalls of the
//! disk from gaps of the store.
//!
//! All nodes of a run share one machine, and other users may share its disk. No store acknowledges
//! a write while that disk stalls.
//!
//! Promise: a stall is the duration of one small write and its sync, whoever caused it, the nodes
//! included. The report shows each gap with and without the stalls; the time that the store itself
//! took lies between the two.
//! Refused: an excuse. No property is judged by stalls.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use history::{DiskStall, MonotonicTime};

/// The time between two writes: short enough to meet each stall that counts.
const INTERVAL: Duration = Duration::from_millis(20);
/// The shortest stall: a hundred times the duration of a write to an idle disk.
const STALL_MIN: Duration = Duration::from_millis(50);

/// The stalls in order, and the error that ended the probe early, if one did.
pub type ProbeResult = (Vec<DiskStall>, Option<io::Error>);

/// A probe that runs in a thread of its own.
#[derive(Debug)]
pub struct DiskProbe {
    /// Dropping it ends the thread.
    stop: Sender<()>,
    thread: JoinHandle<ProbeResult>,
}

impl DiskProbe {
    /// Starts the probe in a directory on the disk that the nodes' disks are on. Times count from
    /// `begin`.
    ///
    /// # Errors
    /// The file or the thread cannot be created.
    pub fn start(dir: &Path, begin: Instant) -> io::Result<Self> {
        let file = File::create(dir.join("probe"))?;
        // A thread, not a task: the sync blocks, and a late turn of the runtime would look like a
        // stall. The wait for the channel is the pause, so that stopping takes no longer.
        let (stop, stopped) = channel();
        let write = move || file.write_all_at(&[0; 512], 0).and_then(|()| file.sync_data());
        let probe = move || {
            let mut stalls = Vec::new();
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let from = begin.elapsed();
                if let Err(error) = write() {
                    return (stalls, Some(error));
                }
                let until = begin.elapsed();
                if until - from >= STALL_MIN {
                    stalls.push(DiskStall {
                        from: MonotonicTime::from_elapsed(from),
                        until: MonotonicTime::from_elapsed(until),
                    });
                }
            }
            (stalls, None)
        };
        let thread = std::thread::Builder::new().name("probe".to_owned()).spawn(probe)?;
        Ok(Self { stop, thread })
    }

    /// Stops the probe and returns what it found.
    pub fn stop(self) -> ProbeResult {
        drop(self.stop);
        let panicked = || (Vec::new(), Some(io::Error::other("the probe panicked")));
        self.thread.join().unwrap_or_else(|_| panicked())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_writes_until_stopped_and_reports_errors() {
        let dir = tempfile::tempdir().unwrap();
        let probe = DiskProbe::start(dir.path(), Instant::now()).unwrap();
        while std::fs::read(dir.path().join("probe")).unwrap().is_empty() {
            std::thread::yield_now();
        }
        let (stalls, error) = probe.stop();
        assert!(error.is_none(), "{error:?}");
        assert!(stalls.iter().all(|stall| stall.until.0 - stall.from.0 >= 50_000), "{stalls:?}");
        assert!(DiskProbe::start(&dir.path().join("gone"), Instant::now()).is_err());
    }
}
