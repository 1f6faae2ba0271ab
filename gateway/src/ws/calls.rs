//! Calls: which calls of the store each frame of a client may make. A test sends every frame and
//! compares.
//!
//! A frame that names a module which this node does not know is a read first: only the cluster may
//! deny what another node may have made a moment ago.

use crate::scoped_store::StoreCall;

/// Every type of frame that clients send, with the calls it may make; none for what is answered
/// without looking at any data.
pub fn frame_calls() -> &'static [(&'static str, &'static [StoreCall])] {
    use StoreCall::{Follow, Publish, Read, Submit, Subscribe};
    &[
        ("client:hello", &[Read, Follow]),
        ("client:publish", &[Read, Submit]),
        ("client:batch", &[Read, Submit]),
        ("client:query", &[Read]),
        ("client:request:snapshot", &[Read, Follow]),
        ("client:request:history", &[Read, Follow]),
        ("subscribe", &[Read, Follow, Subscribe]),
        ("unsubscribe", &[]),
        ("publish", &[Read, Submit, Publish, Subscribe]),
        ("ping", &[]),
        ("pong", &[]),
        ("auth", &[]),
    ]
}
