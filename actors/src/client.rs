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

/// Too much waits, or is held; nothing was done.
fn busy(what: BusyScope, scope: ShareScope, retry_after: Duration) -> RouteError {
    let what = match (what, scope) {
        (BusyScope::Branch, ShareScope::Everybody) => "this branch",
        (BusyScope::Branch, ShareScope::Address) => "this branch, of this address",
        (BusyScope::Branch, ShareScope::Connection) => "this branch, of this connection",
        (BusyScope::Node, ShareScope::Everybody) => "this node",
        (BusyScope::Node, ShareScope::Address) => "this node, of this address",
        (BusyScope::Node, ShareScope::Connection) => "this node, of this connection",
        (BusyScope::Queries, ShareScope::Everybody) => "queries of this node",
        (BusyScope::Queries, ShareScope::Address) => "queries of this node, of this address",
        (BusyScope::Queries, ShareScope::Connection) => "queries of this node, of this connection",
        (BusyScope::Topics, ShareScope::Everybody) => {
            return RouteError::TopicsFull { whose: "this node", retry_after };
        }
        (BusyScope::Topics, ShareScope::Address) => {
            return RouteError::TopicsFull { whose: "this address", retry_after };
        }
        (BusyScope::Topics, ShareScope::Connection) => {
            return RouteError::TopicsFull { whose: "this connection", retry_after };
        }
    };
    RouteError::Busy { what, retry_after }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_whose_bound_it_was_and_what_to_do() {
        let said = |what, scope| busy(what, scope, Duration::from_secs(1)).to_string();
        let (address, connection) = (ShareScope::Address, ShareScope::Connection);
        assert_eq!(
            said(BusyScope::Topics, address),
            "this address has subscribed to as many topics as it may now: leave some, or come again \
             later"
        );
        assert!(said(BusyScope::Topics, connection).starts_with("this connection has"));
        assert!(said(BusyScope::Topics, ShareScope::Everybody).starts_with("this node has"));
        assert_eq!(
            said(BusyScope::Queries, address),
            "too many requests are waiting for queries of this node, of this address; retry later"
        );
    }
}
