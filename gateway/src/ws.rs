//! Ws: the WebSocket door, on whatever path asks for it.

use axum::extract::Request;
use axum::response::Response;

use crate::gateway::App;

/// Whether a request asks to become a WebSocket.
pub(crate) fn is_upgrade(request: &Request) -> bool {
    let _ = request;
    false
}

/// Makes a request into a session.
pub(crate) async fn accept(_app: App, _request: Request) -> Response {
    Response::default()
}
