//! The link between real sockets on this machine.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::hello::{FEATURES, PeerHello, read_hello};
use super::*;
use crate::limits::{CONTROL_PAYLOAD_BYTES_MAX, DIALLED_WITHIN, QUEUE_FRAMES_MAX};

const SOON: Duration = Duration::from_secs(5);

/// Answers Raft's messages with themselves.
struct Echo;

impl RaftInbox for Echo {
    fn handle(&self, _from: NodeId, message: Bytes) -> BoxFuture<'static, Bytes> {
        Box::pin(async move { message })
    }
}

/// Answers the actors' messages as they ask for.
#[derive(Default)]
struct Actors {
    casts: Mutex<VecDeque<(NodeId, Bytes)>>,
    links: Mutex<Vec<(NodeId, bool)>>,
    inboxes: AtomicUsize,
}

impl Inbox for Actors {
    fn call(&self, _from: NodeId, message: Bytes) -> BoxFuture<'static, Bytes> {
        self.inboxes.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            match &message[..] {
                b"panic" => panic!("as asked"),
                b"never" => std::future::pending().await,
                b"large" => Bytes::from(vec![7; 20 * 1024 * 1024]),
                b"five" => Bytes::from(vec![7; 5 * 1024 * 1024]),
                _ => message,
            }
        })
    }

    fn cast(&self, from: NodeId, message: Bytes) {
        self.casts.lock().push_back((from, message));
    }

    fn link_changed(&self, peer: NodeId, up: bool) {
        self.links.lock().push((peer, up));
    }
}

struct Here {
    link: PeerLink,
    actors: Arc<Actors>,
    _book: watch::Sender<Arc<AddressBook>>,
}

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn book(entries: &[(u64, &str)]) -> AddressBook {
    let entry = |(node, address): &(u64, &str)| {
        (NodeId(*node), PeerAddress { address: (*address).to_owned(), data_id: None })
    };
    entries.iter().map(entry).collect()
}

fn start(node: u64, listener: TcpListener, entries: &[(u64, &str)]) -> Here {
    start_as(node, "shop", &format!("data-{node}"), listener, book(entries))
}

fn start_as(
    node: u64,
    cluster: &str,
    data_id: &str,
    listener: TcpListener,
    book: AddressBook,
) -> Here {
    let (sender, receiver) = watch::channel(Arc::new(book));
    let link = PeerLink::start(PeerConfig {
        node: NodeId(node),
        cluster: cluster.into(),
        data_id: data_id.into(),
        listener,
        book: receiver,
        transport: Arc::new(PlainTcp),
    })
    .unwrap();
    let actors = Arc::new(Actors::default());
    link.serve_raft(Arc::new(Echo));
    link.serve_actors(Arc::clone(&actors) as Arc<dyn Inbox>);
    Here { link, actors, _book: sender }
}

fn pair() -> (Here, Here) {
    let ((one, at_one), (two, at_two)) = (listener(), listener());
    let entries = [(1, at_one.as_str()), (2, at_two.as_str())];
    (start(1, one, &entries), start(2, two, &entries))
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("never so: {what}");
}

async fn linked(here: &Here, peer: u64) {
    let remote = here.link.0.remote(NodeId(peer));
    until("linked", || {
        let now = *remote.connections_up.borrow();
        now.control && now.bulk
    })
    .await;
}

async fn ask(
    from: &Here,
    to: u64,
    priority: Priority,
    message: &'static [u8],
) -> Result<Bytes, NetworkError> {
    Peers::call(&from.link, NodeId(to), priority, Bytes::from_static(message), SOON).await
}

/// Reaches nobody, and counts how often that was tried.
#[derive(Default)]
struct Nowhere(AtomicUsize);

impl Transport for Nowhere {
    fn dial(&self, _address: String) -> BoxFuture<'static, std::io::Result<PeerStream>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) })
    }

    fn accept(
        &self,
        _socket: tokio::net::TcpStream,
    ) -> BoxFuture<'static, std::io::Result<PeerStream>> {
        Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) })
    }
}

fn start_nowhere(
    node: u64,
    peer: u64,
    nowhere: &Arc<Nowhere>,
) -> (watch::Sender<Arc<AddressBook>>, PeerLink) {
    let (sender, receiver) = watch::channel(Arc::new(book(&[(peer, "nowhere:1")])));
    let link = PeerLink::start(PeerConfig {
        node: NodeId(node),
        cluster: "shop".into(),
        data_id: "data".into(),
        listener: listener().0,
        book: receiver,
        transport: Arc::clone(nowhere) as Arc<dyn Transport>,
    });
    (sender, link.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_lost_peer_is_dialled_every_second_by_either_side() {
    for (node, peer) in [(1, 2), (2, 1)] {
        let nowhere = Arc::new(Nowhere::default());
        let (_book, link) = start_nowhere(node, peer, &nowhere);
        sleep(Duration::from_secs(120)).await;
        let before = nowhere.0.load(Ordering::Relaxed);
        sleep(Duration::from_secs(60)).await;
        let tries = nowhere.0.load(Ordering::Relaxed) - before;
        assert!((35..=130).contains(&tries), "node {node} dialled {tries} times in a minute");
        link.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_dials_sooner_than_later() {
    let nowhere = Arc::new(Nowhere::default());
    let (_book, _link) = start_nowhere(2, 1, &nowhere);
    sleep(DIALLED_WITHIN - Duration::from_millis(1)).await;
    assert!(nowhere.0.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn calls_and_casts_go_both_ways() {
    let (one, two) = pair();
    linked(&one, 2).await;
    linked(&two, 1).await;
    for (from, to) in [(&one, 2), (&two, 1)] {
        for priority in
            [Priority::Urgent, Priority::Log, Priority::Call, Priority::Feed, Priority::Bulk]
        {
            assert_eq!(ask(from, to, priority, b"hello").await.unwrap(), "hello");
            let message = Bytes::from_static(b"vote");
            let answer = Network::call(&from.link, NodeId(to), priority, message, SOON).await;
            assert_eq!(answer.unwrap(), "vote");
        }
    }
    for byte in 0..50u8 {
        one.link.cast(NodeId(2), Priority::Feed, vec![byte].into()).unwrap();
    }
    until("casts arrive", || two.actors.casts.lock().len() == 50).await;
    let order: Vec<u8> = two.actors.casts.lock().iter().map(|(_, bytes)| bytes[0]).collect();
    assert_eq!(order, (0..50).collect::<Vec<_>>());
    assert_eq!(*one.actors.links.lock(), [(NodeId(2), true)]);
    assert!(matches!(
        ask(&one, 9, Priority::Call, b"x").await,
        Err(NetworkError::Unreachable { node: NodeId(9), .. })
    ));
}

#[tokio::test]
async fn calls_end_by_panic_by_deadline_and_by_the_end_of_the_link() {
    let (one, two) = pair();
    linked(&one, 2).await;
    assert!(matches!(
        ask(&one, 2, Priority::Call, b"panic").await,
        Err(NetworkError::NoAnswer { .. })
    ));
    let message = Bytes::from_static(b"never");
    let short = Duration::from_millis(100);
    let began = Instant::now();
    let ended = Peers::call(&one.link, NodeId(2), Priority::Call, message, short).await;
    assert!(matches!(ended, Err(NetworkError::NoAnswer { .. })), "{ended:?}");
    assert!(began.elapsed() < Duration::from_secs(1));

    let (stopped, ended) = tokio::join!(
        async {
            until("served", || two.actors.inboxes.load(Ordering::Relaxed) == 3).await;
            two.link.stop().await;
        },
        timeout(SOON, ask(&one, 2, Priority::Call, b"never")),
    );
    let () = stopped;
    assert!(matches!(ended, Ok(Err(NetworkError::NoAnswer { .. }))), "{ended:?}");
    until("told", || one.actors.links.lock().contains(&(NodeId(2), false))).await;
    assert!(one.link.0.carrier(NodeId(2), Priority::Call).is_err());
}

#[tokio::test]
async fn a_caller_that_stops_waiting_leaves_nothing_behind() {
    let (one, _two) = pair();
    linked(&one, 2).await;
    let connection = one.link.0.carrier(NodeId(2), Priority::Call).unwrap();
    let waited = timeout(Duration::from_millis(50), ask(&one, 2, Priority::Call, b"never")).await;
    assert!(waited.is_err());
    assert_eq!(connection.calls.len(), 0);
}

#[tokio::test]
async fn large_messages_travel_in_pieces_while_small_ones_pass() {
    let (one, two) = pair();
    linked(&one, 2).await;
    let large = Bytes::from((0..30 * 1024 * 1024).map(|i| (i % 251) as u8).collect::<Vec<_>>());
    let transfer = Peers::call(&one.link, NodeId(2), Priority::Bulk, large.clone(), SOON * 4);
    let asked = ask(&one, 2, Priority::Bulk, b"large");
    let mut slowest = Duration::ZERO;
    let small = async {
        for _ in 0..20 {
            let began = Instant::now();
            ask(&one, 2, Priority::Urgent, b"tick").await.unwrap();
            slowest = slowest.max(began.elapsed());
        }
    };
    let (transfer, asked, ()) = tokio::join!(transfer, asked, small);
    assert!(transfer.unwrap() == large);
    assert_eq!(asked.unwrap().len(), 20 * 1024 * 1024);
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");

    let too_large = Bytes::from(vec![0; CONTROL_PAYLOAD_BYTES_MAX + 1]);
    assert!(matches!(
        one.link.cast(NodeId(2), Priority::Feed, too_large),
        Err(NetworkError::Unreachable { .. })
    ));
    drop(two);
}

#[tokio::test]
async fn a_large_answer_comes_back_whatever_lane_asked() {
    let (one, two) = pair();
    linked(&one, 2).await;
    for priority in [Priority::Urgent, Priority::Log, Priority::Call, Priority::Bulk] {
        // More than a queue holds: what waits here is bounded by the budget for large answers.
        let asked = (0..5).map(|_| ask(&one, 2, priority, b"five"));
        for answer in futures::future::join_all(asked).await {
            assert_eq!(answer.unwrap().len(), 5 * 1024 * 1024, "{priority:?}");
        }
    }
    drop(two);
}

#[tokio::test]
async fn a_full_lane_is_refused_at_once() {
    let (one, _two) = pair();
    linked(&one, 2).await;
    // Nothing is written until this task yields: the test runs on one thread.
    let cast = |bytes: Bytes| one.link.cast(NodeId(2), Priority::Feed, bytes);
    for _ in 0..QUEUE_FRAMES_MAX {
        cast(Bytes::from_static(b"x")).unwrap();
    }
    assert_eq!(cast(Bytes::from_static(b"x")), Err(NetworkError::Full { node: NodeId(2) }));
    assert_eq!(ask(&one, 2, Priority::Call, b"still").await.unwrap(), "still");
}

#[tokio::test]
async fn strangers_are_refused_by_name() {
    let ((two, at_two), (one, _)) = (listener(), listener());
    let _two = start(2, two, &[]);
    let stranger = start_as(1, "other", "d", one, book(&[(2, &at_two)]));
    until("told why", || {
        stranger.link.links()
            == [LinkState {
                node: NodeId(2),
                up: false,
                trouble: Some("refused: the node there belongs to cluster \"shop\"".into()),
            }]
    })
    .await;

    let (lost, _) = listener();
    let lost = start_as(1, "shop", "d", lost, book(&[(3, &at_two)]));
    until("told why", || {
        let trouble = lost.link.links().first().and_then(|link| link.trouble.clone());
        trouble.as_deref() == Some("refused: the address leads to node 2")
    })
    .await;
}

#[tokio::test]
async fn another_data_directory_is_refused() {
    let ((one, at_one), (two, at_two)) = (listener(), listener());
    let mut known = book(&[(2, &at_two)]);
    known.get_mut(&NodeId(2)).unwrap().data_id = Some("the first".into());
    let one = start_as(1, "shop", "data-1", one, known);
    let _two = start_as(2, "shop", "the second", two, book(&[(1, &at_one)]));
    until("told why", || {
        let trouble = one.link.links().first().and_then(|link| link.trouble.clone());
        trouble.is_some_and(|text| text.contains("known with another data directory"))
    })
    .await;
}

fn raw_hello(from: u64, to: u64) -> PeerHello {
    PeerHello {
        proto_min: PROTO_MIN,
        proto_max: PROTO_MAX,
        features: FEATURES,
        class: ConnectionClass::Control,
        from: NodeId(from),
        to: NodeId(to),
        boot: 1,
        data_id: "raw".into(),
        cluster: "shop".into(),
    }
}

#[tokio::test]
async fn another_version_is_refused_and_garbage_is_cut() {
    let (two, at_two) = listener();
    let two = start(2, two, &[]);
    let mut socket = tokio::net::TcpStream::connect(&at_two).await.unwrap();
    let newer = PeerHello { proto_min: PROTO_MAX + 1, proto_max: PROTO_MAX + 2, ..raw_hello(1, 2) };
    socket.write_all(&newer.encode()).await.unwrap();
    match read_hello(&mut socket).await {
        Err(HandshakeError::RefusedByPeer(HandshakeRejection::VersionMismatch {
            ours_max,
            ..
        })) => {
            assert_eq!(ours_max, PROTO_MAX);
        }
        other => panic!("{other:?}"),
    }

    for garbage in [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], &[0; 400], &[255; 400]] {
        let mut socket = tokio::net::TcpStream::connect(&at_two).await.unwrap();
        let _ = socket.write_all(garbage).await;
        let _ = timeout(SOON, socket.read_to_end(&mut Vec::new())).await.unwrap();
    }

    let mut socket = tokio::net::TcpStream::connect(&at_two).await.unwrap();
    socket.write_all(&raw_hello(1, 2).encode()).await.unwrap();
    read_hello(&mut socket).await.unwrap();
    until("linked", || two.link.links().iter().any(|link| link.up)).await;
    socket.write_all(&[0, 0, 0, 2, 9, 9]).await.unwrap();
    let _ = timeout(SOON, socket.read_to_end(&mut Vec::new())).await.unwrap();
    until("cut", || two.link.links().iter().all(|link| !link.up)).await;
}

#[tokio::test]
async fn an_unknown_kind_is_answered_and_a_silent_peer_is_cut() {
    let (two, at_two) = listener();
    let two = start(2, two, &[]);
    let mut socket = tokio::net::TcpStream::connect(&at_two).await.unwrap();
    socket.write_all(&raw_hello(1, 2).encode()).await.unwrap();
    read_hello(&mut socket).await.unwrap();
    let mut unknown = vec![0, 0, 0, 16, 99, 0, 2, 0];
    unknown.extend_from_slice(&7u64.to_be_bytes());
    unknown.extend_from_slice(&1000u32.to_be_bytes());
    socket.write_all(&unknown).await.unwrap();
    let mut answer = [0; 21];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!((answer[4], answer[15], answer[20]), (7, 7, 3), "failed: call 7: unsupported");

    // From here on it only listens: pings come, then the end.
    let mut rest = Vec::new();
    let began = Instant::now();
    timeout(SOON * 2, socket.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(began.elapsed() > Duration::from_secs(2));
    assert_eq!(rest.len() % 20, 0, "whole pings");
    assert!(rest.len() >= 40, "at least two pings");
    until("cut", || two.link.links().iter().all(|link| !link.up)).await;
}

#[tokio::test]
async fn a_restarted_peer_is_linked_anew_and_a_late_address_is_enough() {
    let ((one, at_one), (two, at_two)) = (listener(), listener());
    let (late, receiver) = watch::channel(Arc::new(AddressBook::new()));
    let link = PeerLink::start(PeerConfig {
        node: NodeId(1),
        cluster: "shop".into(),
        data_id: "data-1".into(),
        listener: one,
        book: receiver,
        transport: Arc::new(PlainTcp),
    })
    .unwrap();
    let first = start(2, two, &[]);
    late.send_replace(Arc::new(book(&[(1, &at_one), (2, &at_two)])));
    until("linked", || first.link.links().iter().any(|link| link.up)).await;
    first.link.stop().await;
    drop(first);
    until("lost", || link.links().iter().all(|link| !link.up)).await;
    let second = start(2, TcpListener::bind(&at_two).unwrap(), &[]);
    linked(&second, 1).await;
    until("linked", || link.links().iter().any(|link| link.up)).await;
}

#[tokio::test]
async fn who_is_not_known_yet_dials_itself() {
    let ((one, at_one), (two, _)) = (listener(), listener());
    let one = start(1, one, &[]);
    let two = start(2, two, &[(1, &at_one)]);
    linked(&two, 1).await;
    assert_eq!(ask(&one, 2, Priority::Call, b"welcome").await.unwrap(), "welcome");
}
