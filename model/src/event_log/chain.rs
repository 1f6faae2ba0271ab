//! Chain: whether the events of a log, read in order, are children of one another, up to its head.
//!
//! Promise: an event that was changed, left out, doubled or put elsewhere breaks the chain, by its
//! own hash or by its successor's. Refused: to judge what stands before the first event given.

use crate::branch::{Branch, event_hash};
use crate::delta::Event;
use crate::hash::Hash;
use crate::ids::Offset;

/// The first place where a log is not the one that was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {offset}: {reason}")]
pub struct BrokenChain {
    /// The event that does not fit.
    pub offset: Offset,
    /// What differs, in words.
    pub reason: String,
}

/// A walk over the events of a branch:module, oldest first.
#[derive(Debug, Default)]
pub struct EventChain {
    last: Option<(Offset, Hash)>,
}

impl EventChain {
    /// Takes the next event. The first one may have any offset.
    ///
    /// # Errors
    /// [`BrokenChain`] when it is not the child of the event before it.
    pub fn follow(&mut self, event: &Event) -> Result<(), BrokenChain> {
        let offset = event.offset;
        let parent = match self.last {
            Some((last, _)) if last.next() != offset => {
                return Err(broken(offset, format!("it stands where {} is due", last.next())));
            }
            Some((_, hash)) => Some(hash),
            // Only the first event of all has a known parent without one before it.
            None if offset == Offset(1) => Some(Hash::default()),
            None => None,
        };
        if let Some(hash) = parent.filter(|hash| *hash != event.previous) {
            let named = event.previous;
            let reason = format!("it names {named} as the event before it, which has hash {hash}");
            return Err(broken(offset, reason));
        }
        self.last = Some((offset, event_hash(event)));
        Ok(())
    }

    /// Ends the walk: the last event must be the head of the branch's log.
    ///
    /// # Errors
    /// [`BrokenChain`] when it is not.
    pub fn end(&self, branch: &Branch) -> Result<(), BrokenChain> {
        let (last, hash) = self.last.unwrap_or_default();
        let (offset, head) = (branch.head().offset, branch.chain_head());
        if last != offset {
            return Err(broken(offset, format!("the log ends with {last}")));
        }
        if hash != head {
            return Err(broken(offset, format!("it has hash {hash}, the chain's head is {head}")));
        }
        Ok(())
    }
}

fn broken(offset: Offset, reason: String) -> BrokenChain {
    BrokenChain { offset, reason }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::Shop;

    fn walk(shop: &Shop, events: &[Arc<Event>]) -> Result<(), BrokenChain> {
        let mut chain = EventChain::default();
        events.iter().try_for_each(|event| chain.follow(event))?;
        chain.end(shop.branch())
    }

    fn shop() -> (Shop, Vec<Arc<Event>>) {
        let mut shop = Shop::lenient();
        let events = (0..5).map(|_| shop.insert("tickets", "{}").unwrap()).collect();
        (shop, events)
    }

    #[test]
    fn a_log_as_it_was_written_is_whole_from_wherever_it_is_held() {
        let (shop, events) = shop();
        assert_eq!(walk(&shop, &events), Ok(()));
        assert_eq!(walk(&shop, &events[2..]), Ok(()));
        assert_eq!(walk(&Shop::lenient(), &[]), Ok(()));
    }

    #[test]
    fn whatever_was_done_to_a_log_is_found_and_named() {
        let (shop, events) = shop();
        let mut changed = events.clone();
        Arc::make_mut(&mut changed[1]).id = "evt-x".to_owned();
        let error = walk(&shop, &changed).unwrap_err();
        assert_eq!(error.offset, Offset(3), "its child names what it was");
        assert!(error.reason.contains("as the event before it"), "{error}");
        let mut last = events.clone();
        Arc::make_mut(&mut last[4]).id = "evt-x".to_owned();
        let error = walk(&shop, &last).unwrap_err();
        assert!(error.to_string().starts_with("event 5: it has hash "), "{error}");
        let mut missing = events.clone();
        missing.remove(2);
        let error = walk(&shop, &missing).unwrap_err();
        assert_eq!(error.to_string(), "event 4: it stands where 3 is due");
        let mut swapped = events.clone();
        swapped.swap(1, 2);
        assert_eq!(walk(&shop, &swapped).unwrap_err().offset, Offset(3));
        let error = walk(&shop, &events[..4]).unwrap_err();
        assert_eq!(error.to_string(), "event 5: the log ends with 4");
        let mut first = events;
        Arc::make_mut(&mut first[0]).previous = Hash([7; 32]);
        assert_eq!(walk(&shop, &first).unwrap_err().offset, Offset(1));
    }
}
