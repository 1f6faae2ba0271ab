//! Stories about branches made by writes: how many one address makes, whichever nodes it asks.

use std::sync::Arc;
use std::time::Duration;

use model::{BranchConfig, CatalogueChange, Outcome};

use crate::BranchQuota;
use crate::shares::Requester;
use crate::store::{RouteError, Store};
use crate::testing::{Cluster, accept, insert, key};

fn of(address: u8, connection: u64) -> Requester {
    Requester { address: Some([10, 0, 0, address].into()), connection }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_together_give_an_address_one_quota() {
    let quota = BranchQuota { burst: 8, refill: Duration::from_hours(1) };
    let cluster = Cluster::with_branches(3, quota).await;
    let (mut made, mut refused) = (Vec::new(), Vec::new());
    // Each at another node and over another connection than the one before.
    for n in 0..60 {
        let branch = format!("b{n}");
        let store = cluster.store(n % 3);
        match store.submit_for(of(1, n as u64), insert(&branch, "n1", "x")).await {
            Ok(Outcome::Accepted(_)) => made.push(branch),
            Err(RouteError::BranchQuota(reached)) => refused.push((branch, reached)),
            other => panic!("{branch}: {other:?}"),
        }
    }
    assert_eq!((made.len(), refused.len()), (8, 52));
    let (branch, reached) = &refused[0];
    assert!(reached.retry_after > Duration::from_hours(3), "four partitions: {reached:?}");
    let store = cluster.store(0);
    let again = store.submit_for(of(1, 1), insert(&made[0], "n2", "x")).await;
    assert!(matches!(again, Ok(Outcome::Accepted(_))), "a branch that exists: {again:?}");
    let other = store.submit_for(of(2, 1), insert(branch, "n1", "x")).await;
    assert!(matches!(other, Ok(Outcome::Accepted(_))), "another address: {other:?}");
    accept(&store, insert(&refused[1].0, "n1", "x")).await;
    let listed = key(&refused[2].0);
    let config = BranchConfig {
        id: listed.branch,
        label: String::new(),
        modules: vec![listed.module],
        seeds: Default::default(),
    };
    store.change("list".to_owned(), CatalogueChange::AddBranch(Arc::new(config))).await.unwrap();
    let written = store.submit_for(of(1, 1), insert(&refused[2].0, "n1", "x")).await;
    assert!(matches!(written, Ok(Outcome::Accepted(_))), "a listed one: {written:?}");
}
