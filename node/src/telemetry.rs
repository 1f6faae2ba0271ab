//! Telemetry: what a node says about itself: logs for people or machines, and metrics.

use std::io::IsTerminal;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::LogFormat;

/// A library that tells every step of itself, errors of an orderly end too. What matters of it is
/// told by `raft`; it is heard only where a filter names it.
const LIBRARY: &str = "openraft";

/// The upper bounds of the histogram of how long requests take, in milliseconds.
const REQUEST_MS: [f64; 12] =
    [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 10_000.0];

/// Begins to log, on standard error. Only the first call of a process counts.
///
/// # Errors
/// Where the filter cannot be read.
pub fn log(format: LogFormat, filter: &str) -> Result<(), ParseError> {
    let filter = if filter.contains(LIBRARY) {
        EnvFilter::builder().parse(filter)?
    } else {
        EnvFilter::builder().parse(format!("{filter},{LIBRARY}=off"))?
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A log that nobody reads any more must not end what it tells of.
        .log_internal_errors(false);
    // A subscriber that is set already stays: tests bring their own.
    let _ = match format {
        LogFormat::Human => {
            builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// The process's metrics, rendered by the gateway. Installed once, however many nodes a process
/// runs.
pub fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    let handle = HANDLE.get_or_init(|| {
        let times = Matcher::Full("ws2_ajax_request_duration_ms".to_owned());
        let builder = PrometheusBuilder::new().set_buckets_for_metric(times, &REQUEST_MS);
        let recorder = builder.expect("there are buckets").build_recorder();
        let handle = recorder.handle();
        // Another recorder of this process stays; ours then renders nothing.
        let _ = metrics::set_global_recorder(recorder);
        handle
    });
    handle.clone()
}
