//! Held: what requests and answers take of this node's memory, counted from when it is there until
//! it is gone (`actors::Memory`).
//!
//! A request's bytes are counted where its body is whole, not as its head announces them: a client
//! that announces much and sends nothing takes nothing from others. An answer's bytes are counted
//! when they are given to the connection, and until the system has taken them: a client that does
//! not read is what fills this class. Both end with what they are about, also where a client
//! leaves or a handler panics.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use actors::{HeldMemory, Memory, MemoryClass};
use axum::body::Body;
use axum::http::{Method, Request, header};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as _, Frame, SizeHint};

use crate::error::ApiError;
use crate::limits::{ANSWER_COUNTED_FROM, REQUEST_COST, STREAMED_ANSWER_BYTES};

/// What one request takes. Clones are the same.
#[derive(Clone)]
pub(crate) struct RequestMemory(Arc<Mutex<HeldMemory>>);

impl RequestMemory {
    /// Nothing so far.
    pub(crate) fn new(memory: &Memory) -> Self {
        Self(Arc::new(Mutex::new(memory.hold(MemoryClass::Requests, 0))))
    }

    /// A body of so many bytes is there as a whole.
    pub(crate) fn add_body(&self, bytes: usize) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.add(bytes as u64 * REQUEST_COST);
    }
}

/// Refuses a request that would add to what is over its share, before its body is read: what asks
/// for data where answers wait to be taken, and what sends some where requests wait to be decided.
/// What needs neither is always answered: health, the cluster's state, deletes.
///
/// # Errors
/// `memory-full`.
pub(crate) fn check<B>(memory: &Memory, request: &Request<B>) -> Result<(), ApiError> {
    let path = request.uri().path();
    if !path.starts_with("/api/") || path.starts_with("/api/cluster/") {
        return Ok(());
    }
    // Not for OPTIONS: without its answer a page cannot send the delete that makes room.
    if request.method() == Method::GET || path.starts_with("/api/query/") {
        memory.check(MemoryClass::Answers, 0)?;
    }
    if request.method() != Method::DELETE && !request.method().is_safe() {
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        // One that is larger than all of the share waits until little else is there, and not for
        // ever.
        let most = memory.share(MemoryClass::Requests) / 2;
        let adds = length.unwrap_or(0).saturating_mul(REQUEST_COST).min(most);
        memory.check(MemoryClass::Requests, adds)?;
    }
    Ok(())
}

/// An answer whose bytes are counted as long as they wait for the client.
pub(crate) fn counted(answer: Response, memory: &Memory) -> Response {
    let hint = answer.body().size_hint();
    // Small ones are gone at once, and are most of them.
    if hint.exact().is_some_and(|bytes| bytes < ANSWER_COUNTED_FROM) {
        return answer;
    }
    answer.map(|body| {
        // What is written as it is taken holds a piece and a row ahead of it, and the list of what
        // it shows: a pointer for each row, of which most have more than 64 bytes.
        let list = hint.exact().unwrap_or(0) / 64 * size_of::<usize>() as u64;
        let ahead = memory.hold(MemoryClass::Answers, STREAMED_ANSWER_BYTES + list);
        Body::new(CountedBody { body, memory: memory.clone(), _ahead: ahead })
    })
}

struct CountedBody {
    body: Body,
    memory: Memory,
    _ahead: HeldMemory,
}

/// Bytes and what counts them: given back together, when the last copy of the bytes is.
struct CountedBytes {
    bytes: Bytes,
    _held: HeldMemory,
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl hyper::body::Body for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let counted = |bytes: Bytes| {
            let held = self.memory.hold(MemoryClass::Answers, bytes.len() as u64);
            Bytes::from_owner(CountedBytes { bytes, _held: held })
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(counted))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;
    use futures::StreamExt as _;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn request(method: Method, path: &str, length: &str) -> Request<()> {
        let request = Request::builder().method(method).uri(path);
        request.header(header::CONTENT_LENGTH, length).body(()).unwrap()
    }

    fn refused(memory: &Memory, request: &Request<()>) -> Option<String> {
        check(memory, request).err().map(|error| error.code().to_owned())
    }

    #[tokio::test]
    async fn an_answer_is_counted_until_its_bytes_are_gone() {
        let memory = Memory::unlimited();
        let answer = counted("x".repeat(100_000).into_response(), &memory);
        let mut body = answer.into_body().into_data_stream();
        let bytes = body.next().await.unwrap().unwrap();
        assert!(body.next().await.is_none());
        drop(body);
        assert_eq!(memory.held(MemoryClass::Answers), 100_000, "the connection has them");
        let rest = bytes.slice(50_000..);
        drop(bytes);
        assert_eq!(memory.held(MemoryClass::Answers), 100_000, "as long as a part is there");
        drop(rest);
        assert_eq!(memory.held(MemoryClass::Answers), 0);
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_gives_back_what_it_held() {
        let memory = Memory::unlimited();
        drop(counted("x".repeat(100_000).into_response(), &memory));
        assert_eq!(memory.held(MemoryClass::Answers), 0);
        let small = counted("x".into_response(), &memory);
        assert_eq!(memory.held(MemoryClass::Answers), 0, "a small one is not counted");
        drop(small);
    }

    #[test]
    fn what_would_add_to_a_full_class_is_refused_and_nothing_else() {
        let memory = Memory::new(100 * MIB);
        let (get, put, delete) = (
            request(Method::GET, "/api/branches", "0"),
            request(Method::PUT, "/api/branches/b/modules/m/save", "1000000"),
            request(Method::DELETE, "/api/branches/b/modules/m/tables/t", "40"),
        );
        assert_eq!(refused(&memory, &put), None);
        let answers = memory.hold(MemoryClass::Answers, 50 * MIB);
        assert_eq!(refused(&memory, &get).as_deref(), Some("memory-full"));
        assert_eq!(refused(&memory, &put), None, "its answer is small");
        assert_eq!(refused(&memory, &request(Method::GET, "/readyz", "0")), None);
        assert_eq!(refused(&memory, &request(Method::GET, "/api/cluster/status", "0")), None);
        drop(answers);
        let requests = RequestMemory::new(&memory);
        requests.add_body(13 * MIB as usize / REQUEST_COST as usize);
        assert_eq!(refused(&memory, &put).as_deref(), Some("memory-full"));
        let small = request(Method::POST, "/api/branches/b/modules/m/save", "100");
        assert_eq!(refused(&memory, &small), None, "there is room for a small one");
        assert_eq!(refused(&memory, &delete), None);
        drop(requests);
        assert_eq!(refused(&memory, &put), None);
        assert_eq!(memory.held(MemoryClass::Requests), 0);
    }
}
