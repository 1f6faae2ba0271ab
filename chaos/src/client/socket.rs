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

use super::{ATTEMPT_TIME, Acknowledgement, AttemptResult, Mutation, cursor_of, verb_json};
use crate::history::{BranchKey, Cursor, NodeId};

/// What a slow reader holds unread, in bytes.
const SMALL_BUFFER: u32 = 4096;

type WebSocket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A session at one node.
#[derive(Debug)]
pub struct SocketClient {
    /// Where it is.
    pub node: NodeId,
    wire: WebSocket,
}

impl SocketClient {
    /// Opens a session and enters a branch; continues after a cursor, if there is one.
    ///
    /// # Errors
    /// The node does not answer in time.
    pub async fn open(
        (node, http): (NodeId, &str),
        place: &BranchKey,
        client: &str,
        after: Option<Cursor>,
    ) -> Result<Self> {
        let opened = timeout(ATTEMPT_TIME, connect_async(format!("ws://{http}/ws"))).await;
        let (wire, _) = opened.context("the node does not answer")??;
        Self::enter(Self { node, wire }, place, client, after).await
    }

    /// Opens a session of one who takes little at a time: what it does not read soon waits at the
    /// node, not in the machine's buffers.
    ///
    /// # Errors
    /// See [`SocketClient::open`].
    pub async fn open_slow(
        (node, http): (NodeId, &str),
        place: &BranchKey,
        client: &str,
        after: Option<Cursor>,
    ) -> Result<Self> {
        let opened = timeout(ATTEMPT_TIME, async {
            let socket = TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(SMALL_BUFFER)?;
            let stream = socket.connect(http.parse()?).await?;
            let url = format!("ws://{http}/ws");
            Ok::<_, anyhow::Error>(client_async(url, MaybeTlsStream::Plain(stream)).await?.0)
        });
        let wire = opened.await.context("the node does not answer")??;
        Self::enter(Self { node, wire }, place, client, after).await
    }

    async fn enter(
        mut socket: Self,
        place: &BranchKey,
        client: &str,
        after: Option<Cursor>,
    ) -> Result<Self> {
        let mut hello = json!({"type": "client:hello", "branchId": place.branch,
                               "clientId": client, "role": "storm"});
        if let Some(Cursor { epoch, sequence }) = after {
            hello["resume"] = json!({&place.module: {"epoch": epoch, "sequence": sequence}});
        }
        socket.send(&hello).await?;
        Ok(socket)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The socket broke or takes nothing.
    pub async fn send(&mut self, frame: &Value) -> Result<()> {
        timeout(ATTEMPT_TIME, self.wire.send(Message::text(frame.to_string())))
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
            match self.wire.next().await.context("the socket ended")?? {
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
        place: &BranchKey,
        id: &str,
        verbs: &[Mutation],
        cursor: &mut Option<Cursor>,
    ) -> AttemptResult {
        if let Err(error) = self.send(&frame(place, id, verbs)).await {
            return AttemptResult::Unknown(format!("{error:#}"));
        }
        let answered = timeout(ATTEMPT_TIME, async {
            loop {
                let frame = self.next().await?;
                if let Some(answer) = answer(&frame, place, id, cursor) {
                    return Ok::<_, anyhow::Error>(answer);
                }
            }
        });
        match answered.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => AttemptResult::Unknown(format!("{error:#}")),
            Err(_) => AttemptResult::Unknown("no answer in time".to_owned()),
        }
    }
}

fn frame(place: &BranchKey, id: &str, verbs: &[Mutation]) -> Value {
    match verbs {
        [verb] => {
            let mut frame = json!({
                "type": "client:publish", "moduleId": place.module, "table": verb.table,
                "action": format!("module:{}", verb.action), "record": super::record_json(verb),
                "requestId": id, "eventId": id, "includeRecord": true,
            });
            frame["meta"] = json!({"requestId": id});
            frame
        }
        several => json!({
            "type": "client:batch", "moduleId": place.module, "requestId": id,
            "verbs": several.iter().map(verb_json).collect::<Vec<_>>(),
        }),
    }
}

/// What a frame says of a write, if it speaks of it.
fn answer(
    frame: &Value,
    place: &BranchKey,
    id: &str,
    cursor: &mut Option<Cursor>,
) -> Option<AttemptResult> {
    let of_place = frame["moduleId"] == *place.module;
    let stands = cursor_of(&frame["cursor"]);
    match frame["type"].as_str()? {
        "server:ack" if frame["eventId"] == id => {
            Some(AttemptResult::Acknowledged(Acknowledgement {
                cursor: stands,
                record: frame["entry"]["record"].clone(),
            }))
        }
        "server:batch:ack" if frame["requestId"] == id => {
            Some(AttemptResult::Acknowledged(Acknowledgement {
                cursor: stands,
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
        "server:event" if of_place => {
            *cursor = stands.or(*cursor);
            None
        }
        "server:snapshot" => {
            *cursor = cursor_of(&frame["cursors"][&place.module]).or(*cursor);
            None
        }
        _ => None,
    }
}
