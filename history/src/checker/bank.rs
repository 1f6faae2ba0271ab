//! Bank: transfers move money between accounts and never create or lose any.
//!
//! Promise: every read of the accounts shows the deposited sum, and a state that the log had during
//! the read. Every transfer in the log debits one account by what it credits the other. The final
//! sum is the deposited one.
//! Refused: a branch whose deposit is not known counts as a violation.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::history_index::{HistoryIndex, describe};
use super::timeline::Timeline;
use super::{Verdict, fields};
use crate::{BranchModule, Completion, History, Invocation, LogEvent, Operation, ReturnValue};

/// Checks `bank`.
pub(super) fn check(history: &History) -> Verdict {
    let promise = "Money moves between accounts and is never made or lost.";
    let mut verdict = Verdict::new("bank", promise);
    let index = HistoryIndex::new(history);
    let mut reads_by_branch: BTreeMap<&BranchModule, Vec<&Operation>> = BTreeMap::new();
    for op in &history.operations {
        match op.invocation {
            // A branch with transfers is checked also if no read of it completed.
            Invocation::Transfer { .. } => drop(reads_by_branch.entry(&op.branch_key).or_default()),
            Invocation::ReadBalances if matches!(op.completion, Completion::Ok(_)) => {
                reads_by_branch.entry(&op.branch_key).or_default().push(op);
            }
            Invocation::ReadBalances
            | Invocation::Put { .. }
            | Invocation::Cas { .. }
            | Invocation::Get { .. }
            | Invocation::Append { .. }
            | Invocation::ReadLists
            | Invocation::Ticket
            | Invocation::Increment { .. }
            | Invocation::TakePiece { .. }
            | Invocation::FirstWrite { .. }
            | Invocation::ReadHead => {}
        }
    }
    for (branch_key, reads) in reads_by_branch {
        let Some(deposit) = history.deposits.get(&branch_key.name()).copied() else {
            verdict.record(Some(format!("{}: its deposit is not known", branch_key.name())));
            continue;
        };
        let log = index.log(branch_key).unwrap_or_default();
        let timeline = Timeline::new(history, &index, branch_key, log);
        let states = replay_transfers(&mut verdict, &index, branch_key, log, deposit);
        for op in reads {
            let violation = read_violation(op, deposit, &states, &timeline);
            verdict.record(violation.map(|why| format!("{}: {why}", describe(op))));
        }
    }
    verdict
}

/// A state of all accounts: the event that made it, the event that ended it, and a hash of all
/// balances.
struct BankState {
    from: u64,
    until: u64,
    hash: u64,
}

/// Replays the log: checks each transfer and the final sum, and returns all states in order.
fn replay_transfers<'a>(
    verdict: &mut Verdict,
    index: &HistoryIndex<'_>,
    branch_key: &BranchModule,
    log: &'a [LogEvent],
    deposit: i64,
) -> Vec<BankState> {
    let mut balances: HashMap<&'a str, i128> = HashMap::new();
    let mut hash = 0_u64;
    let mut states = vec![BankState { from: 0, until: u64::MAX, hash }];
    for event in log.iter().filter(|event| event.table == fields::ACCOUNTS) {
        let (key, sequence) = (event.key.as_str(), event.cursor.sequence);
        let now = fields::number(event, fields::BALANCE).unwrap_or_default();
        let previous = balances.insert(key, now);
        if let Some(op) = event.op.as_ref().and_then(|op| index.operation(op)) {
            verdict.record(
                transfer_violation(op, key, previous, now)
                    .map(|why| format!("{}: {why}", describe(op))),
            );
        }
        // The hash of a state is the sum of its accounts' hashes, so that one event costs two of
        // them and not one for each account.
        hash = hash.wrapping_sub(previous.map_or(0, |previous| account_hash(key, previous)));
        hash = hash.wrapping_add(account_hash(key, now));
        if let Some(last) = states.last_mut() {
            last.until = sequence;
        }
        states.push(BankState { from: sequence, until: u64::MAX, hash });
    }
    let total: i128 = balances.values().sum();
    let is_violated = total != i128::from(deposit);
    verdict.record(is_violated.then(|| {
        format!("{}: {deposit} was deposited, in the end there is {total}", branch_key.name())
    }));
    states
}

/// The part of one account in the hash of a state.
fn account_hash(account: &str, balance: i128) -> u64 {
    let mut hasher = DefaultHasher::new();
    (account, balance).hash(&mut hasher);
    hasher.finish()
}

/// What is wrong with one side of a transfer.
fn transfer_violation(
    op: &Operation,
    account: &str,
    previous: Option<i128>,
    now: i128,
) -> Option<String> {
    let Invocation::Transfer { from, to, amount } = &op.invocation else { return None };
    let amount = i128::from(*amount);
    let Some(previous) = previous else {
        return Some(format!("{account} was opened by a transfer"));
    };
    let expected = if account == from {
        previous - amount
    } else if account == to {
        previous + amount
    } else {
        // An account that the transfer does not name must not change.
        previous
    };
    (now != expected)
        .then(|| format!("{account} held {previous}, then {now} instead of {expected}"))
}

/// What is wrong with a read of all accounts.
fn read_violation(
    op: &Operation,
    deposit: i64,
    states: &[BankState],
    timeline: &Timeline,
) -> Option<String> {
    let Some(ReturnValue::Balances(balances)) =
        op.completion.response().map(|response| &response.return_value)
    else {
        return Some("completed without balances".to_owned());
    };
    let sum: i128 = balances.values().map(|balance| i128::from(*balance)).sum();
    if sum != i128::from(deposit) {
        return Some(format!("read the sum {sum}, {deposit} was deposited: {balances:?}"));
    }
    let hashes =
        balances.iter().map(|(account, balance)| account_hash(account, i128::from(*balance)));
    let hash = hashes.fold(0, u64::wrapping_add);
    let (lower, upper) =
        (timeline.acknowledged_before(op.invoked), timeline.invoked_until(op.completed));
    let is_found =
        states.iter().any(|state| state.hash == hash && state.until > lower && state.from <= upper);
    // A state between the two events of a transfer has another sum and was found wrong above: it is
    // not necessary to search complete states only.
    (!is_found)
        .then(|| format!("read a state that events {lower} to {upper} do not have: {balances:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;

    fn account(sequence: u64, op: Option<&str>, key: &str, balance: i64) -> LogEvent {
        log_event(sequence, fields::ACCOUNTS, key, op, &format!(r#"{{"balance":{balance}}}"#))
    }

    fn balances(p: i64, q: i64) -> Completion {
        let read_balances = [("p".to_owned(), p), ("q".to_owned(), q)];
        returned(ReturnValue::Balances(read_balances.into_iter().collect()))
    }

    fn log() -> Vec<LogEvent> {
        vec![
            account(1, None, "p", 10),
            account(2, None, "q", 10),
            account(3, Some("a"), "p", 7),
            account(4, Some("a"), "q", 13),
            account(5, Some("b"), "q", 12),
            account(6, Some("b"), "p", 8),
        ]
    }

    /// A transfer of 3 from p to q, then 1 back; and this read.
    fn history_with(log: Vec<LogEvent>, read_violation: Option<(u64, u64, Completion)>) -> History {
        let mut operations = vec![
            operation("a", transfer("p", "q", 3), 0, 10, ok(4)),
            operation("b", transfer("q", "p", 1), 20, 30, info()),
        ];
        operations.extend(read_violation.map(|(from, to, completion)| {
            operation("r", Invocation::ReadBalances, from, to, completion)
        }));
        let mut story = history_of(operations, log);
        story.deposits.insert(branch_key().name(), 20);
        story
    }

    #[test]
    fn reads_of_states_in_the_log_hold() {
        for (from, to, read_balances) in [
            (0, 5, balances(10, 10)),
            (0, 5, balances(7, 13)),
            (11, 15, balances(7, 13)),
            (31, 35, balances(7, 13)),
            (31, 35, balances(8, 12)),
        ] {
            assert_holds(check, &history_with(log(), Some((from, to, read_balances))), 6);
        }
        assert_holds(check, &history_with(log(), Some((0, 5, info()))), 5);
    }

    #[test]
    fn a_read_with_another_sum_is_a_violation() {
        let read_violation = Some((0, 5, balances(7, 10)));
        assert_violation(
            check,
            &history_with(log(), read_violation),
            "read the sum 17, 20 was deposited",
        );
    }

    #[test]
    fn a_state_not_in_the_log_is_a_violation_despite_its_sum() {
        let read_violation = Some((0, 5, balances(9, 11)));
        assert_violation(
            check,
            &history_with(log(), read_violation),
            "read a state that events 0 to 4 do not have",
        );
    }

    #[test]
    fn a_stale_or_future_state_is_a_violation() {
        let stale = Some((11, 15, balances(10, 10)));
        assert_violation(
            check,
            &history_with(log(), stale),
            "read a state that events 4 to 4 do not have",
        );
        let early = Some((0, 5, balances(8, 12)));
        assert_violation(
            check,
            &history_with(log(), early),
            "read a state that events 0 to 4 do not have",
        );
    }

    #[test]
    fn a_transfer_credits_what_it_debits() {
        let mut short = log();
        short[3] = account(4, Some("a"), "q", 12);
        let verdict = check(&history_with(short, None));
        // The credit to q is 1 short, and the next debit of q is 0 instead of 1; the final sum is
        // right.
        assert_eq!(verdict.violations, 2, "{verdict:#?}");
        assert!(verdict.details[0].contains("q held 10, then 12 instead of 13"), "{verdict:#?}");
        let opened = log().split_off(1);
        let verdict = check(&history_with(opened, None));
        assert!(verdict.details[0].contains("p was opened by a transfer"), "{verdict:#?}");
    }

    #[test]
    fn a_final_sum_below_the_deposit_is_a_violation() {
        let half = log()[..3].to_vec();
        assert_violation(check, &history_with(half, None), "in the end there is 17");
    }

    #[test]
    fn a_branch_that_cannot_be_checked_is_a_violation() {
        let mut unknown = history_with(log(), None);
        unknown.deposits.clear();
        assert_violation(check, &unknown, "its deposit is not known");
        assert_violation(
            check,
            &history_with(log(), Some((0, 5, ok(1)))),
            "completed without balances",
        );
    }
}
