//! The binary `mishkah`.

use std::process::ExitCode;

use anyhow::{Context, anyhow};
use node::cli::CommandLine;
use tikv_jemallocator::Jemalloc;

/// The C library's allocator keeps what a crowd of clients made it take; this one gives unused
/// pages back within ten seconds, on threads of its own, and says what it holds.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    let cli = CommandLine::read();
    run(cli).unwrap_or_else(|error| {
        CommandLine::report(&error);
        ExitCode::FAILURE
    })
}

fn run(cli: CommandLine) -> anyhow::Result<ExitCode> {
    // One thread keeps the cluster together: heartbeats wake no second one. Requests are served,
    // and entries applied, on threads of their own.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("the runtime did not start")?
        .block_on(cli.run())
        .map_err(|failure| anyhow!("{failure}"))
}
