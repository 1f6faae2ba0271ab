//! Tests of the log: what it keeps, rejects, removes and recovers.

mod faults;
mod kill;
mod model_test;
#[cfg(feature = "mutants")]
mod mutants;

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc;

use tempfile::TempDir;

use super::*;
use crate::disk::segment;
use crate::disk::testing::FaultyDevice;

const ONE: GroupKey = GroupKey { group: 1, replica: 10 };
const TWO: GroupKey = GroupKey { group: 2, replica: 20 };

/// A directory for a log with small segments, on a disk that can fail.
struct Fixture {
    dir: TempDir,
    device: Arc<FaultyDevice>,
}

impl Fixture {
    fn new() -> Self {
        #[cfg(feature = "mutants")]
        mutants::choose();
        Self { dir: tempfile::tempdir().unwrap(), device: Arc::new(FaultyDevice::default()) }
    }

    fn config(&self) -> WalConfig {
        WalConfig {
            fitness: crate::fitness::NodeFitness::default(),
            segment_bytes: 4 << 10,
            cache_bytes: 256,
            compact_after_segments: 2,
            device: self.device.clone(),
            fatal: Box::new(|_| {}),
            inline_notify: None,
        }
    }

    fn open(&self) -> (Wal, RecoveredLog) {
        loop {
            match self.try_open() {
                // A child process of another test holds all locks between its fork and its exec.
                Err(WalError::InUse { .. }) => std::thread::yield_now(),
                opened => return opened.unwrap(),
            }
        }
    }

    fn try_open(&self) -> Result<(Wal, RecoveredLog), WalError> {
        Wal::open(self.dir.path(), self.config())
    }

    /// The error of opening it.
    fn open_error(&self) -> WalError {
        loop {
            let error = self.try_open().map(drop).unwrap_err();
            if !matches!(error, WalError::InUse { .. }) {
                return error;
            }
        }
    }

    /// The segment files, oldest first.
    fn files(&self) -> Vec<PathBuf> {
        let serials = segment::list(self.dir.path()).unwrap();
        serials.iter().map(|serial| segment::path_of(self.dir.path(), *serial)).collect()
    }
}

fn entry(index: u64) -> (u64, u64, Bytes) {
    (index, 1, Bytes::from(format!("entry {index} of a branch's log")))
}

fn append(group: GroupKey, indexes: Range<u64>) -> LogOp {
    LogOp::Append { group, entries: indexes.map(entry).collect() }
}

fn vote(group: GroupKey, vote: &'static str) -> LogOp {
    LogOp::Vote { group, vote: Bytes::from_static(vote.as_bytes()) }
}

fn purge(group: GroupKey, index: u64) -> LogOp {
    LogOp::Purge { group, index, log_id: Bytes::from(format!("log id {index}")) }
}

/// Submits without waiting.
fn submit(wal: &Wal, ops: Vec<LogOp>) -> mpsc::Receiver<io::Result<()>> {
    let (sender, result) = mpsc::channel();
    wal.submit(ops, Box::new(move |result| sender.send(result).unwrap()));
    result
}

/// Submits and waits, so that the operations get a batch of their own.
fn write(wal: &Wal, ops: Vec<LogOp>) -> io::Result<()> {
    submit(wal, ops).recv().unwrap()
}

fn indexes(wal: &Wal, group: GroupKey) -> Vec<u64> {
    let entries = wal.read(group, 0..u64::MAX, usize::MAX).unwrap();
    for found in &entries {
        assert_eq!((found.index, found.term, found.bytes.clone()), entry(found.index));
    }
    entries.iter().map(|found| found.index).collect()
}

#[test]
fn disk_submitted_entries_are_readable_before_and_after_restart() {
    let fixture = Fixture::new();
    let (wal, recovered) = fixture.open();
    assert_eq!(recovered, RecoveredLog::default());
    let first = submit(&wal, vec![append(ONE, 1..4), vote(ONE, "me")]);
    assert_eq!(indexes(&wal, ONE), [1, 2, 3]);
    assert_eq!(wal.state(ONE).last, Some((3, 1)));
    let second = submit(&wal, vec![LogOp::TruncateAfter { group: ONE, after: Some(2) }]);
    let committed = LogOp::Committed { group: ONE, committed: Bytes::from_static(b"2") };
    write(&wal, vec![committed]).unwrap();
    write(&wal, vec![append(TWO, 7..9), purge(TWO, 7)]).unwrap();
    first.recv().unwrap().unwrap();
    second.recv().unwrap().unwrap();
    assert_eq!(wal.read(ONE, 1..3, 1).unwrap().len(), 1, "one entry, however small the budget");
    drop(wal);

    let (wal, recovered) = fixture.open();
    let one = GroupLogState {
        vote: Some(Bytes::from_static(b"me")),
        committed: Some(Bytes::from_static(b"2")),
        purged: None,
        first: Some(1),
        last: Some((2, 1)),
    };
    assert_eq!(recovered.groups[&ONE], one);
    assert_eq!(recovered.groups[&TWO].purged, Some((7, Bytes::from_static(b"log id 7"))));
    assert_eq!(recovered.torn_write, None);
    assert_eq!((indexes(&wal, ONE), indexes(&wal, TWO)), (vec![1, 2], vec![8]));
    write(&wal, vec![LogOp::Forget { group: ONE }]).unwrap();
    drop(wal);
    assert_eq!(fixture.open().1.groups.keys().copied().collect::<Vec<_>>(), [TWO]);
}

#[test]
fn disk_gaps_are_rejected_and_change_nothing() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    write(&wal, vec![append(ONE, 5..7)]).unwrap();
    for ops in [
        vec![append(ONE, 8..9)],
        vec![append(ONE, 6..7)],
        vec![purge(ONE, 9), append(ONE, 9..10)],
        vec![LogOp::TruncateAfter { group: ONE, after: Some(5) }, append(ONE, 7..8)],
    ] {
        let error = write(&wal, ops).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
    assert_eq!(indexes(&wal, ONE), [5, 6]);
    let cut = LogOp::TruncateAfter { group: ONE, after: Some(5) };
    write(&wal, vec![cut, append(ONE, 6..8), purge(ONE, 20), append(ONE, 21..22)]).unwrap();
    assert_eq!(indexes(&wal, ONE), [21]);
}

#[test]
fn disk_oversized_entry_gets_a_larger_segment() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    let large = Bytes::from(vec![7; 20 << 10]);
    let entries = vec![(1, 1, large.clone()), (2, 1, large.clone())];
    write(&wal, vec![append(TWO, 1..2)]).unwrap();
    write(&wal, vec![LogOp::Append { group: ONE, entries }]).unwrap();
    drop(wal);
    let (wal, _) = fixture.open();
    assert_eq!(wal.read(ONE, 2..3, 1).unwrap()[0].bytes, large);
    write(&wal, vec![append(TWO, 2..3)]).unwrap();
}

#[test]
fn disk_log_directory_is_opened_once() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    assert!(matches!(fixture.try_open(), Err(WalError::InUse { .. })));
    drop(wal);
    fixture.open();
}

#[test]
fn disk_unknown_segment_version_is_rejected() {
    let fixture = Fixture::new();
    drop(fixture.open());
    let file = fixture.files().pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes[8] = 9;
    let crc = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    fs::write(&file, bytes).unwrap();
    let error = fixture.open_error();
    assert!(matches!(error, WalError::Version { found: 9, known: 1, .. }), "{error}");
}

#[test]
fn disk_missing_segment_is_an_error() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    for index in 1..200 {
        write(&wal, vec![append(ONE, index..index + 1)]).unwrap();
    }
    drop(wal);
    let files = fixture.files();
    assert!(files.len() > 4);
    // All but the last two: the active segment and the spare one.
    for file in &files[..files.len() - 2] {
        let bytes = fs::read(file).unwrap();
        fs::remove_file(file).unwrap();
        let error = fixture.open_error();
        assert!(
            matches!(&error, WalError::Corrupt { file: named, .. } if named == file),
            "{error}"
        );
        fs::write(file, bytes).unwrap();
    }
    assert_eq!(indexes(&fixture.open().0, ONE).len(), 199);
}

#[test]
fn disk_compaction_keeps_entries_of_idle_groups() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    write(&wal, vec![vote(ONE, "me"), append(ONE, 1..6), purge(ONE, 2)]).unwrap();
    for index in 1..2000 {
        write(&wal, vec![append(TWO, index..index + 1)]).unwrap();
        if index % 50 == 0 {
            write(&wal, vec![purge(TWO, index - 10)]).unwrap();
        }
    }
    assert!(wal.counters().segments.load(Relaxed) < 8, "old segments go");
    assert!(wal.counters().compacted_bytes.load(Relaxed) > 0);
    assert!(fixture.files().len() < 9);
    assert_eq!(indexes(&wal, ONE), [3, 4, 5]);
    drop(wal);
    let (wal, recovered) = fixture.open();
    assert_eq!(recovered.groups[&ONE].vote, Some(Bytes::from_static(b"me")));
    assert_eq!(recovered.groups[&ONE].purged, Some((2, Bytes::from_static(b"log id 2"))));
    assert_eq!(indexes(&wal, ONE), [3, 4, 5]);
    assert_eq!(indexes(&wal, TWO), (1941..2000).collect::<Vec<_>>());
}

#[test]
fn disk_one_batch_serves_many_submissions() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    let waiting: Vec<_> = (1..2000).map(|at| submit(&wal, vec![append(ONE, at..at + 1)])).collect();
    for result in waiting {
        result.recv().unwrap().unwrap();
    }
    let counters = wal.counters();
    assert!(counters.fsyncs.load(Relaxed) < counters.ops.load(Relaxed));
    assert_eq!(wal.live_bytes(ONE), (1..2000).map(|at| entry(at).2.len() as u64).sum::<u64>());
}
