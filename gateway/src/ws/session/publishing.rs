//! Publishing: from a publish to its acknowledgement, or to why there is none.

use std::sync::Arc;

use actors::RouteError;
use model::{
    BranchKey, Command, CommandId, Event, Incarnation, Mutation, Object, Outcome, Request, Value,
    Write,
};

use super::{Action, Begin, Moment, Session};
use crate::auth::{Access, Intent, authorize};
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::metrics::Channel;
use crate::publish::{Publish, event_of, request_id};
use crate::wire::Shown;
use crate::ws::frame;
use crate::ws::lane::{Owed, Reply, Waiting};

impl Session {
    pub(super) fn publish(
        &mut self,
        frame: Object,
        bytes: usize,
        moment: Moment<'_>,
    ) -> Vec<Action> {
        let named = request_id(&frame);
        let Some(member) = &self.member else {
            let message = "Client attempted publish before hello handshake";
            return self.before_hello(named.as_ref(), message, moment);
        };
        let (branch, user) = (member.branch.clone(), member.user.clone());
        let validation = |module: &_| moment.catalogue.validation_of(module);
        let place = place_said(&frame);
        let checked = Publish::read(frame, "ws-client", validation).and_then(|publish| {
            let key = BranchKey::new(branch, publish.module.clone());
            self.may_write(&key, moment)?;
            known_members::refuse_other_place(&place, &key, validation(&key.module))?;
            Ok((key, publish))
        });
        let (key, publish) = match checked {
            Ok(checked) => checked,
            Err(error) => return self.failed(named.as_ref(), &error, moment.at),
        };
        let Publish { module: _, table, action, record, mut origin, request } = publish;
        let id = self.name(request);
        origin.client = Some(self.client().to_owned());
        origin.user = origin.user.or(user);
        let mutation = Mutation::new(action, table, record);
        let request = Request::Write(Write::of(vec![mutation]));
        let command = Command { id, key, origin: Arc::new(origin), request };
        let owed = Owed { request_id: named, reply: Reply::Ack };
        self.enqueue(Waiting { command, owed, bytes })
    }

    pub(super) fn before_hello(
        &self,
        request_id: Option<&Value>,
        message: &str,
        moment: Moment<'_>,
    ) -> Vec<Action> {
        let error = ApiError::new(Problem::HelloRequired, message);
        self.failed(request_id, &error, moment.at)
    }

    /// Whether there is such a module and this session may change it.
    pub(super) fn may_write(&self, key: &BranchKey, moment: Moment<'_>) -> Result<(), ApiError> {
        if moment.catalogue.module(&key.module).is_none() {
            return Err(RouteError::UnknownModule(key.module.to_string()).into());
        }
        authorize(&self.principal, &Access::module(Intent::Write, key))
    }

    /// Puts a publish to the session's branch into its lane; its module's events will be seen.
    pub(super) fn enqueue(&mut self, waiting: Waiting) -> Vec<Action> {
        let mut actions = Vec::new();
        let key = waiting.command.key.clone();
        self.lanes.add(waiting);
        match self.followed.get_mut(&key) {
            None => self.follow(key, Begin::Now, false, &mut actions),
            Some(followed) if !followed.told => match followed.cursor {
                Some(cursor) => (followed.told, followed.seen) = (true, cursor.offset),
                None => self.follow(key, Begin::Now, false, &mut actions),
            },
            Some(_) => {}
        }
        self.start(&mut actions);
        actions
    }

    /// What a publish is called for ever. A client that names itself in its hello may repeat a
    /// request after a reload; else an id holds for this socket only.
    pub(super) fn name(&mut self, request: Option<String>) -> CommandId {
        match request {
            Some(request) => CommandId::of_client(self.client(), request),
            None => {
                self.unnamed += 1;
                CommandId::server_named(format!("{}/{}", self.id, self.unnamed))
            }
        }
    }

    pub(super) fn client(&self) -> &str {
        let own = self.member.as_ref().and_then(|member| member.client.as_deref());
        own.unwrap_or(&self.id)
    }

    /// Submits what may be submitted: not before the module's events would be seen.
    pub(super) fn start(&mut self, actions: &mut Vec<Action>) {
        let followed = &self.followed;
        let commands =
            self.lanes.start(|key| followed.get(key).is_none_or(|followed| !followed.is_new()));
        actions.extend(commands.into_iter().map(Action::Submit));
    }

    /// A submitted command was decided, or not.
    pub(crate) fn on_outcome(
        &mut self,
        key: &BranchKey,
        result: Result<Outcome, RouteError>,
        moment: Moment<'_>,
    ) -> Vec<Action> {
        let Some(own) = self.lanes.decided(key) else { return Vec::new() };
        let mut actions = match &own.owed.reply {
            Reply::Post(posted) => self.on_post_decided(key, posted, result, moment),
            Reply::Ack | Reply::Batch if own.acknowledged => Vec::new(),
            Reply::Ack | Reply::Batch => {
                if result == Err(RouteError::Indeterminate) {
                    self.lanes.unknown(own.id, own.owed.clone());
                }
                self.answer(key, &own.owed, result, moment)
            }
        };
        self.start(&mut actions);
        actions
    }

    fn answer(
        &self,
        key: &BranchKey,
        owed: &Owed,
        result: Result<Outcome, RouteError>,
        moment: Moment<'_>,
    ) -> Vec<Action> {
        let request_id = owed.request_id.as_ref();
        let error = match result {
            Ok(Outcome::Accepted(accepted)) => match event_of(&accepted) {
                Ok(_) => {
                    let (life, events) = (accepted.delta.incarnation, &accepted.delta.events);
                    return self.acknowledge(owed, key, life, events).into_iter().collect();
                }
                Err(error) => error,
            },
            Ok(Outcome::Rejected(reject)) => reject.into(),
            Err(error) => error.into(),
        };
        self.failed(request_id, &error, moment.at)
    }

    /// The answer to a publish that made these events.
    pub(super) fn acknowledge(
        &self,
        owed: &Owed,
        key: &BranchKey,
        life: Incarnation,
        events: &[Arc<Event>],
    ) -> Option<Action> {
        let frame = match &owed.reply {
            Reply::Ack => {
                let shown = Shown::new(&self.server_id, key, events.first()?)?;
                frame::text(&shown.of_life(life).ack())
            }
            Reply::Batch => {
                frame::batch_ack(&self.server_id, key, life, owed.request_id.as_ref(), events)
            }
            Reply::Post(_) => return None,
        };
        Some(Action::Send(frame, Channel::Ack))
    }
}

/// What a frame says of its place.
pub(super) fn place_said(frame: &Object) -> Object {
    let place = ["branchId", "branch"].into_iter();
    place.filter_map(|name| Some((name, frame.get(name)?.clone()))).collect()
}
