//! The law of what a client is told: however reads, streams and requests meet, each event reaches
//! it once and in order, by itself or in a snapshot, and no snapshot is older than what it has.

use actors::Cursor;
use model::BulkOperation;
use proptest::prelude::*;

use super::*;

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The module changes, by a record or, for some, as a whole.
    Change(u8),
    /// The stream brings its next delta, if it is pulled.
    Pull,
    /// The first thing asked for is answered; a state may be as old as it was allowed to be.
    Answer { newest: bool },
    /// …or is not.
    Fail,
    /// The client asks for a snapshot.
    Ask,
    /// The stream falls behind and goes on from the state of now.
    Lag,
    /// The stream ends.
    End,
    /// The client goes and comes back with the cursor it has.
    Return,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u8>().prop_map(Step::Change),
        8 => Just(Step::Pull),
        8 => any::<bool>().prop_map(|newest| Step::Answer { newest }),
        1 => Just(Step::Fail),
        1 => Just(Step::Ask),
        1 => Just(Step::Lag),
        1 => Just(Step::End),
        1 => Just(Step::Return),
    ]
}

/// One session in branch `remal` with its module `pos`, its log, and the client.
struct World {
    story: Story,
    /// Whether each event changed the module as a whole.
    log: Vec<bool>,
    /// The open follow, and the last event it brought.
    stream: Option<(CallId, u64)>,
    /// Follows that are answered but not open.
    parked: BTreeMap<CallId, u64>,
    asked: VecDeque<SessionAction>,
    /// The last event the client knows of, and the last it was told of under a topic.
    client: u64,
    heard: u64,
}

impl World {
    fn last(&self) -> u64 {
        self.log.len() as u64
    }

    fn event(&self, offset: u64) -> Delta {
        let mut delta = if self.log[offset as usize - 1] {
            modules::operation(BulkOperation::Purge, offset, "{}")
        } else {
            delta("pos", offset, "x/1")
        };
        delta.key = key("remal", "pos");
        delta
    }

    fn state(offset: u64) -> Arc<ModuleSnapshot> {
        let mut snapshot = snapshot("pos", offset);
        snapshot.head.key = key("remal", "pos");
        Arc::new(snapshot)
    }

    fn does(&mut self, actions: Vec<SessionAction>) {
        for action in actions {
            match action {
                SessionAction::Send(frame, FrameKind::Event) => {
                    let frame = Value::from_json(frame.as_bytes()).unwrap();
                    let cursor = frame.get("cursor").unwrap();
                    let offset = cursor.get("sequence").and_then(Value::as_u64).unwrap();
                    assert_eq!(offset, self.client + 1, "an event is missing or told twice");
                    self.client = offset;
                }
                SessionAction::Send(frame, _) => self.hear(&frame),
                SessionAction::Write(LargeFrame::Snapshot(frame)) => {
                    let offset = frame.modules[0].head.offset.0;
                    assert!(offset >= self.client, "a snapshot that is older than the client");
                    self.client = offset;
                }
                SessionAction::Open(call) => {
                    let at = self.parked.remove(&call).expect("a follow that was answered");
                    assert!(self.stream.replace((call, at)).is_none(), "two streams");
                }
                SessionAction::Drop(call) => {
                    self.parked.remove(&call);
                    self.stream = self.stream.filter(|(open, _)| *open != call);
                }
                action @ (SessionAction::Follow { .. } | SessionAction::Read { .. }) => {
                    self.asked.push_back(action);
                }
                SessionAction::Write(_)
                | SessionAction::Submit(_)
                | SessionAction::SubscribeTopic { .. }
                | SessionAction::Post(_) => {
                    panic!("nobody asked for this");
                }
            }
        }
    }

    /// A word under the topic of the table.
    fn hear(&mut self, frame: &str) {
        let frame = Value::from_json(frame.as_bytes()).unwrap();
        let data = frame.get("data");
        let said = data.and_then(|data| data.get("set").or_else(|| data.get("snapshot")));
        if let Some(offset) = said.and_then(|said| said.get("sequence")).and_then(Value::as_u64) {
            assert!(offset > self.heard, "a topic goes back or says something twice");
            self.heard = offset;
        }
    }

    fn says(&mut self, message: &str) {
        let cx = SessionContext { now: AT, catalogue: &self.story.catalogue };
        let actions = self.story.session.on_message(message.as_bytes(), cx);
        self.does(actions);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Change(kind) => self.log.push(kind.is_multiple_of(8)),
            Step::Pull => self.pull(),
            Step::Answer { newest } => self.answer(newest),
            Step::Fail => self.fail(),
            Step::Ask if !self.story.session.is_busy() => {
                self.says(r#"{"type":"client:request:snapshot"}"#);
            }
            Step::Ask => {}
            Step::Lag | Step::End if self.story.session.is_holding() => {}
            Step::Lag => {
                let Some((call, _)) = self.stream else { return };
                let last = self.last();
                self.stream = Some((call, last));
                let cx = SessionContext { now: AT, catalogue: &self.story.catalogue };
                let actions = self.story.session.on_resync(call, &Self::state(last), cx);
                self.does(actions);
            }
            Step::End => {
                let Some((call, _)) = self.stream else { return };
                let actions = self.story.session.on_ended(call);
                self.does(actions);
            }
            Step::Return if !self.story.session.is_busy() => {
                let cursor = format!(r#"{{"pos":{{"epoch":1,"sequence":{}}}}}"#, self.client);
                self.says(&format!(
                    r#"{{"type":"client:hello","branchId":"remal","resume":{cursor}}}"#
                ));
            }
            Step::Return => {}
        }
    }

    fn pull(&mut self) {
        let Some((call, at)) = self.stream else { return };
        if at == self.last() || self.story.session.is_holding() {
            return;
        }
        self.stream = Some((call, at + 1));
        let shared = SharedDelta::new(Arc::new(self.event(at + 1)));
        let cx = SessionContext { now: AT, catalogue: &self.story.catalogue };
        let actions = self.story.session.on_delta(call, &shared, cx);
        self.does(actions);
    }

    fn answer(&mut self, newest: bool) {
        let cx = SessionContext { now: AT, catalogue: &self.story.catalogue.clone() };
        let last = self.last();
        let actions = match self.asked.pop_front() {
            Some(SessionAction::Follow { call, from, .. }) => {
                let log =
                    LogEnd { incarnation: Incarnation(1), last: Offset(last), is_retained: true };
                let (at, begun) = match from {
                    FollowFrom::Snapshot => {
                        let snapshot = Some(Self::state(last));
                        (last, FollowStart { snapshot, log: None })
                    }
                    FollowFrom::After(Cursor { offset, .. }) => (offset.0, FollowStart::default()),
                    FollowFrom::Resume(Cursor { offset, .. }) => {
                        (offset.0, FollowStart { snapshot: None, log: Some(log) })
                    }
                    FollowFrom::Tail => (last, FollowStart { snapshot: None, log: Some(log) }),
                };
                self.parked.insert(call, at);
                self.story.session.on_followed(call, Ok(begun), cx)
            }
            Some(SessionAction::Read { call, read: Read::Snapshot, level, .. }) => {
                let at = match level {
                    ReadLevel::Session(least) if !newest => least.0,
                    ReadLevel::Session(_) | ReadLevel::Linearizable | ReadLevel::Stale => last,
                };
                let answer = Ok(Answer::Snapshot(Self::state(at)));
                self.story.session.on_answer(call, answer, cx)
            }
            Some(SessionAction::Read { call, .. }) => {
                let all = (1..=last).flat_map(|offset| self.event(offset).events);
                let events = Some(all.collect());
                let found =
                    model::Events { incarnation: Incarnation(1), last: Offset(last), events };
                self.story.session.on_answer(call, Ok(Answer::Events(found)), cx)
            }
            Some(_) | None => return,
        };
        self.does(actions);
    }

    fn fail(&mut self) {
        let cx = SessionContext { now: AT, catalogue: &self.story.catalogue.clone() };
        let actions = match self.asked.pop_front() {
            Some(SessionAction::Follow { call, .. }) => {
                self.story.session.on_followed(call, Err(RouteError::Indeterminate), cx)
            }
            Some(SessionAction::Read { call, .. }) => {
                self.story.session.on_answer(call, Err(RouteError::Indeterminate), cx)
            }
            Some(_) | None => return,
        };
        self.does(actions);
    }
}

proptest! {
    #[test]
    fn each_event_reaches_the_client_once_and_in_order(
        before in 0_usize..5,
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let mut world = World {
            story: Story::begin(),
            log: vec![false; before],
            stream: None,
            parked: BTreeMap::new(),
            asked: VecDeque::new(),
            client: 0,
            heard: 0,
        };
        world.says(r#"{"type":"subscribe","topic":"table::tickets"}"#);
        world.says(r#"{"type":"client:hello","branchId":"remal"}"#);
        for next in steps {
            world.step(next);
        }
        // In the end all is known: nothing waits for ever.
        for _ in 0..1_000 {
            world.answer(true);
            world.pull();
        }
        prop_assert_eq!(world.client, world.last());
    }
}
