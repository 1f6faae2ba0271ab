//! Stories of how sockets and gateways end: slow readers, silence, draining, limits.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::SinkExt as _;
use model::{Action, RecordMutation, Value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Served, at, until};

fn insert(n: usize, bytes: usize) -> RecordMutation {
    let record = [("id", format!("t-{n}")), ("title", "x".repeat(bytes))].into_iter().collect();
    RecordMutation::new(Action::Insert, "tickets", record)
}

fn sequence(frame: &Value) -> u64 {
    at(frame, &["sequence"]).as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_delays_nobody_and_misses_nothing() {
    let served = Served::new(|_| {}).await;
    let (mut slow, mut quick) = (served.enter("dar").await, served.enter("dar").await);
    let (events, began) = (2_000, Instant::now());
    let fake = served.fake.clone();
    let writer = tokio::task::spawn_blocking(move || {
        for n in 0..events {
            fake.write("dar", "pos", insert(n, 4_000));
        }
    });
    for n in 1..=events as u64 {
        assert_eq!(sequence(&quick.expect("server:event").await), n);
    }
    writer.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(60));
    for n in 1..=events as u64 {
        assert_eq!(sequence(&slow.expect("server:event").await), n);
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_closed_with_try_again() {
    let served = Served::new(|config| config.limits.stall_max = Duration::from_millis(300)).await;
    let slow = served.enter("dar").await;
    let following = || served.fake.orders().following.load(Ordering::SeqCst);
    assert_eq!(following(), 1);
    for n in 0..4_000 {
        served.fake.write("dar", "pos", insert(n, 4_000));
    }
    until(|| following() == 0).await;
    drop(slow);
}

#[tokio::test]
async fn a_socket_is_pinged_and_one_that_is_dead_is_closed() {
    let served = Served::new(|config| {
        config.limits.ping_every = Duration::from_millis(200);
        config.limits.idle_max = Duration::from_millis(1_000);
    })
    .await;
    let mut alive = served.open("/ws").await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1_800) {
        // Reading answers the pings.
        let next = tokio::time::timeout(Duration::from_millis(100), alive.message()).await;
        assert!(!matches!(next, Ok(None | Some(Message::Close(_)))), "{next:?}");
    }
    alive.say(r#"{"type":"ping"}"#).await;
    alive.expect("pong").await;

    let mut dead = served.open("/ws").await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(dead.goodbye().await, (1001, "nothing was heard".into()));
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_the_socket() {
    let served = Served::new(|_| {}).await;
    let mut socket = served.open("/ws").await;
    let large = format!(r#"{{"type":"ping","x":"{}"}}"#, "x".repeat(1024 * 1024));
    drop(socket.0.send(Message::text(large)).await);
    let (code, _) = socket.goodbye().await;
    assert!(code == 1009 || code == 1006, "{code}");
    served.open("/ws").await;
}

#[tokio::test]
async fn a_sync_topics_snapshot_may_be_larger_than_other_messages() {
    let served = Served::new(|_| {}).await;
    let mut socket = served.open("/ws").await;
    let large = "x".repeat(4 * 1024 * 1024);
    let post = |id: &str| {
        format!(
            r#"{{"type":"publish","topic":"sync::dar::pos","data":{{"trans_id":"{id}","snapshot":{{"tables":{{}},"x":"{large}"}}}}}}"#
        )
    };
    // More of them than a node takes at once: each gives its place back.
    for round in 0..10 {
        socket.0.send(Message::text(post(&round.to_string()))).await.unwrap();
        socket.say(r#"{"type":"ping"}"#).await;
        socket.expect("pong").await;
    }
    let free = post("y").replace("sync::dar::pos", "free");
    drop(socket.0.send(Message::text(free)).await);
    let (code, _) = socket.goodbye().await;
    assert!(code == 1009 || code == 1006, "{code}");
}

#[tokio::test]
async fn a_socket_that_is_gone_follows_nothing_and_frees_its_permit() {
    let served = Served::new(|config| config.limits.sockets_max = 1).await;
    let socket = served.enter("two").await;
    assert_eq!(served.fake.orders().following.load(Ordering::SeqCst), 2);
    let url = format!("ws://{}/ws", served.address);
    let refused = tokio_tungstenite::connect_async(&url).await.unwrap_err().to_string();
    assert!(refused.contains("503"), "{refused}");
    drop(socket);
    until(|| served.fake.orders().following.load(Ordering::SeqCst) == 0).await;
    let mut tries = 0;
    while tokio_tungstenite::connect_async(&url).await.is_err() {
        tries += 1;
        assert!(tries < 100);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn draining_acknowledges_what_is_under_way_then_says_goodbye() {
    let mut served = Served::new(|_| {}).await;
    let (mut till, mut idle) = (served.enter("dar").await, served.enter("dar").await);
    served.fake.orders().hold_outcomes.store(true, Ordering::SeqCst);
    till.publish("r", r#""table":"tickets","record":{"id":"a"}"#).await;
    till.expect("server:ack").await;
    till.expect("server:event").await;
    idle.expect("server:event").await;
    served.fake.release_outcome();
    let under_way = r#""table":"tickets","action":"merge","record":{"id":"none"}"#;
    till.publish("r2", under_way).await;
    until(|| served.fake.orders().submitted.load(Ordering::SeqCst) == 2).await;
    served.stop.take().unwrap().send(()).unwrap();
    assert_eq!(idle.goodbye().await.0, 1012);
    tokio::time::sleep(Duration::from_millis(50)).await;
    served.fake.release_outcome();
    till.expect("server:log").await;
    till.expect("server:error").await;
    assert_eq!(till.goodbye().await, (1012, "this node goes away; connect again".into()));
    let ended = tokio::time::timeout(Duration::from_secs(5), served.server).await;
    ended.expect("the server did not end").unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn a_slow_request_head_ends_its_own_connection_only() {
    let short = Duration::from_millis(200);
    let served = Served::new(|config| config.limits.head_read_max = short).await;
    let mut slow = tokio::net::TcpStream::connect(served.address).await.unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nhost: sh").await.unwrap();
    let mut said = Vec::new();
    let mut till = served.enter("dar").await;
    // The server ends it; a reset counts as well.
    let _ = slow.read_to_end(&mut said).await;
    assert!(!String::from_utf8_lossy(&said).starts_with("HTTP/1.1 200"), "{said:?}");
    // A socket is no request that is late.
    tokio::time::sleep(short * 2).await;
    till.say(r#"{"type":"ping"}"#).await;
    till.expect("pong").await;
}

#[tokio::test]
async fn a_connection_ends_whatever_it_leaves_unsaid() {
    let short = Duration::from_millis(200);
    let served = Served::new(|config| {
        config.limits.first_byte_max = short;
        config.limits.head_read_max = short;
    })
    .await;
    // Nothing; the beginning of HTTP/2; all of it and no request.
    for said in ["", "PRI * HT", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut slow = tokio::net::TcpStream::connect(served.address).await.unwrap();
        slow.write_all(said.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), slow.read_to_end(&mut answer));
        // The server ends it; a reset counts as well.
        assert!(ended.await.is_ok(), "{said:?} is still open");
        assert!(!String::from_utf8_lossy(&answer).contains(" 200 "), "{said:?}");
    }
}
