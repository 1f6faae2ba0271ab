//! Middleware: what every request passes: limits, origins, sockets, CORS, the body of an error,
//! counting.
//!
//! Promise: whatever becomes of a request, its answer has an `x-request-id`, the CORS headers its
//! sender may have, and, if it is a refusal, the body that docs/protocol.md shows.

use std::any::Any;
use std::time::{Duration, Instant};

use actors::ShareScope;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{
    self, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::files;
use crate::held::{self, RequestMemory};
use crate::intake::Intake;
use crate::limits::{HEADER_BYTES_MAX, ID_BYTES_MAX, URI_BYTES_MAX};
use crate::origins::RequestOrigin;
use crate::params::decoded;
use crate::rest::admission;
use crate::rest::reply::json;
use crate::{metrics, ws};

/// Names one request, in its answer and in the log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What balancers poll.
const READY: &str = "/readyz";
/// When a node that has no catalogue yet is worth asking again.
const CATALOGUE_WAIT: Duration = Duration::from_secs(1);
const ANY: HeaderValue = HeaderValue::from_static("*");
const METHODS: HeaderValue = HeaderValue::from_static("GET,POST,PUT,PATCH,DELETE,OPTIONS");
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("600");
const BY_ORIGIN: HeaderValue = HeaderValue::from_static("origin");
const CLOSE: HeaderValue = HeaderValue::from_static("close");
const YES: HeaderValue = HeaderValue::from_static("true");
/// A browser asks so whether a page of the internet may call a server on a local network.
const LOCAL_NETWORK_ASKED: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const LOCAL_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");
const EXPOSED: HeaderValue =
    HeaderValue::from_static("x-mishkah-cursor,x-request-id,retry-after,etag");

/// Answers one request, whatever becomes of it.
pub(crate) async fn answer(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let id = request_id(request.headers());
    // The origin is checked before the size and the path are: a page that may not ask must not
    // learn from another refusal whether a path exists.
    let sender = sender(&app, &request);
    let grant = CorsGrant::of(&app, sender.as_ref().ok());
    let (admitted, place) = (sender.map(drop), has_place(&request));
    let ends = place.is_err();
    let admitted = admitted.and(place).and_then(|()| admit(&request));

    let admitted = admitted.and_then(|()| held::check(&app.memory, &request));
    // Whatever becomes of the request: what it takes is given back when this function has ended.
    let held = RequestMemory::new(&app.memory);
    request.extensions_mut().insert(held.clone());

    let admitted = admitted.and_then(|()| is_initialized(&app, &request));
    let mut response = match admitted.and_then(|()| admission::check(&app, &request)) {
        Err(error) => {
            // Whoever is refused for now comes again over the same connection.
            if error.retry_after_seconds().is_some() {
                admission::discard(request).await;
            }
            error.into_response()
        }
        // A preflight is answered for every path: browsers ask before they know whether it exists.
        Ok(()) if method == Method::OPTIONS => preflight(&grant, request.headers()),
        Ok(()) if ws::is_upgrade(&request) => ws::accept(App::clone(&app), request).await,
        // A file goes before a route, as in the original: an application may have a page of any
        // name outside `/api`.
        Ok(()) => match file(&app, &request).await {
            Some(file) => file,
            None => routed(&app, request, next).await,
        },
    };
    // A handler leaves its error in the extensions, because only here is the path known that the
    // body names.
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        response = with_body(&error, &path, response);
    }
    finish(response.headers_mut(), &grant, &id);
    if ends {
        response.headers_mut().insert(header::CONNECTION, CLOSE);
    }
    let took = began.elapsed();
    metrics::request(&path, &method, took);
    record(&method, &path, &id, response.status(), took);
    drop(held);
    held::counted(response, &app.memory)
}

/// Has a route answer. A client that has closed its side may still wait for its answer, or be gone
/// for good: a change is answered all the same, and a read gets a moment more.
async fn routed(app: &App, request: Request, next: Next) -> Response {
    let intake = request.extensions().get::<ConnectInfo<Intake>>().cloned();
    let Some(ConnectInfo(intake)) = intake else { return next.run(request).await };
    let only_reads = only_reads(&request);
    let grace = app.limits.half_closed_read_max;
    let response = tokio::select! {
        biased;
        response = next.run(request) => response,
        () = intake.left(grace), if only_reads => {
            let message = format!("the client closed its side, and the read took {grace:?} more");
            let retry_after = Duration::from_secs(1);
            ApiError::new(Problem::ReadTimeout, message).retry(retry_after).into_response()
        }
    };
    intake.has_answered();
    response
}

/// Whether nothing is lost where a request is not done to its end.
fn only_reads(request: &Request) -> bool {
    let path = request.uri().path();
    // A table or a record may be called `delta`, too.
    let is_sync = path.starts_with("/api/sync/") || path.starts_with("/api/pos-sync/");
    let is_delta = is_sync && path.ends_with("/delta");
    request.method().is_safe() || path.starts_with("/api/query/") || is_delta
}

/// Whose request it is, if it may be made at all; what is refused is counted.
fn sender(app: &App, request: &Request) -> Result<RequestOrigin, ApiError> {
    let checked = app.origins.check(request, ws::is_upgrade(request));
    match checked.as_ref().map_err(ApiError::problem) {
        Err(Problem::HostNotAllowed) => app.counters.foreign_hosts.increment(1),
        Err(_) => app.counters.foreign_origins.increment(1),
        Ok(_) => {}
    }
    checked
}

/// Who may read an answer besides the node's own pages: what CORS headers say.
enum CorsGrant {
    /// Every page, as in the original.
    Everybody,
    /// Pages of this origin, as it was sent.
    Origin(HeaderValue),
    /// No other page.
    Nobody,
}

impl CorsGrant {
    fn of(app: &App, sender: Option<&RequestOrigin>) -> Self {
        match sender {
            _ if app.origins.allowed.is_every() => Self::Everybody,
            Some(RequestOrigin::Allowed(origin)) => Self::Origin(origin.clone()),
            Some(RequestOrigin::Unnamed | RequestOrigin::Foreign(_)) | None => Self::Nobody,
        }
    }
}

/// The file that a request means, if there is one.
fn file(app: &App, request: &Request) -> impl Future<Output = Option<Response>> + use<> {
    let file_request = files::FileRequest::of(app.files.as_ref(), request);
    // The future must not borrow the request, which is handed on if there is no such file.
    async move { file_request?.answer().await }
}

/// Refuses what comes over a connection that is one too many.
fn has_place(request: &Request) -> Result<(), ApiError> {
    let intake = request.extensions().get::<ConnectInfo<Intake>>();
    let Some(exhausted) = intake.and_then(|ConnectInfo(intake)| intake.found_no_place()) else {
        return Ok(());
    };
    let message = match exhausted.scope {
        ShareScope::Everybody => "this node has as many connections as it may",
        ShareScope::Address | ShareScope::Connection => {
            "this address has as many connections to this node as leave some to others: use those \
             again, or connect to another node; behind a proxy, the node's address_percent says how \
             many"
        }
    };
    Err(ApiError::new(Problem::TooManyConnections, message).retry(exhausted.retry_after))
}

/// What can be refused before anybody looks at what is asked.
fn admit(request: &Request) -> Result<(), ApiError> {
    let uri = request.uri();
    let long = uri.path_and_query().map_or(0, |both| both.as_str().len());
    if long > URI_BYTES_MAX {
        let message = format!("path and query have {long} bytes, at most {URI_BYTES_MAX} are read");
        return Err(ApiError::new(Problem::UriTooLong, message));
    }
    let bytes: usize =
        request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > HEADER_BYTES_MAX {
        let message =
            format!("the headers have {bytes} bytes, at most {HEADER_BYTES_MAX} are read");
        return Err(ApiError::new(Problem::HeadersTooLarge, message));
    }
    decoded(uri.path())?;
    if request.method() == Method::HEAD && uri.path().starts_with("/api/") {
        return Err(ApiError::new(Problem::MethodNotAllowed, "the API does not take HEAD"));
    }
    Ok(())
}

/// Refuses requests about data while this node's copy of the catalogue is empty: it would deny what
/// there is.
fn is_initialized(app: &App, request: &Request) -> Result<(), ApiError> {
    let path = request.uri().path();
    let is_about_data = path.starts_with("/api/") && !path.starts_with("/api/cluster/");
    if (is_about_data || ws::is_upgrade(request)) && !app.node().is_initialized() {
        let message = "this node has not heard yet which branches and modules there are";
        return Err(ApiError::new(Problem::NotReady, message).retry(CATALOGUE_WAIT));
    }
    Ok(())
}

/// The client's own id if it is usable, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let sent = headers.get(REQUEST_ID).filter(|id| {
        !id.is_empty() && id.len() <= ID_BYTES_MAX && id.as_bytes().iter().all(u8::is_ascii_graphic)
    });
    sent.cloned().unwrap_or_else(|| {
        HeaderValue::try_from(uuid::Uuid::now_v7().to_string()).expect("a uuid is plain ASCII")
    })
}

/// The answer to a browser that asks before it sends. Without a grant it says nothing of one, and
/// the browser sends nothing.
fn preflight(grant: &CorsGrant, request_headers: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if matches!(grant, CorsGrant::Nobody) {
        return response;
    }
    let headers = response.headers_mut();
    let wanted = request_headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.unwrap_or(ANY));
    headers.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
    if request_headers.contains_key(LOCAL_NETWORK_ASKED) {
        headers.insert(LOCAL_NETWORK, YES);
    }
    response
}

/// An error's answer: its body, and the headers it already has, such as `allow`.
fn with_body(error: &ApiError, path: &str, bare: Response) -> Response {
    let mut response = match json(bare.status(), &error.body(path)) {
        Ok(response) => response,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    };
    if let Some(allow) = bare.headers().get(header::ALLOW) {
        response.headers_mut().insert(header::ALLOW, allow.clone());
    }
    if let Some(seconds) = error.retry_after_seconds() {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn finish(headers: &mut HeaderMap, grant: &CorsGrant, id: &HeaderValue) {
    let allowed = match grant {
        CorsGrant::Everybody => Some(ANY),
        // A cache must not give one origin's answer to another.
        CorsGrant::Origin(origin) => {
            headers.append(VARY, BY_ORIGIN);
            Some(origin.clone())
        }
        CorsGrant::Nobody => {
            headers.append(VARY, BY_ORIGIN);
            None
        }
    };
    if let Some(allowed) = allowed {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.entry(ACCESS_CONTROL_ALLOW_HEADERS).or_insert(ANY);
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    headers.insert(REQUEST_ID, id.clone());
}

fn record(method: &Method, path: &str, id: &HeaderValue, status: StatusCode, took: Duration) {
    // Numbers that JSON logs have as numbers: of the 128 bits of a `Duration` they would be texts.
    let (status, ms) = (status.as_u16(), u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    let request_id = id.to_str().unwrap_or_default();
    // A balancer polls a node until it is ready: its 503 is an answer, and no request failed.
    if status >= 500 && path != READY {
        tracing::warn!(%method, path, request_id, status, ms, "a request failed");
    } else {
        tracing::debug!(%method, path, request_id, status, ms, "a request was answered");
    }
}

/// A handler panicked: a defect of ours.
pub(crate) fn panicked(app: &App, panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    tracing::error!(panic = text, "a request ran into a defect");
    app.counters.panics.increment(1);
    ApiError::new(Problem::Defect, "this request ran into a defect of the store").into_response()
}
