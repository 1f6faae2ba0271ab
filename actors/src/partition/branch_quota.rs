//! BranchQuota: how many branches one address may make by writing to them. A name that nobody used
//! is all that it takes, and each branch is held by every replica for ever.
//!
//! ```text
//!   a quota ──┬── partition 1: a bucket for each address, of an equal part of it
//!             ├── partition 2: …
//!             ⋮
//! ```
//!
//! Promises:
//! - whichever nodes an address asks, it makes no more than the quota in the whole cluster: where a
//!   branch lies is a function of its name, and the leader of each partition gives out that
//!   partition's part. Counted at the node where a client came in, each further node would give the
//!   quota once more; so would each leader that gave out all of it;
//! - an address whose bucket is full again takes no memory, and taking costs the same however many
//!   there are.
//!
//! Refused: to count branches that exist or that the catalogue lists, and what the node itself
//! makes. A partition's next leader begins to count anew.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::limits::{BRANCH_BUCKETS_MAX, BRANCHES_PER_ADDRESS, BRANCHES_PER_ADDRESS_PER_SECOND};
use crate::shares::Requester;

/// How many branches one address may make by writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BranchQuota {
    /// So many at once, over all partitions; 0: any number.
    pub burst: u32,
    /// The time after which it may make one more, over all partitions.
    pub refill: Duration,
}

impl Default for BranchQuota {
    fn default() -> Self {
        Self {
            burst: BRANCHES_PER_ADDRESS,
            refill: Duration::from_secs(1) / BRANCHES_PER_ADDRESS_PER_SECOND,
        }
    }
}

/// An address has made as many branches as it may for now; nothing was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error(
    "this branch does not exist, and your address has made as many by writing to them as it may \
     for now: {burst} at once and one more each {} ms, spread over the cluster's partitions \
     (branches_per_address_burst, branches_per_address_per_second). Write to branches that exist, \
     list new ones with POST /api/branches, or ask again in {} ms",
    .refill.as_millis(),
    .retry_after.as_millis()
)]
pub struct BranchQuotaReached {
    /// So many at once.
    pub burst: u32,
    /// The time after which one more may be made.
    pub refill: Duration,
    /// When the same would be taken.
    pub retry_after: Duration,
}

/// What each address may still make in one partition.
pub(super) struct BranchBuckets {
    quota: BranchQuota,
    /// When the bucket of an address is full again. That of one that is not here is.
    full_at: HashMap<IpAddr, Instant>,
    /// The same addresses, in the order in which they are looked at.
    order: VecDeque<IpAddr>,
}

impl BranchBuckets {
    pub(super) fn new(quota: BranchQuota) -> Self {
        Self { quota, full_at: HashMap::new(), order: VecDeque::new() }
    }

    /// Takes one branch out of a requester's bucket, in a cluster of so many partitions.
    ///
    /// # Errors
    /// [`BranchQuotaReached`]: the bucket is empty, and nothing was taken.
    pub(super) fn take(
        &mut self,
        requester: Requester,
        partitions: u16,
    ) -> Result<(), BranchQuotaReached> {
        let BranchQuota { burst, refill } = self.quota;
        let Some(address) = requester.address.filter(|_| burst > 0) else { return Ok(()) };
        let now = Instant::now();
        self.forget_full(now);
        let partitions = u32::from(partitions.max(1));
        let (most, each) = (burst.div_ceil(partitions), refill * partitions);
        let full_at = self.full_at.get(&address).map_or(now, |full_at| now.max(*full_at)) + each;
        // A bucket that is empty is full again after `each` for all that it holds.
        let retry_after = (full_at - now).saturating_sub(each * most);
        if !retry_after.is_zero() {
            return Err(BranchQuotaReached { burst, refill, retry_after });
        }
        if self.full_at.insert(address, full_at).is_none() {
            self.order.push_back(address);
        }
        Ok(())
    }

    /// Looks at two addresses, so that more are forgotten than can come. At the bound the one that
    /// was looked at longest ago goes, full or not: who has so many addresses needs no second turn.
    fn forget_full(&mut self, now: Instant) {
        for _ in 0..2 {
            let Some(address) = self.order.pop_front() else { return };
            let is_full = self.full_at.get(&address).is_none_or(|full_at| *full_at <= now);
            if is_full || self.order.len() >= BRANCH_BUCKETS_MAX {
                self.full_at.remove(&address);
            } else {
                self.order.push_back(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn of(address: u32) -> Requester {
        Requester { address: Some(std::net::Ipv4Addr::from(address).into()), connection: 1 }
    }

    fn buckets(burst: u32) -> BranchBuckets {
        BranchBuckets::new(BranchQuota { burst, refill: MINUTE })
    }

    /// How many one may make now.
    fn makes(buckets: &mut BranchBuckets, requester: Requester, partitions: u16) -> usize {
        (0..1000).take_while(|_| buckets.take(requester, partitions).is_ok()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_makes_so_many_at_once_and_then_one_each_time() {
        let mut buckets = buckets(3);
        assert_eq!(makes(&mut buckets, of(1), 1), 3);
        assert_eq!(makes(&mut buckets, of(2), 1), 3, "another address has its own");
        let refused = buckets.take(of(1), 1).unwrap_err();
        assert_eq!(refused.retry_after, MINUTE);
        assert!(refused.to_string().contains("3 at once and one more each 60000 ms"), "{refused}");
        tokio::time::advance(refused.retry_after - Duration::from_millis(1)).await;
        assert_eq!(buckets.take(of(1), 1).unwrap_err().retry_after, Duration::from_millis(1));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(makes(&mut buckets, of(1), 1), 1, "what it was told is true");
        tokio::time::advance(MINUTE * 100).await;
        assert_eq!(makes(&mut buckets, of(1), 1), 3, "and no more than at first");
    }

    #[tokio::test(start_paused = true)]
    async fn a_partition_gives_out_its_part() {
        let mut each: Vec<BranchBuckets> = (0..4).map(|_| buckets(8)).collect();
        let all: usize = each.iter_mut().map(|buckets| makes(buckets, of(1), 4)).sum();
        assert_eq!(all, 8);
        tokio::time::advance(MINUTE * 4).await;
        let all: usize = each.iter_mut().map(|buckets| makes(buckets, of(1), 4)).sum();
        assert_eq!(all, 4, "one for each minute");
    }

    #[tokio::test(start_paused = true)]
    async fn the_node_itself_and_an_unlimited_quota_have_no_bound() {
        assert_eq!(makes(&mut buckets(1), Requester::default(), 1), 1000);
        assert_eq!(makes(&mut buckets(0), of(1), 1), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn whose_bucket_is_full_is_not_remembered() {
        let mut buckets = buckets(3);
        (0..100).for_each(|address| buckets.take(of(address), 1).unwrap());
        assert_eq!((buckets.full_at.len(), buckets.order.len()), (100, 100));
        tokio::time::advance(MINUTE).await;
        (100..151).for_each(|address| buckets.take(of(address), 1).unwrap());
        assert_eq!((buckets.full_at.len(), buckets.order.len()), (51, 51));
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_addresses_are_remembered() {
        let mut buckets = buckets(3);
        let many = u32::try_from(BRANCH_BUCKETS_MAX).unwrap() + 100;
        (0..many).for_each(|address| buckets.take(of(address), 1).unwrap());
        assert!(buckets.full_at.len() <= BRANCH_BUCKETS_MAX + 1);
        assert_eq!(buckets.full_at.len(), buckets.order.len());
    }
}
