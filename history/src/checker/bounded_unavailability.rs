//! Bounded unavailability: writes continue while a majority is up, and resume after every fault.
//!
//! Promise: a gap is the time in which a client waited for a write and no write of the branch was
//! acknowledged; without a waiting client there is no gap. While a fault leaves a majority, a gap
//! is at most [`GAP_MAX`]. After any fault a write is acknowledged within [`RECOVERY_MAX`], unless
//! another fault began meanwhile.
//! Refused: a verdict where clients stopped waiting before the limit was reached.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Verdict;
use super::history_index::format_time;
use crate::{BranchModule, DiskStall, Fault, History, MonotonicTime, NodeId};

/// The longest gap while a majority is up, in microseconds.
pub const GAP_MAX: u64 = 30_000_000;
/// The longest time until a write is acknowledged after a fault was healed, in microseconds.
pub const RECOVERY_MAX: u64 = 15_000_000;

/// The longest gap of a branch during a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WriteGap {
    /// The fault's kind.
    pub kind: String,
    /// The index of the fault in the history.
    pub fault: usize,
    /// The branch, as `branch:module`.
    #[serde(rename = "place")]
    pub branch_key: String,
    /// The longest gap, in microseconds, from the beginning of the fault until the next fault
    /// begins, or [`RECOVERY_MAX`] after it was healed.
    pub micros: u64,
    /// The longest gap without the stalls of the shared disk, in microseconds. A lower bound: a
    /// stall may have delayed no write, and the nodes' own writes cause some stalls.
    #[serde(rename = "steady_micros")]
    pub micros_without_stalls: u64,
}

/// The longest gap of each branch during each fault. A branch for which no client waited is left
/// out.
pub fn write_gaps(history: &History) -> Vec<WriteGap> {
    let by_branch = write_activity(history);
    let mut write_gaps = Vec::new();
    for (index, fault) in history.faults.iter().enumerate() {
        for (branch_key, activity) in &by_branch {
            let (mut longest, mut without_stalls) = (None, 0);
            for (waiting_from, acknowledged_at) in
                activity.gaps(fault.from.0, affected_until(history, fault))
            {
                let micros = acknowledged_at - waiting_from;
                longest = longest.max(Some(micros));
                without_stalls = without_stalls
                    .max(micros - stall_micros(&history.stalls, waiting_from, acknowledged_at));
            }
            // The two maxima may be of different gaps: each is the longest by its own measure.
            if let Some(micros) = longest {
                let (kind, branch_key) = (fault.kind.clone(), branch_key.name());
                write_gaps.push(WriteGap {
                    kind,
                    fault: index,
                    branch_key,
                    micros,
                    micros_without_stalls: without_stalls,
                });
            }
        }
    }
    write_gaps
}

/// Checks `bounded-unavailability`.
pub(super) fn check(history: &History) -> Verdict {
    let promise = "Writes go on while a majority is there, and come back after every fault.";
    let mut verdict = Verdict::new("bounded-unavailability", promise);
    let node_count = node_count(history);
    let by_branch = write_activity(history);
    for (index, fault) in history.faults.iter().enumerate() {
        // Without a majority a gap is allowed; only the recovery afterwards is checked then.
        let is_majority = leaves_majority(history, fault, node_count);
        for (branch_key, activity) in &by_branch {
            let name = branch_key.name();
            let gaps = activity.gaps(fault.from.0, affected_until(history, fault));
            if is_majority
                && let Some(gap) =
                    gaps.map(|(waiting_from, acknowledged_at)| acknowledged_at - waiting_from).max()
            {
                let is_violated = gap > GAP_MAX;
                verdict.record(is_violated.then(|| {
                    let (long, from) = (format_time(MonotonicTime(gap)), format_time(fault.from));
                    format!("{name}: no write for {long} in {} from {from}", fault.kind)
                }));
            }
            if let Some(has_resumed) = recovers(history, index, activity) {
                verdict.record((!has_resumed).then(|| {
                    let (limit, until) =
                        (format_time(MonotonicTime(RECOVERY_MAX)), format_time(fault.until));
                    format!("{name}: no write within {limit} after {} ended at {until}", fault.kind)
                }));
            }
        }
    }
    verdict
}

/// How many nodes there are: the highest number that occurs in the history.
fn node_count(history: &History) -> usize {
    let replicas = history.replicas.iter().map(|replica| replica.node);
    // A node that exited shows neither replica nor log, but requests and faults name it.
    let attempts =
        history.operations.iter().flat_map(|op| op.attempts.iter().map(|attempt| attempt.node));
    let read = history.logs.iter().map(|(node, _, _)| *node);
    let injected = history.faults.iter().flat_map(|fault| fault.nodes.iter().copied());
    let highest = replicas.chain(attempts).chain(read).chain(injected).max().unwrap_or_default();
    usize::try_from(highest).unwrap_or(usize::MAX)
}

/// Whether a majority is affected neither by this fault nor by one that was in effect at a time
/// with it.
fn leaves_majority(history: &History, fault: &Fault, node_count: usize) -> bool {
    let overlaps = |it: &&Fault| it.from < fault.until && it.until > fault.from;
    // The fault itself is added: one that lasted no time overlaps not even itself.
    let overlapping = history.faults.iter().filter(overlaps).chain([fault]);
    let affected_nodes: BTreeSet<NodeId> = overlapping.flat_map(affected_nodes).copied().collect();
    affected_nodes.len() * 2 < node_count
}

/// Until when a gap is attributed to a fault: [`RECOVERY_MAX`] after it was healed, or until the
/// next fault begins.
fn affected_until(history: &History, fault: &Fault) -> u64 {
    let later = history.faults.iter().map(|it| it.from.0).filter(|from| *from >= fault.until.0);
    later.min().unwrap_or(u64::MAX).min(fault.until.0 + RECOVERY_MAX)
}

/// The nodes that may be missing from a majority: those that are cut off, or else those that the
/// fault acted on.
fn affected_nodes(fault: &Fault) -> &[NodeId] {
    if fault.minority.is_empty() { &fault.nodes } else { &fault.minority }
}

/// Whether writes resumed in time after a fault; `None` where the history does not show it.
fn recovers(history: &History, index: usize, activity: &WriteActivity) -> Option<bool> {
    let healed = history.faults[index].until.0;
    let waiting_from = activity.waiting_from(healed)?;
    let limit = waiting_from + RECOVERY_MAX;
    let has_resumed = activity
        .acknowledged_after(waiting_from)
        .is_some_and(|acknowledged_at| acknowledged_at <= limit);
    let is_other = |(at, fault): (usize, &Fault)| {
        at != index && fault.from.0 < limit && fault.until.0 > healed
    };
    let is_alone = !history.faults.iter().enumerate().any(is_other);
    // A success always counts. A failure counts only if no other fault explains it, and if clients
    // waited until the limit: otherwise the write may still have come.
    (has_resumed || (is_alone && activity.waiting_until() >= limit)).then_some(has_resumed)
}

/// When clients waited for writes of a branch, and when writes were acknowledged. Microseconds.
#[derive(Default)]
struct WriteActivity {
    /// The times of acknowledgements, in order.
    acknowledged: Vec<u64>,
    /// The times of invocations, in order, each with the latest completion of it and all before.
    waiting: Vec<(u64, u64)>,
}

fn write_activity(history: &History) -> BTreeMap<&BranchModule, WriteActivity> {
    let mut by_branch: BTreeMap<&BranchModule, WriteActivity> = BTreeMap::new();
    for op in history.operations.iter().filter(|op| !op.invocation.is_read()) {
        let activity = by_branch.entry(&op.branch_key).or_default();
        activity.waiting.push((op.invoked.0, op.completed.0));
        activity.acknowledged.extend(op.completion.response().map(|_| op.completed.0));
    }
    for activity in by_branch.values_mut() {
        activity.acknowledged.sort_unstable();
        activity.waiting.sort_unstable();
        // Raised to the maximum so far, so that the last entry before a time tells whether any
        // client waited then.
        let mut until = 0;
        for (_, to) in &mut activity.waiting {
            until = until.max(*to);
            *to = until;
        }
    }
    by_branch
}

impl WriteActivity {
    /// The first time, not before this one, at which a client waited for a write.
    fn waiting_from(&self, from: u64) -> Option<u64> {
        let later = self.waiting.partition_point(|(waiting, _)| *waiting <= from);
        let is_waited_for = later.checked_sub(1).is_some_and(|at| self.waiting[at].1 > from);
        if is_waited_for {
            Some(from)
        } else {
            self.waiting.get(later).map(|(waiting, _)| *waiting)
        }
    }

    /// The first acknowledgement after this time.
    fn acknowledged_after(&self, time: u64) -> Option<u64> {
        let at = self.acknowledged.partition_point(|acknowledged| *acknowledged <= time);
        self.acknowledged.get(at).copied()
    }

    /// The time after which no client waited any more.
    fn waiting_until(&self) -> u64 {
        self.waiting.last().map_or(0, |(_, until)| *until)
    }

    /// The gaps between two times: since when a client waited, and when the next write was
    /// acknowledged or nobody waited any more.
    fn gaps(&self, from: u64, until: u64) -> impl Iterator<Item = (u64, u64)> {
        // A gap ends with the last waiting client: what came later was not delayed by the fault.
        let until = until.min(self.waiting_until());
        let mut at = from;
        std::iter::from_fn(move || {
            let waiting_from =
                self.waiting_from(at).filter(|waiting_from| *waiting_from < until)?;
            at = self.acknowledged_after(waiting_from).unwrap_or(u64::MAX);
            Some((waiting_from, at.min(until)))
        })
    }
}

/// How long the disk stalled between two times, in microseconds. The stalls are in order.
fn stall_micros(stalls: &[DiskStall], from: u64, until: u64) -> u64 {
    let first = stalls.partition_point(|stall| stall.until.0 <= from);
    let overlapping = stalls[first..].iter().take_while(|stall| stall.from.0 < until);
    overlapping.map(|stall| stall.until.0.min(until) - stall.from.0.max(from)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;
    use crate::{Completion, Operation};

    const SECOND: u64 = 1_000_000;

    fn write(from: u64, to: u64, completion: Completion) -> Operation {
        operation(&format!("w{from}"), put(from), from * SECOND, to * SECOND, completion)
    }

    /// Writes of one second each, one after the other, acknowledged except in these seconds.
    fn every_second(silent: std::ops::Range<u64>) -> Vec<Operation> {
        let completion = |at| if silent.contains(&at) { info() } else { ok(at) };
        (0..200).map(|at| write(at, at + 1, completion(at))).collect()
    }

    /// Three nodes, with a fault on these from second 50 to second 100.
    fn history_with(nodes: &[NodeId], operations: Vec<Operation>) -> History {
        let replicas = (1..=3).map(|node| replica(node, 1, 1, "x")).collect();
        let faults = vec![fault("kill", nodes, 50 * SECOND, 100 * SECOND)];
        History { operations, replicas, faults, ..History::default() }
    }

    #[test]
    fn writes_that_go_on_or_come_back_hold() {
        assert_holds(check, &history_with(&[1], every_second(0..0)), 2);
        assert_holds(check, &history_with(&[1], every_second(60..88)), 2);
        // Without a majority there may be a gap, but only a short one after the healing.
        assert_holds(check, &history_with(&[1, 2], every_second(50..112)), 1);
    }

    #[test]
    fn the_longest_gap_of_each_fault_is_told() {
        let without_stalls = |micros, micros_without_stalls| {
            let (kind, branch_key) = ("kill".to_owned(), "b:m".to_owned());
            WriteGap { kind, fault: 0, branch_key, micros, micros_without_stalls }
        };
        let gap = |micros| without_stalls(micros, micros);
        let history = history_with(&[1], every_second(60..70));
        assert_eq!(write_gaps(&history), [gap(11 * SECOND)]);
        assert_eq!(write_gaps(&history_with(&[1], every_second(0..0))), [gap(SECOND)]);
        // The wait for a write from before the fault counts from the fault on.
        let before = vec![write(40, 65, ok(1))];
        assert_eq!(write_gaps(&history_with(&[1], before)), [gap(15 * SECOND)]);
        // Without the stalls of the disk another gap may be the longest.
        let stall = |from, until| DiskStall {
            from: MonotonicTime(from * SECOND),
            until: MonotonicTime(until * SECOND),
        };
        let mut stall_micros = history;
        stall_micros.operations[80..84].iter_mut().for_each(|op| op.completion = info());
        stall_micros.stalls = vec![stall(40, 45), stall(58, 62), stall(65, 68), stall(90, 91)];
        assert_eq!(write_gaps(&stall_micros), [without_stalls(11 * SECOND, 6 * SECOND)]);
        stall_micros.stalls[2] = stall(65, 72);
        assert_eq!(write_gaps(&stall_micros), [without_stalls(11 * SECOND, 5 * SECOND)]);
        // No client waited for a write, or the client stopped waiting.
        assert_eq!(write_gaps(&history_with(&[1], vec![write(10, 20, ok(1))])), []);
        assert_eq!(write_gaps(&history_with(&[1], vec![write(60, 65, info())])), [gap(5 * SECOND)]);
    }

    #[test]
    fn silence_for_long_though_a_majority_is_there_is_wrong() {
        let history = history_with(&[1], every_second(60..95));
        assert_violation(check, &history, "b:m: no write for 36.000000 s in kill from 50.000000 s");
        let mut split = history_with(&[1, 2, 3], every_second(60..95));
        split.faults[0].minority = vec![3];
        assert_violation(check, &split, "no write for 36.000000 s");
        // Faults in a row: each is checked until the next one begins.
        let mut next = history_with(&[1], every_second(60..95));
        next.faults.push(fault("kill", &[2], 101 * SECOND, 102 * SECOND));
        assert_violation(check, &next, "no write for 36.000000 s in kill from 50.000000 s");
        // Two faults at the same time leave no majority.
        let mut both = history_with(&[1], every_second(60..95));
        both.faults.push(fault("pause", &[2], 70 * SECOND, 80 * SECOND));
        assert!(check(&both).holds());
    }

    #[test]
    fn silence_after_a_fault_was_healed_is_wrong() {
        let history = history_with(&[1, 2], every_second(50..120));
        assert_violation(check, &history, "no write within 15.000000 s after kill ended");
        // Unless another fault begins meanwhile, or no client waits any more.
        let mut next = history_with(&[1, 2], every_second(50..120));
        next.faults.push(fault("kill", &[1, 2], 110 * SECOND, 119 * SECOND));
        assert_holds(check, &next, 1);
        let ends = every_second(50..120).into_iter().take(110).collect();
        assert_holds(check, &history_with(&[1, 2], ends), 0);
    }
}
