//! Client: what this node asks of the cluster, for the gateway and for its own actors.
//!
//! ```text
//!   ClusterStore ── Writes ───────────┐
//!                ── Reads ────────────┤
//!                ── CatalogueClient ──┼── LeaderClient ── the replica here, or the peer link
//!                ── Follows, Topics ──┘
//! ```
//!
//! Promise: `Unavailable` and `Busy` mean nothing was done. Once a command may have reached a
//! leader and no outcome is known, the answer is `Indeterminate`, never "failed".

mod catalogue;
mod cluster_store;
mod leader_client;
mod partitions;
mod peer_requests;
mod reads;
mod recent_refusals;
mod writes;

use std::time::Duration;

pub(crate) use catalogue::CatalogueClient;
pub use cluster_store::ClusterStore;
pub(crate) use leader_client::{LeaderClient, LeaderRequest, retry};
pub(crate) use partitions::{LocalPartition, LocalPartitions};
pub(crate) use reads::Reads;
pub(crate) use writes::Writes;

use crate::message::{BusyScope, Refusal};
use crate::shares::ShareScope;
use crate::store::RouteError;
use leader_client::leader_unknown;

/// What a caller gets when a leader did not do something.
pub(crate) fn route_error(refusal: Refusal) -> RouteError {
    match refusal {
        Refusal::Indeterminate => RouteError::Indeterminate,
        Refusal::Busy { what } => busy(what, ShareScope::Everybody, Duration::from_secs(1)),
        Refusal::Exhausted { what, scope, retry_after } => busy(what, scope, retry_after),
        Refusal::Unavailable { reason, retry_after }
        | Refusal::DiskFull { reason, retry_after } => {
            RouteError::Unavailable { reason, retry_after }
        }
        Refusal::MemoryFull(full) => RouteError::MemoryFull(full),
        Refusal::BranchQuota(reached) => RouteError::BranchQuota(reached),
        Refusal::NotLeader { .. } => route_error(leader_unknown()),
    }
}

/// The same for a read: without an answer it changed nothing, so it is never "indeterminate".
pub(crate) fn read_error(refusal: Refusal) -> RouteError {
    match refusal {
        Refusal::Indeterminate => route_error(leader_unknown()),
        Refusal::Busy { .. }
        | Refusal::Exhausted { .. }
        | Refusal::NotLeader { .. }
        | Refusal::Unavailable { .. }
        | Refusal::MemoryFull(_)
        | Refusal::BranchQuota(_)
        | Refusal::DiskFull { .. } => route_error(refusal),
    }
}

/// Too much waits; nothing was done.
fn busy(what: BusyScope, scope: ShareScope, retry_after: Duration) -> RouteError {
    let what = match (what, scope) {
        (BusyScope::Branch, ShareScope::Everybody) => "this branch",
        (BusyScope::Branch, ShareScope::Address) => "this branch, of this address",
        (BusyScope::Branch, ShareScope::Connection) => "this branch, of this connection",
        (BusyScope::Node, ShareScope::Everybody) => "this node",
        (BusyScope::Node, ShareScope::Address) => "this node, of this address",
        (BusyScope::Node, ShareScope::Connection) => "this node, of this connection",
    };
    RouteError::Busy { what, retry_after }
}
