//! Failover: the process that leads is killed while others write through the rest.

use anyhow::Result;
use tests::client::Place;
use tests::fleet::Fleet;
use tests::ledger::{KEY, Ledger};
use tests::session::Session;
use tests::writer::{Writer, order, write_together};

/// Writers at once, so that writes are under way whenever the leader dies.
const WRITERS: usize = 4;
/// Orders of each.
const ORDERS: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_killed_and_every_acknowledged_write_is_there_once() -> Result<()> {
    let mut fleet = Fleet::start(3).await?;
    let leader = fleet.leader(1, "dar", "pos").await?;
    let others = fleet.others(leader);
    let writers = (0..WRITERS).map(|n| {
        let mut nodes = fleet.clients(&others);
        nodes.rotate_left(n % 2);
        Writer::new(&format!("failover-{n}"), "dar", nodes)
    });
    let (progress, writing) = write_together(writers.collect(), ORDERS);
    progress.reached(WRITERS * ORDERS / 4).await?;
    fleet.kill(leader)?;
    let ledger = writing.finish().await?;

    let orders = Place::pos("dar", "order_header");
    for node in &others {
        let rows = fleet.client(*node).rows(&orders).await?;
        ledger.judge(&rows, "DAR-").assert_clean();
    }
    assert_eq!(ledger.acked(), WRITERS * ORDERS, "writes resumed after the leader's death");

    fleet.restart(leader).await?;
    fleet.leaders_return().await?;
    let rows = fleet.client(leader).rows(&orders).await?;
    ledger.judge(&rows, "DAR-").assert_clean();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_elsewhere_sees_every_order_once_over_the_leaders_death() -> Result<()> {
    let mut fleet = Fleet::start(3).await?;
    let leader = fleet.leader(1, "dar", "pos").await?;
    let [through, watched] = fleet.others(leader)[..] else { panic!("three nodes") };
    let (mut session, _) = Session::enter(fleet.http(watched), "dar").await?;
    let writer = Writer::new("seen", "dar", fleet.clients(&[through]));
    let (progress, writing) = write_together(vec![writer], ORDERS);
    progress.reached(ORDERS / 3).await?;
    fleet.kill(leader)?;
    let ledger = writing.finish().await?;

    // The orders come by their events, each with its row.
    let mut seen = Vec::new();
    while seen.len() < ledger.acked() {
        seen.push(session.wait_for("server:event").await?);
    }
    let left = session.drain().await?;
    seen.extend(left.into_iter().filter(|frame| frame["type"] == "server:event"));
    let rows: Vec<_> = seen.iter().map(|event| event["entry"]["record"].clone()).collect();
    ledger.judge(&rows, "DAR-").assert_clean();
    let sequences: Vec<u64> = seen.iter().filter_map(|event| event["sequence"].as_u64()).collect();
    assert!(sequences.windows(2).all(|pair| pair[1] == pair[0] + 1), "{sequences:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_asked_to_stop_hands_over_and_nothing_is_lost() -> Result<()> {
    let mut fleet = Fleet::start(3).await?;
    let leader = fleet.leader(1, "dar", "pos").await?;
    let writer = Writer::new("asked", "dar", fleet.clients(&fleet.others(leader)));
    let (progress, writing) = write_together(vec![writer], ORDERS);
    progress.reached(ORDERS / 3).await?;
    fleet.stop(leader).await?;
    let ledger = writing.finish().await?;
    for node in fleet.others(leader) {
        let rows = fleet.client(node).rows(&Place::pos("dar", "order_header")).await?;
        ledger.judge(&rows, "DAR-").assert_clean();
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_of_three_acknowledges_nothing() -> Result<()> {
    let mut fleet = Fleet::start(3).await?;
    let leader = fleet.leader(1, "dar", "pos").await?;
    for other in fleet.others(leader) {
        fleet.kill(other)?;
    }
    let (alone, orders) = (fleet.client(leader), Place::pos("dar", "order_header"));
    let mut ledger = Ledger::default();
    for n in 0..2 {
        let key = format!("{KEY}alone-{n}");
        ledger.ask(&key);
        let reply = alone.insert(&orders, Some(&key), &order(&key)).await?;
        assert!([503, 504].contains(&reply.status), "answered {}: {}", reply.status, reply.body);
    }

    // With the others back, the same keys get their outcomes, each once.
    fleet.start_all().await?;
    for n in 0..2 {
        let key = format!("{KEY}alone-{n}");
        let made = alone.insert(&orders, Some(&key), &order(&key)).await?.ok()?;
        ledger.ack(&key, made["record"]["id"].as_str().unwrap_or_default());
    }
    ledger.judge(&alone.rows(&orders).await?, "DAR-").assert_clean();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_are_killed_and_every_acknowledged_write_is_there_once() -> Result<()> {
    let mut fleet = Fleet::start(3).await?;
    let mut ledger = Ledger::default();
    for round in 1..=2 {
        let writers = fleet.ids().into_iter().map(|node| {
            let mut nodes = fleet.clients(&fleet.ids());
            nodes.rotate_left(usize::try_from(node - 1).expect("three nodes"));
            Writer::new(&format!("all-{round}-{node}"), "dar", nodes)
        });
        let (progress, writing) = write_together(writers.collect(), ORDERS / 2);
        progress.reached(ORDERS / 2).await?;
        for node in fleet.ids() {
            fleet.kill(node)?;
        }
        fleet.start_all().await?;
        ledger.merge(writing.finish().await?);
        for node in fleet.ids() {
            let rows = fleet.client(node).rows(&Place::pos("dar", "order_header")).await?;
            ledger.judge(&rows, "DAR-").assert_clean();
        }
    }
    assert_eq!(ledger.acked(), 2 * 3 * (ORDERS / 2), "writes resumed each time");
    Ok(())
}
