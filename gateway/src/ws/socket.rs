//! Socket: the task around a session: it reads, writes, waits, and decides nothing.
//!
//! One task for each socket. What fills the queue is asked first and the queue is written last,
//! so whatever is there at once goes out with one flush; without room nothing is asked, so one
//! slow reader costs the others nothing and its memory stays within its bounds.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::{
    DeltaStream, Follow, HeldMemory, MemoryClass, RouteError, TopicSubscription, offload,
};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, AbortHandle, BoxStream, FuturesUnordered, SelectAll, SplitStream};
use model::{Answer, BranchKey, Catalogue, Outcome, Value};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep, sleep_until};
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};

use crate::app::{App, now};
use crate::error::ApiError;
use crate::intake::Intake;
use crate::limits::{CONTROL_FRAME_BYTES, READ_INLINE_BYTES, REQUEST_COST};
use crate::metrics::FrameKind;
use crate::render::{Pieces, Placeholder, RenderedJson, RowLists};
use crate::scoped_store::ScopedStore;
use crate::wire::SnapshotReason;
use crate::ws::dialect::{self, Dialect, LargeFrame};
use crate::ws::goodbye::{CloseReason, FrameSink, WebSocket, close};
use crate::ws::large_messages::{LargeMessages, ReadMessage};
use crate::ws::outbox::Outbox;
use crate::ws::session::{Session, SessionAction, SessionContext};
use crate::ws::source::{StreamItem, deltas, follow, posts};
use crate::ws::subscription::{CallId, FollowStart, LogEnd};

/// Serves one socket until it ends.
/// `held` counts what it takes of memory.
pub(crate) async fn run(
    app: App,
    store: ScopedStore,
    socket: WebSocket,
    intake: Intake,
    held: HeldMemory,
) {
    let id = uuid::Uuid::new_v4();
    let spread = f64::from(id.as_bytes()[0]) / 255.0;
    let id = format!("client-{id}");
    tracing::debug!(socket = id, "a socket opened");
    app.counters.sockets.increment(1.0);
    let counted = App::clone(&app);
    let (mut sink, mut stream) = socket.split();
    let (server_id, class) = (Arc::clone(&app.server_id), store.policy_class());
    let session = Session::new(id.clone(), server_id, dialect::of_socket(), class, now());
    let mut task = SocketTask::new(app, store, session, (intake, held), spread);
    let end = task.serve(&mut sink, &mut stream).await;
    // Its follows end now, and not only when the client has taken the goodbye.
    drop(task);
    close(end, sink, stream).await;
    counted.counters.sockets.decrement(1.0);
    if end == CloseReason::Stalled {
        counted.counters.stalled.increment(1);
    }
    tracing::debug!(socket = id, ?end, "a socket ended");
}

/// What a session asked for and that was done elsewhere.
enum TaskResult {
    Decided(BranchKey, Result<Outcome, RouteError>),
    /// A follow, and where the log stands, if that was asked.
    Started(CallId, Result<(Follow, Option<LogEnd>), RouteError>),
    Answered(CallId, Result<Answer, RouteError>),
    TopicSubscribed(CallId, Result<TopicSubscription, RouteError>),
    Posted(Result<(), RouteError>),
}

/// A large frame and where it goes; or which request it answers, and why it cannot be written.
type Rendered = Result<(RenderedJson, FrameKind), (Option<Value>, ApiError)>;

struct SocketTask {
    app: App,
    /// The data as the session's principal may see and change it.
    store: ScopedStore,
    session: Session,
    intake: Intake,
    outbox: Outbox,
    /// What the session asked for and that waits for a snapshot being written.
    actions: VecDeque<SessionAction>,
    rendering: Option<BoxFuture<'static, Rendered>>,
    large: LargeMessages,
    /// What publishes without an outcome take of the node's memory.
    publishes: HeldMemory,
    /// What the session asked the store for and that is not answered yet.
    calls: FuturesUnordered<BoxFuture<'static, TaskResult>>,
    /// Follows that began, and whose streams the session has not opened yet.
    unopened: HashMap<CallId, Box<dyn DeltaStream>>,
    /// Ends the streams that are pulled.
    abort_handles: HashMap<CallId, AbortHandle>,
    streams: SelectAll<BoxStream<'static, (CallId, StreamItem)>>,
    catalogues: watch::Receiver<Arc<Catalogue>>,
    /// When the client last said anything, or could not.
    received_at: Instant,
    ping_at: Instant,
    /// A number from 0 to 1 that differs from socket to socket.
    spread: f64,
    leave_at: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl SocketTask {
    fn new(
        app: App,
        store: ScopedStore,
        (session, hello): (Session, Vec<SessionAction>),
        (intake, held): (Intake, HeldMemory),
        spread: f64,
    ) -> Self {
        let now = Instant::now();
        let ping_at = now + app.limits.ping_every;
        let catalogues = app.node().catalogues();
        Self {
            large: LargeMessages::new(&app),
            publishes: app.memory.hold(MemoryClass::Requests, 0),
            outbox: Outbox::new(app.limits.outbox_frames_max, app.limits.outbox_bytes_max, held),
            app,
            store,
            session,
            intake,
            actions: hello.into(),
            rendering: None,
            calls: FuturesUnordered::new(),
            unopened: HashMap::new(),
            abort_handles: HashMap::new(),
            streams: SelectAll::new(),
            catalogues,
            received_at: now,
            ping_at,
            spread,
            leave_at: None,
            timer: Box::pin(sleep_until(ping_at.into())),
        }
    }

    async fn serve(
        &mut self,
        sink: &mut FrameSink,
        stream: &mut SplitStream<WebSocket>,
    ) -> CloseReason {
        loop {
            // First what the session wants done: whether more may be read depends on it.
            self.run_actions();
            if self.session.is_idle() {
                self.large.decided();
            }
            self.publishes.set(self.session.publish_bytes() as u64 * REQUEST_COST);
            if let Some(end) = self.on_time(Instant::now()) {
                return end;
            }
            let (reading, pulling) = (self.may_read(), self.may_pull() && !self.streams.is_empty());
            let staying = self.leave_at.is_none();
            let this = &mut *self;
            // In this order: what is done, what changed, what is asked, then writing it all.
            tokio::select! {
                biased;
                () = this.app.draining.cancelled(), if staying => {
                    let later = self.app.limits.drain_spread.mul_f64(self.spread);
                    self.leave_at = Some(Instant::now() + later);
                }
                rendered = poll_fn(|context| match &mut this.rendering {
                    Some(rendering) => rendering.as_mut().poll(context),
                    None => std::task::Poll::Pending,
                }) => self.on_rendered(rendered),
                message = poll_fn(|context| this.large.poll_read(context)) => {
                    if let Some(end) = self.on_read(message) {
                        return end;
                    }
                }
                () = this.intake.cut() => return CloseReason::Crowded,
                Some(done) = this.calls.next(), if !this.calls.is_empty() => self.on_done(done),
                Ok(()) = this.catalogues.changed() => {
                    self.with_session(|session, cx| session.on_catalogue(cx));
                }
                Some((call, pulled)) = this.streams.next(), if pulling => {
                    self.on_stream_item(call, &pulled);
                }
                message = stream.next(), if reading => {
                    if let Some(end) = self.on_message(message) {
                        return end;
                    }
                }
                written = poll_fn(|context| {
                    this.outbox.poll_write(Pin::new(&mut *sink), &this.app.counters, context)
                }), if this.outbox.has_work() => {
                    if written.is_err() {
                        return CloseReason::Gone;
                    }
                }
                () = this.timer.as_mut() => {}
            }
        }
    }

    /// Whether the client may ask for more.
    fn may_read(&self) -> bool {
        let busy = self.session.is_busy() || self.large.is_busy();
        // Where requests hold too much, a client waits for what it has sent.
        let waits = self.publishes.bytes() > 0 && self.publishes.is_over();
        let ready = self.rendering.is_none() && !busy && !waits;
        ready && self.outbox.accepts_more() && !self.outbox.has_snapshot() && !self.is_leaving()
    }

    /// Whether the streams may give more.
    fn may_pull(&self) -> bool {
        // A topic may show a state with each word: the next is not made before one is taken.
        let ready = self.rendering.is_none() && !self.session.is_holding();
        ready && self.outbox.accepts_more() && !self.outbox.has_snapshot() && !self.is_leaving()
    }

    fn is_leaving(&self) -> bool {
        self.leave_at.is_some_and(|leave_at| leave_at <= Instant::now())
    }

    /// Does what its time has come for, and sets the timer for the next.
    fn on_time(&mut self, now: Instant) -> Option<CloseReason> {
        let limits = &self.app.limits;
        // It counts among what is coming until it is its turn.
        let turn_at = self.large.waits_until().filter(|_| self.intake.is_coming());
        if turn_at.is_some_and(|at| at <= now) {
            return Some(CloseReason::Crowded);
        }
        let mut pace_at = None;
        if self.may_read() {
            let Ok(look_at) = self.intake.check_pace(now, limits.pace_window) else {
                return Some(CloseReason::TooSlow);
            };
            pace_at = self.intake.is_coming().then_some(look_at);
        } else {
            self.intake.pauses(now);
        }
        if !self.may_read() || self.intake.is_coming() {
            // The silence is ours, or there is none.
            self.received_at = now;
        }
        let idle_at = self.received_at + limits.idle_max;
        let stalls_at = self.outbox.stalls_at(limits.stall_max);
        let over_at = self.leave_at.map(|leave_at| leave_at + limits.drain_max);
        let at_rest = self.session.is_idle() && self.actions.is_empty() && !self.outbox.has_work();
        if stalls_at.is_some_and(|at| at <= now) {
            return Some(CloseReason::Stalled);
        }
        if idle_at <= now {
            return Some(CloseReason::Idle);
        }
        if over_at.is_some_and(|at| at <= now) || (self.is_leaving() && at_rest) {
            return Some(CloseReason::Leaving);
        }
        if self.ping_at <= now {
            self.ping_at = now + limits.ping_every;
            self.outbox.ping();
        }
        let leave_at = self.leave_at.filter(|at| *at > now).or(over_at);
        let next = [stalls_at, leave_at, pace_at, turn_at].into_iter().flatten();
        let next = next.fold(idle_at.min(self.ping_at), Instant::min);
        // A timer that goes off early costs one turn; resetting it each turn costs every turn.
        if self.timer.is_elapsed() || next < self.timer.deadline().into_std() {
            self.timer.as_mut().reset(next.into());
        }
        None
    }

    /// Tells the session something and takes up what it wants done.
    fn with_session(
        &mut self,
        what: impl FnOnce(&mut Session, SessionContext<'_>) -> Vec<SessionAction>,
    ) {
        let catalogue = self.app.node().catalogue();
        let cx = SessionContext { now: now(), catalogue: &catalogue };
        self.actions.extend(what(&mut self.session, cx));
    }

    fn on_message(&mut self, message: Option<tungstenite::Result<Message>>) -> Option<CloseReason> {
        self.received_at = Instant::now();
        let message = match message {
            Some(Ok(Message::Text(text))) => Bytes::from(text),
            Some(Ok(Message::Binary(bytes))) => bytes,
            Some(Ok(Message::Ping(data) | Message::Pong(data))) => {
                // It may stand between the parts of a message, which goes on coming.
                self.intake.passed(CONTROL_FRAME_BYTES + data.len());
                return None;
            }
            // Whole messages only are given, never a raw frame.
            Some(Ok(Message::Frame(_))) => return None,
            Some(Ok(Message::Close(_))) | None => return Some(CloseReason::Gone),
            Some(Err(error)) => return Some(CloseReason::of(&error)),
        };
        if message.len() > READ_INLINE_BYTES {
            let (dialect, intake) = (self.session.dialect(), self.intake.clone());
            self.large.came(message, dialect, intake, Instant::now());
            return None;
        }
        self.intake.delivered();
        self.with_session(|session, cx| session.on_message(&message, cx));
        None
    }

    /// A large message was read.
    fn on_read(&mut self, message: ReadMessage) -> Option<CloseReason> {
        match message {
            // What a session says of a frame is worked out here, whatever its size; the other
            // sockets of this thread go on elsewhere meanwhile.
            ReadMessage::Frame(message, frame) => offload(message.len(), || {
                self.with_session(|session, cx| session.on_read(&message, frame, cx));
                None
            }),
            ReadMessage::TooLarge => Some(CloseReason::TooLarge),
            ReadMessage::Failed => Some(CloseReason::Gone),
        }
    }

    fn on_done(&mut self, done: TaskResult) {
        match done {
            TaskResult::Decided(key, outcome) => {
                self.with_session(|session, cx| session.on_outcome(&key, outcome, cx));
            }
            TaskResult::Started(call, result) => self.on_started(call, result),
            TaskResult::Answered(call, answer) => {
                self.with_session(|session, cx| session.on_answer(call, answer, cx));
            }
            TaskResult::TopicSubscribed(call, result) => self.on_topic_subscribed(call, result),
            TaskResult::Posted(result) => self.with_session(|session, _| session.on_posted(result)),
        }
    }

    fn on_started(&mut self, call: CallId, result: Result<(Follow, Option<LogEnd>), RouteError>) {
        let result = result.map(|(follow, log)| {
            // Not pulled before the session opens it: its events come after the snapshot they
            // follow.
            self.unopened.insert(call, follow.stream);
            FollowStart { snapshot: follow.snapshot, log }
        });
        self.with_session(|session, cx| session.on_followed(call, result, cx));
    }

    fn on_topic_subscribed(&mut self, call: CallId, result: Result<TopicSubscription, RouteError>) {
        let last = result.map(|listening| {
            // Pulled at once: no post has to wait for a snapshot.
            self.add_stream(call, posts(call, listening.posts).boxed());
            listening.last
        });
        self.with_session(|session, _| session.on_topic_subscribed(call, last));
    }

    fn on_stream_item(&mut self, call: CallId, pulled: &StreamItem) {
        self.with_session(|session, cx| match pulled {
            StreamItem::Delta(shared) => session.on_delta(call, shared, cx),
            StreamItem::Resync(snapshot) => session.on_resync(call, snapshot, cx),
            StreamItem::Ended => session.on_ended(call),
            StreamItem::Post(post) => session.on_post(call, Arc::clone(post)),
        });
    }

    /// Does what the session asked for, up to a snapshot that has to be written elsewhere.
    fn run_actions(&mut self) {
        while self.rendering.is_none() {
            let Some(action) = self.actions.pop_front() else { return };
            match action {
                SessionAction::Send(frame, kind) => self.outbox.push(frame, kind),
                SessionAction::Write(frame) => self.rendering = Some(self.render(frame)),
                SessionAction::Follow { call, key, from, wait } => {
                    let store = self.store.clone();
                    self.calls.push(Box::pin(async move {
                        delay(wait).await;
                        TaskResult::Started(call, follow(&store, key, from).await)
                    }));
                }
                SessionAction::Read { call, key, read, level, wait } => {
                    let store = self.store.clone();
                    self.calls.push(Box::pin(async move {
                        delay(wait).await;
                        TaskResult::Answered(call, store.read(key, read, level).await)
                    }));
                }
                SessionAction::SubscribeTopic { call, topic } => {
                    let store = self.store.clone();
                    self.calls.push(Box::pin(async move {
                        TaskResult::TopicSubscribed(call, store.subscribe(topic).await)
                    }));
                }
                SessionAction::Post(post) => {
                    let store = self.store.clone();
                    self.calls.push(Box::pin(async move {
                        TaskResult::Posted(store.publish(post).await)
                    }));
                }
                SessionAction::Open(call) => self.open_stream(call),
                SessionAction::Drop(call) => {
                    // It may be answered, pulled, or neither yet: then its answer is dropped too.
                    self.unopened.remove(&call);
                    if let Some(handle) = self.abort_handles.remove(&call) {
                        handle.abort();
                    }
                }
                SessionAction::Submit(command) => {
                    let key = command.key.clone();
                    let store = self.store.clone();
                    self.calls.push(Box::pin(async move {
                        TaskResult::Decided(key, store.submit(command).await)
                    }));
                }
            }
        }
    }

    fn render(&self, frame: LargeFrame) -> BoxFuture<'static, Rendered> {
        if let LargeFrame::Snapshot(snapshot) = &frame
            && snapshot.reason == SnapshotReason::Resync
        {
            self.app.counters.resyncs.increment(1);
        }
        let renderer = self.app.renderer(&self.store);
        let dialect = self.session.dialect();
        Box::pin(async move {
            let (rows, kind) = (frame.rows(), frame.as_frame().kind());
            let request_id = frame.request_id().cloned();
            let written = renderer.written(rows, move || frame.pieces(dialect)).await;
            written.map(|written| (written, kind)).map_err(|error| (request_id, error))
        })
    }

    fn on_rendered(&mut self, rendered: Rendered) {
        self.rendering = None;
        match rendered {
            Ok((RenderedJson::Pieces(pieces, _), _)) => self.outbox.push_pieces(pieces),
            Ok((RenderedJson::Whole(text), kind)) => {
                // JSON is text: the writer gives nothing else.
                let text = Utf8Bytes::try_from(text).unwrap_or_default();
                self.outbox.push(text, kind);
            }
            Err((request_id, error)) => {
                // What is said of it comes where it would have been: before all that waited for it.
                let waiting = std::mem::take(&mut self.actions);
                let failed = (request_id.as_ref(), &error);
                self.with_session(|session, cx| session.on_not_written(failed.0, failed.1, cx));
                self.actions.extend(waiting);
            }
        }
    }

    fn open_stream(&mut self, call: CallId) {
        if let Some(unopened) = self.unopened.remove(&call) {
            self.add_stream(
                call,
                deltas(
                    App::clone(&self.app),
                    self.store.clone(),
                    self.session.dialect(),
                    call,
                    unopened,
                )
                .boxed(),
            );
        }
    }

    fn add_stream(&mut self, call: CallId, items: BoxStream<'static, (CallId, StreamItem)>) {
        // Abortable, as nothing can be taken out of the selected streams again.
        let (items, handle) = stream::abortable(items);
        self.abort_handles.insert(call, handle);
        self.streams.push(items.boxed());
    }
}

impl LargeFrame {
    /// How much work it is to write.
    fn rows(&self) -> u64 {
        match self {
            Self::Snapshot(frame) => frame.rows(),
            Self::Rows(frame) => frame.rows.len() as u64,
            Self::Topic(frame) => frame.rows(),
        }
    }

    /// The request it answers.
    fn request_id(&self) -> Option<&Value> {
        match self {
            Self::Snapshot(frame) => frame.request_id.as_ref(),
            Self::Rows(frame) => frame.request_id.as_ref(),
            Self::Topic(_) => None,
        }
    }

    /// Its text, its rows to be written one after the other.
    fn pieces(mut self, dialect: &dyn Dialect) -> Result<Pieces, ApiError> {
        let mark = Placeholder::new();
        // What is large is taken out, and a placeholder written where it was.
        let lists = match &mut self {
            Self::Snapshot(frame) => {
                let modules = std::mem::take(&mut frame.modules);
                frame.modules = mark.modules(&modules);
                RowLists::Modules(modules)
            }
            Self::Topic(frame) => {
                let modules: Vec<_> = frame.snapshot.take().into_iter().collect();
                frame.snapshot = mark.modules(&modules).pop();
                RowLists::Modules(modules)
            }
            Self::Rows(frame) => {
                let rows = std::mem::take(&mut frame.rows);
                frame.rows = mark.list(0, &rows);
                RowLists::Rows(rows)
            }
        };
        Pieces::new(&dialect.render(&self.as_frame())?, &mark, lists)
    }
}

/// Waits, where there is anything to wait for.
async fn delay(wait: Duration) {
    if !wait.is_zero() {
        sleep(wait).await;
    }
}
