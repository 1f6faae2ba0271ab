//! Shares: how much one client may hold of what all clients of a node share.
//!
//! ```text
//!   a bound ──┬── of everybody          what is held in all
//!             ├── of one address        grows with what is free: alone it has half by default
//!             └── of one connection     the same, of what its address may still hold
//! ```
//!
//! A sixteenth is a reserve: only an address that holds little can take of it, a sixteenth of what
//! is left each time, 1 at least. So after many addresses that took all they may, one more finds
//! some: after 36 of a bound of 512, after 100 of one of 20,000.
//!
//! Promises:
//! - whatever one address holds, others can hold as much as is then free, so that there is always
//!   room for one who comes with little: a lone address cannot take more than its share, and many
//!   of them leave some of it, too (the dynamic thresholds of shared switch memories);
//! - the same for the connections of one address: those behind one proxy leave room for each other;
//! - taking and giving back cost the same whatever is held.
//!
//! Refused: a queue. Who gets nothing is told so, by which bound, and when to come again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::limits::{RETRY_AFTER_MAX, RETRY_AFTER_MIN};

/// Who asks, as far as sharing is concerned. The default is the node itself.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Requester {
    /// The address a client came from, of IPv6 its network.
    pub address: Option<IpAddr>,
    /// Its connection: no other of the cluster has the number, but for a rare accident.
    pub connection: u64,
}

/// Of a bound, one part in so many is the reserve; and of what is left, one part in so many is what
/// an address that holds nothing may take of it.
const RESERVE_PART: u64 = 16;

/// A bound that clients share. Clones are the same.
#[derive(Debug, Clone)]
pub struct ShareLimiter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    total: u64,
    /// Of the total, what one address may hold alone; 100: no bound for addresses.
    address_percent: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    addresses: HashMap<Option<IpAddr>, u64>,
    connections: HashMap<Requester, u64>,
    rate: ReturnRate,
}

/// What was taken; given back when dropped.
#[derive(Debug)]
pub struct Share {
    limiter: ShareLimiter,
    requester: Requester,
    amount: u64,
}

/// Which bound is exhausted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShareScope {
    /// That of everybody together.
    Everybody,
    /// What one address may hold.
    Address,
    /// What one connection may hold.
    Connection,
}

/// Nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted {
    /// Because of this bound.
    pub scope: ShareScope,
    /// When what is held under it will have been given back, at the rate of just now.
    pub retry_after: Duration,
}

impl ShareLimiter {
    /// A bound of so many in all, of which one address alone may hold this share, 1 to 100
    /// percent; with 100 the connections share all of it.
    pub fn new(total: u64, address_percent: u8) -> Self {
        let address_percent = u64::from(address_percent.clamp(1, 100));
        Self(Arc::new(Inner { total, address_percent, state: Mutex::default() }))
    }

    /// Takes an amount for somebody.
    ///
    /// # Errors
    /// It would be more than they may hold now.
    pub fn acquire(&self, requester: Requester, amount: u64) -> Result<Share, Exhausted> {
        let mut state = self.0.state.lock();
        self.0.check(&state, requester, amount)?;
        state.used += amount;
        *state.addresses.entry(requester.address).or_default() += amount;
        *state.connections.entry(requester).or_default() += amount;
        Ok(Share { limiter: self.clone(), requester, amount })
    }

    /// Whether somebody could take an amount now.
    ///
    /// # Errors
    /// As [`Self::acquire`].
    pub fn check(&self, requester: Requester, amount: u64) -> Result<(), Exhausted> {
        self.0.check(&self.0.state.lock(), requester, amount)
    }

    /// What is held in all.
    pub fn used(&self) -> u64 {
        self.0.state.lock().used
    }
}

impl Inner {
    fn check(&self, state: &State, requester: Requester, amount: u64) -> Result<(), Exhausted> {
        let free = self.total.saturating_sub(state.used);
        let of_address = state.addresses.get(&requester.address).copied().unwrap_or_default();
        let of_connection = state.connections.get(&requester).copied().unwrap_or_default();
        // The node itself is no client, and has only the bound of everybody.
        let is_client = requester.address.is_some();
        let left = if is_client { self.left(free, of_address, amount) } else { free };
        // Beside others of its address a connection leaves them as much as it then holds.
        let takes =
            if of_address > of_connection { (2 * amount).saturating_sub(1) } else { amount };
        let (scope, held) = if amount > free || (amount > left && of_address == 0) {
            // Who holds nothing has not used up a share of its own.
            (ShareScope::Everybody, state.used)
        } else if amount > left || (is_client && takes > left && of_connection == 0) {
            (ShareScope::Address, of_address)
        } else if is_client && of_connection + takes > left {
            (ShareScope::Connection, of_connection)
        } else {
            return Ok(());
        };
        Err(Exhausted { scope, retry_after: state.rate.time_for(held.max(amount), Instant::now()) })
    }

    /// What an address that holds so much may take more, of what is free, in pieces of an amount.
    fn left(&self, free: u64, of_address: u64, amount: u64) -> u64 {
        // What is free counts, not the total: who holds much leaves as much to others, in
        // proportion, and what nobody uses is at the disposal of those who do.
        let percent = self.address_percent;
        if percent == 100 {
            return free;
        }
        // A large piece counts with what is free once it is taken, or it would take twice as much.
        let free_then = free.saturating_sub(amount.saturating_sub(1));
        let most = free_then.saturating_mul(percent) / (100 - percent);
        let usual =
            most.saturating_sub(of_address).min(free.saturating_sub(self.total / RESERVE_PART));
        // Of the reserve: each takes a part of what is left.
        let first = (free / RESERVE_PART).max(1).min(free).saturating_sub(of_address);
        usual.max(first)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.limiter.0.state.lock();
        let State { used, addresses, connections, rate } = &mut *state;
        *used -= self.amount;
        // Who holds nothing takes no memory.
        give_back(addresses, self.requester.address, self.amount);
        give_back(connections, self.requester, self.amount);
        rate.returned(self.amount, Instant::now());
    }
}

fn give_back<K: Eq + std::hash::Hash>(held: &mut HashMap<K, u64>, key: K, amount: u64) {
    if let Some(of_key) = held.get_mut(&key) {
        *of_key -= amount;
        if *of_key == 0 {
            held.remove(&key);
        }
    }
}

/// How much is given back in a second.
#[derive(Debug, Default)]
struct ReturnRate {
    since: Option<Instant>,
    returned: u64,
    per_second: f64,
}

impl ReturnRate {
    /// Over which time it is counted: long enough for some entries of the log.
    const WINDOW: Duration = Duration::from_millis(500);

    fn returned(&mut self, amount: u64, now: Instant) {
        self.returned += amount;
        let since = *self.since.get_or_insert(now);
        let elapsed = now - since;
        if elapsed < Self::WINDOW {
            return;
        }
        let now_per_second = self.returned as f64 / elapsed.as_secs_f64();
        // Half of it is from the windows before, so that one pause does not look like a stop; a
        // long one is one.
        let goes_on = self.per_second > 0.0 && elapsed <= 2 * Self::WINDOW;
        let before = if goes_on { self.per_second } else { now_per_second };
        self.per_second = f64::midpoint(before, now_per_second);
        (self.since, self.returned) = (Some(now), 0);
    }

    /// How long until so much is given back; the longest where nothing was, or not for long.
    fn time_for(&self, amount: u64, now: Instant) -> Duration {
        let window = self.since.map_or(Duration::ZERO, |since| now - since);
        // What was given back before a pause says nothing of what will be after it.
        let has_paused = window > 2 * Self::WINDOW;
        let since_then = self.returned.max(1) as f64 / window.as_secs_f64();
        let per_second = if has_paused { since_then } else { self.per_second };
        let seconds = amount as f64 / per_second;
        let time = Duration::try_from_secs_f64(seconds).unwrap_or(RETRY_AFTER_MAX);
        time.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn of(address: u8, connection: u64) -> Requester {
        Requester { address: Some(Ipv4Addr::new(10, 0, 0, address).into()), connection }
    }

    /// Takes one after another until there is no more.
    fn all_of(limiter: &ShareLimiter, requester: Requester) -> (Vec<Share>, ShareScope) {
        let mut shares = Vec::new();
        loop {
            match limiter.acquire(requester, 1) {
                Ok(share) => shares.push(share),
                Err(exhausted) => return (shares, exhausted.scope),
            }
        }
    }

    #[test]
    fn one_address_leaves_half_to_all_others() {
        let limiter = ShareLimiter::new(100, 50);
        let mut held: Vec<Share> = Vec::new();
        // A new connection for each.
        let refused = (0..).find_map(|n| match limiter.acquire(of(1, n), 1) {
            Ok(share) => {
                held.push(share);
                None
            }
            Err(exhausted) => Some(exhausted.scope),
        });
        assert_eq!((held.len(), refused), (50, Some(ShareScope::Address)));
        assert!(limiter.acquire(of(2, 1), 16).is_ok(), "another one finds room");
        held.pop();
        assert!(limiter.acquire(of(1, 99), 1).is_ok(), "what was given back can be taken again");
    }

    #[test]
    fn many_greedy_addresses_leave_some_for_one_more() {
        let limiter = ShareLimiter::new(1000, 50);
        let held: Vec<_> = (1..=8).map(|n| all_of(&limiter, of(n, 0)).0).collect();
        assert!(held.iter().all(|shares| !shares.is_empty()));
        assert!(limiter.acquire(of(100, 0), 1).is_ok());
    }

    #[test]
    fn after_many_greedy_addresses_one_more_finds_some() {
        // So many as each of these bounds can bear; see the head of this file.
        for (total, addresses) in [(512, 35), (1_024, 40), (16 * 1024, 90), (20_000, 99)] {
            let limiter = ShareLimiter::new(total, 50);
            let mut held = Vec::new();
            for address in 1..=addresses {
                // Each with as many connections as it likes.
                held.extend((0..).map_while(|n| limiter.acquire(of(address, n), 1).ok()));
            }
            let used = limiter.used();
            let newcomer = limiter.acquire(of(100, 0), 1);
            assert!(newcomer.is_ok(), "{used} of {total} are used");
        }
    }

    #[test]
    fn the_reserve_is_for_those_who_hold_little() {
        let limiter = ShareLimiter::new(1600, 90);
        // A greedy one has all but the reserve, where its share were more.
        let held: Vec<_> = (0..).map_while(|n| limiter.acquire(of(1, n), 1).ok()).collect();
        assert_eq!(held.len(), 1440, "90 percent");
        let second: Vec<_> = (0..).map_while(|n| limiter.acquire(of(2, n), 1).ok()).collect();
        assert_eq!(second.len(), 60, "the reserve of 100 is left");
        assert_eq!(limiter.acquire(of(3, 0), 7).unwrap_err().scope, ShareScope::Everybody);
        assert!(limiter.acquire(of(3, 0), 6).is_ok(), "a sixteenth of it");
    }

    #[test]
    fn connections_of_one_address_leave_some_for_each_other() {
        let limiter = ShareLimiter::new(1000, 50);
        let first = all_of(&limiter, of(1, 1));
        assert_eq!((first.0.len(), first.1), (334, ShareScope::Connection));
        let held: Vec<_> = (2..=5).map(|n| all_of(&limiter, of(1, n)).0).collect();
        assert!(held.iter().all(|shares| !shares.is_empty()));
        assert!(limiter.acquire(of(1, 77), 1).is_ok(), "a further one of the same address");
        assert!(limiter.acquire(of(2, 1), 100).is_ok(), "and another address has its own share");
    }

    #[test]
    fn the_share_of_an_address_is_a_setting() {
        let alone = |percent| {
            let limiter = ShareLimiter::new(1000, percent);
            (0..).map_while(|n| limiter.acquire(of(1, n), 1).ok()).collect::<Vec<_>>().len()
        };
        assert_eq!([alone(25), alone(50), alone(75), alone(100)], [250, 500, 750, 1000]);
    }

    #[test]
    fn whoever_holds_nothing_is_not_remembered() {
        let limiter = ShareLimiter::new(100, 50);
        let share = limiter.acquire(of(1, 1), 3).unwrap();
        assert_eq!(limiter.used(), 3);
        drop(share);
        let state = limiter.0.state.lock();
        assert!(state.used == 0 && state.addresses.is_empty() && state.connections.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_says_when_to_come_again() {
        let limiter = ShareLimiter::new(1000, 50);
        let refused = |limiter: &ShareLimiter| limiter.acquire(of(2, 2), 900).unwrap_err();
        let held = limiter.acquire(of(1, 1), 300).unwrap();
        assert_eq!(refused(&limiter).retry_after, RETRY_AFTER_MAX, "nobody knows yet");
        for _ in 0..10 {
            drop(limiter.acquire(of(3, 3), 100).unwrap());
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        let Exhausted { scope, retry_after } = refused(&limiter);
        assert_eq!(scope, ShareScope::Everybody);
        // A thousand a second are given back, and 900 are asked for.
        let millis = retry_after.as_millis();
        assert!((600..=900).contains(&millis), "{millis}");
        drop(held);
    }

    #[test]
    fn heavy_commands_of_an_address_leave_room_for_its_light_ones() {
        for amount in 1..1_000 {
            let limiter = ShareLimiter::new(16 * 1024, 50);
            let take = |n| limiter.acquire(of(1, n), amount).ok();
            let held: Vec<_> = (0..).map_while(take).collect();
            assert!(limiter.used() <= 8 * 1024, "{amount}: it holds its share at most");
            // Whatever its connections hold, others can hold half as much in small pieces.
            let light: Vec<_> = (10_000..10_000 + (amount / 2).saturating_sub(1))
                .map(|n| limiter.acquire(of(1, n), 1).ok())
                .collect();
            assert!(light.iter().all(Option::is_some), "{amount}");
            drop(held);
        }
    }

    #[test]
    fn what_was_given_back_before_a_pause_promises_nothing() {
        let (began, mut rate) = (Instant::now(), ReturnRate::default());
        assert_eq!(rate.time_for(100, began), RETRY_AFTER_MAX, "nothing was yet");
        let at = |millis| began + Duration::from_millis(millis);
        (0..=10).for_each(|n| rate.returned(100, at(n * 100)));
        assert!(rate.time_for(500, at(1_000)) < Duration::from_millis(600));
        assert_eq!(rate.time_for(500, at(3_600_000)), RETRY_AFTER_MAX);
    }
}
