//! Stories about the simulated disk under the real log: nothing acknowledged is lost, whatever
//! moment power fails at, and one seed makes the very same calls twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::disk::{GroupKey, Op, Wal, WalConfig};

const KEY: GroupKey = GroupKey { group: 1, replica: 1 };

/// What was told to be durable: entries by index.
type Told = Arc<Mutex<BTreeMap<u64, Bytes>>>;

fn open(dir: &Path, disk: &Arc<SimulatedDisk>) -> Option<Wal> {
    let mut config = WalConfig::new(|_| {});
    config.segment_bytes = 4 << 10;
    config.cache_bytes = 256;
    config.device = disk.clone();
    config.by_hand = Some(Box::new(|| {}));
    // Power may fail while it opens.
    Wal::open(dir, config).ok().map(|(wal, _)| wal)
}

/// Checks that everything told is there, and gives what is.
fn found(wal: &Wal, told: &Told) -> BTreeMap<u64, Bytes> {
    let last = wal.state(KEY).last.map_or(0, |(index, _)| index);
    let entries = wal.read(KEY, 1..last + 1, usize::MAX).unwrap();
    let found: BTreeMap<u64, Bytes> =
        entries.into_iter().map(|entry| (entry.index, entry.bytes)).collect();
    for (index, bytes) in told.lock().iter() {
        assert_eq!(found.get(index), Some(bytes), "entry {index} was told to be durable");
    }
    found
}

/// Some lives of one log, each ended by a loss of power. Gives the hash of all calls.
fn lives(seed: u64, lying: bool) -> String {
    let (room, mut dice) = (SimulatedRoom::new().unwrap(), Dice(seed));
    let (mut dir, told) = (room.place("0"), Told::default());
    let mut trace = String::new();
    for life in 1..8 {
        let disk = Arc::new(SimulatedDisk::new(dice.number()));
        disk.fail(Failing { lies: lying, ..Failing::default() });
        let tears = dice.chance(600);
        if tears {
            disk.lose_power_after(dice.roll(60));
        }
        let wal = open(&dir, &disk);
        assert!(tears || wal.is_some(), "the log is refused");
        if let Some(wal) = &wal {
            *told.lock() = found(wal, &told);
            let first = told.lock().keys().last().map_or(1, |last| last + 1);
            for index in first..first + 20 + dice.roll(40) {
                let size = usize::try_from(dice.roll(300)).unwrap();
                let bytes = Bytes::from(vec![u8::try_from(dice.roll(256)).unwrap(); size]);
                let (entry, told) = ((index, life, bytes.clone()), told.clone());
                let append = Op::Append { group: KEY, entries: vec![entry] };
                let done = move |result: io::Result<()>| {
                    if result.is_ok() {
                        told.lock().insert(index, bytes);
                    }
                };
                wal.submit(vec![append], Box::new(done));
                if dice.chance(400) {
                    wal.turn();
                }
            }
        }
        let next = room.place(&life.to_string());
        disk.end(Ending::Power, &dir, &next).unwrap();
        trace.push_str(&disk.trace().0);
        drop(wal);
        dir = next;
    }
    trace
}

#[test]
fn nothing_told_to_be_durable_is_lost_and_one_seed_makes_the_same_calls_twice() {
    let traces: Vec<String> = (0..60).map(|seed| lives(seed, false)).collect();
    let again: Vec<String> = (0..60).map(|seed| lives(seed, false)).collect();
    assert_eq!(traces, again);
    assert_ne!(traces[0], traces[1]);
}

#[test]
fn a_disk_that_lies_is_found_out() {
    let found = (0..20).any(|seed| std::panic::catch_unwind(|| lives(seed, true)).is_err());
    assert!(found, "twenty logs on a lying disk, and nothing was missed");
}

#[test]
fn a_bit_that_turns_over_before_the_last_turn_is_refused_until_it_is_turned_back() {
    let mut refused = 0;
    for seed in 0..30 {
        let (room, mut dice) = (SimulatedRoom::new().unwrap(), Dice(seed));
        let (old, dir) = (room.place("0"), room.place("1"));
        let disk = Arc::new(SimulatedDisk::new(seed));
        let wal = open(&old.join("log"), &disk).unwrap();
        for index in 1..30 {
            let entries = vec![(index, 1, Bytes::from(vec![7; 100]))];
            wal.submit(vec![Op::Append { group: KEY, entries }], Box::new(|_| {}));
            wal.turn();
        }
        disk.end(Ending::Power, &old, &dir).unwrap();
        drop(wal);
        let flipped = flip(&dir, Kept::Log, &mut dice).unwrap().unwrap();
        let sound = Arc::new(SimulatedDisk::new(seed));
        if open(&dir.join("log"), &sound).is_none() {
            refused += 1;
            flipped.turn_back(&dir).unwrap();
        }
        let wal = open(&dir.join("log"), &sound).unwrap();
        assert_eq!(wal.state(KEY).last, Some((29, 1)), "{flipped:?}");
    }
    assert!(refused > 25, "{refused} of 30 were refused");
}
