//! Probe: the disk under all nodes, written to beside them, so that its stalls are told from the
//! silences of the store.
//!
//! All nodes of a storm share one machine, and on many machines others share its disk: no store
//! acknowledges a write while that disk stands still. Promise: a stall is what a write of a few
//! bytes and its sync took here, whoever caused it, the nodes included; the report shows both, with
//! and without, and what the store itself took is between them.
//! Refused: an excuse. No property is judged by it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::history::{DiskStall, MonotonicTime};

/// Between two writes: often enough to meet each stall that counts.
const INTERVAL: Duration = Duration::from_millis(20);
/// From when on a write stalls: a hundred times what one takes on an idle disk.
const STALL_MIN: Duration = Duration::from_millis(50);

/// What it met, in order, and why it ended before it was told to.
pub type ProbeResult = (Vec<DiskStall>, Option<io::Error>);

/// Writes until it is asked what it met.
#[derive(Debug)]
pub struct DiskProbe {
    /// Dropped to end it.
    stop: Sender<()>,
    thread: JoinHandle<ProbeResult>,
}

impl DiskProbe {
    /// Begins to write into a folder on the disk that the nodes' disks are on. Moments count from
    /// `begin`.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn start(dir: &Path, begin: Instant) -> io::Result<Self> {
        let file = File::create(dir.join("probe"))?;
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

    /// Ends it.
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
