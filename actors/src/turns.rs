//! Turns: so many do something at once; the others wait, in turns between those who ask.
//!
//! Why: in a plain queue whoever sends much at once is before everybody who comes later. Here one
//! who asks for little has the next turn that is given back, however many wait for another address.
//!
//! Promises: no more turns are out than there are; one is never lost, whoever stops waiting when.
//! Refused: a bound on who waits. Callers have one, and wait no longer than they say; whoever
//! stopped waiting is forgotten when the turn would be theirs.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::fair_queue::{FairQueue, Pick};
use crate::shares::Requester;

/// So many turns, and who waits for one. Clones are the same.
#[derive(Clone)]
pub struct TurnQueue(Arc<Mutex<State>>);

struct State {
    free: usize,
    waiting: FairQueue<oneshot::Sender<WorkPermit>>,
}

/// The right to do it now; the next one's when dropped.
pub struct WorkPermit(TurnQueue);

impl TurnQueue {
    /// So many at once.
    pub fn new(at_once: usize) -> Self {
        let state = State { free: at_once, waiting: FairQueue::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// A turn, once it is this requester's. Whoever stops waiting has no turn.
    pub async fn take(&self, requester: Requester) -> WorkPermit {
        let (sender, turn) = oneshot::channel();
        {
            let mut state = self.0.lock();
            if state.free > 0 {
                state.free -= 1;
                drop(state);
                return WorkPermit(self.clone());
            }
            state.waiting.push(requester, 1, sender);
        }
        match turn.await {
            Ok(turn) => turn,
            Err(_) => unreachable!("what waits is kept until it has its turn or is gone"),
        }
    }

    /// How many are free.
    pub fn free(&self) -> usize {
        self.0.lock().free
    }

    /// Whose turn is next, if somebody waits; else it is free.
    fn next(&self) -> Option<oneshot::Sender<WorkPermit>> {
        let mut state = self.0.lock();
        let next =
            state.waiting.next_weight(Pick::Any, oneshot::Sender::is_closed, &mut Vec::new());
        let next = next.and_then(|_| state.waiting.pop(Pick::Any));
        if next.is_none() {
            state.free += 1;
        }
        next
    }
}

impl Drop for WorkPermit {
    fn drop(&mut self) {
        if let Some(next) = self.0.next() {
            // Given back by whoever stopped waiting at this moment: that turn is dropped here.
            drop(next.send(WorkPermit(self.0.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use futures::future::BoxFuture;

    use super::*;

    fn waits(turns: &TurnQueue, address: u8, connection: u64) -> BoxFuture<'static, WorkPermit> {
        let turns = turns.clone();
        let requester = Requester { address: Some([10, 0, 0, address].into()), connection };
        let mut wait = Box::pin(async move { turns.take(requester).await });
        assert!((&mut wait).now_or_never().is_none(), "nothing is free");
        wait
    }

    #[test]
    fn one_who_asks_for_little_passes_those_who_ask_for_much() {
        let turns = TurnQueue::new(1);
        let first = turns.take(Requester::default()).now_or_never().unwrap();
        let mut many: Vec<_> = (0..500).map(|n| waits(&turns, 1, n)).collect();
        let mut few = waits(&turns, 2, 1);
        drop(first);
        // One of the many came first; the next turn is the other address's.
        let second = many.iter_mut().find_map(|wait| wait.now_or_never()).unwrap();
        drop(second);
        let third = few.as_mut().now_or_never();
        assert!(third.is_some());
    }

    #[test]
    fn a_turn_is_never_lost() {
        let turns = TurnQueue::new(2);
        let out = [(); 2].map(|()| turns.take(Requester::default()).now_or_never().unwrap());
        let mut waiting: Vec<_> = (0..300).map(|n| waits(&turns, 1, n)).collect();
        // Some leave while they wait, one when it has been given its turn.
        waiting.retain({
            let mut n = 0;
            move |_| {
                n += 1;
                n % 3 == 0
            }
        });
        drop(out);
        drop(waiting.remove(0));
        assert_eq!(turns.free(), 0);
        for wait in waiting {
            drop(wait.now_or_never());
        }
        assert_eq!(turns.free(), 2);
        assert!(turns.take(Requester::default()).now_or_never().is_some());
    }
}
