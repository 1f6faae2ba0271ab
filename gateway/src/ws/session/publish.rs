//! Publishing: from a publish to its acknowledgement, or to why there is none.

use std::sync::Arc;

use actors::RouteError;
use model::{
    BranchKey, Command, CommandId, Event, Incarnation, Object, Outcome, RecordMutation, Request,
    Transaction, Value,
};

use super::{Session, SessionAction, SessionContext};
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::publish::{Publish, event_of, request_id};
use crate::ws::dialect::ServerFrame;
use crate::ws::publish_queue::{PendingReply, QueuedPublish, ReplyKind};
use crate::ws::subscription::{FollowFrom, Subscription};

/// Refuses a module that is not in the catalogue.
pub(super) fn module_exists(key: &BranchKey, cx: SessionContext<'_>) -> Result<(), ApiError> {
    match cx.catalogue.module(&key.module) {
        Some(_) => Ok(()),
        None => Err(RouteError::UnknownModule(key.module.to_string()).into()),
    }
}

impl Session {
    pub(super) fn publish(
        &mut self,
        frame: Object,
        bytes: usize,
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        let named = request_id(&frame);
        let Some(member) = &self.member else {
            let message = "Client attempted publish before hello handshake";
            return self.before_hello(named.as_ref(), message, cx);
        };
        let (branch, user) = (member.branch.clone(), member.user.clone());
        let validation = |module: &_| cx.catalogue.validation_of(module);
        let place = place_of(&frame);
        let checked = Publish::read(frame, "ws-client", validation).and_then(|publish| {
            let key = BranchKey::new(branch, publish.module.clone());
            module_exists(&key, cx)?;
            known_members::refuse_other_place(&place, &key, validation(&key.module))?;
            Ok((key, publish))
        });
        let (key, publish) = match checked {
            Ok(checked) => checked,
            Err(error) => return self.failed(named.as_ref(), &error, cx.now),
        };
        let Publish { module: _, table, action, record, mut origin, request } = publish;
        let id = self.name(request);
        origin.client = Some(self.client().to_owned());
        origin.user = origin.user.or(user);
        let mutation = RecordMutation::new(action, table, record);
        let request = Request::Transaction(Transaction::of(vec![mutation]));
        let command = Command { id, key, origin: Arc::new(origin), request };
        let pending = PendingReply { request_id: named, reply: ReplyKind::Ack };
        self.enqueue(QueuedPublish { command, pending, bytes })
    }

    pub(super) fn before_hello(
        &self,
        request_id: Option<&Value>,
        message: &str,
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        let error = ApiError::new(Problem::HelloRequired, message);
        self.failed(request_id, &error, cx.now)
    }

    /// Puts a publish to the session's branch into its queue; its module's events will be seen.
    pub(super) fn enqueue(&mut self, queued: QueuedPublish) -> Vec<SessionAction> {
        let mut actions = Vec::new();
        let key = queued.command.key.clone();
        self.publishes.add(queued);
        // Followed before it is submitted, so that its event cannot be missed.
        if !self.subscriptions.get_mut(&key).is_some_and(Subscription::send_events) {
            self.follow(key, FollowFrom::Snapshot, false, &mut actions);
        }
        self.submit_ready(&mut actions);
        actions
    }

    /// What a publish is called for ever. A client that names itself in its hello may repeat a
    /// request after a reload; else an id holds for this socket only.
    pub(super) fn name(&mut self, request: Option<String>) -> CommandId {
        match request {
            Some(request) => CommandId::of_client(self.client(), request),
            None => {
                self.unnamed_commands += 1;
                CommandId::server_named(format!("{}/{}", self.id, self.unnamed_commands))
            }
        }
    }

    pub(super) fn client(&self) -> &str {
        let own = self.member.as_ref().and_then(|member| member.client.as_deref());
        own.unwrap_or(&self.id)
    }

    /// Submits what may be submitted: not before the module's events would be seen.
    pub(super) fn submit_ready(&mut self, actions: &mut Vec<SessionAction>) {
        let subscriptions = &self.subscriptions;
        let commands = self
            .publishes
            .next_commands(|key| subscriptions.get(key).is_none_or(|module| !module.is_new()));
        actions.extend(commands.into_iter().map(SessionAction::Submit));
    }

    /// A submitted command was decided, or not.
    pub(crate) fn on_outcome(
        &mut self,
        key: &BranchKey,
        result: Result<Outcome, RouteError>,
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        let Some(own) = self.publishes.complete(key) else { return Vec::new() };
        let mut actions = match &own.pending.reply {
            ReplyKind::Post(posted) => self.on_post_decided(key, posted, result, cx),
            // Its event came first, and spoke for the outcome.
            ReplyKind::Ack | ReplyKind::Batch if own.acknowledged => Vec::new(),
            ReplyKind::Ack | ReplyKind::Batch => {
                // The client is told so; should the event come after all, it acknowledges then.
                if result == Err(RouteError::Indeterminate) {
                    self.publishes.remember_unknown(own.id, own.pending.clone());
                }
                self.answer(key, &own.pending, result, cx)
            }
        };
        // Whatever became of it, the next of its module may be decided now.
        self.submit_ready(&mut actions);
        actions
    }

    fn answer(
        &self,
        key: &BranchKey,
        pending: &PendingReply,
        result: Result<Outcome, RouteError>,
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        let request_id = pending.request_id.as_ref();
        let error = match result {
            Ok(Outcome::Accepted(accepted)) => match event_of(&accepted) {
                Ok(_) => {
                    let (incarnation, events) =
                        (accepted.delta.incarnation, &accepted.delta.events);
                    return self
                        .acknowledge(pending, key, incarnation, events)
                        .into_iter()
                        .collect();
                }
                Err(error) => error,
            },
            Ok(Outcome::Rejected(reject)) => reject.into(),
            Err(error) => error.into(),
        };
        self.failed(request_id, &error, cx.now)
    }

    /// The answer to a publish that made these events.
    pub(super) fn acknowledge(
        &self,
        pending: &PendingReply,
        key: &BranchKey,
        incarnation: Incarnation,
        events: &[Arc<Event>],
    ) -> Option<SessionAction> {
        let (server_id, request_id) = (&*self.server_id, pending.request_id.as_ref());
        Some(self.send(&match &pending.reply {
            ReplyKind::Ack => {
                let event = events.first()?;
                ServerFrame::Ack { server_id, key, incarnation, event }
            }
            ReplyKind::Batch => {
                ServerFrame::BatchAck { server_id, key, incarnation, request_id, events }
            }
            ReplyKind::Post(_) => return None,
        }))
    }
}

/// What a frame says of its place.
pub(super) fn place_of(frame: &Object) -> Object {
    let place = ["branchId", "branch"].into_iter();
    place.filter_map(|name| Some((name, frame.get(name)?.clone()))).collect()
}
