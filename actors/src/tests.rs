//! Stories about life: what a caller sees while actors fail, sleep and move.

mod branch_quota;
mod handover;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use model::{Answer, CatalogueChange, CatalogueError, Outcome, Read, ReadLevel, Value};
use raft::Timing;

use crate::message::{PeerReply, PeerRequest, Refusal, decode, encode};
use crate::partition;
use crate::peers::Inbox as _;
use crate::root;
use crate::shares::Requester;
use crate::store::{
    ChangeError, Cursor, FollowItem, Post, RouteError, Store, TopicSubscription, WriteHead,
};
use crate::testing::{Cluster, accept, insert, key, wait_until};

async fn notes_of(store: &crate::ClusterStore, branch: &str) -> Vec<String> {
    let answer = store.read(key(branch), Read::Snapshot, ReadLevel::Linearizable).await;
    let Ok(Answer::Snapshot(snapshot)) = answer else { panic!("no snapshot: {answer:?}") };
    let rows = snapshot.tables.iter().flat_map(|(_, rows)| rows);
    rows.map(|row| row.get("id").unwrap().as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_takes_every_node_shows() {
    let cluster = Cluster::start(3).await;
    for place in 0..3 {
        let note = format!("n{place}");
        accept(&cluster.store(place), insert("dar", &note, "x")).await;
    }
    for place in 0..3 {
        assert_eq!(notes_of(&cluster.store(place), "dar").await, ["n0", "n1", "n2"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_creates_nothing_and_names_an_unknown_module() {
    let cluster = Cluster::start(1).await;
    let store = cluster.store(0);
    assert_eq!(notes_of(&store, "nobody").await, [""; 0]);
    assert!(store.status().await.branches.is_empty());
    let mut elsewhere = key("dar");
    elsewhere.module = model::ModuleId::parse("gym").unwrap();
    let answer = store.read(elsewhere, Read::Head, ReadLevel::Stale).await;
    assert_eq!(answer, Err(RouteError::UnknownModule("gym".into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalogue_that_caught_up_has_what_was_agreed_before() {
    let cluster = Cluster::start(3).await;
    for (turn, maker) in [0, 1, 2, 0, 1].into_iter().enumerate() {
        let id = format!("late-{turn}");
        let nothing = CatalogueChange::Patterns { patterns: vec![], defaults: vec![] };
        cluster.store(maker).change(id.clone(), nothing).await.unwrap();
        for place in 0..3 {
            let store = cluster.store(place);
            assert!(store.is_initialized());
            Store::catch_up(&store).await.unwrap();
            assert!(store.catalogue().has_applied(&id), "{id} at {place}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_hangs_is_asked_once_to_catch_up() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.store(0).0.catalogue_client.leader().unwrap();
    let place = cluster.place_of(leader);
    let follower = cluster.store((place + 1) % 3);
    cluster.hang(place);
    let all = (0..50).map(|_| Store::catch_up(&follower));
    let answers = futures::future::join_all(all).await;
    assert_eq!(answers.len(), 50);
    assert_eq!(cluster.taken(place), 1, "the others have the first one's answer, or a successor's");
    while Store::catch_up(&follower).await.is_err() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_hangs_is_left_when_another_leads() {
    let cluster = Cluster::start(3).await;
    accept(&cluster.store(0), insert("dar", "n1", "before")).await;
    let place = cluster.leader_of("dar");
    let follower = cluster.store((place + 1) % 3);
    cluster.hang(place);
    // It would be waited for without end; the limit only keeps a broken test from hanging.
    let taken = accept(&follower, insert("dar", "n2", "while it hangs"));
    assert_eq!(tokio::time::timeout(Duration::from_secs(30), taken).await, Ok(2));
    assert_eq!(notes_of(&follower, "dar").await, ["n1", "n2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_actor_that_panics_costs_nobody_anything() {
    let cluster = Cluster::start(1).await;
    let store = cluster.store(0);
    accept(&store, insert("dar", "n1", "before")).await;
    let partition = store.0.catalogue_client.locate(&key("dar")).unwrap();
    let actor = store.0.partitions.get(partition).unwrap().actor;
    actor.cast(partition::Message::PanicBranch(key("dar"))).unwrap();
    assert_eq!(accept(&store, insert("dar", "n2", "after")).await, 2);
    assert_eq!(accept(&store, insert("remal", "r1", "elsewhere")).await, 1);
    assert_eq!(notes_of(&store, "dar").await, ["n1", "n2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_actor_that_panics_has_a_successor() {
    let cluster = Cluster::start(1).await;
    let store = cluster.store(0);
    accept(&store, insert("dar", "n1", "before")).await;
    let partition = store.0.catalogue_client.locate(&key("dar")).unwrap();
    let actor = || store.0.partitions.get(partition).map(|running| running.actor.get_id());
    let before = actor();
    cluster.nodes[0].running.root.cast(root::Message::PanicControl).unwrap();
    // Partitions go on without it.
    assert_eq!(accept(&store, insert("dar", "n2", "meanwhile")).await, 2);
    assert_eq!(actor(), before, "the partition's actor outlived it");
    // Only a control actor gives a partition a new actor.
    store.0.partitions.get(partition).unwrap().actor.cast(partition::Message::Panic).unwrap();
    wait_until("another actor runs", || actor().is_some_and(|now| Some(now) != before)).await;
    assert_eq!(accept(&store, insert("dar", "n3", "after")).await, 3);
    assert_eq!(notes_of(&store, "dar").await, ["n1", "n2", "n3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_actor_may_panic_while_the_cluster_forms() {
    let cluster = Cluster::start_with(3, |tree| {
        tree.root.cast(root::Message::PanicControl).unwrap();
    });
    let cluster = cluster.await;
    for place in 0..3 {
        accept(&cluster.store(place), insert("dar", &format!("n{place}"), "x")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_come_while_an_actor_goes_to_sleep_are_kept() {
    let cluster = Cluster::start(1).await;
    let store = cluster.store(0);
    accept(&store, insert("dar", "n0", "x")).await;
    let partition = store.0.catalogue_client.locate(&key("dar")).unwrap();
    let actor = store.0.partitions.get(partition).unwrap().actor;
    let mut calls = Vec::new();
    for n in 1..=50 {
        if n % 5 == 0 {
            actor.cast(partition::Message::PassivateAll).unwrap();
        }
        let (store, note) = (store.clone(), format!("n{n}"));
        calls.push(tokio::spawn(async move { accept(&store, insert("dar", &note, "x")).await }));
    }
    let mut offsets = Vec::new();
    for call in calls {
        offsets.push(call.await.unwrap());
    }
    offsets.sort_unstable();
    assert_eq!(offsets, (2..=51).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_sleeps_is_woken_by_the_next_command() {
    let cluster = Cluster::start(1).await;
    let store = cluster.store(0);
    accept(&store, insert("dar", "n1", "x")).await;
    let local =
        store.0.partitions.get(store.0.catalogue_client.locate(&key("dar")).unwrap()).unwrap();
    let actor = || local.activations.actor(&key("dar")).map(|actor| actor.get_id());
    let first = actor();
    accept(&store, insert("dar", "n2", "x")).await;
    assert_eq!(actor(), first, "one actor takes all its commands");
    local.actor.cast(partition::Message::PassivateAll).unwrap();
    wait_until("it sleeps", || actor().is_none()).await;
    assert_eq!(accept(&store, insert("dar", "n3", "x")).await, 3);
    assert!(actor().is_some_and(|second| Some(second) != first));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_has_an_actor_on_its_leader_only() {
    let cluster = Cluster::start(3).await;
    let partition = cluster.store(0).0.catalogue_client.locate(&key("dar")).unwrap();
    let local = |place: usize| cluster.store(place).0.partitions.get(partition).unwrap();
    let active = |place: usize| local(place).activations.actor(&key("dar")).is_some();
    accept(&cluster.store(0), insert("dar", "n1", "x")).await;
    let former = cluster.leader_of("dar");
    assert_eq!((0..3).filter(|place| active(*place)).collect::<Vec<_>>(), [former]);
    let next = (former + 1) % 3;
    let replica = local(next).group.status().replica;
    local(former).group.transfer_leader(replica).await.unwrap();
    // Nobody writes meanwhile, so none comes back, whoever leads then.
    wait_until("the former leader's actor is gone", || !active(former)).await;
    assert_eq!(accept(&cluster.store(0), insert("dar", "n2", "x")).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_command_through_two_nodes_is_decided_once() {
    let cluster = Cluster::start(3).await;
    let first = cluster.store(0).submit(insert("dar", "n1", "x")).await.unwrap();
    let again = cluster.store(2).submit(insert("dar", "n1", "x")).await.unwrap();
    let (Outcome::Accepted(first), Outcome::Accepted(again)) = (first, again) else {
        panic!("both are accepted")
    };
    assert_eq!((first.delta.clone(), false, true), (again.delta, first.repeated, again.repeated));
    let other = cluster.store(1).submit(insert("dar", "n1", "another text")).await.unwrap();
    assert_eq!(other, Outcome::Rejected(model::Reject::KeyReused));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_without_a_replica_sees_every_delta_once() {
    let cluster = Cluster::start(2).await;
    let near = cluster.store(0);
    // Every branch has one replica; of several branches some live on the other node.
    for branch in ["a", "b", "c", "d", "e"] {
        accept(&near, insert(branch, &format!("{branch}-first"), "x")).await;
        for store in [cluster.store(0), cluster.store(1)] {
            let mut follow = store.follow(key(branch), None).await.unwrap();
            let begin = follow.snapshot.unwrap().head.offset.0;
            for n in 1..=3 {
                let note = format!("{branch}-{begin}-{n}");
                accept(&near, insert(branch, &note, "x")).await;
            }
            for n in 1..=3 {
                let Some(FollowItem::Delta(shared)) = follow.stream.next().await else {
                    panic!("a delta follows")
                };
                assert_eq!(shared.delta.last().unwrap().0, begin + n, "branch {branch}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_of_a_feed_that_fails_follow_again() {
    let cluster = Cluster::start(2).await;
    let store = cluster.store(0);
    let is_elsewhere = |branch: &&str| {
        let partition = store.0.catalogue_client.locate(&key(branch)).unwrap();
        store.0.partitions.get(partition).is_none()
    };
    let branch = ["a", "b", "c", "d", "e"].into_iter().find(is_elsewhere).unwrap();
    let mut follow = store.follow(key(branch), None).await.unwrap();
    for n in 1..=3 {
        accept(&store, insert(branch, &format!("n{n}"), "x")).await;
        let Some(FollowItem::Delta(shared)) = follow.stream.next().await else {
            panic!("a delta follows")
        };
        assert_eq!(shared.delta.last().unwrap().0, n);
        // The delta may have been read from the log while the next feed was being started.
        let mut feeds = store.0.follows.feeds.actors();
        while feeds.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            feeds = store.0.follows.feeds.actors();
        }
        assert_eq!(feeds.len(), 1, "the next feed was started by its follower");
        feeds[0].kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_slept_reads_what_it_missed_from_the_log() {
    let cluster = Cluster::start(1).await;
    let store = cluster.store(0);
    accept(&store, insert("dar", "n0", "x")).await;
    let mut follow = store.follow(key("dar"), None).await.unwrap();
    let head = follow.snapshot.take().unwrap().head.clone();
    let many = crate::limits::FOLLOWER_QUEUE_DELTAS as u64 + 50;
    for n in 1..=many {
        accept(&store, insert("dar", &format!("n{n}"), "x")).await;
    }
    let cursor = Cursor { incarnation: head.incarnation, offset: head.offset };
    let mut resumed = store.follow(key("dar"), Some(cursor)).await.unwrap();
    for stream in [&mut follow.stream, &mut resumed.stream] {
        for n in 1..=many {
            let Some(FollowItem::Delta(shared)) = stream.next().await else {
                panic!("a delta follows")
            };
            assert_eq!(shared.delta.last().unwrap().0, head.offset.0 + n);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_at_a_replica_that_lags_goes_to_the_leader() {
    // Who hears nobody does not campaign while this test runs.
    let (election_min, election_max) = (Duration::from_secs(20), Duration::from_secs(30));
    let timing = Timing { election_min, election_max, ..Timing::default() };
    let cluster = Cluster::timed(3, timing).await;
    accept(&cluster.store(0), insert("dar", "n1", "before")).await;
    let place = cluster.leader_of("dar");
    let (leader, follower) = (cluster.nodes[place].id, (place + 1) % 3);
    // Wherever that was read, the follower is_initialized who leads.
    assert_eq!(notes_of(&cluster.store(follower), "dar").await, ["n1"]);
    cluster.deafen(follower);
    accept(&cluster.store(place), insert("dar", "n2", "after")).await;
    assert_eq!(notes_of(&cluster.store(follower), "dar").await, ["n1", "n2"]);
    // Whoever took it for the leader is told who is.
    let (key, read, level) = (key("dar"), Read::Snapshot, ReadLevel::Linearizable);
    let ask = encode(&PeerRequest::Read { key, read, level });
    let answer = cluster.store(follower).call(leader, ask).await;
    let Ok(PeerReply::Refused(refusal)) = decode(&answer) else { panic!("it lags") };
    assert_eq!(refusal, Refusal::NotLeader { hint: Some(leader) });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_finds_no_place_is_refused_from_its_head() {
    // Who hears nobody does not campaign while this test runs, and decides nothing either.
    let (election_min, election_max) = (Duration::from_secs(20), Duration::from_secs(30));
    let timing = Timing { election_min, election_max, ..Timing::default() };
    let cluster = Cluster::timed(3, timing).await;
    accept(&cluster.store(0), insert("dar", "n0", "x")).await;
    let place = cluster.leader_of("dar");
    let (leader, follower) = (cluster.store(place), cluster.store((place + 1) % 3));
    cluster.deafen(place);
    let of = |address: u8, connection| Requester {
        address: Some([10, 0, 0, address].into()),
        connection,
    };
    let text = "x".repeat(900 * 1024);
    let large = |n: u64| insert("dar", &format!("large-{n}"), &text);
    let head = WriteHead { key: key("dar"), bytes: text.len() as u64, adds: true };
    let mut waiting = Vec::new();
    for n in 0.. {
        let is_refused = leader.check_write(of(1, n), &head).is_err();
        let mut write = leader.submit_for(of(1, n), large(n));
        // A write is refused or has its place when it is first looked at.
        match futures::poll!(&mut write) {
            Poll::Ready(refused) => {
                assert!(matches!(refused, Err(RouteError::Busy { .. })), "{refused:?}");
                assert!(is_refused, "its head said so");
                break;
            }
            Poll::Pending => assert!(!is_refused, "its head said so"),
        }
        waiting.push(write);
    }
    assert!(!waiting.is_empty());
    assert_eq!(leader.check_write(of(2, 1), &head), Ok(()), "another address finds a place");
    assert_eq!(follower.check_write(of(1, 98), &head), Ok(()), "it was not refused here yet");
    // The refusal of another node stands for a moment.
    let mut is_refused = false;
    while !is_refused {
        let refused = follower.submit_for(of(1, 98), large(98)).await;
        assert!(matches!(refused, Err(RouteError::Busy { .. })), "{refused:?}");
        is_refused = follower.check_write(of(1, 97), &head).is_err();
    }
    assert_eq!(follower.check_write(of(2, 1), &head), Ok(()), "nor was anybody else");
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_when_the_leader_dies() {
    let mut cluster = Cluster::start(3).await;
    accept(&cluster.store(0), insert("dar", "n0", "x")).await;
    let place = cluster.leader_of("dar");
    cluster.kill(place).await;
    let store = cluster.store(0);
    for n in 1..=5 {
        assert_eq!(accept(&store, insert("dar", &format!("n{n}"), "x")).await, n + 1);
    }
    assert_eq!(notes_of(&cluster.store(1), "dar").await.len(), 6);
    wait_until("every partition has a leader again", || store.ready().is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_node_gives_a_lead_away_again() {
    let cluster = Cluster::start(3).await;
    let leaver = &cluster.nodes[0];
    leaver.running.drain().await;
    for other in &cluster.nodes[1..] {
        let store = other.running.store();
        wait_until("the others know", || !store.0.liveness.may_lead(leaver.id)).await;
    }
    // One that did not hear of it in time gives a lead back.
    let partition = cluster.store(0).0.catalogue_client.locate(&key("dar")).unwrap();
    let group_of = |place: usize| cluster.store(place).0.partitions.get(partition).unwrap().group;
    let leader = (1..3).find(|place| group_of(*place).status().is_leader).unwrap();
    let back = group_of(0).status().replica;
    group_of(leader).transfer_leader(back).await.unwrap();
    let term = group_of(leader).status().term;
    let was_led_there = || group_of(1).status().term >= term + 2;
    wait_until("it led, and does no more", || was_led_there() && !group_of(0).status().is_leader)
        .await;
    // A new link is a new start.
    cluster.store(1).link_changed(leaver.id, true);
    assert!(cluster.store(1).0.liveness.may_lead(leaver.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_vote_serves_every_branch() {
    let cluster = Cluster::start(6).await;
    for (place, branch) in (0..6).zip(["a", "b", "c", "d", "e", "f"]) {
        accept(&cluster.store(place), insert(branch, branch, "x")).await;
    }
    let last = cluster.store(5);
    for branch in ["a", "b", "c", "d", "e", "f"] {
        assert_eq!(notes_of(&last, branch).await, [branch]);
    }
}

fn post(topic: &str, n: u64) -> Post {
    Post { topic: topic.to_owned(), data: [("n", n)].into_iter().collect() }
}

/// What a subscriber receives until a topic's post of this number.
async fn received(subscription: &mut TopicSubscription, until: u64) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.last() != Some(&until) {
        let post = subscription.posts.recv().await.unwrap();
        numbers.push(post.data.get("n").and_then(Value::as_u64).unwrap());
    }
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_reach_every_node_in_one_order() {
    let cluster = Cluster::start(3).await;
    for topic in ["a", "b", "c", "d", "e"] {
        cluster.store(0).publish(post(topic, 0)).await.unwrap();
        let mut all = Vec::new();
        for place in 0..3 {
            let subscription = cluster.store(place).subscribe(topic.to_owned()).await.unwrap();
            assert_eq!(
                *subscription.last.as_deref().unwrap(),
                post(topic, 0),
                "the last post is known"
            );
            all.push(subscription);
        }
        let posts = (1..=20).map(|n| {
            let store = cluster.store(usize::try_from(n % 3).unwrap());
            async move { store.publish(post(topic, n)).await.unwrap() }
        });
        futures::future::join_all(posts).await;
        cluster.store(1).publish(post(topic, 99)).await.unwrap();
        let first = received(&mut all[0], 99).await;
        assert_eq!(first.len(), 21);
        for subscription in &mut all[1..] {
            assert_eq!(received(subscription, 99).await, first, "one order for all");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_post_outlives_the_owner_of_its_topic() {
    let mut cluster = Cluster::start(3).await;
    let store = cluster.store(0);
    store.publish(post("t", 1)).await.unwrap();
    let partition = model::cluster::partition_of_topic("t", store.catalogue().partitions);
    let owner = store.0.follows.upstream.leaders.leader_of(partition.into()).unwrap();
    let place = cluster.place_of(owner);
    cluster.kill(place).await;
    for place in 0..2 {
        let mut subscription = cluster.store(place).subscribe("t".to_owned()).await.unwrap();
        assert_eq!(*subscription.last.as_deref().unwrap(), post("t", place as u64 + 1));
        cluster.store(1 - place).publish(post("t", place as u64 + 2)).await.unwrap();
        assert_eq!(received(&mut subscription, place as u64 + 2).await, [place as u64 + 2]);
    }
}

fn add_branch(name: &str) -> CatalogueChange {
    CatalogueChange::AddBranch(Arc::new(model::BranchConfig {
        id: key(name).branch,
        label: "New".into(),
        modules: vec![key(name).module],
        seeds: BTreeMap::new(),
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_catalogue_is_known_here_when_it_is_made() {
    let cluster = Cluster::start(3).await;
    for place in 0..3 {
        let store = cluster.store(place);
        let branch = key(&format!("b{place}")).branch;
        let change = add_branch(branch.as_str());
        store.change(format!("add-{place}"), change.clone()).await.unwrap();
        assert!(store.catalogue().branch(&branch).is_some());
        store.change(format!("add-{place}"), change.clone()).await.expect("once under one id");
        assert_eq!(
            store.change(format!("again-{place}"), change).await,
            Err(ChangeError::Refused(CatalogueError::BranchExists(branch)))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_leader_hangs_is_made_by_the_next() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.store(0).0.catalogue_client.leader().unwrap();
    let place = cluster.place_of(leader);
    let follower = cluster.store((place + 1) % 3);
    cluster.hang(place);
    // The limit only keeps a broken test from hanging.
    let made = follower.change("add".to_owned(), add_branch("new"));
    tokio::time::timeout(Duration::from_secs(60), made).await.unwrap().unwrap();
    assert_eq!(cluster.taken(place), 1, "it was asked, and left when its successor was known");
}

/// A command that a build of this level's predecessor cannot read.
#[cfg(feature = "next-level")]
fn command_of_next_level() -> model::Command {
    let reserve = model::Reserve { table: "note".to_owned(), field: "id".to_owned() };
    let request = model::Request::ReserveAtNextLevel(reserve);
    model::Command { request, ..insert("dar", "n1", "x") }
}

#[cfg(feature = "next-level")]
#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_refused_until_its_level_is_agreed() {
    let cluster = Cluster::start(3).await;
    let (store, command) = (cluster.store(0), command_of_next_level());
    let refused = store.submit(command.clone()).await.unwrap_err().to_string();
    let (needed, agreed) = (model::codec::NEXT_LEVEL, model::codec::FIRST_LEVEL);
    let message = format!("needs level {needed} and the cluster has agreed on level {agreed}");
    assert!(refused.contains(&message), "{refused}");
    // Nor does the leader propose one that came to it all the same.
    let leader = cluster.store(cluster.leader_of("dar"));
    let partition = store.0.catalogue_client.locate(&key("dar")).unwrap();
    let timeout = Duration::from_secs(10);
    let by = crate::shares::Requester::default();
    let cost = crate::partition::weight::CommandCost::of(&command);
    let submitted = leader.0.writes.submit_here(partition, by, command.clone(), cost, timeout);
    let proposed = submitted.await;
    assert!(matches!(proposed, Err(Refusal::Unavailable { .. })), "{proposed:?}");
    accept(&store, insert("dar", "n2", "x")).await;

    let raise = CatalogueChange::RaiseLevel(model::codec::NEXT_LEVEL);
    store.change("raise".to_owned(), raise).await.unwrap();
    let decided = store.submit(command).await;
    assert!(decided.is_ok(), "whatever the branch says of it: {decided:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_show_one_state_and_whole_logs() {
    let cluster = Cluster::start(3).await;
    let store = cluster.store(0);
    for n in 0..600 {
        accept(&store, insert("dar", &format!("n{n}"), "x")).await;
    }
    let partition = store.0.catalogue_client.locate(&key("dar")).unwrap();
    let states = async || {
        let mut states = Vec::new();
        for place in 0..3 {
            let own = cluster.store(place).replicas(true).await;
            assert_eq!((own.node, own.replicas.len()), (cluster.nodes[place].id.0, 5));
            assert!(own.replicas.iter().all(|replica| replica.broken_chain.is_none()), "{own:?}");
            let ours =
                own.replicas.into_iter().filter(|own| [0, partition.0].contains(&own.partition));
            states.push(ours.map(|own| (own.applied, own.state_hash)).collect::<Vec<_>>());
        }
        states
    };
    // Followers hear of the last entry with the next message.
    let applied = |place: usize| {
        cluster.store(place).0.partitions.get(partition).unwrap().group.status().applied
    };
    wait_until("all have applied the same", || (1..3).all(|n| applied(n) == applied(0))).await;
    let before = states().await;
    assert_eq!(before[0], before[1]);
    assert_eq!(before[0], before[2]);
    // The first events leave memory where a checkpoint and the store hold them.
    let first = |place: usize| {
        let view = cluster.store(place).0.partitions.get(partition).unwrap().applied.view();
        view.branch(&key("dar")).unwrap().first_event().unwrap().0
    };
    let group = cluster.store(1).0.partitions.get(partition).unwrap().group;
    for n in 600..620 {
        accept(&store, insert("dar", &format!("n{n}"), "x")).await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        group.checkpoint().await.unwrap();
        if first(1) > 1 {
            break;
        }
    }
    wait_until("all have applied the same", || (1..3).all(|n| applied(n) == applied(0))).await;
    assert_eq!((first(0), first(1)), (1, 257));
    // What is let go of is published with the next entry: the walk goes from disk into memory.
    let after = states().await;
    assert_eq!(after[0], after[1]);
    // Nothing changed in group 0, and everything in the partition.
    assert_eq!(after[0][0], before[0][0]);
    assert_ne!(after[0][1], before[0][1]);
}
