//! Fair queue: commands that wait for the proposer, and work that waits for its turn, in turns
//! between those who sent them.
//!
//! Weighted fair queueing: each requester has a queue of its own, and a clock counts the turns.
//! A command is due when its requester, given an equal part of its address's part, would have had
//! as much as it weighs, or `DUE_WEIGHT_MAX`; the one that is due first is next. So a client that
//! sends little is due at once, however much others have waiting, and those who send much share the
//! rest equally. A heavy command waits for one round of the others and is paid for by what its
//! requester sends after it.
//!
//! Whoever takes them may leave the heavy ones for later: those of a requester that has one first
//! wait behind it, and all others go on by the same clock.
//!
//! Promises:
//! - commands of one requester come out in the order in which they went in;
//! - of two addresses that always have something waiting, neither gets ahead of the other by more
//!   than two of the heaviest commands for each of its connections; the same for the connections of
//!   one address;
//! - pushing and popping cost the logarithm of the number of requesters.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

use crate::limits::{BACKGROUND_WEIGHT, BATCH_CHANGES_MAX};
use crate::shares::Requester;

/// Parts of the clock for each unit of weight: it moves by less than one where many wait.
const UNIT: u64 = 1 << 16;
/// Weight by which a command is put off at most: that of a large batch, as many of which may be
/// beside it.
const DUE_WEIGHT_MAX: u64 = BATCH_CHANGES_MAX;

/// Which items are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pick {
    /// Whichever is next.
    Any,
    /// The next one that weighs less than [`BACKGROUND_WEIGHT`].
    Interactive,
}

/// When an item is due, and how many were before it. The count keeps those due at the same time in
/// the order in which they came.
type DueTime = (u64, u64);

/// Items with a requester and a weight.
pub(crate) struct FairQueue<T> {
    /// What each address has had by now that had something waiting all the time.
    clock: u64,
    flows: HashMap<Requester, Flow<T>>,
    /// The requesters that have something waiting, by when the first of it is due: where that is
    /// interactive, and where it is for the background.
    interactive: BTreeMap<DueTime, Requester>,
    background: BTreeMap<DueTime, Requester>,
    count: u64,
    /// The requesters that have nothing waiting and had more than their part, by when they will
    /// not have had more: remembered until then, or it would help to stop for a moment.
    ahead: BTreeSet<(u64, Requester)>,
    /// By address, the requesters that have something waiting.
    active: HashMap<Option<IpAddr>, u64>,
    len: usize,
}

/// What one requester has waiting.
struct Flow<T> {
    items: VecDeque<(u64, T)>,
    /// When its requester will have had no more than its part, the first of them included; without
    /// any, what it has had so far.
    finish: u64,
    /// When the first of them is due.
    due: DueTime,
}

impl<T> Flow<T> {
    fn is_background(&self) -> bool {
        self.items.front().is_some_and(|(weight, _)| *weight >= BACKGROUND_WEIGHT)
    }
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            clock: 0,
            flows: HashMap::new(),
            interactive: BTreeMap::new(),
            background: BTreeMap::new(),
            count: 0,
            ahead: BTreeSet::new(),
            active: HashMap::new(),
            len: 0,
        }
    }
}

impl<T> FairQueue<T> {
    /// Adds an item behind those of its requester. The weight is 1 at least.
    pub(crate) fn push(&mut self, requester: Requester, weight: u64, item: T) {
        let flow = self.flows.entry(requester).or_insert_with(|| Flow {
            items: VecDeque::new(),
            finish: self.clock,
            due: (0, 0),
        });
        flow.items.push_back((weight.max(1), item));
        self.len += 1;
        if flow.items.len() == 1 {
            self.ahead.remove(&(flow.finish, requester));
            *self.active.entry(requester.address).or_default() += 1;
            self.schedule(requester);
        }
    }

    /// Adds an item before those of its requester: it came out, and was not for now.
    pub(crate) fn push_front(&mut self, requester: Requester, weight: u64, item: T) {
        match self.flows.get_mut(&requester) {
            Some(flow) if !flow.items.is_empty() => {
                self.unlist(requester);
                if let Some(flow) = self.flows.get_mut(&requester) {
                    flow.items.push_front((weight.max(1), item));
                }
                self.list(requester);
                self.len += 1;
            }
            Some(_) | None => self.push(requester, weight, item),
        }
    }

    /// The item whose turn it is.
    pub(crate) fn pop(&mut self, pick: Pick) -> Option<T> {
        self.pop_of(self.next_requester(pick)?)
    }

    /// The first item of this requester, before it is due.
    pub(crate) fn pop_of(&mut self, requester: Requester) -> Option<T> {
        self.unlist(requester);
        let flow = self.flows.get_mut(&requester)?;
        let (weight, item) = flow.items.pop_front()?;
        let (is_empty, finish) = (flow.items.is_empty(), flow.finish);
        self.len -= 1;
        self.clock += weight * UNIT / (self.active.len() as u64).max(1);
        if is_empty {
            self.rest(requester, finish);
        } else {
            self.schedule(requester);
        }
        self.forget();
        Some(item)
    }

    /// What the next item weighs. Items that are gone are passed over and given out: the one behind
    /// them has their turn.
    pub(crate) fn next_weight(
        &mut self,
        pick: Pick,
        is_gone: impl Fn(&T) -> bool,
        gone: &mut Vec<T>,
    ) -> Option<u64> {
        loop {
            let requester = self.next_requester(pick)?;
            let (weight, first) = self.flows.get(&requester)?.items.front()?;
            if !is_gone(first) {
                return Some(*weight);
            }
            self.unlist(requester);
            let flow = self.flows.get_mut(&requester)?;
            while let Some((_, item)) = flow.items.pop_front_if(|(_, item)| is_gone(item)) {
                gone.push(item);
                self.len -= 1;
            }
            let (is_empty, finish) = (flow.items.is_empty(), flow.finish);
            if is_empty {
                self.rest(requester, finish);
                self.forget();
            } else {
                self.list(requester);
            }
        }
    }

    /// The item whose turn it is, of those that are ready. Costs a look at each requester.
    pub(crate) fn first_ready(&self, is_ready: impl Fn(&T) -> bool) -> Option<&T> {
        let all = self.interactive.iter().chain(&self.background);
        let firsts = all.filter_map(|(due, requester)| Some((due, self.first_of(requester)?)));
        firsts.filter(|(_, item)| is_ready(item)).min_by_key(|(due, _)| **due).map(|(_, item)| item)
    }

    /// The first item of this requester.
    pub(crate) fn first_of(&self, requester: &Requester) -> Option<&T> {
        self.flows.get(requester)?.items.front().map(|(_, item)| item)
    }

    /// Whether some requester's first item is one for the background.
    pub(crate) fn has_background(&self) -> bool {
        !self.background.is_empty()
    }

    /// How many items wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whose turn it is.
    fn next_requester(&self, pick: Pick) -> Option<Requester> {
        let background = match pick {
            Pick::Any => self.background.first_key_value(),
            Pick::Interactive => None,
        };
        let first = self.interactive.first_key_value().into_iter().chain(background);
        first.min_by_key(|(due, _)| **due).map(|(_, requester)| *requester)
    }

    /// Lists a requester by when its first item is due.
    fn list(&mut self, requester: Requester) {
        let Some(flow) = self.flows.get(&requester) else { return };
        match flow.is_background() {
            true => self.background.insert(flow.due, requester),
            false => self.interactive.insert(flow.due, requester),
        };
    }

    /// The opposite; before what is first of it changes.
    fn unlist(&mut self, requester: Requester) {
        let Some(flow) = self.flows.get(&requester) else { return };
        match flow.is_background() {
            true => self.background.remove(&flow.due),
            false => self.interactive.remove(&flow.due),
        };
    }

    /// Says when the first item of a requester is due.
    fn schedule(&mut self, requester: Requester) {
        let beside = self.active.get(&requester.address).copied().unwrap_or(1);
        let Some(flow) = self.flows.get_mut(&requester) else { return };
        let weight = flow.items.front().map_or(1, |(weight, _)| *weight);
        // Nothing is saved up: who had nothing waiting begins now.
        let begin = flow.finish.max(self.clock);
        flow.finish = begin + weight * UNIT * beside;
        self.count += 1;
        flow.due = (begin + weight.min(DUE_WEIGHT_MAX) * UNIT * beside, self.count);
        self.list(requester);
    }

    /// A requester has nothing waiting any more.
    fn rest(&mut self, requester: Requester, finish: u64) {
        if let Some(beside) = self.active.get_mut(&requester.address) {
            *beside -= 1;
            if *beside == 0 {
                self.active.remove(&requester.address);
            }
        }
        self.ahead.insert((finish, requester));
    }

    /// Forgets the requesters that had no more than their part; all of them where nothing waits.
    fn forget(&mut self) {
        if self.len == 0 {
            (self.clock, self.count) = (0, 0);
            self.ahead.clear();
            self.flows.clear();
        }
        while let Some((finish, requester)) = self.ahead.first().copied() {
            if finish > self.clock {
                return;
            }
            self.ahead.remove(&(finish, requester));
            self.flows.remove(&requester);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn of(address: u8, connection: u64) -> Requester {
        Requester { address: Some(Ipv4Addr::new(10, 0, 0, address).into()), connection }
    }

    /// Adds a new item for each that comes out, and counts what each requester's weighed.
    fn serve(queue: &mut FairQueue<(Requester, u64)>, turns: usize) -> HashMap<Requester, u64> {
        let mut served = HashMap::new();
        for _ in 0..turns {
            let (requester, weight) = queue.pop(Pick::Any).unwrap();
            *served.entry(requester).or_default() += weight;
            queue.push(requester, weight, (requester, weight));
        }
        served
    }

    #[test]
    fn a_single_write_passes_the_batches_of_others() {
        for address in [1, 2] {
            let mut queue = FairQueue::default();
            let batches = |queue: &mut FairQueue<u64>| {
                (0..32).for_each(|n| queue.push(of(1, n), 500, n));
            };
            (0..3).for_each(|_| batches(&mut queue));
            let mut passed = Vec::new();
            // Whenever it comes, and whether it is of the same address or not.
            for n in 0..40 {
                queue.pop(Pick::Any).unwrap();
                queue.push(of(address, 99), 1, 1_000 + n);
                let before = (0..).take_while(|_| queue.pop(Pick::Any) < Some(1_000)).count();
                passed.push(before);
            }
            assert!(passed.iter().all(|before| *before <= 1), "{passed:?}");
            let first = passed.iter().filter(|before| **before == 0).count();
            assert!(first >= 38, "{passed:?}");
        }
    }

    #[test]
    fn the_order_of_one_requester_stays() {
        let mut queue = FairQueue::default();
        for n in 0..300_u64 {
            queue.push(of((n % 3) as u8, n % 7), 1 + (n * 7919) % 50, n);
        }
        let mut last: HashMap<Requester, u64> = HashMap::new();
        let mut count = 0;
        while let Some(n) = queue.pop(Pick::Any) {
            let before = last.insert(of((n % 3) as u8, n % 7), n);
            assert!(before.is_none_or(|before| before < n));
            count += 1;
        }
        assert_eq!((count, queue.len()), (300, 0));
        assert!(queue.flows.is_empty() && queue.active.is_empty() && queue.ahead.is_empty());
    }

    #[test]
    fn what_was_put_back_comes_before_what_its_requester_sent_since() {
        let mut queue = FairQueue::default();
        (0..3).for_each(|n| queue.push(of(1, 1), 5, n));
        let back = [queue.pop(Pick::Any).unwrap(), queue.pop(Pick::Any).unwrap()];
        queue.push(of(2, 1), 5, 100);
        back.into_iter().rev().for_each(|n| queue.push_front(of(1, 1), 5, n));
        let mut left: Vec<i32> = std::iter::from_fn(|| queue.pop(Pick::Any)).collect();
        left.retain(|n| *n < 100);
        assert_eq!((left, queue.len()), (vec![0, 1, 2], 0));
    }

    #[test]
    fn addresses_share_equally_however_many_connections_they_open() {
        let mut queue = FairQueue::default();
        let mut push = |requester, weight| queue.push(requester, weight, (requester, weight));
        push(of(1, 0), 10);
        (0..32).for_each(|n| push(of(2, n), 500));
        let served = serve(&mut queue, 20_000);
        let of_first = served[&of(1, 0)];
        let of_second: u64 = (0..32).map(|n| served[&of(2, n)]).sum();
        // Off by some of the heaviest, whatever was served.
        assert!(of_first.abs_diff(of_second) <= 4 * 500, "{of_first} and {of_second}");
        let each: Vec<u64> = (0..32).map(|n| served[&of(2, n)]).collect();
        let (least, most) = (each.iter().min().unwrap(), each.iter().max().unwrap());
        assert!(most - least <= 2 * 500, "{each:?}");
    }

    #[test]
    fn a_heavy_command_waits_for_one_round_and_is_paid_for() {
        let mut queue = FairQueue::default();
        (0..16).for_each(|n| queue.push(of(1, n), 500, (of(1, n), 500)));
        (0..2).for_each(|_| queue.push(of(1, 99), 2048, (of(1, 99), 2048)));
        let mut turns = Vec::new();
        for turn in 0..400 {
            let (requester, weight) = queue.pop(Pick::Any).unwrap();
            if weight == 2048 {
                turns.push(turn);
            } else {
                queue.push(requester, weight, (requester, weight));
            }
        }
        let [first, second] = turns[..] else { panic!("{turns:?}") };
        assert!(first <= 17, "{turns:?}");
        assert!(second - first > 3 * 16, "the others catch up in between: {turns:?}");
    }

    #[test]
    fn addresses_share_equally_however_heavy_their_commands_are() {
        let mut queue = FairQueue::default();
        let mut push = |requester, weight| queue.push(requester, weight, (requester, weight));
        push(of(1, 0), 10);
        (0..8).for_each(|n| push(of(2, n), 2048));
        let (mut of_first, mut of_second) = (0, 0);
        for turns in [20_000, 50_000, 100_000] {
            let served = serve(&mut queue, turns);
            of_first += served[&of(1, 0)];
            of_second += (0..8).map(|n| served[&of(2, n)]).sum::<u64>();
            // Each of the eight may be two ahead, however much was served: one that is not paid for
            // yet, and one that was put off by less than it weighs.
            assert!(of_first.abs_diff(of_second) <= 16 * 2048, "{of_first} and {of_second}");
        }
    }

    #[test]
    fn whoever_is_behind_one_that_is_gone_has_its_turn() {
        let mut queue = FairQueue::default();
        (0..3).for_each(|n| queue.push(of(1, 1), 500, n));
        queue.push(of(1, 2), 500, 10);
        let mut gone = Vec::new();
        assert_eq!(queue.next_weight(Pick::Any, |item| *item < 2, &mut gone), Some(500));
        assert_eq!((gone, queue.pop(Pick::Any)), (vec![0, 1], Some(2)));
        let mut gone = Vec::new();
        assert_eq!(queue.next_weight(Pick::Any, |_| true, &mut gone), None);
        assert_eq!((gone, queue.len()), (vec![10], 0));
        assert!(queue.flows.is_empty() && queue.active.is_empty() && queue.interactive.is_empty());
    }

    #[test]
    fn stopping_for_a_while_gains_nothing() {
        let mut queue = FairQueue::default();
        (0..2).for_each(|n| queue.push(of(1, 7), 100, (of(1, 7), n)));
        let (mut polite, mut other) = (0, 0);
        for n in 0..1_000 {
            // One at a time, the next as soon as the one before is out.
            if queue.flows.get(&of(2, 1)).is_none_or(|flow| flow.items.is_empty()) {
                queue.push(of(2, 1), 100, (of(2, 1), n));
            }
            let (requester, n) = queue.pop(Pick::Any).unwrap();
            if requester == of(2, 1) {
                polite += 1;
            } else {
                other += 1;
                queue.push(requester, 100, (requester, n));
            }
        }
        assert!(i32::abs(polite - other) <= 2, "{polite} and {other}");
    }

    #[test]
    fn what_is_for_the_background_waits_with_all_behind_it() {
        let mut queue = FairQueue::default();
        for (requester, weight, name) in
            [(1, 500, "a"), (1, 1, "b"), (2, 1, "c"), (3, 500, "d"), (3, 1, "e"), (2, 500, "f")]
        {
            queue.push(of(requester, 1), weight, name);
        }
        assert_eq!(queue.pop(Pick::Interactive), Some("c"));
        assert_eq!(queue.pop(Pick::Interactive), None, "what is behind it keeps its order");
        assert!(queue.has_background());
        let gone = &mut Vec::new();
        let weight = queue.next_weight(Pick::Any, |name| *name == "a", gone);
        assert_eq!((weight, queue.first_of(&of(1, 1)), gone.len()), (Some(1), Some(&"b"), 1));
        assert_eq!(queue.first_ready(|name| *name == "d"), Some(&"d"));
        assert_eq!(queue.pop(Pick::Interactive), Some("b"));
        queue.push_front(of(3, 1), 1, "before d");
        assert_eq!(queue.pop(Pick::Interactive), Some("before d"));
        let left: Vec<_> = std::iter::from_fn(|| queue.pop(Pick::Any)).collect();
        assert_eq!(left, ["f", "d", "e"]);
        assert!(queue.background.is_empty() && queue.interactive.is_empty());
    }
}
