//! Disk watch: says in the node's fitness what the disk of the log is like.
//!
//! Promise: a disk that is full or slow is known within [`limits::DISK_CHECK_INTERVAL`] of the
//! bound it passed. One that is full for the next segment is known at once, by the segment
//! allocator.

use std::sync::Weak;
use std::time::Duration;

use crate::blocking::blocking;
use crate::disk::{Wal, WalError};
use crate::fitness::{NodeFitness, UnfitReason};
use crate::groups::config::GroupsConfig;
use crate::limits;

/// Looks at the disk again and again, until the log is closed.
pub(super) async fn watch_disk(wal: Weak<Wal>, config: GroupsConfig) {
    loop {
        tokio::time::sleep(limits::DISK_CHECK_INTERVAL).await;
        if !look_once(wal.clone(), &config).await {
            return;
        }
    }
}

/// Looks at the disk once. `false`: the log is closed.
pub(super) async fn look_once(wal: Weak<Wal>, config: &GroupsConfig) -> bool {
    let (fitness, slow_after) = (config.fitness.clone(), config.sync_slow_after);
    // On a thread that may block: a disk that hangs may not even say how much is free. Held only
    // for the look, so that the log can close.
    let looked = blocking(move || match wal.upgrade() {
        Some(wal) => {
            // One at a time: where a look hangs, the next would as well, each on a thread.
            if let Some(_looking) = wal.try_look() {
                look(&wal, &fitness, slow_after);
            }
            true
        }
        None => false,
    });
    looked.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a look at the disk failed");
        true
    })
}

fn look(wal: &Wal, fitness: &NodeFitness, slow_after: Duration) {
    // First: where the disk hangs, the next line may as well.
    let p99 = wal.sync_latency().slow(slow_after, fitness.has(UnfitReason::DiskSlow));
    fitness.set(UnfitReason::DiskSlow, p99.map(|p99| slow_words(p99, slow_after)));
    fitness.set(UnfitReason::DiskFull, full_words(wal, fitness.has(UnfitReason::DiskFull)));
}

fn slow_words(p99: Duration, slow_after: Duration) -> String {
    let (p99, allowed) = (p99.as_millis(), slow_after.as_millis());
    let window = limits::SYNC_WINDOW.as_secs();
    format!(
        "the disk is slow: of the last {window} s the slowest hundredth of its syncs took {p99} ms \
         or more, and {allowed} ms are allowed"
    )
}

fn full_words(wal: &Wal, was_full: bool) -> Option<String> {
    // A log that stopped is left out: its process ends.
    if let Err(error @ WalError::Full { .. }) = wal.writable() {
        return Some(error.to_string());
    }
    // Twice as much to be fit again: a disk at the bound must not make leaderships come and go.
    let needed = limits::DISK_FREE_BYTES_MIN * if was_full { 2 } else { 1 };
    let free = wal.free_bytes();
    (free < needed).then(|| format!("the disk is full: {free} bytes are free, {needed} are needed"))
}
