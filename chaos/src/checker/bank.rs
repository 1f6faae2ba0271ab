//! Bank: money moves and is never made or lost.
//!
//! Promise: every reading of the accounts has the sum that was deposited and is one moment of the
//! log, and no stale one; every transfer in the log takes from one what it gives the other; and in
//! the end all is there.
//! Refusals: a place whose deposits nobody wrote down counts as wrong.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::history_index::{HistoryIndex, told};
use super::timeline::Timeline;
use super::{Verdict, fields};
use crate::history::{
    BranchKey, Completion, History, Invocation, LogEvent, Operation, ReturnValue,
};

/// Judges it.
pub(super) fn judge(evidence: &History) -> Verdict {
    let promise = "Money moves between accounts and is never made or lost.";
    let mut verdict = Verdict::new("bank", promise);
    let book = HistoryIndex::of(evidence);
    let mut banks: BTreeMap<&BranchKey, Vec<&Operation>> = BTreeMap::new();
    for op in &evidence.ops {
        match op.intent {
            Invocation::Transfer { .. } => drop(banks.entry(&op.place).or_default()),
            Invocation::ReadBalances if matches!(op.outcome, Completion::Ok(_)) => {
                banks.entry(&op.place).or_default().push(op);
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
            | Invocation::FirstWrite { .. } => {}
        }
    }
    for (place, reads) in banks {
        let Some(deposit) = evidence.deposits.get(&place.name()).copied() else {
            verdict.check(Some(format!("{}: nobody wrote down its deposits", place.name())));
            continue;
        };
        let log = book.log(place).unwrap_or_default();
        let timeline = Timeline::of(evidence, &book, place, log);
        let states = transfers(&mut verdict, &book, place, log, deposit);
        for op in reads {
            let wrong = read(op, deposit, &states, &timeline);
            verdict.check(wrong.map(|why| format!("{}: {why}", told(op))));
        }
    }
    verdict
}

/// A state of all accounts: the event that made it, the one that ended it, and what it was.
struct BankState {
    from: u64,
    before: u64,
    mark: u64,
}

/// Goes through the log: judges each transfer and the end, and gives all states on the way.
fn transfers<'a>(
    verdict: &mut Verdict,
    book: &HistoryIndex<'_>,
    place: &BranchKey,
    log: &'a [LogEvent],
    deposit: i64,
) -> Vec<BankState> {
    let mut held: HashMap<&'a str, i128> = HashMap::new();
    let mut mark = 0_u64;
    let mut states = vec![BankState { from: 0, before: u64::MAX, mark }];
    for logged in log.iter().filter(|logged| logged.table == fields::ACCOUNTS) {
        let (key, at) = (logged.key.as_str(), logged.cursor.sequence);
        let now = fields::number(logged, fields::BALANCE).unwrap_or_default();
        let was = held.insert(key, now);
        if let Some(op) = logged.op.as_ref().and_then(|op| book.op(op)) {
            verdict.check(moved(op, key, was, now).map(|why| format!("{}: {why}", told(op))));
        }
        // The marks of all accounts together are the sum of each one's: one is taken for another.
        mark = mark.wrapping_sub(was.map_or(0, |was| mark_of(key, was)));
        mark = mark.wrapping_add(mark_of(key, now));
        if let Some(last) = states.last_mut() {
            last.before = at;
        }
        states.push(BankState { from: at, before: u64::MAX, mark });
    }
    let all: i128 = held.values().sum();
    let wrong = all != i128::from(deposit);
    verdict.check(
        wrong.then(|| {
            format!("{}: {deposit} was deposited, in the end there is {all}", place.name())
        }),
    );
    states
}

fn mark_of(account: &str, balance: i128) -> u64 {
    let mut hasher = DefaultHasher::new();
    (account, balance).hash(&mut hasher);
    hasher.finish()
}

/// What is wrong with one side of a transfer.
fn moved(op: &Operation, account: &str, was: Option<i128>, now: i128) -> Option<String> {
    let Invocation::Transfer { from, to, amount } = &op.intent else { return None };
    let amount = i128::from(*amount);
    let Some(was) = was else {
        return Some(format!("{account} was opened by a transfer"));
    };
    let wanted = if account == from {
        was - amount
    } else if account == to {
        was + amount
    } else {
        was
    };
    (now != wanted).then(|| format!("{account} held {was}, then {now} instead of {wanted}"))
}

fn read(op: &Operation, deposit: i64, states: &[BankState], timeline: &Timeline) -> Option<String> {
    let Some(ReturnValue::Balances(seen)) = op.outcome.reply().map(|reply| &reply.seen) else {
        return Some("answered without balances".to_owned());
    };
    let sum: i128 = seen.values().map(|balance| i128::from(*balance)).sum();
    if sum != i128::from(deposit) {
        return Some(format!("saw {sum} in all, {deposit} was deposited: {seen:?}"));
    }
    let marks = seen.iter().map(|(account, balance)| mark_of(account, i128::from(*balance)));
    let mark = marks.fold(0, u64::wrapping_add);
    let (floor, ceiling) = (timeline.floor(op.invoked), timeline.ceiling(op.completed));
    let is_there = states
        .iter()
        .any(|state| state.mark == mark && state.before > floor && state.from <= ceiling);
    // Between the two sides of a transfer the sum is another one: no need to look for whole ones.
    (!is_there).then(|| format!("saw no state of events {floor} to {ceiling}: {seen:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;

    fn account(sequence: u64, op: Option<&str>, key: &str, balance: i64) -> LogEvent {
        row(sequence, fields::ACCOUNTS, key, op, &format!(r#"{{"balance":{balance}}}"#))
    }

    fn balances(p: i64, q: i64) -> Completion {
        let seen = [("p".to_owned(), p), ("q".to_owned(), q)];
        saw(ReturnValue::Balances(seen.into_iter().collect()))
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

    /// 3 from p to q, then 1 back; and this read.
    fn story(log: Vec<LogEvent>, read: Option<(u64, u64, Completion)>) -> History {
        let mut ops = vec![
            op("a", transfer("p", "q", 3), 0, 10, done(4)),
            op("b", transfer("q", "p", 1), 20, 30, unknown()),
        ];
        ops.extend(
            read.map(|(from, to, outcome)| op("r", Invocation::ReadBalances, from, to, outcome)),
        );
        let mut story = evidence(ops, log);
        story.deposits.insert(place().name(), 20);
        story
    }

    #[test]
    fn money_that_moves_and_stays_holds() {
        for (from, to, seen) in [
            (0, 5, balances(10, 10)),
            (0, 5, balances(7, 13)),
            (11, 15, balances(7, 13)),
            (31, 35, balances(7, 13)),
            (31, 35, balances(8, 12)),
        ] {
            assert_holds(judge, &story(log(), Some((from, to, seen))), 6);
        }
        assert_holds(judge, &story(log(), Some((0, 5, unknown()))), 5);
    }

    #[test]
    fn a_sum_that_is_another_is_wrong() {
        let read = Some((0, 5, balances(7, 10)));
        assert_wrong(judge, &story(log(), read), "saw 17 in all, 20 was deposited");
    }

    #[test]
    fn a_state_that_never_was_is_wrong_though_its_sum_is_right() {
        let read = Some((0, 5, balances(9, 11)));
        assert_wrong(judge, &story(log(), read), "saw no state of events 0 to 4");
    }

    #[test]
    fn a_stale_state_is_wrong_and_one_that_is_yet_to_come() {
        let stale = Some((11, 15, balances(10, 10)));
        assert_wrong(judge, &story(log(), stale), "saw no state of events 4 to 4");
        let early = Some((0, 5, balances(8, 12)));
        assert_wrong(judge, &story(log(), early), "saw no state of events 0 to 4");
    }

    #[test]
    fn a_transfer_gives_one_what_it_takes_from_the_other() {
        let mut short = log();
        short[3] = account(4, Some("a"), "q", 12);
        let verdict = judge(&story(short, None));
        // What q lacks is told; that it then pays 0 is told too, and nothing is lost in the end.
        assert_eq!(verdict.violations, 2, "{verdict:#?}");
        assert!(verdict.shown[0].contains("q held 10, then 12 instead of 13"), "{verdict:#?}");
        let opened = log().split_off(1);
        let verdict = judge(&story(opened, None));
        assert!(verdict.shown[0].contains("p was opened by a transfer"), "{verdict:#?}");
    }

    #[test]
    fn what_is_lost_in_the_end_is_told() {
        let half = log()[..3].to_vec();
        assert_wrong(judge, &story(half, None), "in the end there is 17");
    }

    #[test]
    fn what_cannot_be_judged_is_wrong() {
        let mut unknown = story(log(), None);
        unknown.deposits.clear();
        assert_wrong(judge, &unknown, "nobody wrote down its deposits");
        assert_wrong(judge, &story(log(), Some((0, 5, done(1)))), "answered without balances");
    }
}
