//! Metrics: the original's names for what we count too, and our own for the rest.
//!
//! The handles are taken once, so that counting a frame is one atomic addition. They count into
//! the recorder that is installed when the gateway is made.

use std::time::Duration;

use axum::http::Method;
use metrics::{Counter, Gauge, counter, gauge, histogram};

/// What a frame is, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// `server:event`.
    Event,
    /// `server:ack`.
    Ack,
    /// `server:snapshot`.
    Snapshot,
    /// Everything else.
    Control,
}

impl FrameKind {
    const ALL: [Self; 4] = [Self::Event, Self::Ack, Self::Snapshot, Self::Control];

    fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Ack => "ack",
            Self::Snapshot => "snapshot",
            Self::Control => "control",
        }
    }
}

/// The counters of a gateway.
pub(crate) struct Counters {
    frames: [Counter; 4],
    bytes: [Counter; 4],
    pub(crate) events: Counter,
    pub(crate) deltas_rendered: Counter,
    pub(crate) deltas_shared: Counter,
    pub(crate) sockets: Gauge,
    pub(crate) stalled: Counter,
    pub(crate) resyncs: Counter,
    pub(crate) panics: Counter,
    /// Requests of foreign pages, and under foreign hosts, that were refused.
    pub(crate) foreign_origins: Counter,
    pub(crate) foreign_hosts: Counter,
}

impl Counters {
    pub(crate) fn new(open_to_all: bool, all_origins: bool) -> Self {
        let by_channel = |name: &'static str| {
            FrameKind::ALL.map(|channel| counter!(name, "channel" => channel.name()))
        };
        let rendered = |result: &'static str| counter!("ws2_ws_serialization_events_total", "channel" => "event", "result" => result);
        gauge!("mishkah_open_to_all").set(if open_to_all { 1.0 } else { 0.0 });
        gauge!("mishkah_all_origins_allowed").set(if all_origins { 1.0 } else { 0.0 });
        Self {
            frames: by_channel("ws2_ws_frames_delivered_total"),
            bytes: by_channel("ws2_ws_payload_bytes_total"),
            events: counter!("ws2_ws_broadcast_events_total", "channel" => "event"),
            deltas_rendered: rendered("rendered"),
            deltas_shared: rendered("shared"),
            sockets: gauge!("mishkah_ws_sockets"),
            stalled: counter!("mishkah_ws_stalled_total"),
            resyncs: counter!("mishkah_ws_resyncs_total"),
            panics: counter!("mishkah_http_panics_total"),
            foreign_origins: counter!("mishkah_http_foreign_total", "by" => "origin"),
            foreign_hosts: counter!("mishkah_http_foreign_total", "by" => "host"),
        }
    }

    /// A frame was given to a socket.
    pub(crate) fn frame(&self, channel: FrameKind, bytes: usize) {
        self.frames[channel as usize].increment(1);
        self.bytes[channel as usize].increment(bytes as u64);
    }

    /// A piece of a frame was given to a socket; the frame is counted with its last one.
    pub(crate) fn piece(&self, channel: FrameKind, bytes: usize, is_last: bool) {
        self.frames[channel as usize].increment(u64::from(is_last));
        self.bytes[channel as usize].increment(bytes as u64);
    }
}

/// A request was answered.
pub(crate) fn request(path: &str, method: &Method, took: Duration) {
    let (kind, method) = (kind_of(path), name_of(method));
    counter!("ws2_http_requests_total", "kind" => kind, "method" => method).increment(1);
    histogram!("ws2_ajax_request_duration_ms", "method" => method)
        .record(took.as_secs_f64() * 1000.0);
}

fn kind_of(path: &str) -> &'static str {
    match path {
        "/metrics" => "metrics",
        "/healthz" | "/readyz" => "health",
        _ if path.starts_with("/api/") => "api",
        _ => "other",
    }
}

/// A closed set: a client must not be able to make new series.
fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}
