//! Ws: the WebSocket API, on whatever path asks for it.
//!
//! `session` decides, as a value, what a frame, an outcome or a delta means; `socket` is the shell
//! around it that reads, writes and waits; `source` is where its streams come from; `outbox` is
//! what has yet to be written; `large_messages` are those that wait for their turn; `goodbye` says
//! why a socket ends; `subscription` is what a session knows of a module it follows,
//! `publish_queue` of what it is to decide; `dialect` reads and writes frames; `topic` and
//! `batch` read what clients say.

mod batch;
mod calls;
pub(crate) mod dialect;
mod goodbye;
mod large_messages;
mod outbox;
mod publish_queue;
pub(crate) mod session;
mod socket;
mod source;
pub(crate) mod subscription;
mod topic;

pub use calls::frame_calls;

use std::time::Duration;

use actors::{Exhausted, MemoryClass, Requester, ShareScope};
use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{ConnectInfo, FromRequestParts as _, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Body as _;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::app::App;
use crate::auth::Principal;
use crate::error::{ApiError, Problem};
use crate::intake::Intake;
use crate::limits::{
    LARGE_BODY_BYTES_MAX, MESSAGE_BYTES_MAX, READ_BUFFER_BYTES, SOCKET_BYTES, WRITE_BUFFER_BYTES,
    WRITE_BUFFER_BYTES_MAX,
};

/// When a client that is refused a socket may ask again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Whether a request asks to become a WebSocket.
pub(crate) fn is_upgrade(request: &Request) -> bool {
    let asks = |headers: &HeaderMap| {
        let value = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
        value.is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
    };
    request.method() == Method::GET && asks(request.headers())
}

/// Makes a request into a session.
pub(crate) async fn accept(app: App, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    if !body.is_end_stream() {
        // It would not become a socket before its body is there, and nobody reads that.
        let message = "a request that becomes a WebSocket has no body: leave it out";
        return ApiError::new(Problem::InvalidUpgrade, message).into_response();
    }
    let Ok(principal) = Principal::from_request_parts(&mut parts, &()).await;
    // axum checks the request; the connection is taken as the library has it, since axum's own
    // socket cannot send a message in several frames.
    let upgrade = parts.extensions.get::<OnUpgrade>().cloned();
    if let Err(rejection) = WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        return ApiError::new(Problem::InvalidUpgrade, rejection.body_text()).into_response();
    }
    let key = parts.headers.get(header::SEC_WEBSOCKET_KEY);
    let (Some(upgrade), Some(key)) = (upgrade, key) else {
        let message = "this connection cannot become a WebSocket";
        return ApiError::new(Problem::InvalidUpgrade, message).into_response();
    };
    let accepted = accepted(key);
    if app.draining.is_cancelled() {
        let draining = ApiError::new(Problem::NotReady, "this node is draining");
        return draining.retry(RETRY_AFTER).into_response();
    }
    let requester: Requester = parts.extensions.get().copied().unwrap_or_default();
    let place = match app.socket_places.acquire(requester, 1) {
        Ok(place) => place,
        Err(exhausted) => return too_many(&app, exhausted).into_response(),
    };
    let held = match app.memory.try_hold(MemoryClass::Sockets, SOCKET_BYTES) {
        Ok(held) => held,
        Err(full) => return ApiError::from(full).into_response(),
    };
    // Where nobody counts what comes, nothing large may.
    let metered = parts.extensions.remove::<ConnectInfo<Intake>>();
    let message_bytes_max = metered.as_ref().map_or(MESSAGE_BYTES_MAX, |_| {
        // One that cannot find room is refused as too large, and not for want of room.
        LARGE_BODY_BYTES_MAX.min(app.arrivals.message_bytes_max())
    });
    let intake =
        metered.map_or_else(|| Intake::detached(&app.arrivals), |ConnectInfo(intake)| intake);
    let store = app.store(&principal, requester);
    // Held until the session ends, so that draining can wait for it.
    let tracked = app.sockets.token();
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max));
    tokio::spawn(async move {
        // Once the answer is written; a connection that takes nothing of it ends (`connection.rs`).
        match upgrade.await {
            Ok(upgraded) => {
                let io = TokioIo::new(upgraded);
                let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
                intake.becomes_socket();
                Box::pin(socket::run(app, store, socket, intake, held)).await;
            }
            Err(error) => tracing::debug!(%error, "a connection ended before it was a WebSocket"),
        }
        drop((place, tracked));
    });
    accepted
}

/// The refusal of a socket that finds no place.
fn too_many(app: &App, exhausted: Exhausted) -> ApiError {
    let message = match exhausted.scope {
        ShareScope::Everybody => {
            format!("this node holds {} sockets, its limit", app.limits.sockets_max)
        }
        ShareScope::Address | ShareScope::Connection => "this address holds as many sockets of \
            this node as leave some to others: close some, or connect to another node; behind a \
            proxy, the node's address_percent says how many"
            .to_owned(),
    };
    ApiError::new(Problem::TooManySockets, message).retry(exhausted.retry_after)
}

/// The answer that makes a connection a WebSocket.
fn accepted(key: &HeaderValue) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept.expect("base64 is plain ASCII"));
    response
}
