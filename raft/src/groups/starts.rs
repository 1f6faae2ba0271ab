//! Starts: how many replicas of a node are starting, so that what can wait does.
//!
//! Promise: whoever waits for none goes on once none is starting. A replica that starts reads its
//! state and its log from the disk while its group may lack a majority; the filling of a store and
//! the verifying of chunks would take that disk from it. Refused: an order among those that start.

use std::sync::Arc;

use tokio::sync::watch;

/// The count of one node. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Starts(Arc<watch::Sender<usize>>);

/// One that starts, until it is dropped.
pub(crate) struct Starting(Starts);

impl Starts {
    pub(crate) fn begin(&self) -> Starting {
        self.0.send_modify(|count| *count += 1);
        Starting(self.clone())
    }

    /// Waits until none is starting.
    pub(crate) async fn none(&self) {
        // It cannot be closed while it is borrowed.
        let _ = self.0.subscribe().wait_for(|&count| count == 0).await;
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}
