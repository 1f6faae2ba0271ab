//! Failover: the process that leads is killed while others write through the rest.

use anyhow::Result;
use history::{Attempt, Completion, Invocation};
use tests::client::TablePath;
use tests::process_cluster::ProcessCluster;
use tests::recording::{ClientRecording, ID_PREFIX, SubscriberRecorder, completion, now};
use tests::session::ClientSession;
use tests::writer::{OrderWriter, order, start_writers};

/// Writers at once, so that writes are under way whenever the leader dies.
const WRITERS: usize = 4;
/// Orders of each.
const ORDERS: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_survives_the_leaders_death_once() -> Result<()> {
    let mut cluster = ProcessCluster::start(3).await?;
    let leader = cluster.leader(1, "dar", "pos").await?;
    let others = cluster.others(leader);
    let writers = (0..WRITERS).map(|n| {
        let mut nodes = cluster.clients(&others);
        nodes.rotate_left(n % 2);
        OrderWriter::new(&format!("failover-{n}"), "dar", nodes)
    });
    let (acknowledged, writers) = start_writers(writers.collect(), ORDERS);
    acknowledged.reached(WRITERS * ORDERS / 4).await?;
    cluster.kill(leader)?;
    let recording = writers.finish().await?;

    recording.judge("dar", &cluster.clients(&others)).await?.assert_hold();
    assert_eq!(
        recording.acknowledged(),
        WRITERS * ORDERS,
        "writes resumed after the leader's death"
    );

    cluster.restart(leader).await?;
    cluster.leaders_return().await?;
    recording.judge("dar", &cluster.clients(&cluster.ids())).await?.assert_hold();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_elsewhere_sees_each_order_once_over_a_failover() -> Result<()> {
    let mut cluster = ProcessCluster::start(3).await?;
    let leader = cluster.leader(1, "dar", "pos").await?;
    let [through, watched] = cluster.others(leader)[..] else { panic!("three nodes") };
    let (mut session, snapshot) = ClientSession::enter(cluster.http(watched), "dar").await?;
    let mut subscriber = SubscriberRecorder::new(1, "dar");
    subscriber.connected(watched);
    subscriber.receive(&snapshot);
    let writer = OrderWriter::new("seen", "dar", cluster.clients(&[through]));
    let (acknowledged, writers) = start_writers(vec![writer], ORDERS);
    acknowledged.reached(ORDERS / 3).await?;
    cluster.kill(leader)?;
    let mut recording = writers.finish().await?;

    while subscriber.events() < recording.acknowledged() {
        subscriber.receive(&session.wait_for("server:event").await?);
    }
    for frame in session.drain().await? {
        subscriber.receive(&frame);
    }
    recording.extend(subscriber.finish());
    recording.judge("dar", &cluster.clients(&[watched, through])).await?.assert_hold();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_asked_to_stop_hands_over_and_nothing_is_lost() -> Result<()> {
    let mut cluster = ProcessCluster::start(3).await?;
    let leader = cluster.leader(1, "dar", "pos").await?;
    let writer = OrderWriter::new("asked", "dar", cluster.clients(&cluster.others(leader)));
    let (acknowledged, writers) = start_writers(vec![writer], ORDERS);
    acknowledged.reached(ORDERS / 3).await?;
    cluster.stop(leader).await?;
    let recording = writers.finish().await?;
    let others = cluster.clients(&cluster.others(leader));
    recording.judge("dar", &others).await?.assert_hold();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_of_three_acknowledges_nothing() -> Result<()> {
    let mut cluster = ProcessCluster::start(3).await?;
    let leader = cluster.leader(1, "dar", "pos").await?;
    for other in cluster.others(leader) {
        cluster.kill(other)?;
    }
    let (alone, orders) = (cluster.client(leader), TablePath::pos("dar", "order_header"));
    let keys = [0, 1].map(|n| format!("{ID_PREFIX}alone-{n}"));
    let mut sent = Vec::new();
    for key in &keys {
        let at = now();
        let reply = alone.insert(&orders, Some(key), &order(key)).await?;
        assert!([503, 504].contains(&reply.status), "answered {}: {}", reply.status, reply.body);
        sent.push(Attempt { node: leader, at, completion: Some(completion(&reply)) });
    }

    // With the others back, the same keys get their outcomes, each once.
    cluster.start_all().await?;
    let mut recording = ClientRecording::default();
    for (key, first) in keys.iter().zip(sent) {
        let at = now();
        let answer = completion(&alone.insert(&orders, Some(key), &order(key)).await?);
        assert!(matches!(answer, Completion::Ok(_)), "{answer:?}");
        let second = Attempt { node: leader, at, completion: Some(answer.clone()) };
        recording.record((key, "dar"), Invocation::Ticket, vec![first, second], answer);
    }
    recording.judge("dar", &cluster.clients(&cluster.ids())).await?.assert_hold();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_survives_killing_all_nodes_once() -> Result<()> {
    let mut cluster = ProcessCluster::start(3).await?;
    let mut recording = ClientRecording::default();
    for round in 1..=2 {
        let writers = cluster.ids().into_iter().map(|node| {
            let mut nodes = cluster.clients(&cluster.ids());
            nodes.rotate_left(usize::try_from(node - 1).expect("three nodes"));
            OrderWriter::new(&format!("all-{round}-{node}"), "dar", nodes)
        });
        let (acknowledged, running) = start_writers(writers.collect(), ORDERS / 2);
        acknowledged.reached(ORDERS / 2).await?;
        for node in cluster.ids() {
            cluster.kill(node)?;
        }
        cluster.start_all().await?;
        recording.extend(running.finish().await?);
        recording.judge("dar", &cluster.clients(&cluster.ids())).await?.assert_hold();
    }
    assert_eq!(recording.acknowledged(), 2 * 3 * (ORDERS / 2), "writes resumed each time");
    Ok(())
}
