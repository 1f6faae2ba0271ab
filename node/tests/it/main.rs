//! The machine from outside: whole nodes in one process, on real sockets and disks.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::NodeId;
use node::{CatalogueSource, Config, Node, Sockets, StartError};

fn config(data: &Path, number: u64) -> Config {
    Config {
        node: NodeId(number),
        listen: "127.0.0.1:0".parse().unwrap(),
        peer_listen: "127.0.0.1:0".parse().unwrap(),
        catalogue: CatalogueSource::Sample,
        ..Config::new(data.join(format!("node-{number}")))
    }
}

async fn get(node: &Node, path: &str) -> (u16, String) {
    let answer = reqwest::get(format!("http://{}{path}", node.http_addr())).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn ready(node: &Node) {
    for _ in 0..600 {
        if get(node, "/readyz").await.0 == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not ready: {:?}", get(node, "/readyz").await);
}

async fn sample_is_there(node: &Node) {
    let path = "/api/branches/remal/modules/pos/tables/menu_items?limit=1";
    for _ in 0..200 {
        let (code, text) = get(node, path).await;
        if code == 200 && text.contains("item-01") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no sample: {:?}", get(node, path).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_starts_serves_stops_and_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let node = Box::pin(Node::start(config(dir.path(), 1))).await.unwrap();
        ready(&node).await;
        sample_is_there(&node).await;
        let again = Box::pin(Node::start(config(dir.path(), 1))).await;
        match again.err() {
            Some(StartError::Data(error)) => assert!(error.to_string().contains("in use")),
            other => panic!("{other:?}"),
        }
        let busy = Config { listen: node.http_addr(), ..config(dir.path(), 1) };
        let busy = Box::pin(Node::start(busy)).await.err().unwrap().to_string();
        assert!(busy.contains("--listen"), "{busy}");
        Box::pin(node.stop()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_form_a_cluster_and_one_may_leave() {
    let dir = tempfile::tempdir().unwrap();
    let bind = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let sockets: Vec<Sockets> = (0..3).map(|_| Sockets { http: bind(), peer: bind() }).collect();
    let address = |(place, sockets): (usize, &Sockets)| {
        (NodeId(place as u64 + 1), sockets.peer.local_addr().unwrap().to_string())
    };
    let peers: std::collections::BTreeMap<_, _> = sockets.iter().enumerate().map(address).collect();
    let mut nodes = Vec::new();
    for (place, sockets) in sockets.into_iter().enumerate() {
        let config = Config { peers: peers.clone(), ..config(dir.path(), place as u64 + 1) };
        let on_fatal = Arc::new(|reason: String| panic!("{reason}"));
        nodes.push(Box::pin(Node::start_on(config, sockets, on_fatal)).await.unwrap());
    }
    for node in &nodes {
        ready(node).await;
        sample_is_there(node).await;
        assert!(node.link().links().iter().all(|link| link.up), "{:?}", node.link().links());
    }
    let (_, metrics) = get(&nodes[0], "/metrics").await;
    assert!(metrics.contains("mishkah_peer_frames_sent_total"), "{metrics}");
    assert!(metrics.contains("mishkah_open_to_all 0"), "{metrics}");

    Box::pin(nodes.remove(0).stop()).await;
    for node in &nodes {
        ready(node).await;
        sample_is_there(node).await;
    }
    for node in nodes {
        Box::pin(node.close()).await;
    }
}
