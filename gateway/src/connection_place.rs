//! Connection place: what a connection takes of those that its node may have.
//!
//! ```text
//!   permit   from when the system gives it: without one, the next waits in the system's queue
//!   share    of its address, from its first byte on: whoever says nothing gives way where
//!            permits are short, and takes nothing of what its address may have
//! ```
//!
//! Both are held for as long as the connection lives, also as a socket.

use actors::{Exhausted, Requester, Share, ShareLimiter};
use tokio::sync::OwnedSemaphorePermit;

/// The place of one connection.
pub(crate) struct ConnectionPlace {
    // Given back before the permit: whoever gets the permit must find a share.
    share: AddressShare,
    _permit: Option<OwnedSemaphorePermit>,
}

enum AddressShare {
    /// Nothing has come yet.
    Open(ShareLimiter),
    /// It has one.
    Taken(#[expect(dead_code, reason = "it is given back when dropped")] Share),
    /// There was none.
    Refused(Exhausted),
    /// There is no connection.
    Detached,
}

impl ConnectionPlace {
    /// That of a new connection, which will take one of these shares.
    pub(crate) fn new(shares: ShareLimiter, permit: OwnedSemaphorePermit) -> Self {
        Self { share: AddressShare::Open(shares), _permit: Some(permit) }
    }

    /// That of requests which come over no connection.
    pub(crate) fn detached() -> Self {
        Self { share: AddressShare::Detached, _permit: None }
    }

    /// Something came: it takes its share, if there is one for it.
    pub(crate) fn take(&mut self, requester: Requester) {
        let AddressShare::Open(shares) = &self.share else { return };
        let taken = shares.acquire(requester, 1);
        self.share = taken.map_or_else(AddressShare::Refused, AddressShare::Taken);
    }

    /// Why there was no share for it.
    pub(crate) fn refusal(&self) -> Option<Exhausted> {
        match self.share {
            AddressShare::Refused(exhausted) => Some(exhausted),
            AddressShare::Open(_) | AddressShare::Taken(_) | AddressShare::Detached => None,
        }
    }
}
