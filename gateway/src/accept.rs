//! Accept: takes connections and serves each on its own, until told to stop.
//!
//! Promise: one connection costs others nothing; a client that is slow to say what it wants, or
//! says nothing more, is let go; connections are bounded, and the next one waits in the system's
//! queue. While all places are taken, those that have not said a word give way. One address cannot
//! take them all: those of it that speak beyond its share are refused, and end.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;

use actors::Requester;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::connection::{ClientConnection, Connections};
use crate::intake::Intake;
use crate::limits::{ACCEPT_AGAIN_AFTER, HTTP_BUFFER_BYTES_MAX, Limits, SILENCE_MAX_WHEN_FULL};
use crate::rest::body::TrackedBody;

/// Serves these routes until `stop`, then finishes what is under way within the time to drain.
///
/// # Errors
/// None so far: what fails on one connection ends that one, and what fails while accepting is
/// tried again.
pub(crate) async fn serve(
    connections: Connections,
    routes: Router,
    stop: impl Future<Output = ()>,
    limits: &Limits,
) -> io::Result<()> {
    let (connections_open, stopping) = (TaskTracker::new(), CancellationToken::new());
    let permits = Arc::new(Semaphore::new(limits.connections_max));
    let (short, is_short) = watch::channel(false);
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&connections, &permits, &short) => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                // Out of files, or a client that left at once: neither ends the node.
                tracing::debug!(%error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                continue;
            }
        };
        let intake = stream.intake();
        let gives_way = gives_way(intake.clone(), is_short.clone());
        let requester = intake.requester();
        let service = TowerToHyperService::new(
            routes.clone().map_request(move |request| tracked(request, &intake, requester)),
        );
        // HTTP/1.1 from the first byte on: a server that waits to see which version is spoken waits
        // for ever where nothing is said.
        let mut server = http1::Builder::new();
        // The connection itself has a deadline for every state; and a client that has closed its
        // side is answered all the same.
        server.header_read_timeout(None).half_close(true).max_buf_size(HTTP_BUFFER_BYTES_MAX);
        let connection = server.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let stopping = stopping.clone();
        connections_open.spawn(async move {
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = gives_way => {
                    tracing::debug!("a silent connection gave way to another");
                    Ok(())
                }
                () = stopping.cancelled() => {
                    // The request under way is answered; no further one is read.
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::trace!(%error, "a connection ended early");
            }
        });
    }
    // The listener goes first: who connects now is refused at once, and tries another node.
    drop(connections);
    stopping.cancel();
    connections_open.close();
    if tokio::time::timeout(limits.drain_max, connections_open.wait()).await.is_err() {
        tracing::warn!("requests were still under way when their time to finish was over");
    }
    Ok(())
}

async fn accept(
    connections: &Connections,
    permits: &Arc<Semaphore>,
    short: &watch::Sender<bool>,
) -> io::Result<ClientConnection> {
    // Said only where it changes: every connection listens.
    let say = |is_short| {
        short.send_if_modified(|was| std::mem::replace(was, is_short) != is_short);
    };
    let permit = match Arc::clone(permits).try_acquire_owned() {
        Ok(permit) => permit,
        Err(_) => {
            say(true);
            Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?
        }
    };
    let accepted = connections.accept(permit).await?;
    say(permits.available_permits() == 0);
    Ok(accepted)
}

/// A request that its connection knows of, and that knows whose it is.
fn tracked(request: Request<Incoming>, intake: &Intake, requester: Requester) -> Request<Body> {
    let has_body = !request.body().is_end_stream();
    intake.begins_request(has_body);
    let mut request = request.map(|body| match has_body {
        true => Body::new(TrackedBody::new(body, intake.clone())),
        false => Body::empty(),
    });
    request.extensions_mut().insert(ConnectInfo(intake.peer()));
    request.extensions_mut().insert(requester);
    // A request that becomes a socket takes the count of its connection along.
    request.extensions_mut().insert(ConnectInfo(intake.clone()));
    request
}

/// Ends when a connection must make room for another: all places are taken, and nothing ever came
/// over it. One that has asked for something once is never taken from its client.
async fn gives_way(intake: Intake, mut is_short: watch::Receiver<bool>) {
    tokio::time::sleep(SILENCE_MAX_WHEN_FULL).await;
    // Where the acceptor has ended, nobody needs the place.
    if is_short.wait_for(|is_short| *is_short).await.is_err() || !intake.is_silent() {
        std::future::pending::<()>().await;
    }
}
