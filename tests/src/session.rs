//! Session: a live session with one node: frames out, frames in, in order.

use std::collections::VecDeque;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::wait::TIMEOUT;

/// A live session.
#[derive(Debug)]
pub struct ClientSession {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Frames that came while another was waited for, in order.
    passed: VecDeque<Value>,
}

impl ClientSession {
    /// Opens a session at a node and reads its greeting.
    ///
    /// # Errors
    /// The node does not answer, or greets otherwise.
    pub async fn open(node: SocketAddr) -> Result<Self> {
        let (socket, _) = connect_async(format!("ws://{node}/ws")).await?;
        let mut session = Self { socket, passed: VecDeque::new() };
        let hello_frame = session.next().await?;
        if hello_frame["type"] != "server:hello" {
            bail!("greeted with {hello_frame}");
        }
        Ok(session)
    }

    /// Opens a session and enters a branch; returns it with the branch's first snapshot.
    ///
    /// # Errors
    /// See [`ClientSession::open`].
    pub async fn enter(node: SocketAddr, branch: &str) -> Result<(Self, Value)> {
        let mut session = Self::open(node).await?;
        session
            .send(&json!({ "type": "client:hello", "branchId": branch, "role": "story" }))
            .await?;
        let snapshot = session.wait_for("server:snapshot").await?;
        Ok((session, snapshot))
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The socket broke.
    pub async fn send(&mut self, frame: &Value) -> Result<()> {
        self.send_text(&frame.to_string()).await
    }

    /// Sends a text that need not be a frame.
    ///
    /// # Errors
    /// The socket broke.
    pub async fn send_text(&mut self, text: &str) -> Result<()> {
        self.socket.send(Message::text(text)).await.context("sending a frame")
    }

    /// The next frame, whatever it is.
    ///
    /// # Errors
    /// The socket broke, or nothing came within the safety net.
    pub async fn next(&mut self) -> Result<Value> {
        match self.passed.pop_front() {
            Some(frame) => Ok(frame),
            None => self.read().await,
        }
    }

    /// The next frame of a type; frames of other types stay for later, in order.
    ///
    /// # Errors
    /// See [`ClientSession::next`].
    pub async fn wait_for(&mut self, kind: &str) -> Result<Value> {
        if let Some(at) = self.passed.iter().position(|frame| frame["type"] == kind) {
            return self.passed.remove(at).context("it was found a moment ago");
        }
        loop {
            let frame = self.read().await.with_context(|| format!("waiting for a {kind}"))?;
            if frame["type"] == kind {
                return Ok(frame);
            }
            self.passed.push_back(frame);
        }
    }

    /// Everything the node has to say by now: all frames up to the answer to a ping, which
    /// overtakes nothing.
    ///
    /// # Errors
    /// See [`ClientSession::next`].
    pub async fn drain(&mut self) -> Result<Vec<Value>> {
        self.send(&json!({ "type": "ping" })).await?;
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await?;
            if frame["type"] == "pong" {
                return Ok(frames);
            }
            frames.push(frame);
        }
    }

    async fn read(&mut self) -> Result<Value> {
        loop {
            let next = timeout(TIMEOUT, self.socket.next());
            let message =
                next.await.context("nothing came")?.context("the socket was closed")??;
            match message {
                Message::Text(text) => return Ok(serde_json::from_str(text.as_str())?),
                Message::Binary(bytes) => return Ok(serde_json::from_slice(&bytes)?),
                Message::Close(why) => bail!("the socket was closed: {why:?}"),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }
}
