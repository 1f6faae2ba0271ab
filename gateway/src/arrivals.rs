//! Arrivals: the bytes that have come and are not yet anybody's work, on the whole node.
//!
//! Heads, bodies and socket messages are kept until they are whole, and nobody can say before what
//! they will be good for. So all of them together have one bound. Beyond it the address that holds
//! most gives up its largest, of equals its oldest: an address that holds less than its share
//! loses nothing to one that holds more, and many small clients nothing to a large one.
//!
//! A connection counts in steps of `STEP`; what is below the first is counted with the connection
//! itself, so that a small request costs nothing here. Each step costs O(log n).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use actors::{HeldMemory, Memory, MemoryClass};
use futures::task::AtomicWaker;

use crate::client_address::ClientAddress;
use crate::limits::MESSAGE_MEMORY_FACTOR;

/// How coarsely bytes are counted: what a connection's own buffer takes from the beginning.
const STEP: usize = 8 * 1024;

/// What arrives at one node. Clones are the same.
#[derive(Clone)]
pub(crate) struct Arrivals(Arc<Shared>);

struct Shared {
    bytes_max: usize,
    /// The book's total, for whoever only looks.
    bytes: AtomicUsize,
    book: Mutex<Book>,
}

struct Book {
    bytes: usize,
    /// The same, as requests of the node's memory.
    held: HeldMemory,
    /// The number of the next arrival: those before are older.
    next: u64,
    peers: HashMap<ClientAddress, Holder>,
    /// The same by what they hold.
    by_bytes: BTreeSet<(usize, ClientAddress)>,
}

/// What comes from one address.
#[derive(Default)]
struct Holder {
    bytes: usize,
    /// The largest is the last, of equals the oldest.
    arrivals: BTreeMap<(usize, Reverse<u64>), Arc<Cut>>,
}

/// Whether an arrival had to make room.
#[derive(Default)]
struct Cut {
    is_cut: AtomicBool,
    waker: AtomicWaker,
}

impl Arrivals {
    /// Nothing yet, of so many bytes at most; what comes counts among this memory's requests.
    pub(crate) fn new(bytes_max: usize, memory: &Memory) -> Self {
        let book = Book {
            bytes: 0,
            held: memory.hold(MemoryClass::Requests, 0),
            next: 0,
            peers: HashMap::new(),
            by_bytes: BTreeSet::new(),
        };
        let book = Mutex::new(book);
        Self(Arc::new(Shared { bytes_max, bytes: AtomicUsize::new(0), book }))
    }

    /// Bytes that are held now.
    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the largest message of a socket that finds room: on a node with little memory less
    /// than a message may have elsewhere.
    pub(crate) fn message_bytes_max(&self) -> usize {
        self.0.bytes_max / MESSAGE_MEMORY_FACTOR
    }

    /// What comes over one connection.
    pub(crate) fn arrival(&self, peer: ClientAddress) -> Arrival {
        Arrival { all: self.clone(), peer, number: 0, counted: 0, cut: Arc::default() }
    }

    /// Whether so many bytes more from this address would take room from others: it holds its
    /// share already. Its sender is better told before it sends them. What will not be counted
    /// takes no room.
    pub(crate) fn is_refused(&self, peer: ClientAddress, bytes: usize) -> bool {
        let bytes_max = self.0.bytes_max;
        if bytes < STEP || self.bytes() + bytes <= bytes_max {
            return false;
        }
        self.with(|book| {
            let held = book.peers.get(&peer).map_or(0, |holder| holder.bytes);
            let others = book.peers.len() - usize::from(held > 0);
            held + bytes > bytes_max / (others + 1)
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Book) -> T) -> T {
        let mut book = self.0.book.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut book);
        let bytes = book.bytes;
        self.0.bytes.store(bytes, Ordering::Relaxed);
        book.held.set(bytes as u64);
        result
    }
}

impl Book {
    /// Replaces what an arrival was counted with.
    fn count(&mut self, arrival: &Arrival, was: usize, is: usize) {
        let holder = self.peers.entry(arrival.peer).or_default();
        self.by_bytes.remove(&(holder.bytes, arrival.peer));
        holder.arrivals.remove(&(was, Reverse(arrival.number)));
        if is > 0 {
            holder.arrivals.insert((is, Reverse(arrival.number)), Arc::clone(&arrival.cut));
        }
        let change = |bytes: usize| bytes - was + is;
        holder.bytes = change(holder.bytes);
        self.bytes = change(self.bytes);
        self.keep(arrival.peer);
    }

    /// Lists an address by what it holds, or forgets it.
    fn keep(&mut self, peer: ClientAddress) {
        match self.peers.get(&peer).map(|holder| holder.bytes) {
            Some(0) => drop(self.peers.remove(&peer)),
            Some(bytes) => drop(self.by_bytes.insert((bytes, peer))),
            None => {}
        }
    }

    /// Cuts until no more than this is held.
    fn cut_to(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            let Some((_, peer)) = self.by_bytes.pop_last() else { return };
            let Some(holder) = self.peers.get_mut(&peer) else { return };
            if let Some(((bytes, _), cut)) = holder.arrivals.pop_last() {
                // Counted as gone at once: whoever reads it lets go of it when it wakes.
                holder.bytes -= bytes;
                self.bytes -= bytes;
                cut.is_cut.store(true, Ordering::Release);
                cut.waker.wake();
            }
            self.keep(peer);
        }
    }
}

/// What comes over one connection and is not whole yet.
pub(crate) struct Arrival {
    all: Arrivals,
    peer: ClientAddress,
    /// Its place in the order of arrivals.
    number: u64,
    counted: usize,
    cut: Arc<Cut>,
}

impl Arrival {
    /// So many bytes of it are held now.
    pub(crate) fn holds(&mut self, bytes: usize) {
        let is = bytes / STEP * STEP;
        if is == self.counted {
            return;
        }
        let all = self.all.clone();
        all.with(|book| {
            if self.is_cut() {
                // The book has taken it out already.
                self.counted = 0;
                return;
            }
            if self.counted == 0 {
                book.next += 1;
                self.number = book.next;
            }
            book.count(self, self.counted, is);
            self.counted = is;
            book.cut_to(all.0.bytes_max);
        });
    }

    /// Nothing of it is held any more: it is whole, or given up. What comes next is another.
    pub(crate) fn ends(&mut self) {
        self.holds(0);
        self.cut.is_cut.store(false, Ordering::Release);
    }

    /// Whether it has to make room.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.is_cut.load(Ordering::Acquire)
    }

    /// Ready when it has to make room.
    pub(crate) fn poll_cut(&self, context: &Context<'_>) -> Poll<()> {
        if self.is_cut() {
            return Poll::Ready(());
        }
        self.cut.waker.register(context.waker());
        // It may have been cut between the look and the registration.
        if self.is_cut() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.holds(0);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    const KIB: usize = 1024;

    fn peer(last: u8) -> ClientAddress {
        SocketAddr::from(([10, 0, 0, last], 1)).into()
    }

    fn arrivals(bytes_max: usize) -> Arrivals {
        Arrivals::new(bytes_max, &Memory::unlimited())
    }

    /// What comes from this address, so many KiB of it.
    fn arrived(all: &Arrivals, from: u8, kib: usize) -> Arrival {
        let mut arrival = all.arrival(peer(from));
        arrival.holds(kib * KIB);
        arrival
    }

    #[test]
    fn the_largest_is_cut_first_and_of_equals_the_oldest() {
        let all = arrivals(100 * KIB);
        let (small, old) = (arrived(&all, 1, 16), arrived(&all, 1, 32));
        let young = arrived(&all, 1, 32);
        let last = arrived(&all, 1, 24);
        assert_eq!([&small, &old, &young, &last].map(Arrival::is_cut), [false, true, false, false]);
        assert_eq!(all.bytes(), 72 * KIB);
    }

    #[test]
    fn an_address_loses_nothing_to_one_that_holds_more() {
        let all = arrivals(100 * KIB);
        let lone = arrived(&all, 1, 40);
        let many: Vec<Arrival> = (0..20).map(|_| arrived(&all, 2, 8)).collect();
        assert!(!lone.is_cut());
        assert_eq!(many.iter().filter(|arrival| !arrival.is_cut()).count(), 7);
        assert_eq!(all.bytes(), 96 * KIB);
    }

    #[test]
    fn one_that_was_cut_counts_no_more_until_it_ends() {
        let all = arrivals(64 * KIB);
        let mut cut = arrived(&all, 1, 72);
        assert!(cut.is_cut());
        cut.holds(80 * KIB);
        assert_eq!(all.bytes(), 0);
        cut.ends();
        assert!(!cut.is_cut());
        cut.holds(8 * KIB);
        assert_eq!(all.bytes(), 8 * KIB);
        drop(cut);
        assert_eq!(all.bytes(), 0);
        assert!(all.with(|book| book.peers.is_empty() && book.by_bytes.is_empty()));
    }

    #[test]
    fn who_holds_its_share_is_refused_before_it_sends() {
        let all = arrivals(100 * KIB);
        let _large = arrived(&all, 1, 60);
        assert!(!all.is_refused(peer(1), 40 * KIB), "there is room");
        assert!(all.is_refused(peer(1), 48 * KIB));
        assert!(!all.is_refused(peer(2), 48 * KIB), "the other gives way");
        assert!(all.is_refused(peer(2), 56 * KIB));
        // An address that has filled all of it: a small body takes no room.
        let _rest = arrived(&all, 1, 40);
        assert!(all.is_refused(peer(1), 8 * KIB) && !all.is_refused(peer(1), 8 * KIB - 1));
    }

    #[test]
    fn what_comes_counts_among_the_requests_of_the_node() {
        let memory = Memory::unlimited();
        let all = Arrivals::new(100 * KIB, &memory);
        let (first, second) = (arrived(&all, 1, 16), arrived(&all, 2, 96));
        assert!(second.is_cut());
        assert_eq!(memory.held(MemoryClass::Requests), 16 * KIB as u64);
        drop((first, second));
        assert_eq!(memory.held(MemoryClass::Requests), 0);
    }

    #[test]
    fn less_than_a_step_is_not_counted() {
        let all = arrivals(64 * KIB);
        let _small: Vec<Arrival> = (0..100).map(|_| arrived(&all, 1, 7)).collect();
        assert_eq!(all.bytes(), 0);
    }
}
