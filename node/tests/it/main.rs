//! The machine from outside: whole nodes in one process, on real sockets and disks.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::NodeId;
use node::{CatalogueSource, Config, Node, NodeStartError, Sockets};

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
            Some(NodeStartError::Data(error)) => assert!(error.to_string().contains("in use")),
            other => panic!("{other:?}"),
        }
        let busy = Config { listen: node.http_addr(), ..config(dir.path(), 1) };
        let busy = Box::pin(Node::start(busy)).await.err().unwrap().to_string();
        assert!(busy.contains("--listen"), "{busy}");
        Box::pin(node.stop()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_serves_files_takes_modules_and_counts() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("pages");
    std::fs::create_dir_all(pages.join("data")).unwrap();
    std::fs::write(pages.join("index.html"), "<p>A till</p>").unwrap();
    std::fs::write(pages.join("data/modules.json"), "{}").unwrap();
    let missing = Config { static_files: Some(dir.path().join("no")), ..config(dir.path(), 1) };
    let missing = Box::pin(Node::start(missing)).await.err().unwrap().to_string();
    assert!(missing.contains("--static"), "{missing}");

    let config = Config { static_files: Some(pages), ..config(dir.path(), 1) };
    let node = Box::pin(Node::start(config)).await.unwrap();
    ready(&node).await;
    sample_is_there(&node).await;
    assert_eq!(get(&node, "/").await, (200, "<p>A till</p>".to_owned()));
    assert_eq!(get(&node, "/data/modules.json").await.0, 404);
    let names = r#"{"global":["pos_schema","scratchpad_schema"],"branches":{}}"#;
    assert_eq!(get(&node, "/api/schemas").await, (200, names.to_owned()));

    let post = async |path: &str, body: &str| {
        let url = format!("http://{}{path}", node.http_addr());
        let sent = reqwest::Client::new().post(url).body(body.to_owned()).send().await.unwrap();
        (sent.status().as_u16(), sent.text().await.unwrap())
    };
    let module = r#"{"id":"Lists","schema":{"tables":[{"name":"list","fields":[{"name":"id","type":"text"}]}]}}"#;
    let (code, text) = post("/api/modules", module).await;
    assert_eq!(code, 201, "{text}");
    assert_eq!(post("/api/modules", module).await.0, 409);
    let (code, text) = post("/api/branches", r#"{"id":"new","modules":["lists"]}"#).await;
    assert_eq!(code, 201, "{text}");
    let (code, text) = post("/api/branches/new/modules/lists/tables/list", r#"{"id":"a"}"#).await;
    assert_eq!(code, 201, "{text}");

    let (_, metrics) = get(&node, "/metrics").await;
    for name in [
        "ws2_http_requests_total{",
        "ws2_ajax_request_duration_ms_bucket{",
        "ws2_ajax_request_duration_ms_count{",
        "ws2_ws_broadcast_events_total{",
        "ws2_ws_frames_delivered_total{",
        "ws2_ws_serialization_events_total{",
        "ws2_ws_payload_bytes_total{",
    ] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
    Box::pin(node.stop()).await;
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
