//! Who shares a frame that was written once: the sessions of one dialect and one class.

use super::*;
use crate::ws::dialect::{ClientFrame, UnreadableFrame};

/// Speaks as `of_socket` does, but for events.
struct OtherDialect;

impl Dialect for OtherDialect {
    fn id(&self) -> u16 {
        u16::MAX
    }

    fn parse(&self, message: &[u8]) -> Result<ClientFrame, Box<UnreadableFrame>> {
        dialect::of_socket().parse(message)
    }

    fn brings_snapshot(&self, message: &[u8]) -> bool {
        dialect::of_socket().brings_snapshot(message)
    }

    fn render(&self, frame: &ServerFrame<'_>) -> Result<bytes::Bytes, ApiError> {
        match frame.kind() {
            FrameKind::Event => Ok(bytes::Bytes::from_static(b"an event")),
            FrameKind::Ack | FrameKind::Snapshot | FrameKind::Control => {
                dialect::of_socket().render(frame)
            }
        }
    }
}

/// The frame of the event of `shared`, as such a session sends it.
fn frame_of(shared: &SharedDelta, dialect: &'static dyn Dialect, class: PolicyClass) -> Utf8Bytes {
    let mut story = Story::begin_as(dialect, class).enter();
    let cx = SessionContext { now: AT, catalogue: &story.catalogue };
    let actions = story.session.on_delta(1, shared, cx);
    let [SessionAction::Send(frame, FrameKind::Event)] = &actions[..] else { panic!("one event") };
    frame.clone()
}

#[test]
fn sessions_of_one_dialect_and_class_share_a_frame() {
    let shared = SharedDelta::new(Arc::new(delta("pos", 1, "x/1")));
    let original = dialect::of_socket();
    let first = frame_of(&shared, original, PolicyClass::EVERYONE);
    let same = frame_of(&shared, original, PolicyClass::EVERYONE);
    assert_eq!(first.as_ptr(), same.as_ptr(), "written once");
}

#[test]
fn sessions_of_two_classes_do_not_share_a_frame() {
    let shared = SharedDelta::new(Arc::new(delta("pos", 1, "x/1")));
    let original = dialect::of_socket();
    let everyone = frame_of(&shared, original, PolicyClass::EVERYONE);
    let other = frame_of(&shared, original, PolicyClass::OTHER);
    assert_eq!(everyone, other, "nothing is hidden from either yet");
    assert_ne!(everyone.as_ptr(), other.as_ptr());
}

#[test]
fn sessions_of_two_dialects_do_not_share_a_frame() {
    let shared = SharedDelta::new(Arc::new(delta("pos", 1, "x/1")));
    let other = frame_of(&shared, &OtherDialect, PolicyClass::EVERYONE);
    assert_eq!(other.as_str(), "an event");
    let original = frame_of(&shared, dialect::of_socket(), PolicyClass::EVERYONE);
    assert!(original.starts_with(r#"{"type":"server:event""#), "{original}");
}
