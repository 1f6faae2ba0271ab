//! Dial: keeps the two connections to one peer up, for as long as the address book names it.
//!
//! The node with the lower number dials; the other waits to be dialled and dials itself only when
//! that does not happen: when it joins a cluster that does not know it yet, and when it has just
//! started, while those that missed it try only now and then.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::hello::{Class, GreetError, Refusal};
use super::remote::{Occupied, Remote};
use super::{PeerAddress, Shared};
use crate::limits::{DIAL_PATIENCE, FIRST_DIAL_PATIENCE, REDIAL_MAX, REDIAL_MIN};

impl Shared {
    /// Keeps one connection up; ends only by being cancelled.
    pub(super) async fn keep_dialled(self: Arc<Self>, remote: Arc<Remote>, class: Class) {
        let mut book = self.book.clone();
        let mut wait = REDIAL_MIN;
        let mut patience = FIRST_DIAL_PATIENCE;
        loop {
            self.until_due(&remote, class, patience).await;
            patience = DIAL_PATIENCE;
            let address = book.borrow_and_update().get(&remote.node).cloned();
            if let Some(address) = address {
                match self.dial(&remote, class, address.address.clone()).await {
                    Ok((connection, stream)) => {
                        wait = REDIAL_MIN;
                        self.run(connection, stream).await;
                    }
                    Err(GreetError::RefusedByPeer(Refusal::Duplicate)) => {}
                    Err(error) => report(&remote, &address, &error),
                }
            }
            // A new address is tried at once.
            let _ = timeout(jittered(wait), book.changed()).await;
            wait = (wait * 2).min(REDIAL_MAX);
        }
    }

    /// Waits until this node should dial.
    async fn until_due(&self, remote: &Remote, class: Class, patience: Duration) {
        let mut occupied = remote.occupied.subscribe();
        let is_missing = |now: &Occupied| match class {
            Class::Control => !now.control,
            Class::Bulk => now.control && !now.bulk,
        };
        loop {
            // The sender lives as long as the remote: the wait cannot fail.
            let _ = occupied.wait_for(is_missing).await;
            if self.node < remote.node {
                return;
            }
            let dialled = occupied.wait_for(|now| !is_missing(now));
            if timeout(patience, dialled).await.is_err() {
                return;
            }
        }
    }
}

/// Says once what is wrong, and again only when it is something else.
fn report(remote: &Remote, address: &PeerAddress, error: &GreetError) {
    let text = error.to_string();
    let mut trouble = remote.trouble.lock();
    if trouble.as_ref() == Some(&text) {
        return;
    }
    let (peer, address) = (remote.node, &address.address);
    match error {
        GreetError::Broken(_) => {
            tracing::info!(peer = peer.0, address, reason = text, "not reached yet")
        }
        GreetError::NotAHello(_) | GreetError::RefusedByPeer(_) | GreetError::RefusedHere(_) => {
            tracing::error!(peer = peer.0, address, reason = text, "cannot be linked");
        }
    }
    *trouble = Some(text);
}

/// Half of the wait, and by chance up to the other half: peers do not dial in step.
fn jittered(wait: Duration) -> Duration {
    let chance = getrandom::u32().unwrap_or(u32::MAX / 2);
    wait / 2 + wait.mul_f64(f64::from(chance) / f64::from(u32::MAX) / 2.0)
}
