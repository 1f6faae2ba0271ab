//! Socket: the door for live sessions, opened by one who writes.
//!
//! It keeps where its module's log stood, so that it comes back without a snapshot.

use anyhow::{Context, Result, bail};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async, connect_async};

use super::{ATTEMPT_TIMEOUT, Acknowledgement, AttemptResult, Mutation, cursor_of, mutation_json};
use crate::history::{BranchKey, Cursor, NodeId};

/// What a slow reader holds unread, in bytes.
const SLOW_READER_BUFFER_BYTES: u32 = 4096;

type WebSocket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A session at one node.
#[derive(Debug)]
pub struct SocketClient {
    /// Where it is.
    pub node: NodeId,
    stream: WebSocket,
}

impl SocketClient {
    /// Opens a session and enters a branch; continues after a cursor, if there is one.
    ///
    /// # Errors
    /// The node does not answer in time.
    pub async fn open(
        (node, http): (NodeId, &str),
        branch_key: &BranchKey,
        client: &str,
        after: Option<Cursor>,
    ) -> Result<Self> {
        let opened = timeout(ATTEMPT_TIMEOUT, connect_async(format!("ws://{http}/ws"))).await;
        let (stream, _) = opened.context("the node does not answer")??;
        Self::send_hello(Self { node, stream }, branch_key, client, after).await
    }

    /// Opens a session of one who takes little at a time: what it does not read soon waits at the
    /// node, not in the machine's buffers.
    ///
    /// # Errors
    /// See [`SocketClient::open`].
    pub async fn open_slow(
        (node, http): (NodeId, &str),
        branch_key: &BranchKey,
        client: &str,
        after: Option<Cursor>,
    ) -> Result<Self> {
        let opened = timeout(ATTEMPT_TIMEOUT, async {
            let socket = TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(SLOW_READER_BUFFER_BYTES)?;
            let stream = socket.connect(http.parse()?).await?;
            let url = format!("ws://{http}/ws");
            Ok::<_, anyhow::Error>(client_async(url, MaybeTlsStream::Plain(stream)).await?.0)
        });
        let stream = opened.await.context("the node does not answer")??;
        Self::send_hello(Self { node, stream }, branch_key, client, after).await
    }

    async fn send_hello(
        mut socket: Self,
        branch_key: &BranchKey,
        client: &str,
        after: Option<Cursor>,
    ) -> Result<Self> {
        let mut hello = json!({"type": "client:hello", "branchId": branch_key.branch,
                               "clientId": client, "role": "storm"});
        if let Some(Cursor { epoch, sequence }) = after {
            hello["resume"] = json!({&branch_key.module: {"epoch": epoch, "sequence": sequence}});
        }
        socket.send(&hello).await?;
        Ok(socket)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The socket broke or takes nothing.
    pub async fn send(&mut self, frame: &Value) -> Result<()> {
        timeout(ATTEMPT_TIMEOUT, self.stream.send(Message::text(frame.to_string())))
            .await
            .context("the node takes nothing")??;
        Ok(())
    }

    /// The next frame.
    ///
    /// # Errors
    /// The socket broke or was closed.
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

    /// Writes under an id and waits for its answer. After a *maybe* the socket must not be used
    /// again. Moves `cursor` to where the module's log is known to stand.
    pub async fn write(
        &mut self,
        branch_key: &BranchKey,
        id: &str,
        mutations: &[Mutation],
        cursor: &mut Option<Cursor>,
    ) -> AttemptResult {
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
            Err(_) => AttemptResult::Unknown("no answer in time".to_owned()),
        }
    }
}

fn frame(branch_key: &BranchKey, id: &str, mutations: &[Mutation]) -> Value {
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

/// What a frame says of a write, if it speaks of it.
fn interpret(
    frame: &Value,
    branch_key: &BranchKey,
    id: &str,
    cursor: &mut Option<Cursor>,
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
                "unavailable" | "busy" | "outcomes-full" | "not-ready" | "module-not-defined" => {
                    AttemptResult::Unavailable(code)
                }
                _ => AttemptResult::Refused(code),
            })
        }
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
