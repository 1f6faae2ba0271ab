//! Dial: keeps the two connections to one peer up, for as long as the address book names it.
//!
//! The node with the lower number dials; the other waits to be dialled and dials itself only when
//! that does not happen: when it joins a cluster that does not know it yet, and when it has just
//! started, while those that missed it try only now and then.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::hello::{ConnectionClass, HandshakeError, HandshakeRejection};
use super::remote::{ConnectionsUp, Remote};
use super::{Inner, PeerAddress};
use crate::limits::{DIALLED_WITHIN, FIRST_DIALLED_WITHIN, REDIAL_MAX, REDIAL_MIN};

impl Inner {
    /// Keeps one connection up; ends only by being cancelled.
    pub(super) async fn keep_dialled(self: Arc<Self>, remote: Arc<Remote>, class: ConnectionClass) {
        let mut book = self.book.clone();
        let mut wait = REDIAL_MIN;
        let mut dialled_within = FIRST_DIALLED_WITHIN;
        loop {
            self.until_due(&remote, class, dialled_within).await;
            dialled_within = DIALLED_WITHIN;
            let address = book.borrow_and_update().get(&remote.node).cloned();
            if let Some(address) = address {
                match self.dial(&remote, class, address.address.clone()).await {
                    Ok((connection, stream)) => {
                        // Before it runs: when it ends the peer is dialled again without a long
                        // wait.
                        wait = REDIAL_MIN;
                        self.run(connection, stream).await;
                    }
                    // The peer's own connection stands or comes up; `until_due` waits while it
                    // does.
                    Err(HandshakeError::RefusedByPeer(HandshakeRejection::Duplicate)) => {}
                    Err(error) => report(&remote, &address, &error),
                }
            }
            // A new address is tried at once.
            let _ = timeout(jittered(wait), book.changed()).await;
            wait = (wait * 2).min(REDIAL_MAX);
        }
    }

    /// Waits until this node should dial.
    async fn until_due(&self, remote: &Remote, class: ConnectionClass, dialled_within: Duration) {
        let mut connections_up = remote.connections_up.subscribe();
        let is_missing = |now: &ConnectionsUp| match class {
            ConnectionClass::Control => !now.control,
            ConnectionClass::Bulk => now.control && !now.bulk,
        };
        loop {
            // The sender lives as long as the remote: the wait cannot fail.
            let _ = connections_up.wait_for(is_missing).await;
            if self.node < remote.node {
                return;
            }
            let dialled = connections_up.wait_for(|now| !is_missing(now));
            if timeout(dialled_within, dialled).await.is_err() {
                return;
            }
        }
    }
}

/// Says once what is wrong, and again only when it is something else.
fn report(remote: &Remote, address: &PeerAddress, error: &HandshakeError) {
    let text = error.to_string();
    let mut trouble = remote.trouble.lock();
    if trouble.as_ref() == Some(&text) {
        return;
    }
    let (peer, address) = (remote.node, &address.address);
    match error {
        HandshakeError::Broken(_) => {
            tracing::info!(peer = peer.0, address, reason = text, "not reached yet")
        }
        HandshakeError::NotAHello(_)
        | HandshakeError::RefusedByPeer(_)
        | HandshakeError::RefusedHere(_) => {
            tracing::error!(peer = peer.0, address, reason = text, "cannot be linked");
        }
    }
    *trouble = Some(text);
}

/// Half of the wait, and by chance up to the other half: peers do not dial in step.
fn jittered(wait: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    wait / 2 + wait.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0)
}
