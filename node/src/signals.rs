//! Signals: when the operating system, or whoever started this node, asks it to stop.

use std::os::fd::AsFd;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask to stop.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Begins to listen: from now on these signals no longer end the process by themselves.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one; says which.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Waits until standard input, a pipe, is closed: whoever started this process is gone. Waits for
/// ever where it is no pipe.
pub async fn input_closed() {
    let input = std::io::stdin().as_fd().try_clone_to_owned().and_then(Receiver::from_owned_fd);
    let Ok(mut input) = input else { return std::future::pending().await };
    let mut buffer = [0; 64];
    while input.read(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {}
}
