//! Live: what sessions on different nodes see of each other's writes, in which order, how often.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::client::TablePath;
use tests::cluster::InProcessCluster;
use tests::recording::OP_FIELD;
use tests::session::ClientSession;
use tests::writer::order;

/// Orders of each story.
const ORDERS: usize = 20;

fn publish(mark: &str) -> Value {
    json!({
        "type": "client:publish",
        "moduleId": "pos",
        "table": "order_header",
        "action": "module:insert",
        "record": order(mark),
        "includeRecord": true,
        "requestId": mark,
        "meta": { "requestId": mark },
    })
}

fn of_type<'a>(frames: &'a [Value], kind: &str) -> Vec<&'a Value> {
    frames.iter().filter(|frame| frame["type"] == kind).collect()
}

/// The marks of the orders these events tell of.
fn marks<'a>(events: &[&'a Value]) -> Vec<&'a str> {
    events.iter().filter_map(|event| event["entry"]["record"][OP_FIELD].as_str()).collect()
}

/// Reads until so many events came, then whatever else came by then.
async fn events(session: &mut ClientSession, count: usize) -> Result<Vec<Value>> {
    let mut events = Vec::new();
    while events.len() < count {
        events.push(
            session
                .wait_for("server:event")
                .await
                .with_context(|| format!("{} of {count} events came", events.len()))?,
        );
    }
    let more = session.drain().await?;
    events.extend(more.into_iter().filter(|frame| frame["type"] == "server:event"));
    Ok(events)
}

fn assert_in_a_row(events: &[Value]) {
    let sequences: Vec<u64> = events.iter().filter_map(|e| e["sequence"].as_u64()).collect();
    assert_eq!(sequences.len(), events.len(), "every event has a sequence");
    assert!(sequences.windows(2).all(|pair| pair[1] == pair[0] + 1), "{sequences:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_sees_what_other_nodes_take_once_and_in_order() -> Result<()> {
    let cluster = InProcessCluster::start(3).await?;
    let mut sessions = Vec::new();
    for node in cluster.ids() {
        sessions.push(ClientSession::enter(cluster.http(node), "dar").await?.0);
    }
    let orders = TablePath::pos("dar", "order_header");
    let wanted: Vec<String> = (0..ORDERS).map(|n| format!("live-{n}")).collect();
    for (n, mark) in wanted.iter().enumerate() {
        let node = cluster.ids()[n % 3];
        cluster.client(node).insert(&orders, None, &order(mark)).await?.ok()?;
    }
    for session in &mut sessions {
        let events = events(session, ORDERS).await?;
        assert_eq!(marks(&events.iter().collect::<Vec<_>>()), wanted, "once, in order");
        assert_in_a_row(&events);
    }
    cluster.stop_all().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_writer_gets_its_acknowledgement_then_the_event_each_once() -> Result<()> {
    let cluster = InProcessCluster::start(3).await?;
    for node in cluster.ids() {
        let (mut writer, _) = ClientSession::enter(cluster.http(node), "dar").await?;
        writer.drain().await?;
        let wanted: Vec<String> = (0..ORDERS).map(|n| format!("ack-{node}-{n}")).collect();
        for mark in &wanted {
            writer.send(&publish(mark)).await?;
        }
        // Every ack and every event, in the order they came.
        let mut came = Vec::new();
        while of_type(&came, "server:event").len() < ORDERS {
            came.push(writer.next().await?);
        }
        came.extend(writer.drain().await?);
        let acks = of_type(&came, "server:ack");
        let acked: Vec<_> =
            acks.iter().filter_map(|ack| ack["meta"]["clientMeta"]["requestId"].as_str()).collect();
        assert_eq!(acked, wanted, "node {node}: one acknowledgement each, in the order sent");
        assert_eq!(marks(&of_type(&came, "server:event")), wanted, "node {node}: one event each");
        for ack in acks {
            let at = |kind: &str| {
                let same =
                    |frame: &&Value| frame["type"] == kind && frame["sequence"] == ack["sequence"];
                came.iter().position(|frame| same(&frame))
            };
            assert!(at("server:ack") < at("server:event"), "node {node}: the event came first");
        }
    }
    cluster.stop_all().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_and_the_events_after_it_leave_nothing_out() -> Result<()> {
    let cluster = InProcessCluster::start(3).await?;
    let orders = TablePath::pos("dar", "order_header");
    let writer = cluster.client(1);
    let writing = tokio::spawn(async move {
        for n in 0..ORDERS * 3 {
            writer.insert(&orders, None, &order(&format!("joined-{n}"))).await?.ok()?;
        }
        anyhow::Ok(())
    });
    // Sessions that come while it is written: what the snapshot lacks, the events bring.
    let mut joined = Vec::new();
    for n in 0..6 {
        joined.push(ClientSession::enter(cluster.http(cluster.ids()[n % 3]), "dar").await?);
    }
    writing.await??;
    let rows = cluster.client(2).rows(&orders).await?;
    for (session, snapshot) in &mut joined {
        let mut seen = snapshot["modules"]["pos"]["tables"]["order_header"]
            .as_array()
            .context("the snapshot has orders")?
            .clone();
        let last = rows.last().context("there are orders")?["id"].clone();
        while !seen.iter().any(|row| row["id"] == last) {
            let event = session.wait_for("server:event").await?;
            seen.push(event["entry"]["record"].clone());
        }
        let ids = |rows: &[Value]| rows.iter().map(|row| row["id"].clone()).collect::<Vec<_>>();
        assert_eq!(ids(&seen), ids(&rows), "each order once, in order");
    }
    cluster.stop_all().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_publish_is_answered_and_later_ones_go_on() -> Result<()> {
    let cluster = InProcessCluster::start(3).await?;
    let (mut session, _) = ClientSession::enter(cluster.http(2), "dar").await?;
    let mut wrong = publish("wrong");
    wrong["table"] = json!("no_such_table");
    session.send(&wrong).await?;
    session.send(&publish("right")).await?;
    let error = session.wait_for("server:error").await?;
    assert_eq!(error["requestId"], "wrong");
    assert_eq!(error["code"], "table-not-found");
    let ack = session.wait_for("server:ack").await?;
    assert_eq!(ack["meta"]["clientMeta"]["requestId"], "right");
    cluster.stop_all().await;
    Ok(())
}
