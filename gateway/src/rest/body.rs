//! Body: a request's body, from its first byte to a JSON value.
//!
//! ```text
//!   said length ── too large: 413; no room: 429 ── before a byte of it is read
//!   arriving    ── counted among the node's arrivals: cut 429; too slow 408
//!   whole       ── small ones are read here; others wait for a turn, then are read elsewhere
//! ```
//!
//! Promise: who sends slowly holds nothing that others wait for, and a small body never waits for a
//! large one.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use actors::{RouteError, WorkPermit, in_background};
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use bytes::{Bytes, BytesMut};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use model::Value;
use tokio::time::{sleep, sleep_until};

use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::held::RequestMemory;
use crate::intake::{Intake, Pace};
use crate::limits::{BODY_BYTES_MAX, READ_INLINE_BYTES};

/// The largest body of a route, in bytes, among the extensions of its requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyBound(pub(crate) usize);

/// Reads a request's body as JSON whatever it says it is; an empty one is `null`.
///
/// # Errors
/// That it is too large, too slow, not JSON, or that the node has no room for it.
pub(crate) async fn read(request: Request, app: &App) -> Result<Value, ApiError> {
    let bound = request.extensions().get::<BodyBound>().map_or(BODY_BYTES_MAX, |bound| bound.0);
    let metered = request.extensions().get::<ConnectInfo<Intake>>().cloned();
    let intake =
        metered.map_or_else(|| Intake::detached(&app.arrivals), |ConnectInfo(intake)| intake);
    let held = request.extensions().get::<RequestMemory>().cloned();
    let body = request.into_body();
    let said = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if said > bound {
        return Err(too_large(bound));
    }
    if intake.is_refused(said) {
        return Err(over_budget());
    }
    // Whatever comes of it, nothing of it is held among the arrivals afterwards.
    let gathering = Gathering(&intake);
    let bytes = gather(body, &intake, bound, app.limits.pace_window).await?;
    if let Some(held) = held {
        held.add_body(bytes.len());
    }
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    if bytes.len() <= READ_INLINE_BYTES {
        return Value::from_json(&bytes).map_err(ApiError::from);
    }
    // Held while it is read, a large one until it is answered.
    let turn = turn(app, &intake, bytes.len()).await?;
    drop(gathering);
    // Reading a megabyte takes as long as answering a hundred small requests.
    let is_large = bytes.len() > BODY_BYTES_MAX;
    let read = in_background(move || Value::from_json(&bytes)).await;
    if is_large {
        intake.keeps(turn);
    }
    let defect = |_| ApiError::new(Problem::Defect, "the body could not be read");
    read.map_err(defect)?.map_err(ApiError::from)
}

struct Gathering<'a>(&'a Intake);

impl Drop for Gathering<'_> {
    fn drop(&mut self) {
        self.0.body_is_taken();
    }
}

/// The whole body.
async fn gather(
    mut body: Body,
    intake: &Intake,
    bound: usize,
    window: Duration,
) -> Result<Bytes, ApiError> {
    let (mut first, mut all) = (Bytes::new(), BytesMut::new());
    let mut pace = Pace::new(Instant::now());
    loop {
        let count = first.len() + all.len();
        let Ok(look_at) = pace.check(Instant::now(), window, count) else { return Err(too_slow()) };
        // In this order: what is there is taken before anybody waits.
        let frame = tokio::select! {
            biased;
            () = intake.cut() => return Err(over_budget()),
            frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)) => frame,
            () = sleep_until(look_at.into()) => continue,
        };
        let bytes = match frame {
            None => break,
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) => return Err(ApiError::new(Problem::InvalidBody, error.to_string())),
        };
        if count + bytes.len() > bound {
            return Err(too_large(bound));
        }
        intake.body_holds(count + bytes.len());
        if count == 0 {
            // Most bodies come at once, and are read where they lie.
            first = bytes;
            continue;
        }
        all.extend_from_slice(&std::mem::take(&mut first));
        all.extend_from_slice(&bytes);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// The right to have a body of this size read.
async fn turn(app: &App, intake: &Intake, bytes: usize) -> Result<WorkPermit, ApiError> {
    let turns = if bytes > BODY_BYTES_MAX { &app.large_turns } else { &app.body_turns };
    tokio::select! {
        biased;
        () = intake.cut() => Err(over_budget()),
        turn = turns.take(intake.requester()) => Ok(turn),
        () = sleep(app.limits.turn_wait_max) => Err(over_budget()),
    }
}

fn too_large(bound: usize) -> ApiError {
    let message = format!("the body has more than the {bound} bytes that are read here");
    ApiError::new(Problem::BodyTooLarge, message)
}

fn too_slow() -> ApiError {
    let message = "the body came more slowly than a slow link brings it";
    ApiError::new(Problem::RequestTimeout, message).retry(Duration::from_secs(1))
}

fn over_budget() -> ApiError {
    let retry_after = Duration::from_secs(1);
    RouteError::Busy { what: "this node", retry_after }.into()
}

/// A body whose connection learns how it ended.
pub(crate) struct TrackedBody {
    body: Incoming,
    intake: Intake,
    is_whole: bool,
}

impl TrackedBody {
    /// The body of a request that has one.
    pub(crate) fn new(body: Incoming, intake: Intake) -> Self {
        Self { body, intake, is_whole: false }
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.is_whole |= frame.is_none() || self.body.is_end_stream();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        self.intake.body_ends(self.is_whole);
    }
}
