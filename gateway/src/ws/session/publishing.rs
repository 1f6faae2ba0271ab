//! Publishing: from a publish to its acknowledgement, or to why there is none.

use std::sync::Arc;

use actors::RouteError;
use model::{BranchKey, Command, CommandId, Event, Object, Outcome, Request, Verb, Write};

use super::{Action, Moment, Session};
use crate::auth::{Access, Intent, authorize};
use crate::error::{ApiError, Problem};
use crate::metrics::Channel;
use crate::publish::{Publish, event_of, request_id};
use crate::wire::Shown;
use crate::ws::frame;
use crate::ws::lane::Waiting;

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
            let error = ApiError::new(Problem::HelloRequired, message);
            return self.failed(named.as_ref(), &error, moment.at);
        };
        let (branch, user) = (member.branch.clone(), member.user.clone());
        let checked = Publish::read(frame, "ws-client").and_then(|publish| {
            let key = BranchKey::new(branch, publish.module.clone());
            if moment.catalogue.module(&key.module).is_none() {
                return Err(RouteError::UnknownModule(key.module.to_string()).into());
            }
            authorize(&self.principal, &Access::module(Intent::Write, &key))?;
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
        let verb = Verb::new(action, table, record);
        let request = Request::Write(Write::of(vec![verb]));
        let command = Command { id, key: key.clone(), origin: Arc::new(origin), request };

        let mut actions = Vec::new();
        self.lanes.add(Waiting { command, request_id: named, bytes });
        if !self.followed.contains_key(&key.module) {
            self.follow(key, false, &mut actions);
        }
        self.start(&mut actions);
        actions
    }

    /// What a publish is called for ever. A client that names itself in its hello may repeat a
    /// request after a reload; else an id holds for this socket only.
    fn name(&mut self, request: Option<String>) -> CommandId {
        match request {
            Some(request) => CommandId { session: self.client().to_owned(), request },
            None => {
                self.unnamed += 1;
                let session = format!("{}/unnamed", self.id);
                CommandId { session, request: self.unnamed.to_string() }
            }
        }
    }

    fn client(&self) -> &str {
        let own = self.member.as_ref().and_then(|member| member.client.as_deref());
        own.unwrap_or(&self.id)
    }

    /// Submits what may be submitted: not before the module's events would be seen.
    pub(super) fn start(&mut self, actions: &mut Vec<Action>) {
        let branch = self.member.as_ref().map(|member| &member.branch);
        let followed = &self.followed;
        let commands = self.lanes.start(|key| {
            let followed = followed.get(&key.module).filter(|_| branch == Some(&key.branch));
            followed.is_none_or(|followed| !followed.is_new())
        });
        actions.extend(commands.into_iter().map(Action::Submit));
    }

    /// A submitted command was decided, or not.
    pub(crate) fn on_outcome(
        &mut self,
        key: &BranchKey,
        result: Result<Outcome, RouteError>,
        moment: Moment<'_>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(own) = self.lanes.decided(key) else { return actions };
        let refused = match result {
            Ok(Outcome::Accepted(_)) if own.acknowledged => None,
            Ok(Outcome::Accepted(accepted)) => match event_of(&accepted) {
                Ok(event) => {
                    actions.extend(self.ack(key, event));
                    None
                }
                Err(error) => Some(error),
            },
            Ok(Outcome::Rejected(reject)) => Some(reject.into()),
            // Its event has come, so it did happen.
            Err(_) if own.acknowledged => None,
            Err(error) => {
                if error == RouteError::Indeterminate {
                    self.lanes.unknown(own.id);
                }
                Some(error.into())
            }
        };
        if let Some(error) = refused {
            actions.extend(self.failed(own.request_id.as_ref(), &error, moment.at));
        }
        self.start(&mut actions);
        actions
    }

    pub(super) fn ack(&self, key: &BranchKey, event: &Event) -> Option<Action> {
        let shown = Shown::new(&self.server_id, key, event)?;
        Some(Action::Send(frame::text(&shown.ack()), Channel::Ack))
    }
}
