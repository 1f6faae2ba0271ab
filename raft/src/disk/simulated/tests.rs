//! Tests of the simulated disk under the real log: no acknowledged entry is lost, whenever power is
//! lost, and the same seed gives the same calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::disk::{GroupKey, LogOp, Wal, WalConfig};

const KEY: GroupKey = GroupKey { group: 1, replica: 1 };

/// The entries that were acknowledged, by index.
type Durable = Arc<Mutex<BTreeMap<u64, Bytes>>>;

fn open(dir: &Path, disk: &Arc<SimulatedDisk>) -> Option<Wal> {
    let mut config = WalConfig::new(|_| {});
    config.segment_bytes = 4 << 10;
    config.cache_bytes = 256;
    config.device = disk.clone();
    config.inline_notify = Some(Box::new(|| {}));
    // Power may fail while it opens.
    Wal::open(dir, config).ok().map(|(wal, _)| wal)
}

/// Checks that every acknowledged entry is there, and returns all that are.
fn recovered(wal: &Wal, durable: &Durable) -> BTreeMap<u64, Bytes> {
    let last = wal.state(KEY).last.map_or(0, |(index, _)| index);
    let entries = wal.read(KEY, 1..last + 1, usize::MAX).unwrap();
    let recovered: BTreeMap<u64, Bytes> =
        entries.into_iter().map(|entry| (entry.index, entry.bytes)).collect();
    for (index, bytes) in durable.lock().iter() {
        assert_eq!(recovered.get(index), Some(bytes), "entry {index} was acknowledged");
    }
    recovered
}

/// Runs one log several times, each time until power is lost. Returns the hashes of all calls.
fn crash_runs(seed: u64, ignored_syncs: bool) -> String {
    let (root, mut rng) = (SimulatedDir::new().unwrap(), Rng(seed));
    let (mut dir, durable) = (root.subdir("0"), Durable::default());
    let mut trace = String::new();
    for run in 1..8 {
        let disk = Arc::new(SimulatedDisk::new(rng.next_u64()));
        disk.fail(DiskFaults { ignored_syncs, ..DiskFaults::default() });
        let loses_power = rng.random_bool(600);
        if loses_power {
            disk.lose_power_after(rng.below(60));
        }
        let wal = open(&dir, &disk);
        assert!(loses_power || wal.is_some(), "the log is refused");
        if let Some(wal) = &wal {
            *durable.lock() = recovered(wal, &durable);
            let first = durable.lock().keys().last().map_or(1, |last| last + 1);
            for index in first..first + 20 + rng.below(40) {
                let size = usize::try_from(rng.below(300)).unwrap();
                let bytes = Bytes::from(vec![u8::try_from(rng.below(256)).unwrap(); size]);
                let (entry, durable) = ((index, run, bytes.clone()), durable.clone());
                let append = LogOp::Append { group: KEY, entries: vec![entry] };
                let done = move |result: io::Result<()>| {
                    if result.is_ok() {
                        durable.lock().insert(index, bytes);
                    }
                };
                wal.submit(vec![append], Box::new(done));
                if rng.random_bool(400) {
                    wal.run_queued();
                }
            }
        }
        let next = root.subdir(&run.to_string());
        disk.crash(CrashKind::PowerLoss, &dir, &next).unwrap();
        trace.push_str(&disk.trace().0);
        drop(wal);
        dir = next;
    }
    trace
}

#[test]
fn acknowledged_writes_survive_and_runs_are_reproducible() {
    let traces: Vec<String> = (0..60).map(|seed| crash_runs(seed, false)).collect();
    let again: Vec<String> = (0..60).map(|seed| crash_runs(seed, false)).collect();
    assert_eq!(traces, again);
    assert_ne!(traces[0], traces[1]);
}

#[test]
fn ignored_syncs_lose_acknowledged_writes() {
    let lost = (0..20).any(|seed| std::panic::catch_unwind(|| crash_runs(seed, true)).is_err());
    assert!(lost, "twenty logs on a disk that ignores syncs lost nothing");
}

#[test]
fn bit_flip_before_last_batch_is_rejected_until_reverted() {
    let mut refused = 0;
    for seed in 0..30 {
        let (root, mut rng) = (SimulatedDir::new().unwrap(), Rng(seed));
        let (old, dir) = (root.subdir("0"), root.subdir("1"));
        let disk = Arc::new(SimulatedDisk::new(seed));
        let wal = open(&old.join("log"), &disk).unwrap();
        for index in 1..30 {
            let entries = vec![(index, 1, Bytes::from(vec![7; 100]))];
            wal.submit(vec![LogOp::Append { group: KEY, entries }], Box::new(|_| {}));
            wal.run_queued();
        }
        disk.crash(CrashKind::PowerLoss, &old, &dir).unwrap();
        drop(wal);
        let bit_flip = flip_bit(&dir, DamageTarget::Log, &mut rng).unwrap().unwrap();
        let intact = Arc::new(SimulatedDisk::new(seed));
        if open(&dir.join("log"), &intact).is_none() {
            refused += 1;
            bit_flip.revert(&dir).unwrap();
        }
        let wal = open(&dir.join("log"), &intact).unwrap();
        assert_eq!(wal.state(KEY).last, Some((29, 1)), "{bit_flip:?}");
    }
    assert!(refused > 25, "{refused} of 30 were refused");
}
