//! Auth: who asks. What a principal may do is decided by the scoped store, and nowhere else.
//!
//! Promise: every request and every socket has a principal before it can reach data, because only a
//! principal gives a store to reach it through. Until authentication is configured everybody is the
//! same one, and a node then listens on loopback only, unless it is set up otherwise (decision 14).

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Somebody who has not said who they are.
    Anyone,
}

impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::Anyone)
    }
}
