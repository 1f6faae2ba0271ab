//! Wire: calls and sockets as they are, with nothing added: any path, any text, no waiting for a
//! greeting. A frame that does not come is waited for a little while only.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{SinkExt, StreamExt};
use reqwest::header::CONTENT_TYPE;
use serde_json::{Map, Value};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::recording::RecordedAnswer;

/// Longer than a request may take on the other side.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a frame is waited for.
const FRAME_TIMEOUT: Duration = Duration::from_millis(2000);
/// How long once frames of its type stayed out this often.
const FRAME_IMPATIENCE: Duration = Duration::from_millis(300);
/// See [`FRAME_IMPATIENCE`].
const MISSES: usize = 2;
/// How long nothing comes on a socket that is quiet.
const QUIET: Duration = Duration::from_millis(250);
/// How long a socket may take to open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Headers of an answer that matter.
const HEADERS: [&str; 5] = [
    "content-type",
    "access-control-allow-origin",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-max-age",
];
/// Marks a text that is sent as a binary message.
const BINARY: &str = "<binary>";

/// Calls to several nodes, one after the other.
#[derive(Debug)]
pub struct Caller {
    http: reqwest::Client,
    nodes: Vec<SocketAddr>,
    next: usize,
}

impl Caller {
    /// Calls to these nodes, in turn.
    ///
    /// # Errors
    /// This machine cannot open a client.
    pub fn new(nodes: &[SocketAddr]) -> Result<Self> {
        let http = reqwest::Client::builder().timeout(CALL_TIMEOUT).no_proxy().build()?;
        Ok(Self { http, nodes: nodes.to_vec(), next: 0 })
    }

    /// The node whose turn it is.
    pub fn turn(&mut self) -> SocketAddr {
        self.next += 1;
        self.nodes[self.next % self.nodes.len()]
    }

    /// Makes a call: null is no body, text is sent as it is. `asked` are headers a browser asks
    /// leave for.
    ///
    /// # Errors
    /// No answer came.
    pub async fn call(
        &mut self,
        method: &str,
        path: &str,
        body: &Value,
        asked: Option<&str>,
    ) -> Result<RecordedAnswer> {
        let url = format!("http://{}{path}", self.turn());
        let method = reqwest::Method::from_bytes(method.as_bytes())?;
        let mut request = self.http.request(method, url);
        if let Some(text) = body.as_str() {
            request = request.header(CONTENT_TYPE, "application/json").body(text.to_owned());
        } else if !body.is_null() {
            request = request.json(body);
        }
        if let Some(asked) = asked {
            request = request
                .header("origin", "http://till")
                .header("access-control-request-method", "POST");
            request = request.header("access-control-request-headers", asked);
        }
        let response = request.send().await?;
        let status = Some(response.status().as_u16());
        let mut headers = Map::new();
        for name in HEADERS {
            if let Some(value) = response.headers().get(name) {
                headers.insert(name.to_owned(), String::from_utf8_lossy(value.as_bytes()).into());
            }
        }
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(RecordedAnswer { status, headers, body })
    }
}

/// A socket of one client.
#[derive(Debug)]
pub struct Wire {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Frames that came while another was waited for, each with the count of those before it.
    passed: VecDeque<(usize, Value)>,
    came: usize,
    misses: BTreeMap<String, usize>,
}

impl Wire {
    /// Opens a socket at a node.
    ///
    /// # Errors
    /// It is not opened in time.
    pub async fn open(node: SocketAddr, path: &str) -> Result<Self> {
        let opening = timeout(OPEN_TIMEOUT, connect_async(format!("ws://{node}{path}")));
        let (socket, _) = opening.await.context("opening a socket")??;
        Ok(Self { socket, passed: VecDeque::new(), came: 0, misses: BTreeMap::new() })
    }

    /// Sends a frame: JSON, or text as it is.
    ///
    /// # Errors
    /// The socket broke.
    pub async fn send(&mut self, frame: &Value) -> Result<()> {
        let text = frame.as_str().map_or_else(|| frame.to_string(), str::to_owned);
        let message = match text.strip_prefix(BINARY) {
            Some(bytes) => Message::binary(bytes.as_bytes().to_vec()),
            None => Message::text(text),
        };
        Ok(timeout(OPEN_TIMEOUT, self.socket.send(message)).await??)
    }

    /// The first frame that is taken, and its place among all that came. `kind` decides how
    /// long it waits.
    pub async fn take(
        &mut self,
        kind: &str,
        mut is_it: impl FnMut(&Value) -> bool,
    ) -> Option<(usize, Value)> {
        if let Some(at) = self.passed.iter().position(|(_, frame)| is_it(frame)) {
            return self.passed.remove(at);
        }
        let is_lost = self.misses.get(kind).is_some_and(|misses| *misses >= MISSES);
        let wait = if is_lost { FRAME_IMPATIENCE } else { FRAME_TIMEOUT };
        let end = Instant::now() + wait;
        while let Ok(Some(frame)) = timeout_at(end, self.read()).await {
            self.came += 1;
            if is_it(&frame) {
                self.misses.remove(kind);
                return Some((self.came, frame));
            }
            self.passed.push_back((self.came, frame));
        }
        *self.misses.entry(kind.to_owned()).or_default() += 1;
        None
    }

    /// What comes until nothing does for a while. It can still be taken.
    pub async fn settle(&mut self) -> Vec<Value> {
        let mut came = Vec::new();
        while let Ok(Some(frame)) = timeout(QUIET, self.read()).await {
            self.came += 1;
            self.passed.push_back((self.came, frame.clone()));
            came.push(frame);
        }
        came
    }

    /// What came and was not taken, up to the answer to a ping.
    pub async fn rest(&mut self) -> Vec<Value> {
        if self.send(&serde_json::json!({ "type": "ping" })).await.is_ok() {
            // The answer is not wanted, only what came before it.
            let _ = self.take("pong", |frame| frame["type"] == "pong").await;
        }
        self.passed.drain(..).map(|(_, frame)| frame).collect()
    }

    /// The next frame; nothing once the socket is closed.
    async fn read(&mut self) -> Option<Value> {
        loop {
            let text = match self.socket.next().await?.ok()? {
                Message::Text(text) => text.as_str().to_owned(),
                Message::Binary(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Message::Close(_) => return None,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            return Some(serde_json::from_str(&text).unwrap_or(Value::String(text)));
        }
    }
}
