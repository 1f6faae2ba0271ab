//! The transitions of a subscription one by one, and the law of what it lets through.

use model::{BranchId, BranchKey, Head, ModuleId, Revision, Timestamp};
use proptest::prelude::*;

use super::*;

const FIRST: Incarnation = Incarnation(1);

fn cursor(offset: u64) -> Cursor {
    Cursor { incarnation: FIRST, offset: Offset(offset) }
}

fn state(incarnation: u64, offset: u64) -> Arc<ModuleSnapshot> {
    let branch = BranchId::parse("dar").unwrap();
    let head = Head {
        key: BranchKey::new(branch, ModuleId::parse("pos").unwrap()),
        incarnation: Incarnation(incarnation),
        offset: Offset(offset),
        revision: Revision(offset),
        last_updated_at: Timestamp(0),
        rows: 0,
    };
    Arc::new(ModuleSnapshot { head, tables: Vec::new() })
}

fn with_state(offset: u64) -> FollowStart {
    FollowStart { snapshot: Some(state(1, offset)), log: None }
}

fn at_log_end(incarnation: u64, last: u64, is_retained: bool) -> FollowStart {
    let log = LogEnd { incarnation: Incarnation(incarnation), last: Offset(last), is_retained };
    FollowStart { snapshot: None, log: Some(log) }
}

/// A listed module whose events come after this offset.
fn live(offset: u64) -> Subscription {
    let mut subscription = Subscription::new(1, FollowFrom::Snapshot, true);
    subscription.on_started(with_state(offset));
    subscription.pass_barrier();
    subscription
}

#[test]
fn a_listed_module_waits_at_the_barrier_with_its_state() {
    let mut subscription = Subscription::new(1, FollowFrom::Snapshot, true);
    assert!(subscription.is_new() && !subscription.is_ready());
    assert_eq!(subscription.on_started(with_state(7)), Start::Snapshot);
    assert!(subscription.is_ready() && !subscription.is_open());
    let Passage::Snapshot(snapshot, opens) = subscription.pass_barrier() else { panic!("a state") };
    assert!(snapshot.head.offset == Offset(7) && opens && subscription.is_open());
    assert!(!subscription.is_undelivered(Offset(7)) && subscription.is_undelivered(Offset(8)));
}

#[test]
fn a_module_outside_the_list_opens_at_once() {
    let mut subscription = Subscription::new(1, FollowFrom::Snapshot, false);
    assert!(subscription.is_for_publishes_only());
    assert_eq!(subscription.on_started(with_state(7)), Start::Live);
    assert!(!subscription.is_for_publishes_only());
    assert!(matches!(subscription.pass_barrier(), Passage::Nothing));
}

#[test]
fn a_client_goes_on_where_the_log_still_does() {
    for (incarnation, last, is_retained, start) in [
        (1, 9, true, Start::Resumed),
        (1, 7, true, Start::Resumed),
        (2, 9, true, Start::Broken(ResyncReason::OtherIncarnation)),
        (1, 6, true, Start::Broken(ResyncReason::Ahead)),
        (1, 9, false, Start::Broken(ResyncReason::TooOld)),
    ] {
        let mut subscription = Subscription::new(1, FollowFrom::Resume(cursor(7)), true);
        let answer = at_log_end(incarnation, last, is_retained);
        assert_eq!(subscription.on_started(answer), start);
    }
}

#[test]
fn what_a_client_missed_is_undelivered() {
    let mut subscription = Subscription::new(1, FollowFrom::Resume(cursor(7)), true);
    subscription.on_started(at_log_end(1, 9, true));
    let Passage::Resumed(from, to) = subscription.pass_barrier() else { panic!("it goes on") };
    assert_eq!((from, to), (cursor(7), Offset(9)));
    assert_eq!(subscription.on_delta(FIRST, Offset(8), Offset(9)), Delivery::From(Offset(8)));
    assert!(subscription.is_undelivered(Offset(8)));
}

#[test]
fn a_retry_resumes_only_for_a_client_with_cursors() {
    let mut subscription = Subscription::new(1, FollowFrom::Resume(cursor(7)), true);
    assert_eq!(subscription.retry(2, true).0, FollowFrom::Resume(cursor(7)));
    assert_eq!(subscription.retry(3, false).0, FollowFrom::After(cursor(7)));
    assert!(subscription.call() == 3 && !subscription.is_new() && subscription.has_failed());
    let mut subscription = Subscription::new(1, FollowFrom::Snapshot, true);
    assert_eq!(subscription.retry(2, false).0, FollowFrom::Snapshot);
    let mut subscription = Subscription::new(1, FollowFrom::Tail, false);
    assert_eq!(subscription.retry(2, false).0, FollowFrom::Tail);
}

#[test]
fn waits_double_up_to_a_bound() {
    assert_eq!(pause(0), FOLLOW_AGAIN_AFTER);
    assert_eq!(pause(1), FOLLOW_AGAIN_AFTER * 2);
    assert_eq!(pause(u32::MAX), FOLLOW_AGAIN_AFTER_MAX);
}

#[test]
fn a_refresh_asks_for_all_that_was_sent() {
    let mut subscription = live(3);
    subscription.on_delta(FIRST, Offset(4), Offset(5));
    let level = ReadLevel::Session(Offset(0));
    assert_eq!(subscription.refresh(2, level), Refresh::Read(ReadLevel::Session(Offset(5))));
    assert!(subscription.is_refreshed_by(2) && !subscription.is_ready());
    assert!(!subscription.on_state(state(1, 4)), "a replica that went back");
    assert!(!subscription.on_state(state(2, 9)), "another incarnation");
    assert!(subscription.on_state(state(1, 6)));
    let Passage::Snapshot(_, opens) = subscription.pass_barrier() else { panic!("a state") };
    assert!(!opens && !subscription.is_undelivered(Offset(6)));
}

#[test]
fn a_gap_begins_a_listed_module_again() {
    let mut subscription = live(3);
    assert_eq!(subscription.on_delta(FIRST, Offset(5), Offset(5)), Delivery::Restart);
    assert_eq!(subscription.refresh(2, ReadLevel::Session(Offset(0))), Refresh::Follow);
    let mut other = live(3);
    assert_eq!(other.on_delta(Incarnation(2), Offset(4), Offset(4)), Delivery::Restart);
}

#[test]
fn a_gap_outside_the_list_is_passed_over() {
    let mut subscription = Subscription::new(1, FollowFrom::Snapshot, false);
    subscription.on_started(with_state(3));
    let gap = Delivery::AfterGap(Offset(6));
    assert_eq!(subscription.on_delta(FIRST, Offset(6), Offset(7)), gap);
    assert!(subscription.is_undelivered(Offset(6)));
    assert_eq!(subscription.on_delta(FIRST, Offset(8), Offset(8)), Delivery::From(Offset(8)));
}

#[test]
fn a_delta_that_came_before_changes_nothing() {
    let mut subscription = live(0);
    subscription.on_delta(FIRST, Offset(1), Offset(3));
    assert_eq!(subscription.on_delta(FIRST, Offset(1), Offset(2)), Delivery::From(Offset(4)));
    assert_eq!(subscription.on_delta(FIRST, Offset(3), Offset(4)), Delivery::From(Offset(4)));
    assert_eq!(subscription.cursor(), Some(cursor(4)));
}

#[test]
fn a_release_opens_what_waited_at_the_barrier() {
    let mut waits = Subscription::new(1, FollowFrom::Snapshot, true);
    waits.on_started(with_state(3));
    assert!(waits.release() && waits.is_open() && !waits.sends_events());
    let mut refreshing = live(3);
    refreshing.refresh(2, ReadLevel::Linearizable);
    assert!(!refreshing.release() && refreshing.is_open() && !refreshing.is_refreshing());
}

#[test]
fn events_are_sent_from_the_first_publish_on() {
    let mut topics_only = Subscription::new(1, FollowFrom::Tail, false);
    assert!(!topics_only.send_events(), "nothing is known of where it is");
    topics_only.on_started(at_log_end(1, 4, true));
    assert!(topics_only.send_events() && topics_only.sends_events());
    assert!(!topics_only.is_undelivered(Offset(4)) && topics_only.is_undelivered(Offset(5)));
}

/// What happens next to the subscription of a world.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The module changes.
    Change,
    /// The stream brings so many events, beginning so many before the next one.
    Delta { count: u64, again: u64 },
    /// The stream loses so many events.
    Lose(u64),
    /// The stream fell behind and goes on from the state of now.
    Resync,
    /// The stream ends.
    End,
    /// What was asked for is answered; a state may be as old as it was allowed to be.
    Answer { newest: bool, is_retained: bool },
    /// What was asked for fails.
    Fail,
    /// A snapshot is asked for.
    Refresh,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Change),
        8 => (1_u64..4, 0_u64..3).prop_map(|(count, again)| Event::Delta { count, again }),
        1 => (1_u64..3).prop_map(Event::Lose),
        1 => Just(Event::Resync),
        1 => Just(Event::End),
        6 => any::<(bool, bool)>()
            .prop_map(|(newest, is_retained)| Event::Answer { newest, is_retained }),
        1 => Just(Event::Fail),
        1 => Just(Event::Refresh),
    ]
}

#[derive(Clone, Copy)]
enum Call {
    Follow(FollowFrom),
    Read(ReadLevel),
}

/// One listed module, its log, and a client that is sent what the subscription lets through.
struct World {
    subscription: Subscription,
    calls: CallId,
    asked: Option<Call>,
    /// The last event of the log.
    last: u64,
    /// The last event the stream gave.
    stream: u64,
    /// The last event the client has.
    client: u64,
}

impl World {
    fn new(from: FollowFrom) -> Self {
        let asked = Some(Call::Follow(from));
        let subscription = Subscription::new(1, from, true);
        Self { subscription, calls: 1, asked, last: 3, stream: 0, client: 0 }
    }

    fn call(&mut self) -> CallId {
        self.calls += 1;
        self.calls
    }

    fn follow(&mut self) {
        let from = FollowFrom::Snapshot;
        self.subscription = Subscription::new(self.call(), from, true);
        self.asked = Some(Call::Follow(from));
    }

    /// As a session does it: whoever can be read is, others are followed anew.
    fn refresh(&mut self, level: ReadLevel) {
        let call = self.call();
        match self.subscription.refresh(call, level) {
            Refresh::Waits => {}
            Refresh::Read(level) => self.asked = Some(Call::Read(level)),
            Refresh::Follow => self.follow(),
        }
    }

    fn happens(&mut self, event: Event) {
        // Streams are pulled only while nothing waits at the barrier.
        let pulls = self.subscription.is_open() && !self.subscription.is_refreshing();
        match event {
            Event::Change => self.last += 1,
            Event::Delta { count, again } if pulls => self.delta(count, again),
            Event::Lose(count) if pulls => self.stream = self.last.min(self.stream + count),
            Event::Resync if pulls => {
                self.stream = self.last;
                self.subscription.on_resync(&state(1, self.last));
                self.refresh(ReadLevel::Session(Offset(0)));
            }
            Event::End if pulls => self.retry(),
            Event::Answer { newest, is_retained } => self.answer(newest, is_retained),
            Event::Fail => self.fail(),
            Event::Refresh if pulls => self.refresh(ReadLevel::Linearizable),
            Event::Delta { .. } | Event::Lose(_) | Event::Resync | Event::End | Event::Refresh => {}
        }
        if self.subscription.is_ready() {
            self.pass_barrier();
        }
    }

    fn delta(&mut self, count: u64, again: u64) {
        let first = (self.stream + 1).saturating_sub(again).max(1);
        let last = self.last.min(self.stream + count);
        if first > last {
            return;
        }
        self.stream = last;
        match self.subscription.on_delta(FIRST, Offset(first), Offset(last)) {
            Delivery::From(new) => {
                for offset in new.0.max(first)..=last {
                    if self.subscription.is_undelivered(Offset(offset)) {
                        assert_eq!(offset, self.client + 1, "an event is missing or sent twice");
                        self.client = offset;
                    }
                }
            }
            Delivery::AfterGap(_) => panic!("the module is listed"),
            Delivery::Restart => self.refresh(ReadLevel::Session(Offset(0))),
        }
    }

    fn retry(&mut self) {
        let call = self.call();
        let (from, _) = self.subscription.retry(call, false);
        self.asked = Some(Call::Follow(from));
    }

    fn answer(&mut self, newest: bool, is_retained: bool) {
        match self.asked.take() {
            Some(Call::Follow(from)) => {
                let log = at_log_end(1, self.last, is_retained);
                let (at, start) = match from {
                    FollowFrom::After(cursor) if is_retained => {
                        (cursor.offset.0, FollowStart::default())
                    }
                    FollowFrom::Snapshot | FollowFrom::After(_) => {
                        (self.last, with_state(self.last))
                    }
                    FollowFrom::Resume(cursor) => (cursor.offset.0, log),
                    FollowFrom::Tail => (self.last, log),
                };
                self.stream = at;
                if let Start::Broken(_) = self.subscription.on_started(start) {
                    self.follow();
                }
            }
            Some(Call::Read(level)) => {
                let at = match level {
                    ReadLevel::Session(least) if !newest => least.0,
                    ReadLevel::Session(_) | ReadLevel::Linearizable | ReadLevel::Stale => self.last,
                };
                if !self.subscription.on_state(state(1, at)) {
                    self.follow();
                }
            }
            None => {}
        }
    }

    fn fail(&mut self) {
        match self.asked {
            Some(Call::Follow(_)) => self.retry(),
            Some(Call::Read(level)) => {
                let call = self.call();
                self.subscription.on_state_failed(call);
                self.asked = Some(Call::Read(level));
            }
            None => {}
        }
    }

    fn pass_barrier(&mut self) {
        match self.subscription.pass_barrier() {
            Passage::Snapshot(snapshot, _) => {
                let offset = snapshot.head.offset.0;
                assert!(offset >= self.client, "a snapshot that is older than the client");
                self.client = offset;
            }
            Passage::Resumed(from, _) => assert_eq!(from.offset.0, self.client),
            Passage::Nothing => {}
        }
    }
}

proptest! {
    #[test]
    fn what_is_let_through_has_no_gap_and_nothing_twice(
        resumes in any::<bool>(),
        events in prop::collection::vec(event(), 0..200),
    ) {
        let from = if resumes { FollowFrom::Resume(cursor(0)) } else { FollowFrom::Snapshot };
        let mut world = World::new(from);
        for event in events {
            world.happens(event);
        }
        // In the end all is known: nothing waits for ever. A loss shows by the event after it.
        world.happens(Event::Change);
        for _ in 0..500 {
            world.happens(Event::Answer { newest: true, is_retained: true });
            world.happens(Event::Delta { count: 1, again: 0 });
        }
        prop_assert_eq!(world.client, world.last);
    }
}
