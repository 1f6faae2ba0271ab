//! Batching: several mutations in one frame, decided as one.

use std::sync::Arc;

use model::{BranchKey, Command, Object, Origin, Request};

use super::publish::{module_exists, place_of};
use super::{Session, SessionAction, SessionContext};
use crate::known_members;
use crate::publish::request_id;
use crate::ws::batch;
use crate::ws::publish_queue::{PendingReply, QueuedPublish, ReplyKind};

impl Session {
    pub(super) fn batch(
        &mut self,
        frame: Object,
        bytes: usize,
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        let named = request_id(&frame);
        let Some(member) = &self.member else {
            let message = "Client attempted batch before hello handshake";
            return self.before_hello(named.as_ref(), message, cx);
        };
        let branch = member.branch.clone();
        let from = Origin {
            source: Some("ws-client".to_owned()),
            user: member.user.clone(),
            client: Some(self.client().to_owned()),
            ..Origin::default()
        };
        let validation = |module: &_| cx.catalogue.validation_of(module);
        let place = place_of(&frame);
        let read = match batch::read(frame, from, validation) {
            Ok(read) => read,
            Err(error) => return self.failed(named.as_ref(), &error, cx.now),
        };
        let key = BranchKey::new(branch, read.module);
        let here = known_members::refuse_other_place(&place, &key, validation(&key.module));
        if let Err(error) = module_exists(&key, cx).and(here) {
            return self.failed(named.as_ref(), &error, cx.now);
        }
        let id = self.name(read.request);
        let request = Request::Transaction(read.write);
        let command = Command { id, key, origin: Arc::new(read.origin), request };
        let pending = PendingReply { request_id: named, reply: ReplyKind::Batch };
        self.enqueue(QueuedPublish { command, pending, bytes })
    }
}
