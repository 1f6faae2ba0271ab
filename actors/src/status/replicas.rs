//! Replicas: what this node holds itself, so that it can be compared with what others hold.
//!
//! Promise: a hash and its index are of one moment. Nothing waits for it: it is worked out from a
//! copy of the state, on a thread that may block.

use std::time::{Duration, Instant};

use model::{Branch, BrokenChain, EventChain, Hash, Offset};
use raft::ScanLimit;

use crate::client::LocalPartition;
use crate::limits::{CATCH_UP_BYTES, RETRY_PAUSE, VERIFY_EVENTS, VERIFY_TIMEOUT};
use crate::partition::applied::{AppliedPartition, IndexedView};
use crate::status::report::StatusReporter;
use crate::status::{BrokenLog, LocalReplica, LocalReplicas};

impl StatusReporter {
    /// This node's replicas, that of group 0 first; `verify`: their logs are walked too.
    pub(crate) async fn local_replicas(&self, verify: bool) -> LocalReplicas {
        let (applied, hash) = self.group_0();
        let (state_hash, broken_chain) = (hash.to_string(), None);
        let mut replicas = vec![LocalReplica { partition: 0, applied, state_hash, broken_chain }];
        for (id, local) in self.partitions.all() {
            let looked = tokio::task::spawn_blocking(move || look(id.0, &local, verify)).await;
            match looked {
                Ok(replica) => replicas.push(replica),
                Err(error) => tracing::error!(partition = id.0, %error, "a state has no hash"),
            }
        }
        LocalReplicas { node: self.node.0, replicas }
    }

    /// How far group 0 has applied here, and the hash of the catalogue at exactly that index. It
    /// has no events, and so no chain.
    pub(crate) fn group_0(&self) -> (u64, Hash) {
        // Asked first, for the same reason as below.
        let applied = self.catalogue_client.applied();
        let (index, catalogue) = self.applied_catalogue.indexed_view();
        (applied.max(index), catalogue.state_hash())
    }
}

/// Blocks for as long as it takes to read all of the replica.
fn look(partition: u16, local: &LocalPartition, verify: bool) -> LocalReplica {
    // Entries that do not concern the machine move this index too; asked first, so that the
    // state is never older than it.
    let applied = local.group.status().applied;
    let IndexedView { index, state, is_newest } = local.applied.indexed_view();
    // Or the state is of before a large command that is under way, and of no later index.
    let applied = if is_newest { applied.max(index) } else { index };
    let broken = |branch: &Branch| {
        let walked = whole_log(&local.applied, branch, VERIFY_TIMEOUT);
        let BrokenChain { offset, reason } = walked.err()?;
        Some(BrokenLog {
            branch: branch.key().branch.to_string(),
            module: branch.key().module.to_string(),
            sequence: offset.0,
            reason,
        })
    };
    LocalReplica {
        partition,
        applied,
        state_hash: state.state_hash().to_string(),
        broken_chain: if verify { state.branches().find_map(broken) } else { None },
    }
}

/// Walks a log, again where the working store could not be read on the way: it is filled anew by
/// itself. After `timeout` what cannot be read counts as broken. Blocks.
pub(crate) fn whole_log(
    applied: &AppliedPartition,
    branch: &Branch,
    timeout: Duration,
) -> Result<(), BrokenChain> {
    let end = Instant::now() + timeout;
    loop {
        match walk(applied, branch) {
            Ok(()) => return Ok(()),
            Err(Stop::Unreadable(_)) if Instant::now() < end => std::thread::sleep(RETRY_PAUSE),
            Err(Stop::Unreadable(broken) | Stop::Broken(broken)) => return Err(broken),
        }
    }
}

/// Why a walk ended early.
enum Stop {
    /// The store did not give what it should hold.
    Unreadable(BrokenChain),
    Broken(BrokenChain),
}

impl From<BrokenChain> for Stop {
    fn from(broken: BrokenChain) -> Self {
        Self::Broken(broken)
    }
}

/// Walks a log from the oldest event held: first those that left memory, then those in it.
fn walk(applied: &AppliedPartition, branch: &Branch) -> Result<(), Stop> {
    let mut chain = EventChain::default();
    // All may have left: then the walk ends on disk.
    let first = branch.first_event().unwrap_or_else(|| branch.head().offset.next());
    let mut after = Offset(0);
    while after.next() < first {
        let limit = usize::try_from(first.0 - after.next().0).unwrap_or(usize::MAX);
        let stored = applied.stored_events(
            branch.key(),
            after,
            ScanLimit { rows: limit.min(VERIFY_EVENTS), bytes: CATCH_UP_BYTES },
        );
        let unreadable =
            |reason: String| Stop::Unreadable(BrokenChain { offset: after.next(), reason });
        let stored = stored.map_err(|fatal| unreadable(fatal.to_string()))?;
        let Some(last) = stored.last() else {
            return Err(unreadable("the working store does not hold it".to_owned()));
        };
        after = last.offset;
        stored.iter().filter(|event| event.offset < first).try_for_each(|e| chain.follow(e))?;
    }
    let held = branch.events_after(Offset(first.0.saturating_sub(1))).unwrap_or_default();
    held.iter().try_for_each(|event| chain.follow(event))?;
    Ok(chain.end(branch)?)
}
