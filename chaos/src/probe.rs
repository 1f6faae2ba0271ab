//! Probe: the disk under all nodes, written to beside them, so that its stalls are told from the
//! silences of the store.
//!
//! All nodes of a storm share one machine, and on many machines others share its disk: no store
//! acknowledges a write while that disk stands still. Promise: a stall is what a write of a few
//! bytes and its sync took here, whoever caused it; the report shows both, with and without.
//! Refused: an excuse. No property is judged by it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::history::{Moment, Stall};

/// Between two writes: often enough to meet each stall that counts.
const REST: Duration = Duration::from_millis(20);
/// From when on a write stalls: a hundred times what one takes on an idle disk.
const STALL_MIN: Duration = Duration::from_millis(50);

/// Writes until it is asked what it met.
#[derive(Debug)]
pub struct Probe {
    /// Dropped to end it.
    over: Sender<()>,
    stalls: JoinHandle<io::Result<Vec<Stall>>>,
}

impl Probe {
    /// Begins to write into a folder on the disk that the nodes' disks are on. Moments count from
    /// `begin`.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn start(folder: &Path, begin: Instant) -> io::Result<Self> {
        let file = File::create(folder.join("probe"))?;
        let (over, is_over) = channel();
        let watch = move || {
            let mut stalls = Vec::new();
            while is_over.recv_timeout(REST) == Err(RecvTimeoutError::Timeout) {
                let from = begin.elapsed();
                file.write_all_at(&[0; 512], 0)?;
                file.sync_data()?;
                let until = begin.elapsed();
                if until - from >= STALL_MIN {
                    stalls.push(Stall { from: moment(from), until: moment(until) });
                }
            }
            Ok(stalls)
        };
        let stalls = std::thread::Builder::new().name("probe".to_owned()).spawn(watch)?;
        Ok(Self { over, stalls })
    }

    /// Ends it. What it met, in order.
    ///
    /// # Errors
    /// The disk refused a write.
    pub fn stop(self) -> io::Result<Vec<Stall>> {
        drop(self.over);
        self.stalls.join().unwrap_or_else(|_| Err(io::Error::other("the probe panicked")))
    }
}

fn moment(since: Duration) -> Moment {
    Moment(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_writes_until_it_is_stopped_and_says_where_it_cannot() {
        let folder = tempfile::tempdir().unwrap();
        let probe = Probe::start(folder.path(), Instant::now()).unwrap();
        while std::fs::read(folder.path().join("probe")).unwrap().is_empty() {
            std::thread::yield_now();
        }
        let stalls = probe.stop().unwrap();
        assert!(stalls.iter().all(|stall| stall.until.0 - stall.from.0 >= 50_000), "{stalls:?}");
        assert!(Probe::start(&folder.path().join("gone"), Instant::now()).is_err());
    }
}
