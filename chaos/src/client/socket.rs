//! Socket client: a WebSocket session with one node, for writers and subscribers.
//!
//! Promise: a session continues after a cursor, so that a client that reconnects needs no snapshot.
//! Refused: a session after an unknown result. Its connection may have failed, or may still deliver
//! the late response.

use anyhow::{Context, Result, bail};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async, connect_async};

use super::{
    ATTEMPT_TIMEOUT, Acknowledgement, AttemptResult, RecordWrite, cursor_of, mutation_json,
};
use history::{BranchModule, LogPosition, NodeId};

/// The receive buffer of a slow reader, in bytes.
const SLOW_READER_BUFFER_BYTES: u32 = 4096;

type ClientStream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A session at one node.
#[derive(Debug)]
pub struct SocketClient {
    /// The node of the session.
    pub node: NodeId,
    stream: ClientStream,
}

impl SocketClient {
    /// Opens a session and subscribes to a branch, after a cursor if there is one.
    ///
    /// # Errors
    /// The node does not accept the connection in time.
    pub async fn open(
        (node, http): (NodeId, &str),
        branch_key: &BranchModule,
        client: &str,
        after: Option<LogPosition>,
    ) -> Result<Self> {
        let opened = timeout(ATTEMPT_TIMEOUT, connect_async(format!("ws://{http}/ws"))).await;
        let (stream, _) = opened.context("the node does not respond")??;
        Self::send_hello(Self { node, stream }, branch_key, client, after).await
    }

    /// Opens a session with a small receive buffer. What the client does not read waits in the
    /// node's queue then, not in the buffers of the kernel.
    ///
    /// # Errors
    /// See [`SocketClient::open`].
    pub async fn open_slow(
        (node, http): (NodeId, &str),
        branch_key: &BranchModule,
        client: &str,
        after: Option<LogPosition>,
    ) -> Result<Self> {
        let opened = timeout(ATTEMPT_TIMEOUT, async {
            let socket = TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(SLOW_READER_BUFFER_BYTES)?;
            let stream = socket.connect(http.parse()?).await?;
            let url = format!("ws://{http}/ws");
            Ok::<_, anyhow::Error>(client_async(url, MaybeTlsStream::Plain(stream)).await?.0)
        });
        let stream = opened.await.context("the node does not respond")??;
        Self::send_hello(Self { node, stream }, branch_key, client, after).await
    }

    async fn send_hello(
        mut socket: Self,
        branch_key: &BranchModule,
        client: &str,
        after: Option<LogPosition>,
    ) -> Result<Self> {
        let mut hello = json!({"type": "client:hello", "branchId": branch_key.branch,
                               "clientId": client, "role": "chaos"});
        if let Some(LogPosition { epoch, sequence }) = after {
            hello["resume"] = json!({&branch_key.module: {"epoch": epoch, "sequence": sequence}});
        }
        socket.send(&hello).await?;
        Ok(socket)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The connection failed, or the node does not read in time.
    pub async fn send(&mut self, frame: &Value) -> Result<()> {
        timeout(ATTEMPT_TIMEOUT, self.stream.send(Message::text(frame.to_string())))
            .await
            .context("the node does not read")??;
        Ok(())
    }

    /// Waits for the next frame, without a timeout.
    ///
    /// # Errors
    /// The connection failed or was closed, or the frame is not JSON.
    pub async fn next(&mut self) -> Result<Value> {
        loop {
            match self.stream.next().await.context("the socket ended")?? {
                Message::Text(text) => return Ok(serde_json::from_str(text.as_str())?),
                Message::Binary(bytes) => return Ok(serde_json::from_slice(&bytes)?),
                Message::Close(why) => bail!("the socket was closed: {why:?}"),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Writes under an id and waits for the response. After an unknown result the session must not
    /// be used again. Frames that arrive meanwhile advance `cursor`.
    pub async fn write(
        &mut self,
        branch_key: &BranchModule,
        id: &str,
        mutations: &[RecordWrite],
        cursor: &mut Option<LogPosition>,
    ) -> AttemptResult {
        // Unknown, not unavailable: a part of the frame may have reached the node.
        if let Err(error) = self.send(&frame(branch_key, id, mutations)).await {
            return AttemptResult::Unknown(format!("{error:#}"));
        }
        let result = timeout(ATTEMPT_TIMEOUT, async {
            loop {
                let frame = self.next().await?;
                if let Some(attempt_result) = interpret(&frame, branch_key, id, cursor) {
                    return Ok::<_, anyhow::Error>(attempt_result);
                }
            }
        });
        match result.await {
            Ok(Ok(attempt_result)) => attempt_result,
            Ok(Err(error)) => AttemptResult::Unknown(format!("{error:#}")),
            Err(_) => AttemptResult::Unknown("no response in time".to_owned()),
        }
    }
}

/// The frame of a write.
fn frame(branch_key: &BranchModule, id: &str, mutations: &[RecordWrite]) -> Value {
    match mutations {
        [mutation] => {
            let mut frame = json!({
                "type": "client:publish", "moduleId": branch_key.module, "table": mutation.table,
                "action": format!("module:{}", mutation.action),
                "record": super::record_json(mutation),
                "requestId": id, "eventId": id, "includeRecord": true,
            });
            frame["meta"] = json!({"requestId": id});
            frame
        }
        mutations => json!({
            "type": "client:batch", "moduleId": branch_key.module, "requestId": id,
            "verbs": mutations.iter().map(mutation_json).collect::<Vec<_>>(),
        }),
    }
}

/// What a frame means for a write; `None` if it does not belong to that write.
fn interpret(
    frame: &Value,
    branch_key: &BranchModule,
    id: &str,
    cursor: &mut Option<LogPosition>,
) -> Option<AttemptResult> {
    let is_same_module = frame["moduleId"] == *branch_key.module;
    let cursor_in_frame = cursor_of(&frame["cursor"]);
    match frame["type"].as_str()? {
        "server:ack" if frame["eventId"] == id => {
            Some(AttemptResult::Acknowledged(Acknowledgement {
                cursor: cursor_in_frame,
                record: frame["entry"]["record"].clone(),
            }))
        }
        "server:batch:ack" if frame["requestId"] == id => {
            Some(AttemptResult::Acknowledged(Acknowledgement {
                cursor: cursor_in_frame,
                record: frame["results"][0]["record"].clone(),
            }))
        }
        "server:error" if frame["requestId"] == id => {
            let code = frame["code"].as_str().unwrap_or("no code").to_owned();
            Some(match code.as_str() {
                "outcome-unknown" => AttemptResult::Unknown(code),
                "defect" => AttemptResult::Defect(frame.to_string()),
                // Nothing was done. The setup has defined the module, so a node that does not know
                // it has not applied the definition yet.
                "unavailable" | "busy" | "outcomes-full" | "not-ready" | "module-not-defined" => {
                    AttemptResult::Unavailable(code)
                }
                _ => AttemptResult::Refused(code),
            })
        }
        // Not part of the response, but the session has received them: it continues after them.
        "server:event" if is_same_module => {
            *cursor = cursor_in_frame.or(*cursor);
            None
        }
        "server:snapshot" => {
            *cursor = cursor_of(&frame["cursors"][&branch_key.module]).or(*cursor);
            None
        }
        _ => None,
    }
}
