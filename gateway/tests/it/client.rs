//! Client: how the stories speak to a gateway.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, Request};
use futures::{SinkExt as _, StreamExt as _};
use gateway::{Gateway, GatewayConfig};
use metrics_exporter_prometheus::PrometheusBuilder;
use model::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tower::ServiceExt as _;

use crate::fake::Fake;

/// The gateway of node `n1` before branches in memory.
pub(crate) fn gateway(fake: &Fake, change: impl FnOnce(&mut GatewayConfig)) -> Gateway {
    let mut config = GatewayConfig::new("n1");
    config.limits.drain_spread = Duration::ZERO;
    change(&mut config);
    let metrics = PrometheusBuilder::new().build_recorder().handle();
    Gateway::new(config, Arc::new(fake.clone()), metrics)
}

/// A client that calls the routes directly.
pub(crate) struct Rest {
    pub(crate) fake: Fake,
    pub(crate) gateway: Gateway,
}

impl Rest {
    pub(crate) fn new() -> Self {
        let fake = Fake::new();
        let gateway = gateway(&fake, |_| {});
        Self { fake, gateway }
    }

    /// Before branches whose module `pos` a till can work on.
    pub(crate) fn with_till() -> Self {
        let fake = Fake::with_till();
        let gateway = gateway(&fake, |_| {});
        Self { fake, gateway }
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        body: &str,
        headers: &[(&str, &str)],
    ) -> Answered {
        self.send_bytes(method, path, body.as_bytes().to_vec(), headers).await
    }

    pub(crate) async fn send_bytes(
        &self,
        method: &str,
        path: &str,
        body: Vec<u8>,
        headers: &[(&str, &str)],
    ) -> Answered {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).unwrap();
        let response = self.gateway.routes().oneshot(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body = Value::from_json(&bytes).unwrap_or_default();
        Answered { status, headers, body, raw: String::from_utf8(bytes.into()).unwrap() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answered {
        self.send("GET", path, "", &[]).await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answered {
        self.send("POST", path, body, &[]).await
    }

    pub(crate) async fn put(&self, path: &str, body: &str) -> Answered {
        self.send("PUT", path, body, &[]).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &str) -> Answered {
        self.send("PATCH", path, body, &[]).await
    }

    pub(crate) async fn delete(&self, path: &str, body: &str) -> Answered {
        self.send("DELETE", path, body, &[]).await
    }
}

/// An answer.
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) raw: String,
}

impl Answered {
    /// Status and `error`.
    pub(crate) fn code(&self) -> (u16, &str) {
        (self.status, self.text("error"))
    }

    pub(crate) fn text(&self, member: &str) -> &str {
        self.body.get(member).and_then(Value::as_str).unwrap_or_else(|| panic!("{}", self.raw))
    }

    pub(crate) fn detail(&self, member: &str) -> &str {
        let details = self.body.get("details");
        let value = details.and_then(|details| details.get(member)).and_then(Value::as_str);
        value.unwrap_or_else(|| panic!("{}", self.raw))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no header {name}")).to_str().unwrap()
    }
}

/// The names of an object's members, in order.
pub(crate) fn members(value: &Value) -> String {
    let object = value.as_object().unwrap_or_else(|| panic!("{value:?}"));
    object.iter().map(|(name, _)| &**name).collect::<Vec<_>>().join(" ")
}

/// A gateway on a real port.
pub(crate) struct Served {
    pub(crate) fake: Fake,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) server: tokio::task::JoinHandle<std::io::Result<()>>,
    pub(crate) stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Served {
    pub(crate) async fn new(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        Self::before(Fake::new(), change).await
    }

    /// A gateway before these branches: two of them are two nodes of one cluster.
    pub(crate) async fn before(fake: Fake, change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let gateway = gateway(&fake, change);
        Self::of(fake, gateway).await
    }

    /// This gateway, before these branches.
    pub(crate) async fn of(fake: Fake, gateway: Gateway) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = tokio::spawn(async move {
            gateway.serve(listener, async move { drop(stopped.await) }).await
        });
        Self { fake, address, server, stop: Some(stop) }
    }

    /// A socket on some path, its `server:hello` read.
    pub(crate) async fn open(&self, path: &str) -> Socket {
        let url = format!("ws://{}{path}", self.address);
        let (stream, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let mut socket = Socket(stream);
        assert_eq!(members(&socket.expect("server:hello").await), "type serverId now defaults");
        socket
    }

    /// A socket in a branch, log and snapshot read.
    pub(crate) async fn enter(&self, branch: &str) -> Socket {
        let mut socket = self.open("/ws").await;
        socket.say(&format!(r#"{{"type":"client:hello","branchId":"{branch}"}}"#)).await;
        socket.expect("server:log").await;
        socket.expect("server:snapshot").await;
        socket
    }
}

pub(crate) struct Socket(pub(crate) WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    pub(crate) async fn say(&mut self, frame: &str) {
        self.0.send(Message::text(frame)).await.unwrap();
    }

    pub(crate) async fn publish(&mut self, request: &str, more: &str) {
        let frame = format!(
            r#"{{"type":"client:publish","moduleId":"pos","meta":{{"requestId":"{request}"}},{more}}}"#
        );
        self.say(&frame).await;
    }

    /// The next text frame.
    pub(crate) async fn next(&mut self) -> Value {
        let text = self.next_text().await;
        Value::from_json(text.as_bytes()).unwrap()
    }

    pub(crate) async fn next_text(&mut self) -> String {
        loop {
            match self.message().await {
                Some(Message::Text(text)) => return text.to_string(),
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) async fn message(&mut self) -> Option<Message> {
        let next = tokio::time::timeout(Duration::from_secs(10), self.0.next()).await;
        next.expect("nothing came").and_then(Result::ok)
    }

    /// The next frame, which must have this type.
    pub(crate) async fn expect(&mut self, r#type: &str) -> Value {
        let frame = self.next().await;
        let got = frame.get("type").and_then(Value::as_str).unwrap_or_default();
        assert_eq!(got, r#type, "{}", frame.to_json());
        frame
    }

    /// Nothing comes for a moment.
    pub(crate) async fn silent(&mut self) {
        let next = tokio::time::timeout(Duration::from_millis(150), self.0.next()).await;
        assert!(next.is_err(), "{next:?}");
    }

    /// Takes what comes, until nothing has come for a moment.
    pub(crate) async fn quiet(&mut self) {
        while tokio::time::timeout(Duration::from_millis(150), self.0.next()).await.is_ok() {}
    }

    /// The code and reason of the goodbye.
    pub(crate) async fn goodbye(&mut self) -> (u16, String) {
        loop {
            match self.message().await {
                Some(Message::Close(Some(close))) => {
                    return (close.code.into(), close.reason.to_string());
                }
                Some(Message::Close(None)) => return (1005, String::new()),
                Some(_) => {}
                None => return (1006, String::new()),
            }
        }
    }
}

/// A member of a member.
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(value, |value, name| {
        value.get(name).unwrap_or_else(|| panic!("{name} is missing in {}", value.to_json()))
    })
}

/// Waits for it, for some seconds at most.
pub(crate) async fn until(what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < Duration::from_secs(10), "it did not come to pass");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
