//! Intake: in which state a connection is, and what has come over it that is not whole yet.
//!
//! ```text
//!   Silent ──▶ Head ──▶ Request ──▶ Idle ──▶ Head …
//!                          └──▶ Socket
//! ```
//!
//! Every state ends: the table of `limits.rs` says when. A head and a socket's message are counted
//! where bytes are read, below the libraries that gather them; a body where it is gathered
//! (`rest/body.rs`). All of them count among the node's arrivals, and are cut where it has no room
//! for them. A large one gets a turn of the node (`LARGE_AT_ONCE`) only when it is whole, so who
//! sends slowly holds nothing that others wait for.

use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actors::{Exhausted, Requester, WorkPermit};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::arrivals::{Arrival, Arrivals};
use crate::client_address::ClientAddress;
use crate::connection_place::ConnectionPlace;
use crate::limits::{
    LEFT_CHECK_EVERY, Limits, MESSAGE_MEMORY_FACTOR, SILENCE_MAX_WHEN_FULL,
    SLOWEST_ARRIVAL_BYTES_PER_SECOND,
};

/// One connection, as everybody sees it who reads from it. Clones are the same.
#[derive(Clone)]
pub(crate) struct Intake {
    peer: ClientAddress,
    requester: Requester,
    arrivals: Arrivals,
    /// Ends with the connection; none where requests come over none.
    stream: Weak<TcpStream>,
    state: Arc<Mutex<State>>,
}

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing has come yet.
    Silent,
    /// A head is coming.
    Head,
    /// A request is answered; its body may be coming.
    Request,
    /// A request was answered, and no other has begun.
    Idle,
    /// It carries messages.
    Socket,
}

struct State {
    phase: Phase,
    /// Since when.
    since: Instant,
    /// Whether the request's body has not come to its end.
    body_is_open: bool,
    /// Whether a body was given up: bytes of it may still be coming.
    left_unread: bool,
    /// Bytes of the head or message that is coming.
    bytes: usize,
    /// The same, and those of a body, as the node counts them.
    arrival: Arrival,
    pace: Pace,
    /// Whether the node did not read since the last look.
    paused: bool,
    /// The turn of the large request that is being answered.
    turn: Option<WorkPermit>,
    /// What it takes of the node's connections.
    place: ConnectionPlace,
}

impl Intake {
    /// That of a new connection.
    pub(crate) fn new(
        peer: ClientAddress,
        arrivals: &Arrivals,
        place: ConnectionPlace,
        stream: Weak<TcpStream>,
    ) -> Self {
        let now = Instant::now();
        let state = State {
            phase: Phase::Silent,
            since: now,
            body_is_open: false,
            left_unread: false,
            bytes: 0,
            arrival: arrivals.arrival(peer),
            pace: Pace::new(now),
            paused: false,
            turn: None,
            place,
        };
        let state = Arc::new(Mutex::new(state));
        Self { peer, requester: peer.requester(), arrivals: arrivals.clone(), stream, state }
    }

    /// That of requests that come over no connection.
    pub(crate) fn detached(arrivals: &Arrivals) -> Self {
        Self::new(ClientAddress::OWN, arrivals, ConnectionPlace::detached(), Weak::new())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it comes from.
    pub(crate) fn peer(&self) -> ClientAddress {
        self.peer
    }

    /// Whose it is, as far as sharing is concerned.
    pub(crate) fn requester(&self) -> Requester {
        self.requester
    }

    /// Why the connection found no place, if it did not: what it asks for is refused, and it ends.
    pub(crate) fn found_no_place(&self) -> Option<Exhausted> {
        self.state().place.refusal()
    }

    /// Whether so many bytes more would take room from others: see [`Arrivals::is_refused`].
    pub(crate) fn is_refused(&self, bytes: usize) -> bool {
        self.arrivals.is_refused(self.peer, bytes)
    }

    /// Whether nothing has come over it yet.
    pub(crate) fn is_silent(&self) -> bool {
        self.state().phase == Phase::Silent
    }

    /// Whether it carries messages.
    pub(crate) fn is_socket(&self) -> bool {
        self.state().phase == Phase::Socket
    }

    /// Until when something must have come, if anybody waits for it here.
    ///
    /// # Errors
    /// That the node has no room for what is coming.
    pub(crate) fn read_deadline(&self, limits: &Limits) -> io::Result<Option<Instant>> {
        let mut state = self.state();
        if state.phase == Phase::Request && !state.body_is_open {
            // Nobody reads on before the answer is written.
            state.enter(Phase::Idle);
        }
        if state.phase == Phase::Head && state.arrival.is_cut() {
            return Err(io::Error::other("the node has no room for this head"));
        }
        let longest = match state.phase {
            Phase::Silent => limits.first_byte_max,
            Phase::Head if state.place.refusal().is_some() => {
                limits.head_read_max.min(SILENCE_MAX_WHEN_FULL)
            }
            Phase::Head => limits.head_read_max,
            Phase::Idle => limits.keep_alive_max,
            // Who reads the body, or the socket, says when it is late.
            Phase::Request | Phase::Socket => return Ok(None),
        };
        Ok(Some(state.since + longest))
    }

    /// So many bytes were read.
    pub(crate) fn has_read(&self, bytes: usize) {
        let mut state = self.state();
        match state.phase {
            _ if bytes == 0 => return,
            Phase::Silent => {
                state.place.take(self.requester);
                state.enter(Phase::Head);
            }
            Phase::Idle => state.enter(Phase::Head),
            Phase::Head | Phase::Socket => {}
            // A body is counted where it is gathered.
            Phase::Request => return,
        }
        if state.phase == Phase::Socket && state.bytes == 0 {
            // A message begins now, however long ago the last look was.
            state.pace = Pace::new(Instant::now());
        }
        let held = state.bytes + bytes;
        state.holds(held);
    }

    /// A head is whole, and what it asks for is done now.
    pub(crate) fn begins_request(&self, has_body: bool) {
        let mut state = self.state();
        state.enter(Phase::Request);
        (state.body_is_open, state.left_unread) = (has_body, false);
    }

    /// The request's body came to its end, or nobody wants the rest of it.
    pub(crate) fn body_ends(&self, is_whole: bool) {
        let mut state = self.state();
        state.body_is_open = false;
        state.left_unread |= !is_whole;
    }

    /// Whether bytes may still be coming that nobody wants.
    pub(crate) fn has_left_unread(&self) -> bool {
        self.state().left_unread
    }

    /// So many bytes of a body are held.
    pub(crate) fn body_holds(&self, bytes: usize) {
        self.state().arrival.holds(bytes);
    }

    /// Nothing of the body is held among the arrivals any more.
    pub(crate) fn body_is_taken(&self) {
        self.state().arrival.ends();
    }

    /// Keeps the turn of a large request until it is answered.
    pub(crate) fn keeps(&self, turn: WorkPermit) {
        self.state().turn = Some(turn);
    }

    /// The request is answered: what is written of it needs no turn.
    pub(crate) fn has_answered(&self) {
        // Dropped outside of the lock: it wakes whoever waits for it.
        let turn = self.state().turn.take();
        drop(turn);
    }

    /// From here on what comes is messages.
    pub(crate) fn becomes_socket(&self) {
        self.state().enter(Phase::Socket);
    }

    /// A message has come as a whole and is not kept.
    pub(crate) fn delivered(&self) {
        let mut state = self.state();
        state.arrival.ends();
        state.holds(0);
    }

    /// So many bytes of control frames came, between the parts of a message or alone.
    pub(crate) fn passed(&self, bytes: usize) {
        let mut state = self.state();
        let left = state.bytes.saturating_sub(bytes);
        state.holds(left);
    }

    /// Whether a message is coming.
    pub(crate) fn is_coming(&self) -> bool {
        self.state().bytes > 0
    }

    /// Whether a message comes too slowly, by how much of it came since the last look that was so
    /// long ago; or when the next look is worth it.
    pub(crate) fn check_pace(&self, now: Instant, window: Duration) -> Result<Instant, TooSlow> {
        let mut state = self.state();
        let bytes = state.bytes;
        if bytes == 0 {
            state.pace = Pace::new(now);
        }
        if std::mem::take(&mut state.paused) {
            state.pace = Pace { since: now, bytes };
        }
        state.pace.check(now, window, bytes)
    }

    /// That a message does not come on is the node's doing: it is not reading.
    pub(crate) fn pauses(&self, now: Instant) {
        let mut state = self.state();
        state.pace = Pace { since: now, bytes: state.bytes };
        // It may not be looked at again before the node reads on.
        state.paused = true;
    }

    /// Ready when what is coming has to make room.
    pub(crate) fn poll_cut(&self, context: &Context<'_>) -> Poll<()> {
        self.state().arrival.poll_cut(context)
    }

    /// Ends when what is coming has to make room.
    pub(crate) async fn cut(&self) {
        poll_fn(|context| self.poll_cut(context)).await;
    }

    /// Ends when the client has closed its side for so long, or is known to be gone. Until it is
    /// written to nobody can tell the two apart.
    pub(crate) async fn left(&self, grace: Duration) {
        let Some(stream) = self.stream.upgrade() else { return std::future::pending().await };
        loop {
            match stream.ready(Interest::READABLE | Interest::ERROR).await {
                Ok(ready) if ready.is_error() => return,
                Ok(ready) if ready.is_read_closed() => return tokio::time::sleep(grace).await,
                // The next request waits there: its end is seen by looking again.
                Ok(_) => tokio::time::sleep(LEFT_CHECK_EVERY).await,
                Err(_) => return,
            }
        }
    }
}

impl State {
    fn enter(&mut self, phase: Phase) {
        (self.phase, self.since) = (phase, Instant::now());
        self.body_is_open = false;
        self.arrival.ends();
        self.holds(0);
    }

    fn holds(&mut self, bytes: usize) {
        self.bytes = bytes;
        self.arrival.holds(match self.phase {
            Phase::Socket => bytes * MESSAGE_MEMORY_FACTOR,
            Phase::Silent | Phase::Head | Phase::Request | Phase::Idle => bytes,
        });
    }
}

/// Something comes more slowly than the slowest link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooSlow;

/// How fast something comes.
pub(crate) struct Pace {
    /// When the window began.
    since: Instant,
    /// How much had come then.
    bytes: usize,
}

impl Pace {
    /// Nothing has come yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, bytes: 0 }
    }

    /// When the next look is worth it, so many bytes having come.
    ///
    /// # Errors
    /// That less came since the window began than a slow link brings.
    pub(crate) fn check(
        &mut self,
        now: Instant,
        window: Duration,
        bytes: usize,
    ) -> Result<Instant, TooSlow> {
        if now >= self.since + window {
            let came = bytes.saturating_sub(self.bytes);
            (self.since, self.bytes) = (now, bytes);
            if came < least(window) {
                return Err(TooSlow);
            }
        }
        Ok(self.since + window)
    }
}

/// What comes over a slow link in this time, in bytes.
fn least(window: Duration) -> usize {
    let millis = usize::try_from(window.as_millis()).unwrap_or(usize::MAX);
    SLOWEST_ARRIVAL_BYTES_PER_SECOND.saturating_mul(millis) / 1000
}

#[cfg(test)]
mod tests {
    use actors::{Memory, ShareLimiter, ShareScope};
    use tokio::sync::Semaphore;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    /// Whether what comes at so many bytes a second is taken for a minute.
    fn is_taken(bytes_a_second: usize) -> bool {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        (0..60).all(|second| {
            let now = began + Duration::from_secs(second as u64);
            pace.check(now, WINDOW, second * bytes_a_second).is_ok()
        })
    }

    #[test]
    fn a_link_of_16_kib_a_second_is_taken_and_a_trickle_is_not() {
        assert!(is_taken(16 * 1024));
        assert!(!is_taken(1));
    }

    #[test]
    fn what_came_before_does_not_excuse_what_does_not_come() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        let much = 10 * least(WINDOW);
        assert!(pace.check(began + WINDOW, WINDOW, much).is_ok());
        assert_eq!(pace.check(began + 2 * WINDOW, WINDOW, much), Err(TooSlow));
    }

    #[test]
    fn a_state_ends_when_its_time_is_over() {
        let limits = Limits::default();
        let intake = Intake::detached(&Arrivals::new(1024 * 1024, &Memory::unlimited()));
        let longest = || {
            let deadline = intake.read_deadline(&limits).unwrap()?;
            Some(deadline.duration_since(intake.state().since))
        };
        assert_eq!(longest(), Some(limits.first_byte_max));
        intake.has_read(1);
        assert_eq!(longest(), Some(limits.head_read_max));
        intake.begins_request(true);
        assert_eq!(longest(), None, "whoever gathers the body knows");
        intake.body_ends(true);
        assert_eq!(longest(), Some(limits.keep_alive_max));
        intake.has_read(1);
        assert_eq!(longest(), Some(limits.head_read_max));
        intake.becomes_socket();
        assert_eq!(longest(), None);
    }

    #[test]
    fn a_place_is_taken_with_the_first_byte_and_kept_by_a_socket() {
        let arrivals = Arrivals::new(1024 * 1024, &Memory::unlimited());
        let (places, permits) = (ShareLimiter::new(4, 50), Arc::new(Semaphore::new(5)));
        let connection = |last: u8| {
            let peer = std::net::SocketAddr::from(([10, 0, 0, last], 1)).into();
            let permit = Arc::clone(&permits).try_acquire_owned().unwrap();
            let place = ConnectionPlace::new(places.clone(), permit);
            Intake::new(peer, &arrivals, place, Weak::new())
        };
        let all: Vec<Intake> = (0..4).map(|_| connection(1)).collect();
        assert_eq!(places.used(), 0, "they are silent");
        all.iter().for_each(|intake| intake.has_read(10));
        let refused = |intake: &Intake| intake.found_no_place().map(|exhausted| exhausted.scope);
        let shown: Vec<_> = all.iter().map(refused).collect();
        let address = Some(ShareScope::Address);
        assert_eq!(shown, [None, None, address, address], "half are for others");
        let other = connection(2);
        other.has_read(10);
        assert_eq!(refused(&other), None);
        let deadline = |intake: &Intake| intake.read_deadline(&Limits::default()).unwrap();
        assert!(deadline(&all[2]) < deadline(&all[0]), "it has less time for its head");
        all[0].begins_request(false);
        all[0].becomes_socket();
        drop(all);
        assert_eq!((places.used(), permits.available_permits()), (1, 4), "the other one's");
    }

    #[test]
    fn control_frames_do_not_hide_an_unfinished_message() {
        let intake = Intake::detached(&Arrivals::new(1024 * 1024, &Memory::unlimited()));
        intake.becomes_socket();
        intake.has_read(64 * 1024 + 6);
        intake.passed(6);
        assert_eq!(intake.arrivals.bytes(), MESSAGE_MEMORY_FACTOR * 64 * 1024);
        assert!(intake.is_coming());
        intake.delivered();
        assert!(!intake.is_coming() && intake.arrivals.bytes() == 0);
        intake.has_read(6);
        intake.passed(6);
        assert!(!intake.is_coming());
    }

    #[test]
    fn a_head_that_has_to_give_way_is_read_no_further() {
        let intake = Intake::detached(&Arrivals::new(16 * 1024, &Memory::unlimited()));
        intake.has_read(32 * 1024);
        assert!(intake.read_deadline(&Limits::default()).is_err());
    }
}
