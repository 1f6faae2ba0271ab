//! Memory: what this process holds, by class, each within a share of the node's limit.
//!
//! Promise: what is held through a guard is counted until the guard is dropped, whatever becomes
//! of its owner: an answer, a cancelled request, a panic. A class over its share refuses work that
//! would add to it, and says so in status, metrics and warnings; topics and the catalogue, which
//! have bounds of their own, only say so.
//! Refused: exact figures. What is counted is what clients can make grow; the rest of the process
//! shows as the difference to what the system says it holds.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{MEMORY_RETRY_AFTER, MEMORY_RETRY_AFTER_BRANCHES, MEMORY_SHARES};

/// What memory is held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MemoryClass {
    /// Requests under way: bytes that have come, and what was made of them.
    Requests,
    /// Answers that are written or being written and not taken yet.
    Answers,
    /// Sockets: what each needs by itself, and frames that wait for it.
    Sockets,
    /// The last posts of topics.
    Topics,
    /// Modules, branches, definitions and seeds.
    Catalogue,
    /// Records, recent events, remembered outcomes and history of all branches here.
    Branches,
}

impl MemoryClass {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Requests,
        Self::Answers,
        Self::Sockets,
        Self::Topics,
        Self::Catalogue,
        Self::Branches,
    ];

    /// As metrics and JSON name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Answers => "answers",
            Self::Sockets => "sockets",
            Self::Topics => "topics",
            Self::Catalogue => "catalogue",
            Self::Branches => "branches",
        }
    }

    /// When work of it that was refused is worth asking for again: most classes empty as others are
    /// served, records go only where somebody deletes some.
    fn retry_after(self) -> Duration {
        match self {
            Self::Catalogue | Self::Branches => MEMORY_RETRY_AFTER_BRANCHES,
            Self::Requests | Self::Answers | Self::Sockets | Self::Topics => MEMORY_RETRY_AFTER,
        }
    }
}

impl fmt::Display for MemoryClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A class holds as much as it may; nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error(
    "this node holds {} MiB for {class}, and their share of its memory is {} MiB{}",
    .held / MIB,
    .share / MIB,
    if matches!(class, MemoryClass::Branches) { "; deletes and purges are taken" } else { "" }
)]
pub struct MemoryFull {
    /// Which class.
    pub class: MemoryClass,
    /// Bytes it holds.
    pub held: u64,
    /// Bytes it may hold.
    pub share: u64,
}

impl MemoryFull {
    /// When the same is worth asking for again.
    pub fn retry_after(&self) -> Duration {
        self.class.retry_after()
    }
}

const MIB: u64 = 1024 * 1024;

/// The memory of a node by class. Clones are the same.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: u64,
    /// By class, in the order of [`MemoryClass::ALL`].
    held: [AtomicU64; 6],
    resident: AtomicU64,
    allocated: AtomicU64,
}

impl Memory {
    /// That of a node that may hold so many bytes.
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Inner {
            limit,
            held: Default::default(),
            resident: AtomicU64::new(0),
            allocated: AtomicU64::new(0),
        }))
    }

    /// That of a node without a limit: for tests and simulations.
    pub fn unlimited() -> Self {
        Self::new(u64::MAX)
    }

    /// What the node may hold in all, in bytes.
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// What a class may hold, in bytes.
    pub fn share(&self, class: MemoryClass) -> u64 {
        // Divided first: an unlimited node's limit times anything is more than a number holds.
        self.0.limit / 100 * MEMORY_SHARES[class as usize]
    }

    /// What a class holds, in bytes.
    pub fn held(&self, class: MemoryClass) -> u64 {
        self.cell(class).load(Ordering::Relaxed)
    }

    /// Whether a class holds more than it may.
    pub fn is_over(&self, class: MemoryClass) -> bool {
        self.held(class) > self.share(class)
    }

    /// Whether work of a class may begin that adds so many bytes.
    ///
    /// # Errors
    /// [`MemoryFull`]: the class would hold more than it may.
    pub fn check(&self, class: MemoryClass, adds: u64) -> Result<(), MemoryFull> {
        let (held, share) = (self.held(class), self.share(class));
        if held.saturating_add(adds) > share {
            return Err(MemoryFull { class, held, share });
        }
        Ok(())
    }

    /// Counts what is there anyway, until the guard is dropped.
    pub fn hold(&self, class: MemoryClass, bytes: u64) -> HeldMemory {
        self.cell(class).fetch_add(bytes, Ordering::Relaxed);
        HeldMemory { memory: self.clone(), class, bytes }
    }

    /// Counts what is about to be made, until the guard is dropped.
    ///
    /// # Errors
    /// [`MemoryFull`]: the class would hold more than it may, and nothing is counted.
    pub fn try_hold(&self, class: MemoryClass, bytes: u64) -> Result<HeldMemory, MemoryFull> {
        let held = self.hold(class, bytes);
        // Added before it is compared: of two that come at once, not both may pass.
        self.check(class, 0)?;
        Ok(held)
    }

    /// States what a class holds, where its owner counts by itself. Never of a class that is held
    /// through guards.
    pub fn state(&self, class: MemoryClass, bytes: u64) {
        self.cell(class).store(bytes, Ordering::Relaxed);
    }

    /// States what the system says the process holds, and what its allocator has given out.
    pub fn state_process(&self, resident: u64, allocated: u64) {
        self.0.resident.store(resident, Ordering::Relaxed);
        self.0.allocated.store(allocated, Ordering::Relaxed);
    }

    /// Whether the process as a whole holds more than the node may. `was`: whether it did before; a
    /// tenth less and it no longer does, so that leaderships do not come and go with each sample.
    pub fn is_under_pressure(&self, was: bool) -> bool {
        let most = if was { self.0.limit / 10 * 9 } else { self.0.limit };
        self.0.resident.load(Ordering::Relaxed) > most
    }

    /// All of it, for status and metrics.
    pub fn status(&self) -> MemoryStatus {
        let classes = MemoryClass::ALL.map(|class| MemoryClassStatus {
            class,
            held: self.held(class),
            share: self.share(class),
        });
        let resident = self.0.resident.load(Ordering::Relaxed);
        let known: u64 = classes.iter().map(|class| class.held).sum();
        MemoryStatus {
            limit: self.0.limit,
            resident,
            allocated: self.0.allocated.load(Ordering::Relaxed),
            unaccounted: resident.saturating_sub(known),
            classes: classes.to_vec(),
        }
    }

    /// What an operator should know now, in words.
    pub fn warnings(&self) -> Vec<String> {
        let full = MemoryClass::ALL.into_iter().filter_map(|class| {
            let full = self.check(class, 0).err()?;
            Some(format!("{full}: what would add to it is refused"))
        });
        let pressure = self.is_under_pressure(false).then(|| {
            format!(
                "this process holds {} MiB, more than the {} MiB it may (memory_max_mib)",
                self.0.resident.load(Ordering::Relaxed) / MIB,
                self.0.limit / MIB
            )
        });
        full.chain(pressure).collect()
    }

    fn cell(&self, class: MemoryClass) -> &AtomicU64 {
        &self.0.held[class as usize]
    }
}

/// Bytes that are counted for a class as long as this lives.
#[derive(Debug)]
pub struct HeldMemory {
    memory: Memory,
    class: MemoryClass,
    bytes: u64,
}

impl HeldMemory {
    /// From now on it is so many bytes.
    pub fn set(&mut self, bytes: u64) {
        let cell = self.memory.cell(self.class);
        if bytes >= self.bytes {
            cell.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            cell.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// So many bytes more.
    pub fn add(&mut self, bytes: u64) {
        self.set(self.bytes.saturating_add(bytes));
    }

    /// How many bytes it is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether its class holds more than it may.
    pub fn is_over(&self) -> bool {
        self.memory.is_over(self.class)
    }
}

impl Drop for HeldMemory {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// The memory of a node: in `GET /api/cluster/status` and `GET /readyz?verbose`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemoryStatus {
    /// Bytes it may hold in all.
    pub limit: u64,
    /// Bytes the system says it holds.
    pub resident: u64,
    /// Bytes its allocator has given out; 0 where that is not known.
    pub allocated: u64,
    /// What is resident and in no class: the program, its threads, the log, the working store, and
    /// free memory that is not given back yet.
    pub unaccounted: u64,
    /// By class.
    pub classes: Vec<MemoryClassStatus>,
}

/// One class of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemoryClassStatus {
    /// Which.
    pub class: MemoryClass,
    /// Bytes it holds.
    pub held: u64,
    /// Bytes it may hold.
    pub share: u64,
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use proptest::prelude::*;

    use super::*;

    const CLASS: MemoryClass = MemoryClass::Answers;

    #[test]
    fn the_shares_are_the_whole() {
        assert_eq!(MEMORY_SHARES.iter().sum::<u64>(), 100);
    }

    #[test]
    fn a_class_over_its_share_refuses_and_the_others_do_not() {
        let memory = Memory::new(100 * MIB);
        let share = memory.share(CLASS);
        let held = memory.try_hold(CLASS, share).unwrap();
        let full = memory.try_hold(CLASS, 1).unwrap_err();
        assert_eq!(full.class, CLASS);
        assert!(full.to_string().contains("MiB for answers"), "{full}");
        assert_eq!(memory.held(CLASS), share, "what is refused is not counted");
        assert!(memory.try_hold(MemoryClass::Requests, 1).is_ok());
        assert!(memory.warnings().is_empty(), "at its share it is not over it");
        drop(held);
        assert!(memory.try_hold(CLASS, 1).is_ok());
    }

    #[test]
    fn what_is_there_anyway_is_counted_and_warned_about() {
        let memory = Memory::new(100 * MIB);
        let _held = memory.hold(CLASS, 100 * MIB);
        assert!(memory.is_over(CLASS));
        memory.state_process(101 * MIB, 0);
        assert!(memory.is_under_pressure(false));
        assert_eq!(memory.warnings().len(), 2, "{:?}", memory.warnings());
        assert_eq!(memory.status().unaccounted, MIB);
    }

    #[test]
    fn a_panic_gives_back_what_was_held() {
        let memory = Memory::unlimited();
        let fails = catch_unwind(AssertUnwindSafe(|| {
            let _held = memory.hold(CLASS, 7);
            panic!("a test asked for it");
        }));
        assert!(fails.is_err());
        assert_eq!(memory.held(CLASS), 0);
    }

    #[tokio::test]
    async fn a_cancelled_task_gives_back_what_was_held() {
        let memory = Memory::unlimited();
        let held = memory.hold(CLASS, 7);
        let task = tokio::spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(memory.held(CLASS), 0);
    }

    proptest! {
        #[test]
        fn the_sum_is_what_is_held_and_returns_to_zero(steps in steps()) {
            let memory = Memory::new(1000);
            let mut guards: Vec<HeldMemory> = Vec::new();
            for (step, bytes) in steps {
                match step {
                    0 => guards.push(memory.hold(CLASS, bytes)),
                    1 => guards.extend(memory.try_hold(CLASS, bytes)),
                    2 => drop(guards.pop()),
                    3 => guards.iter_mut().for_each(|guard| guard.set(bytes)),
                    _ => guards.iter_mut().for_each(|guard| guard.add(bytes)),
                }
                let sum: u64 = guards.iter().map(HeldMemory::bytes).sum();
                prop_assert_eq!(memory.held(CLASS), sum);
            }
            guards.clear();
            prop_assert_eq!(memory.held(CLASS), 0);
        }
    }

    fn steps() -> impl Strategy<Value = Vec<(u8, u64)>> {
        proptest::collection::vec((0..5_u8, 0..100_u64), 0..40)
    }
}
