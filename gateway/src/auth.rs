//! Auth: the one door every path that shows or changes data goes through.
//!
//! Promise: REST, hello, snapshot, delta, publish, query, subscription and post all call
//! [`authorize`] with who asks and what for; there is no second place. It allows everything until
//! authentication is configured (decision 14), and a node then listens on loopback only, unless
//! told otherwise.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use model::{BranchId, BranchKey, ModuleId};

use crate::error::ApiError;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Somebody who has not said who they are.
    Anyone,
}

/// What for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// To see what is there.
    Read,
    /// To change it.
    Write,
    /// To be told of every change.
    Follow,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// What for.
    pub intent: Intent,
    /// The branch; `None` for what belongs to no branch, such as the list of modules.
    pub branch: Option<&'a BranchId>,
    /// The module; `None` for the whole branch.
    pub module: Option<&'a ModuleId>,
}

impl<'a> Access<'a> {
    /// To a module of a branch.
    pub fn module(intent: Intent, key: &'a BranchKey) -> Self {
        Self { intent, branch: Some(&key.branch), module: Some(&key.module) }
    }

    /// To a branch as a whole.
    pub fn branch(intent: Intent, branch: &'a BranchId) -> Self {
        Self { intent, branch: Some(branch), module: None }
    }

    /// To what belongs to no branch.
    pub fn cluster(intent: Intent) -> Self {
        Self { intent, branch: None, module: None }
    }
}

/// Whether this may be done.
///
/// # Errors
/// None yet: without authentication there is nobody to refuse.
pub fn authorize(principal: &Principal, access: &Access<'_>) -> Result<(), ApiError> {
    let _ = access;
    match principal {
        Principal::Anyone => Ok(()),
    }
}

impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::Anyone)
    }
}
