//! Faults: the log on a disk that tears writes, flips bits, fails to sync, is full or loses power.

use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use super::*;
use crate::disk::testing::Rng;

/// The last segment with a batch: its file and bytes, and where its last batch begins and ends.
fn last_batch(fixture: &Fixture) -> (PathBuf, Vec<u8>, usize, usize) {
    for serial in segment::list(fixture.dir.path()).unwrap().into_iter().rev() {
        let (found, bytes) = segment::Segment::open(fixture.dir.path(), serial).unwrap();
        let (batches, end, _) = segment::scan_batches(&bytes, &found.header, None);
        if let Some(batch) = batches.last() {
            let path = segment::path_of(fixture.dir.path(), serial);
            return (path, bytes, batch.offset as usize, end as usize);
        }
    }
    panic!("the log has no batch")
}

fn copy_of(fixture: &Fixture) -> Fixture {
    let copy = Fixture::new();
    for file in fixture.files() {
        fs::copy(&file, copy.dir.path().join(file.file_name().unwrap())).unwrap();
    }
    copy
}

#[test]
fn disk_torn_last_batch_is_discarded_and_nothing_else() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    write(&wal, vec![vote(ONE, "me"), append(ONE, 1..4)]).unwrap();
    write(&wal, vec![append(TWO, 1..3)]).unwrap();
    write(&wal, vec![vote(ONE, "you"), append(ONE, 4..6)]).unwrap();
    drop(wal);
    let (file, bytes, start, end) = last_batch(&fixture);
    let name = file.file_name().unwrap();
    for at in start..end {
        let mut torn = bytes.clone();
        torn[at..].fill(0);
        let whole = torn == bytes;
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        for (damaged, whole) in [(torn, whole), (flipped, false)] {
            let copy = copy_of(&fixture);
            fs::write(copy.dir.path().join(name), damaged).unwrap();
            let (wal, recovered) = copy.open();
            let expected: Vec<u64> = if whole { (1..6).collect() } else { (1..4).collect() };
            assert_eq!(indexes(&wal, ONE), expected, "torn at {at}");
            assert_eq!(indexes(&wal, TWO), [1, 2]);
            // If all of the batch is zeroes, there is nothing to discard.
            let zeroes = !whole && at == start;
            assert!(zeroes || recovered.torn_write.is_some() != whole, "torn at {at}");
            let next = expected.len() as u64 + 1;
            write(&wal, vec![append(ONE, next..next + 2)]).unwrap();
            drop(wal);
            let (wal, recovered) = copy.open();
            assert_eq!(recovered.torn_write, None);
            assert_eq!(indexes(&wal, ONE), (1..next + 2).collect::<Vec<_>>());
        }
    }
}

#[test]
fn disk_bit_flip_before_last_batch_is_rejected_with_location() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    for index in 1..60 {
        write(&wal, vec![append(ONE, index..index + 1), vote(TWO, "me")]).unwrap();
    }
    drop(wal);
    let (current, _, start, _) = last_batch(&fixture);
    let mut rng = Rng(11);
    let mut flips = 0;
    for path in fixture.files() {
        let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let len = fs::read(&path).unwrap().len();
        let end = if path == current { start } else { len };
        if path > current {
            continue;
        }
        for at in 0..end {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at as u64).unwrap();
            file.write_all_at(&[byte[0] ^ (1 << rng.below(8))], at as u64).unwrap();
            match fixture.open_error() {
                WalError::Corrupt { file, offset, .. } => {
                    assert_eq!(file, path);
                    assert!(offset <= at as u64, "flipped at {at}, reported at {offset}");
                }
                WalError::InUse { .. }
                | WalError::Version { .. }
                | WalError::Full { .. }
                | WalError::Stopped { .. }
                | WalError::Io { .. } => panic!("flipped byte {at} of {}", path.display()),
            }
            file.write_all_at(&byte, at as u64).unwrap();
            flips += 1;
        }
    }
    assert!(flips > 5000, "{flips}");
    assert_eq!(indexes(&fixture.open().0, ONE).len(), 59);
}

#[test]
fn disk_damaged_record_is_an_error_for_readers() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    for index in 1..21 {
        write(&wal, vec![append(ONE, index..index + 1)]).unwrap();
    }
    let (path, _, _, _) = last_batch(&fixture);
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"?", (segment::SEGMENT_HEADER_BYTES + 56 + 40) as u64).unwrap();
    let error = wal.read(ONE, 1..2, 1 << 20).unwrap_err();
    assert!(matches!(error, WalError::Corrupt { .. }), "{error}");
    assert_eq!(wal.read(ONE, 20..21, 1 << 20).unwrap().len(), 1);
}

#[test]
fn disk_acknowledged_writes_survive_power_loss() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    write(&wal, vec![vote(ONE, "me")]).unwrap();
    for index in 1..200 {
        write(&wal, vec![append(ONE, index..index + 1)]).unwrap();
    }
    assert!(fixture.files().len() > 2, "it went through several segments");
    drop(wal);
    fixture.device.power_cut(None);
    let (wal, recovered) = fixture.open();
    assert_eq!(recovered.groups[&ONE].vote, Some(Bytes::from_static(b"me")));
    assert_eq!(indexes(&wal, ONE), (1..200).collect::<Vec<_>>());
}

#[test]
fn disk_state_reported_after_kill_survives_power_loss() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    write(&wal, vec![append(ONE, 1..3)]).unwrap();
    fixture.device.sync_fails.store(true, SeqCst);
    write(&wal, vec![vote(ONE, "me"), append(ONE, 3..5)]).unwrap_err();
    drop(wal);
    fixture.device.sync_fails.store(false, SeqCst);
    let before = fixture.files();

    // As if killed between write and sync: the page cache still has the batch.
    let (wal, recovered) = fixture.open();
    assert_eq!(recovered.groups[&ONE].vote, Some(Bytes::from_static(b"me")));
    drop(wal);
    assert!(fixture.files().iter().all(|file| !before.contains(file)), "a new segment has it");
    fixture.device.power_cut(None);
    let (wal, recovered) = fixture.open();
    assert_eq!(recovered.groups[&ONE].vote, Some(Bytes::from_static(b"me")));
    assert_eq!(indexes(&wal, ONE), [1, 2, 3, 4]);
}

#[test]
fn disk_failed_sync_stops_the_log() {
    let fixture = Fixture::new();
    let fatal_calls = Arc::new(AtomicU64::new(0));
    let (count, mut config) = (fatal_calls.clone(), fixture.config());
    config.fatal = Box::new(move |reason| {
        assert!(reason.contains("on fire"), "{reason}");
        count.fetch_add(1, SeqCst);
    });
    let (wal, _) = Wal::open(fixture.dir.path(), config).unwrap();
    write(&wal, vec![append(ONE, 1..3)]).unwrap();
    fixture.device.sync_fails.store(true, SeqCst);
    let waiting: Vec<_> = (3..300).map(|at| submit(&wal, vec![append(ONE, at..at + 1)])).collect();
    for result in waiting {
        assert_ne!(result.recv().unwrap().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
    fixture.device.sync_fails.store(false, SeqCst);
    assert!(write(&wal, vec![vote(ONE, "me")]).is_err(), "never tried again");
    assert!(matches!(wal.writable(), Err(WalError::Stopped { .. })));
    assert_eq!(wal.read(ONE, 1..3, 1 << 20).unwrap().len(), 2);
    drop(wal);
    assert_eq!(fatal_calls.load(SeqCst), 1);
}

/// Waits until the writer has noticed a change of the disk.
fn wait_until(what: &str, is: impl Fn() -> bool) {
    let started = Instant::now();
    while !is() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_large_submission_makes_no_small_one_wait() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    let gate = fixture.device.sync_gate.lock();
    let first = submit(&wal, vec![vote(ONE, "being synced")]);
    wait_until("the writer has it", || wal.shared.state.lock().queue.is_empty());
    let bytes = Bytes::from(vec![7; limits::WAL_QUEUE_BYTES + 1]);
    let large = submit(&wal, vec![LogOp::Append { group: ONE, entries: vec![(1, 1, bytes)] }]);
    let (sent, is_queued) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| sent.send(submit(&wal, vec![vote(TWO, "small")])));
        // The limit only keeps a broken test from hanging.
        let small = is_queued.recv_timeout(Duration::from_secs(10));
        drop(gate);
        small.unwrap().recv().unwrap().unwrap();
    });
    first.recv().unwrap().unwrap();
    large.recv().unwrap().unwrap();
}

#[test]
fn disk_full_device_rejects_writes_until_space_returns() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    write(&wal, vec![append(ONE, 1..3)]).unwrap();
    fixture.device.full.store(true, SeqCst);
    let mut next = 3;
    let mut became_unwritable = false;
    let refused = loop {
        match write(&wal, vec![append(ONE, next..next + 9)]) {
            Ok(()) => next += 9,
            Err(error) => break error,
        }
        became_unwritable |= wal.writable().is_err();
    };
    assert!(became_unwritable, "reported before anything was rejected");
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    assert!(refused.to_string().contains("bytes needed"), "{refused}");
    assert_eq!(wal.state(ONE).last, Some((next - 1, 1)), "the index drops what was rejected");
    write(&wal, vec![vote(ONE, "small")]).unwrap();
    // A rejection concerns its own replica only.
    let large = |at| vec![append(ONE, at..at + 9)];
    let waiting = [submit(&wal, large(next)), submit(&wal, vec![vote(TWO, "other")])];
    let [one, two] = waiting.map(|result| result.recv().unwrap());
    assert_eq!(one.unwrap_err().kind(), io::ErrorKind::StorageFull);
    two.unwrap();
    assert_eq!(indexes(&wal, ONE), (1..next).collect::<Vec<_>>(), "reads go on");

    fixture.device.full.store(false, SeqCst);
    wait_until("space", || wal.writable().is_ok());
    write(&wal, large(next)).unwrap();
    drop(wal);
    let (wal, recovered) = fixture.open();
    assert_eq!(indexes(&wal, ONE), (1..next + 9).collect::<Vec<_>>());
    assert_eq!(recovered.groups[&ONE].vote, Some(Bytes::from_static(b"small")));
    assert_eq!(recovered.groups[&TWO].vote, Some(Bytes::from_static(b"other")));
}

#[test]
fn disk_device_error_while_full_stops_the_log() {
    let fixture = Fixture::new();
    let (reason_sender, reason_received) = std::sync::mpsc::channel();
    let mut config = fixture.config();
    config.fatal = Box::new(move |reason| reason_sender.send(reason).unwrap());
    let (wal, _) = Wal::open(fixture.dir.path(), config).unwrap();
    fixture.device.full.store(true, SeqCst);
    let mut next = 1;
    while write(&wal, vec![append(ONE, next..next + 9)]).is_ok() {
        next += 9;
    }
    fixture.device.sync_fails.store(true, SeqCst);
    fixture.device.full.store(false, SeqCst);
    wait_until("another error", || !matches!(wal.writable(), Err(WalError::Full { .. })));
    let error = write(&wal, vec![append(ONE, next..next + 9)]).unwrap_err();
    assert_ne!(error.kind(), io::ErrorKind::StorageFull, "{error}");
    assert!(reason_received.recv().unwrap().contains("on fire"));
    assert!(matches!(wal.writable(), Err(WalError::Stopped { .. })));
}

#[test]
fn disk_rejected_changes_are_rewritten_when_space_returns() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    write(&wal, vec![append(ONE, 1..9), append(TWO, 1..4)]).unwrap();
    fixture.device.full.store(true, SeqCst);
    let mut small = 0u64;
    while write(&wal, vec![vote(TWO, "a vote of some forty bytes, to fill it up")]).is_ok() {
        small += 1;
        assert!(small < 1000);
    }
    // Not even a truncation fits; it holds in memory all the same.
    let cut = LogOp::TruncateAfter { group: ONE, after: Some(4) };
    assert!(write(&wal, vec![cut, vote(ONE, "me"), append(ONE, 5..7)]).is_err());
    assert!(write(&wal, vec![LogOp::Forget { group: TWO }]).is_err());
    assert_eq!(indexes(&wal, ONE), [1, 2, 3, 4]);
    fixture.device.full.store(false, SeqCst);
    wait_until("space", || wal.writable().is_ok());
    write(&wal, vec![append(ONE, 5..6)]).unwrap();
    drop(wal);
    let (wal, recovered) = fixture.open();
    assert_eq!(indexes(&wal, ONE), [1, 2, 3, 4, 5]);
    assert_eq!(recovered.groups[&ONE].vote, Some(Bytes::from_static(b"me")));
    assert!(!recovered.groups.contains_key(&TWO));
}

#[test]
fn disk_full_file_system_rejects_writes() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=192k", "tmpfs"])
        .arg(dir.path())
        .stderr(std::process::Stdio::null())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: mounting a small file system needs root");
        return;
    }
    let outcome = std::panic::catch_unwind(|| {
        let mut config = WalConfig::new(|reason| panic!("{reason}"));
        config.segment_bytes = 16 << 10;
        let (wal, _) = Wal::open(&dir.path().join("wal"), config).unwrap();
        let mut next = 1;
        while write(&wal, vec![append(ONE, next..next + 20)]).is_ok() {
            next += 20;
        }
        let full = wal.writable().unwrap_err();
        assert!(matches!(full, WalError::Full { .. }), "{full}");
        assert!(full.to_string().starts_with("no room for the next log segment in"));
        write(&wal, vec![purge(ONE, next - 5)]).unwrap();
        wait_until("space", || wal.writable().is_ok());
        write(&wal, vec![append(ONE, next..next + 20)]).unwrap();
        assert_eq!(indexes(&wal, ONE).len(), 24);
    });
    let unmounted = Command::new("umount").arg(dir.path()).status().unwrap();
    assert!(unmounted.success());
    outcome.unwrap();
}

#[test]
fn disk_only_open_removes_unfinished_segments() {
    let fixture = Fixture::new();
    drop(fixture.open());
    let unfinished = fixture.dir.path().join("0000000000000099.wal.new");
    fs::write(&unfinished, b"half a segment").unwrap();
    assert!(!fixture.files().is_empty());
    assert!(unfinished.exists(), "only open removes it");
    drop(fixture.open());
    assert!(!unfinished.exists());
}
