//! Tests of the dedup table: what is kept how long, and what gives way.

use super::*;

const HOUR: u64 = 3_600_000;

fn id(request: u64) -> CommandId {
    CommandId { session: "s".to_owned(), request: request.to_string() }
}

fn limits(entries: u64) -> DedupLimits {
    DedupLimits { bytes_max: entries * DEDUP_ENTRY_BYTES as u64, keep_ms: 24 * HOUR }
}

fn remember(dedup: &mut Dedup, id: &CommandId, uptime_ms: u64) {
    let decided = DedupOutcome::Events { first: Offset(1), count: 1 };
    dedup.remember(id, [0; 8], uptime_ms, &decided);
}

#[test]
fn what_a_client_named_is_kept_for_its_time() {
    let (mut dedup, limits) = (Dedup::default(), limits(1_000));
    (0..20).for_each(|n| remember(&mut dedup, &id(n), n * 1_000));
    dedup.evict(&limits, 24 * HOUR - 1).unwrap();
    assert_eq!(dedup.used().entries, 20);
    dedup.evict(&limits, 24 * HOUR + 2_000).unwrap();
    assert_eq!(dedup.used().entries, 17);
    assert!(dedup.get(&id(2)).is_none() && dedup.get(&id(3)).is_some());
    dedup.evict(&limits, 48 * HOUR).unwrap();
    assert_eq!(dedup.used().entries, 17 - EVICTIONS_PER_COMMAND as u64, "a few at once");
    assert_eq!(dedup.client.next(), 20, "serials are never given twice");
}

#[test]
fn what_a_server_named_is_kept_for_a_minute() {
    let (mut dedup, limits) = (Dedup::default(), limits(1_000));
    let own = CommandId::server_named("1");
    remember(&mut dedup, &own, 0);
    remember(&mut dedup, &id(1), 0);
    dedup.evict(&limits, 59_900).unwrap();
    assert!(dedup.get(&own).is_some());
    dedup.evict(&limits, 60_000).unwrap();
    assert!(dedup.get(&own).is_none() && dedup.get(&id(1)).is_some());
}

#[test]
fn at_the_bound_the_oldest_over_an_hour_give_way() {
    let (mut dedup, limits) = (Dedup::default(), limits(3));
    (0..3).for_each(|n| remember(&mut dedup, &id(n), n * 60_000));
    assert_eq!(dedup.evict(&limits, HOUR - 30_000), Err(30_000), "it says when room comes");
    assert_eq!(dedup.evict(&limits, HOUR), Ok(1));
    assert!(dedup.get(&id(0)).is_none() && dedup.get(&id(1)).is_some());
    assert_eq!(dedup.used().displaced, 1);
}

#[test]
fn a_lowered_bound_refuses_nothing_while_outcomes_may_give_way() {
    let (mut dedup, lowered) = (Dedup::default(), limits(10));
    (0..5_000).for_each(|n| remember(&mut dedup, &id(n), 0));
    for n in 0..6 {
        assert!(dedup.evict(&lowered, 2 * HOUR).is_ok(), "command {n}");
        remember(&mut dedup, &id(10_000 + n), 2 * HOUR);
    }
    assert_eq!(dedup.used().entries, 10);
}

#[test]
fn what_a_server_named_gives_way_before_a_clients() {
    let (mut dedup, limits) = (Dedup::default(), limits(2));
    remember(&mut dedup, &id(1), 0);
    remember(&mut dedup, &CommandId::server_named("1"), 2 * HOUR);
    let later = 2 * HOUR + DEDUP_SERVER_KEEP_MIN_MS;
    assert_eq!(dedup.evict(&limits, later), Ok(0));
    assert!(dedup.get(&id(1)).is_some() && dedup.server.len() == 0);
}

#[test]
fn refusals_beyond_their_bound_are_known_by_their_code() {
    let mut dedup = Dedup::default();
    let refusal = |n: u64| Reject::BadCommand { message: format!("{n} {}", "x".repeat(10_000)) };
    (0..200).for_each(|n| dedup.remember(&id(n), [0; 8], 0, &DedupOutcome::Rejected(refusal(n))));
    let decided = |n| dedup.get(&id(n)).unwrap().decided();
    assert_eq!(decided(199), DedupOutcome::Rejected(refusal(199)));
    let earlier = Reject::Earlier { code: "bad-command".to_owned() };
    assert_eq!(decided(0), DedupOutcome::Rejected(earlier));
}

#[test]
fn an_entry_takes_at_most_48_bytes_with_what_finds_it() {
    // An entry; a slot of the index; each bucket's header, its pointer and the allocator's word,
    // and the tree's part, over the 32 slots a bucket has.
    let index = 5 + (16 + 16 + 16 + 8) / 32;
    let tree = ENTRY_BYTES.div_ceil(16);
    assert!(ENTRY_BYTES + index + tree <= DEDUP_ENTRY_BYTES);
}

#[test]
fn writes_that_no_client_named_keep_memory_flat() {
    let mut shop = crate::testing::Shop::lenient();
    let row = r#"{"id":"a","n":1}"#;
    for n in 0..30_000 {
        // A thousand a second: the table holds a minute of them, and no more.
        shop.elapsed_ms = 1;
        let mutations = vec![crate::testing::mutation(crate::Action::Save, "tickets", row)];
        let request = crate::Request::Transaction(crate::Transaction::of(mutations));
        let command =
            crate::Command { id: CommandId::server_named(n.to_string()), ..shop.command(request) };
        let applied = shop.apply_one(command);
        assert!(matches!(applied.outcome, crate::Outcome::Accepted(_)), "{n}");
    }
    // The shop's limits keep an outcome for a second.
    let entries = shop.branch().dedup().entries;
    assert!((1_000..1_300).contains(&entries), "{entries}");
}
