//! Failover: the process that leads is killed while others write through the rest.

use anyhow::Result;
use tests::client::Place;
use tests::fleet::Fleet;
use tests::ledger::Ledger;
use tests::writer::{Writer, write_together};

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
