//! RecentRefusals: what leaders on other nodes refused a moment ago, so that the next write of the
//! same kind is refused here, before its body is read and without a call.
//!
//! A refusal stands for a part of the time after which its leader asked to come again: what waits
//! there has hardly become less by then. So a leader that is full is asked a few times a second by
//! each node, and has enough to do all the time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use model::BranchKey;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::limits::{RECENT_REFUSAL_MAX, RECENT_REFUSALS_MAX};
use crate::message::Refusal;
use crate::shares::{Requester, ShareScope};

/// Of the time after which a client may come again, how long others need not try: one part in so
/// many.
const PART: u32 = 4;

/// The refusals of other nodes. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct RecentRefusals(Arc<Mutex<RefusalTable>>);

#[derive(Default)]
struct RefusalTable {
    branches: HashMap<BranchKey, HashMap<Requester, RecentRefusal>>,
    count: usize,
}

struct RecentRefusal {
    refusal: Refusal,
    /// What was refused weighed so much: less may find room.
    weight: u64,
    since: Instant,
    until: Instant,
}

/// Who is meant by a refusal of this scope, to somebody.
fn meant(scope: ShareScope, requester: Requester) -> Requester {
    match scope {
        ShareScope::Everybody => Requester::default(),
        ShareScope::Address => Requester { connection: 0, ..requester },
        ShareScope::Connection => requester,
    }
}

impl RecentRefusals {
    /// A leader refused this write of somebody.
    pub(crate) fn insert(
        &self,
        key: &BranchKey,
        requester: Requester,
        weight: u64,
        refusal: &Refusal,
    ) {
        let Refusal::Exhausted { scope, retry_after, .. } = refusal else { return };
        let now = Instant::now();
        let until = now + (*retry_after / PART).min(RECENT_REFUSAL_MAX);
        let recent = RecentRefusal { refusal: refusal.clone(), weight, since: now, until };
        let mut table = self.0.lock();
        if table.count >= RECENT_REFUSALS_MAX {
            // Whoever is refused again is remembered again.
            *table = RefusalTable::default();
        }
        let of_branch = table.branches.entry(key.clone()).or_default();
        let is_new = of_branch.insert(meant(*scope, requester), recent).is_none();
        table.count += usize::from(is_new);
    }

    /// Whether a write of this weight would be refused.
    ///
    /// # Errors
    /// What its leader answered a moment ago, with the time that is left.
    pub(crate) fn check(
        &self,
        key: &BranchKey,
        requester: Requester,
        weight: u64,
    ) -> Result<(), Refusal> {
        let table = self.0.lock();
        let Some(of_branch) = table.branches.get(key) else { return Ok(()) };
        let now = Instant::now();
        let scopes = [ShareScope::Everybody, ShareScope::Address, ShareScope::Connection];
        let mut recent = scopes.iter().filter_map(|it| of_branch.get(&meant(*it, requester)));
        match recent.find(|it| now < it.until && weight >= it.weight) {
            Some(recent) => Err(recent.now(now)),
            None => Ok(()),
        }
    }
}

impl RecentRefusal {
    /// The same as it would be said now.
    fn now(&self, now: Instant) -> Refusal {
        let mut refusal = self.refusal.clone();
        if let Refusal::Exhausted { retry_after, .. } = &mut refusal {
            let passed = now - self.since;
            *retry_after = retry_after.saturating_sub(passed).max(Duration::from_millis(1));
        }
        refusal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::BusyScope;
    use crate::testing::insert;

    fn of(address: u8, connection: u64) -> Requester {
        Requester { address: Some([10, 0, 0, address].into()), connection }
    }

    fn refusal(scope: ShareScope) -> Refusal {
        let retry_after = Duration::from_millis(400);
        Refusal::Exhausted { what: BusyScope::Branch, scope, retry_after }
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_are_meant_are_refused_and_nobody_else() {
        let key = insert("dar", "n1", "x").key;
        let other = insert("remal", "n1", "x").key;
        let refused = |scope| {
            let refusals = RecentRefusals::default();
            refusals.insert(&key, of(1, 1), 10, &refusal(scope));
            let check = |key, who, weight| refusals.check(key, who, weight).is_err();
            [
                check(&key, of(1, 1), 10),
                check(&key, of(1, 2), 10),
                check(&key, of(2, 1), 10),
                check(&key, of(1, 1), 9),
                check(&other, of(1, 1), 10),
            ]
        };
        assert_eq!(refused(ShareScope::Connection), [true, false, false, false, false]);
        assert_eq!(refused(ShareScope::Address), [true, true, false, false, false]);
        assert_eq!(refused(ShareScope::Everybody), [true, true, true, false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_stands_for_a_part_of_its_time() {
        let key = insert("dar", "n1", "x").key;
        let refusals = RecentRefusals::default();
        refusals.insert(&key, of(1, 1), 1, &refusal(ShareScope::Address));
        tokio::time::advance(Duration::from_millis(60)).await;
        let left = Duration::from_millis(340);
        let expected = Refusal::Exhausted {
            what: BusyScope::Branch,
            scope: ShareScope::Address,
            retry_after: left,
        };
        assert_eq!(refusals.check(&key, of(1, 1), 1), Err(expected));
        tokio::time::advance(Duration::from_millis(40)).await;
        assert_eq!(refusals.check(&key, of(1, 1), 1), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_remembered_and_no_more() {
        let key = insert("dar", "n1", "x").key;
        let refusals = RecentRefusals::default();
        for n in 0..RECENT_REFUSALS_MAX as u64 + 5 {
            refusals.insert(&key, of(1, n), 1, &refusal(ShareScope::Connection));
        }
        let table = refusals.0.lock();
        let held: usize = table.branches.values().map(HashMap::len).sum();
        assert!(table.count == held && held <= RECENT_REFUSALS_MAX, "{held}");
    }
}
