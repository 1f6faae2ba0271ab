//! Accept: takes connections and serves each on its own, until told to stop.
//!
//! Promise: one connection costs others nothing; a client that is slow to say what it wants, or
//! says nothing more, is let go; connections are bounded, and the next one waits in the system's
//! queue.

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::ServiceExt as _;

use crate::intake::{Connections, Metered};
use crate::limits::{ACCEPT_AGAIN_AFTER, Limits};

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
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&connections, &places) => accepted,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of files, or a client that left at once: neither ends the node.
                tracing::debug!(%error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                continue;
            }
        };
        let mut server = Builder::new(TokioExecutor::new());
        server.http1().timer(TokioTimer::new()).header_read_timeout(limits.header_read_max);
        // A request that becomes a socket takes the count of its connection along.
        let intake = stream.intake();
        let service = TowerToHyperService::new(routes.clone().map_request(
            move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(ConnectInfo(intake.clone()));
                request
            },
        ));
        let connection =
            server.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let served = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::trace!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(connections);
    if tokio::time::timeout(limits.drain_max, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still under way when their time to finish was over");
    }
    Ok(())
}

async fn accept(
    connections: &Connections,
    places: &Arc<Semaphore>,
) -> io::Result<(Metered, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    Ok((connections.accept().await?, place))
}
