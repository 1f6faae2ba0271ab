//! Tests: in which order commands come out of the queue.

use futures::FutureExt as _;
use model::Outcome;
use tokio::sync::oneshot;

use super::*;
use crate::shares::ShareLimiter;
use crate::testing::{insert, key};

fn submission(connection: u64, name: &str) -> (Submission, oneshot::Receiver<Answer>) {
    let command = insert("dar", name, "x");
    let share = ShareLimiter::new(10, 50).acquire(Requester::default(), 1).unwrap();
    let (reply, outcome) = OutcomeSender::new(share);
    let requester = Requester { address: Some([10, 0, 0, 1].into()), connection };
    (Submission { requester, cost: CommandCost::of(&command), command, reply }, outcome)
}

type Answer = Result<Outcome, Refusal>;

fn of_client(next: LongSubmission) -> Submission {
    let LongSubmission::Client(submission) = next else { panic!("it is the leader's own") };
    submission
}

fn packed(waiting: &mut Waiting) -> Vec<String> {
    let commands = waiting.next_batch(|| false, &mut Vec::new()).commands;
    commands.into_iter().map(|command| command.id.request).collect()
}

/// Adds a small command of client `connection`.
fn push(queue: &Queue, connection: u64, name: &str) -> oneshot::Receiver<Answer> {
    push_as(queue, connection, name, false)
}

fn push_as(queue: &Queue, connection: u64, name: &str, is_long: bool) -> oneshot::Receiver<Answer> {
    let (submission, outcome) = submission(connection, name);
    assert!(queue.push(submission, is_long).is_ok());
    outcome
}

/// What the leader asks of a branch.
fn push_own(queue: &Queue, branch: &str, name: &str, rank: OwnRank, is_long: bool) {
    let asked = vec![insert(branch, name, "x")];
    queue.push_own(key(branch), 1, asked, (rank, is_long)).unwrap();
}

/// What the next large one is, where there is one.
fn next_long(queue: &Queue) -> Option<String> {
    match queue.waiting.lock().next_long(&mut Vec::new())? {
        LongSubmission::Client(next) => Some(next.command.id.request),
        LongSubmission::Own(asked) => Some(asked[0].id.request.clone()),
    }
}

#[test]
fn what_a_command_needs_is_packed_before_everything() {
    let queue = Queue::default();
    let _outcome = push(&queue, 1, "client");
    push_own(&queue, "else", "own", OwnRank::Usual, false);
    push_own(&queue, "dar", "needed", OwnRank::Needed, false);
    assert_eq!(packed(&mut queue.waiting.lock()), ["insert-needed", "insert-own", "insert-client"]);
}

#[test]
fn many_commands_of_the_leader_take_turns_with_clients() {
    let queue = Queue::default();
    for n in 0..5_000 {
        push_own(&queue, &format!("branch-{n}"), "own", OwnRank::Usual, false);
    }
    let _outcome = push(&queue, 1, "client");
    let mut waiting = queue.waiting.lock();
    assert!(packed(&mut waiting).iter().all(|name| name.contains("own")));
    assert_eq!(packed(&mut waiting)[0], "insert-client", "it is first in the next entry");
    assert!(!packed(&mut waiting).is_empty(), "and the leader goes on");
}

#[test]
fn what_a_leader_asks_is_bounded() {
    let queue = Queue::default();
    let push = |n| {
        let asked = vec![insert("dar", "own", "x")];
        queue.push_own(key(&format!("branch-{n}")), 1, asked, (OwnRank::Usual, n % 2 == 0))
    };
    (0..LEADER_BRANCHES_MAX).for_each(|n| push(n).unwrap());
    assert_eq!(push(LEADER_BRANCHES_MAX), Err(Refusal::Busy { what: BusyScope::Node }));
    push_own(&queue, "dar", "a client waits", OwnRank::Needed, false);
}

#[test]
fn commands_of_a_branch_wait_while_its_large_one_is_decided() {
    let queue = Queue::default();
    queue.hold(Some(key("dar")));
    let _first = push(&queue, 1, "first");
    assert!(packed(&mut queue.waiting.lock()).is_empty());
    let _second = push(&queue, 1, "second");
    queue.hold(None);
    assert_eq!(packed(&mut queue.waiting.lock()), ["insert-first", "insert-second"]);
}

#[tokio::test]
async fn what_a_client_sends_behind_a_large_command_stays_behind_it() {
    let queue = Queue::default();
    let outcomes =
        [push_as(&queue, 1, "large", true), push(&queue, 1, "behind"), push(&queue, 2, "other")];
    assert_eq!(packed(&mut queue.waiting.lock()), ["insert-other"]);
    for expected in ["insert-large", "insert-behind"] {
        let next = of_client(queue.next_long().await);
        assert_eq!(next.command.id.request, expected);
        queue.finish_long(next.requester, next.command.key);
    }
    let _outcome = push(&queue, 1, "later");
    assert_eq!(packed(&mut queue.waiting.lock()), ["insert-later"]);
    drop(outcomes);
}

#[tokio::test]
async fn large_commands_nobody_waits_for_hold_up_none_behind_them() {
    let queue = Queue::default();
    for name in ["left", "left too"] {
        drop(push_as(&queue, 1, name, true));
    }
    let _outcome = push_as(&queue, 1, "stays", true);
    let next = of_client(queue.next_long().await);
    assert_eq!(next.command.id.request, "insert-stays");
    queue.finish_long(next.requester, next.command.key);
    assert!(queue.waiting.lock().long_of.is_empty());
    drop(push_as(&queue, 1, "alone", true));
    assert_eq!(next_long(&queue), None);
    assert!(queue.waiting.lock().long_of.is_empty(), "also where none stays");
}

#[test]
fn a_large_command_goes_behind_what_commands_need() {
    let queue = Queue::default();
    push_own(&queue, "dar", "needed", OwnRank::Needed, false);
    let _outcome = push_as(&queue, 1, "large", true);
    assert_eq!(next_long(&queue), None, "it is not in the log");
    assert_eq!(packed(&mut queue.waiting.lock()), ["insert-needed"]);
    assert_eq!(next_long(&queue), None, "it is on its way");
    queue.finish_batch();
    assert_eq!(next_long(&queue).as_deref(), Some("insert-large"));
}

#[test]
fn what_the_leader_asks_of_a_held_branch_waits_too() {
    let queue = Queue::default();
    queue.hold(Some(key("dar")));
    push_own(&queue, "dar", "one", OwnRank::Usual, false);
    push_own(&queue, "else", "other", OwnRank::Usual, false);
    assert_eq!(packed(&mut queue.waiting.lock()), ["insert-other"]);
    queue.finish_batch();
    queue.hold(None);
    // By now it is a large one.
    assert!(packed(&mut queue.waiting.lock()).is_empty());
    assert_eq!(next_long(&queue).as_deref(), Some("insert-one"));
}

#[test]
fn a_newer_definition_is_never_followed_by_an_older_one() {
    let queue = Queue::default();
    push_own(&queue, "dar", "old", OwnRank::Needed, false);
    // The branch has become large.
    push_own(&queue, "dar", "new", OwnRank::Usual, true);
    assert!(packed(&mut queue.waiting.lock()).is_empty());
    assert_eq!(next_long(&queue).as_deref(), Some("insert-new"));
    queue.hold(None);
    assert_eq!(next_long(&queue), None);
}

#[test]
fn what_is_missing_no_more_is_not_asked() {
    let queue = Queue::default();
    push_own(&queue, "dar", "wrong", OwnRank::Usual, true);
    push_own(&queue, "else", "wrong too", OwnRank::Usual, false);
    let _outcome = push(&queue, 1, "small");
    assert_eq!(packed(&mut queue.waiting.lock()), ["insert-wrong too"]);
    assert!(queue.withdraw_own(&key("else"), 2), "it is on its way");
    queue.finish_batch();
    assert!(!queue.withdraw_own(&key("else"), 2));
    assert!(!queue.withdraw_own(&key("dar"), 2));
    assert_eq!(packed(&mut queue.waiting.lock()), ["insert-small"], "nothing is before it");
    queue.finish_batch();
    assert_eq!(next_long(&queue), None);
    let asked = vec![insert("dar", "older", "x")];
    let refused = queue.push_own(key("dar"), 1, asked, (OwnRank::Usual, false));
    assert_eq!(refused, Err(Refusal::Busy { what: BusyScope::Node }), "by an older catalogue");
}

#[tokio::test]
async fn what_is_gone_wakes_whoever_was_to_come_behind_it() {
    let queue = Arc::new(Queue::default());
    let end = QueueEnd(Arc::clone(&queue));
    push_own(&queue, "dar", "first", OwnRank::Usual, true);
    let gone = push(&queue, 1, "gone");
    assert!(packed(&mut queue.waiting.lock()).is_empty());
    assert_eq!(next_long(&queue).as_deref(), Some("insert-first"));
    drop(gone);
    push_own(&queue, "else", "second", OwnRank::Usual, true);
    queue.hold(None);
    let mut second = Box::pin(queue.next_long());
    assert!((&mut second).now_or_never().is_none(), "what was released is first");
    let _outcome = push(&queue, 2, "other");
    assert_eq!(end.next(|| false).await.commands.len(), 1, "nobody waits for it any more");
    assert!(matches!(second.await, LongSubmission::Own(_)));
    queue.hold(None);
    // The same where what a client needed is taken back.
    push_own(&queue, "dar", "needed", OwnRank::Needed, false);
    let _outcome = push_as(&queue, 1, "large", true);
    let mut large = Box::pin(queue.next_long());
    assert!((&mut large).now_or_never().is_none());
    assert!(!queue.withdraw_own(&key("dar"), 2));
    assert_eq!(of_client(large.await).command.id.request, "insert-large");
}

#[test]
fn a_branch_that_becomes_small_strands_nobody() {
    let queue = Queue::default();
    push_own(&queue, "dar", "first", OwnRank::Usual, true);
    let _outcomes = [push(&queue, 1, "a"), push(&queue, 1, "b")];
    assert!(packed(&mut queue.waiting.lock()).is_empty());
    push_own(&queue, "dar", "second", OwnRank::Usual, false);
    let _outcome = push(&queue, 1, "c");
    assert!(packed(&mut queue.waiting.lock()).is_empty());
    assert_eq!(next_long(&queue).as_deref(), Some("insert-second"));
    queue.hold(None);
    assert_eq!(packed(&mut queue.waiting.lock()), ["insert-a", "insert-b", "insert-c"]);
}

#[test]
fn a_definition_of_a_large_branch_comes_before_what_needs_it() {
    let queue = Queue::default();
    let _before = push(&queue, 3, "before");
    push_own(&queue, "dar", "define", OwnRank::Needed, true);
    let _outcomes = [push_as(&queue, 1, "large", true), push(&queue, 2, "small")];
    assert_eq!(packed(&mut queue.waiting.lock()), ["insert-before"], "it needs no other");
    assert_eq!(next_long(&queue).as_deref(), Some("insert-define"));
    assert!(packed(&mut queue.waiting.lock()).is_empty(), "its branch is held");
    queue.hold(None);
    assert_eq!(next_long(&queue), None, "what waited for it is first");
    assert_eq!(packed(&mut queue.waiting.lock()), ["insert-small"]);
    queue.finish_batch();
    assert_eq!(next_long(&queue).as_deref(), Some("insert-large"));
}

#[test]
fn definitions_without_end_hold_up_a_command_by_one() {
    let queue = Queue::default();
    push_own(&queue, "dar", "first", OwnRank::Usual, true);
    let _outcomes = [push_as(&queue, 1, "large", true), push(&queue, 2, "small")];
    assert!(packed(&mut queue.waiting.lock()).is_empty());
    for n in 0..3 {
        assert!(next_long(&queue).is_some());
        // The next comes while one is applied.
        push_own(&queue, "dar", &format!("later-{n}"), OwnRank::Usual, true);
        queue.hold(None);
        let small = packed(&mut queue.waiting.lock());
        assert_eq!(small, if n == 0 { vec!["insert-small"] } else { vec![] });
        queue.finish_batch();
        if n == 0 {
            assert_eq!(next_long(&queue).as_deref(), Some("insert-large"));
        }
    }
}

#[test]
fn definitions_of_large_branches_take_turns_with_clients() {
    let queue = Queue::default();
    for n in 0..4 {
        push_own(&queue, &format!("large-{n}"), &format!("own-{n}"), OwnRank::Usual, true);
    }
    let _outcomes = [1, 2].map(|n| push_as(&queue, n, &format!("client-{n}"), true));
    let turns: Vec<_> = std::iter::from_fn(|| {
        let next = next_long(&queue);
        queue.hold(None);
        next
    })
    .collect();
    let expected = ["own-0", "client-1", "own-1", "client-2", "own-2", "own-3"];
    assert_eq!(turns, expected.map(|name| format!("insert-{name}")));
}

#[test]
fn what_has_its_turn_and_nobody_waits_for_holds_up_nothing() {
    let queue = Queue::default();
    push_own(&queue, "dar", "define", OwnRank::Usual, true);
    let outcome = push(&queue, 1, "small");
    assert!(packed(&mut queue.waiting.lock()).is_empty());
    assert_eq!(next_long(&queue).as_deref(), Some("insert-define"));
    drop(outcome);
    let _outcome = push_as(&queue, 2, "large", true);
    queue.hold(None);
    let queue = Arc::new(queue);
    let end = QueueEnd(Arc::clone(&queue));
    assert!(end.next(|| false).now_or_never().is_none(), "nothing is left for an entry");
    assert_eq!(next_long(&queue).as_deref(), Some("insert-large"));
}

#[test]
fn what_nobody_waits_for_any_more_is_not_packed() {
    let queue = Queue::default();
    drop(push(&queue, 1, "left"));
    let _outcome = push(&queue, 1, "stays");
    let mut abandoned = Vec::new();
    let batch = queue.waiting.lock().next_batch(|| false, &mut abandoned);
    assert_eq!((batch.commands.len(), batch.has_own(), abandoned.len()), (1, false, 1));
}

/// Adds a command that is a batch by its weight.
fn push_batch(queue: &Queue, connection: u64, name: &str) -> oneshot::Receiver<Answer> {
    let (mut submission, outcome) = submission(connection, name);
    submission.cost.weight = 500;
    assert!(queue.push(submission, false).is_ok());
    outcome
}

/// What the next entry has while the store is busy.
fn packed_beside_busy_store(queue: &Queue) -> Vec<String> {
    let batch = queue.waiting.lock().next_batch(|| true, &mut Vec::new());
    batch.commands.into_iter().map(|command| command.id.request).collect()
}

#[tokio::test(start_paused = true)]
async fn batches_wait_for_a_busy_store_and_single_writes_do_not() {
    let queue = Arc::new(Queue::default());
    let _batches = [1, 2, 3].map(|n| push_batch(&queue, n, &format!("batch-{n}")));
    assert_eq!(packed_beside_busy_store(&queue), ["insert-batch-1"], "none went before");
    let _single = push(&queue, 9, "single");
    assert_eq!(packed_beside_busy_store(&queue), ["insert-single"]);
    assert_eq!(packed(&mut queue.waiting.lock()), ["insert-batch-2"]);
    assert!(packed_beside_busy_store(&queue).is_empty());
    // One that is always busy holds up nothing for ever, and nobody says when it is not.
    let before = Instant::now();
    let batch = QueueEnd(Arc::clone(&queue)).next(|| true).await;
    assert_eq!((batch.commands.len(), before.elapsed() >= BACKGROUND_PERIOD), (1, true));
}

#[test]
fn commands_of_one_client_keep_their_order_whatever_they_weigh() {
    let queue = Queue::default();
    let _first = push_batch(&queue, 2, "of another");
    assert_eq!(packed(&mut queue.waiting.lock()), ["insert-of another"]);
    let _outcomes = [
        push(&queue, 1, "a"),
        push_batch(&queue, 1, "b"),
        push(&queue, 1, "c"),
        push_as(&queue, 1, "large", true),
        push(&queue, 1, "e"),
        push(&queue, 2, "of another"),
    ];
    assert_eq!(next_long(&queue), None, "what came before it waits");
    let mut first = packed_beside_busy_store(&queue);
    first.sort_unstable();
    assert_eq!(first, ["insert-a", "insert-of another"]);
    queue.finish_batch();
    assert_eq!(next_long(&queue), None);
    assert_eq!(packed(&mut queue.waiting.lock()), ["insert-b", "insert-c"]);
    assert_eq!(next_long(&queue), None, "they are on their way");
    // Those of others are not held up by that.
    let _outcome = push_as(&queue, 3, "large of another", true);
    assert_eq!(next_long(&queue).as_deref(), Some("insert-large of another"));
    queue.finish_batch();
    assert_eq!(next_long(&queue).as_deref(), Some("insert-large"));
    assert_eq!(next_long(&queue).as_deref(), Some("insert-e"));
}

#[tokio::test]
async fn a_large_command_is_woken_when_what_was_before_it_is_gone() {
    let queue = Arc::new(Queue::default());
    let end = QueueEnd(Arc::clone(&queue));
    let gone = push(&queue, 1, "gone");
    let _outcome = push_as(&queue, 1, "large", true);
    let mut large = Box::pin(queue.next_long());
    assert!((&mut large).now_or_never().is_none(), "it is behind another");
    drop(gone);
    assert!(end.next(|| false).now_or_never().is_none(), "nothing is left for an entry");
    assert_eq!(of_client(large.await).command.id.request, "insert-large");
}

#[test]
fn batches_that_were_set_aside_hold_up_no_large_command() {
    let queue = Queue::default();
    push_own(&queue, "dar", "define", OwnRank::Needed, true);
    let _outcomes = [push(&queue, 1, "a"), push_batch(&queue, 1, "b"), push(&queue, 1, "c")];
    let nothing: [&str; 0] = [];
    assert_eq!(packed(&mut queue.waiting.lock()), nothing);
    assert_eq!(packed(&mut queue.waiting.lock()), nothing);
    assert_eq!(next_long(&queue).as_deref(), Some("insert-define"));
    queue.hold(None);
    let _outcomes = [push(&queue, 1, "d"), push_as(&queue, 2, "large", true)];
    assert_eq!(packed_beside_busy_store(&queue), ["insert-a"]);
    assert_eq!(next_long(&queue), None, "others have waited for longer");
    assert_eq!(packed_beside_busy_store(&queue), ["insert-b", "insert-c", "insert-d"]);
    queue.finish_batch();
    assert_eq!(queue.waiting.lock().released, 0);
    assert_eq!(next_long(&queue).as_deref(), Some("insert-large"));
}

#[test]
fn single_writes_have_every_second_entry_to_themselves() {
    let queue = Queue::default();
    let mut outcomes: Vec<_> = (0..4).map(|_| push_batch(&queue, 1, "batch")).collect();
    let mut packed = || {
        outcomes.push(push(&queue, 2, "single"));
        packed(&mut queue.waiting.lock())
    };
    for _ in 0..3 {
        assert_eq!(packed(), ["insert-single"]);
        assert!(packed().contains(&"insert-batch".to_owned()));
    }
}
