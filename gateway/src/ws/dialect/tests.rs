//! What the dialect of a socket takes for a frame that may be large.

use super::*;

#[test]
fn only_a_snapshot_under_a_sync_topic_may_be_large() {
    let post = |topic: &str, data: &str| {
        format!(r#"{{"type":"publish","topic":"{topic}","data":{data}}}"#)
    };
    let brings_snapshot = |message: &[u8]| of_socket().brings_snapshot(message);
    let snapshot = r#"{"trans_id":"t","snapshot":{"tables":{"t":[{}]}}}"#;
    assert!(brings_snapshot(post("pos:sync:dar", snapshot).as_bytes()));
    assert!(brings_snapshot(post("sync::cairo::zamalek::pos", snapshot).as_bytes()));
    for other in [
        post("free", snapshot),
        post("sync::dar::pos", r#"{"trans_id":"t"}"#),
        post("sync::dar::pos", r#"{"snapshot":null}"#),
        post("sync::dar::pos", "[]"),
        post("sync::dar::pos", snapshot).replace("publish", "client:publish"),
        format!("{}x", post("sync::dar::pos", snapshot)),
    ] {
        assert!(!brings_snapshot(other.as_bytes()), "{other}");
    }
}
