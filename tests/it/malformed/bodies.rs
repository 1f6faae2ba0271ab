//! Bodies and frames that mean nothing, or the wrong thing.

/// Every place that takes a body, and some that take none.
pub(super) const ENDPOINTS: &[(&str, &str)] = &[
    ("POST", "/api/branches/dar/modules/pos"),
    ("POST", "/api/branches/dar/modules/pos/tables/order_header"),
    ("PATCH", "/api/branches/dar/modules/pos/tables/order_header"),
    ("PUT", "/api/branches/dar/modules/pos/tables/order_line"),
    ("DELETE", "/api/branches/dar/modules/pos/tables/order_header"),
    ("POST", "/api/branches/dar/modules/pos/save"),
    ("POST", "/api/branches/dar/modules/pos/sequences"),
    ("POST", "/api/branches/dar/modules/pos/events"),
    ("POST", "/api/branches/dar/modules/pos/events/batch"),
    ("POST", "/api/branches/dar/modules/pos/batch"),
    ("POST", "/api/branches/dar/modules/pos/orders"),
    ("POST", "/api/sync/dar/pos"),
    ("POST", "/api/sync/dar/pos/delta"),
    ("POST", "/api/pos-sync/dar/delta"),
    ("POST", "/api/sync/dar/nothing/delta"),
    ("POST", "/api/query/module"),
    ("POST", "/api/query"),
    ("POST", "/api/query/raw"),
    ("POST", "/api/manage/full-sync"),
    ("DELETE", "/api/manage/full-sync"),
    ("POST", "/api/manage/daily-reset"),
    ("POST", "/api/manage/purge-live-data"),
    ("POST", "/api/manage/purge-history"),
    ("POST", "/api/manage/nothing"),
    ("POST", "/api/modules"),
    ("POST", "/api/branches"),
    ("POST", "/api/branches/dar/modules"),
    ("POST", "/api/schemas/global/strange"),
    ("POST", "/api/schemas/branch/dar/pos"),
    ("POST", "/api/seeds"),
];

/// What no reader of theirs should take amiss.
pub(super) const BODIES: &[&[u8]] = &[
    b"",
    b"{",
    b"null",
    b"[]",
    b"5",
    b"\"text\"",
    b"NaN",
    b"{\"record\":{\"id\":\"x\",\"version\":1e999}}",
    b"{\"record\":{\"id\":\"x\",\"version\":NaN}}",
    b"{\"record\":{\"id\":\"a\",\"id\":\"b\"},\"record\":5}",
    b"{\"record\":[],\"events\":{},\"verbs\":7,\"order\":\"x\",\"snapshot\":[],\"table\":{}}",
    b"{\"record\":{\"id\":{\"a\":[{}]}},\"branchId\":[],\"moduleId\":{},\"table\":\"order_header\"}",
    b"{\"a\":\"\xff\xfe\"}",
    b"{\"a\":\"\xe0\xa4\"",
    b"{\"a\":\"\x00\x01\x1f\"}",
    b"{\"\\u0000\":\"\\ud800\"}",
    b"\xef\xbb\xbf{}",
    b"{} trailing",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"{\"lastAckId\":{},\"events\":[5,null,{\"table\":5}],\"verbs\":[5],\"tables\":5,\"where\":5}",
    b"{\"branchId\":\"../..\",\"moduleId\":\"../..\",\"id\":\"../..\",\"table\":\"../..\",\"entryId\":\"../..\"}",
    b"{\"limit\":-1,\"offset\":1e300,\"orderBy\":{\"a\":1},\"where\":[[[]]],\"table\":\"order_header\"}",
];

/// A text of ten megabytes.
pub(super) fn large() -> Vec<u8> {
    let mut body = br#"{"record":{"id":"large","notes":""#.to_vec();
    body.resize(body.len() + 10 * 1024 * 1024, b'x');
    body.extend(br#""}}"#);
    body
}

/// Frames that mean nothing, or the wrong thing.
pub(super) fn frames() -> Vec<String> {
    let mut frames: Vec<String> = [
        "",
        "ping",
        "{",
        "null",
        "5",
        "[]",
        "\"text\"",
        "{}",
        r#"{"type":5}"#,
        r#"{"type":null}"#,
        r#"{"type":""}"#,
        r#"{"type":"client:hello","branchId":""}"#,
        r#"{"type":"client:publish"}"#,
        r#"{"type":"subscribe"}"#,
        r#"{"type":"unsubscribe"}"#,
        r#"{"type":"publish","data":{}}"#,
        r#"{"type":"publish","topic":"free","data":5}"#,
        r#"{"type":"publish","topic":"sync::dar::pos","data":{"trans_id":{}}}"#,
        r#"{"type":"publish","topic":"sync::dar::pos","data":{"trans_id":"a","snapshot":5}}"#,
        r#"{"type":"publish","topic":"sync::dar::nothing","data":{"trans_id":"b","snapshot":{}}}"#,
        r#"{"type":"publish","topic":"sync::::","data":{"trans_id":"c"}}"#,
        r#"{"type":"subscribe","topic":"sync-table::::::"}"#,
        r#"{"type":"subscribe","topic":"table::"}"#,
        r#"{"type":"subscribe","room":"1:2"}"#,
        r#"{"type":"client:query"}"#,
        r#"{"type":"client:query","moduleId":"pos","table":"no"}"#,
        r#"{"type":"client:query","moduleId":"pos","table":"order_header","filter":5}"#,
        r#"{"type":"client:batch"}"#,
        r#"{"type":"client:batch","moduleId":"pos","verbs":[5]}"#,
        r#"{"type":"client:batch","moduleId":"pos","verbs":[]}"#,
        r#"{"type":"client:request:snapshot","requestId":{}}"#,
        r#"{"type":"client:request:history"}"#,
        r#"{"type":"INSERT","table":"x"}"#,
        r#"{"type":"\u0000"}"#,
        r#"{"type":"\ud800"}"#,
        "{\"type\":\"\u{7f}\"}",
    ]
    .map(str::to_owned)
    .into();
    for (member, value) in [
        ("moduleId", "5"),
        ("moduleId", r#""../..""#),
        ("moduleId", r#""nothing""#),
        ("table", "{}"),
        ("table", r#""no such table""#),
        ("action", "[]"),
        ("action", r#""module:drop""#),
        ("record", "5"),
        ("record", "[]"),
        ("record", r#"{"id":{}}"#),
        ("record", r#"{"version":1e999}"#),
        ("meta", "5"),
        ("meta", r#"{"requestId":{}}"#),
        ("eventId", "{}"),
        ("publishState", "5"),
        ("includeRecord", r#""yes""#),
    ] {
        frames.push(format!(
            r#"{{"type":"client:publish","moduleId":"pos","table":"order_header","{member}":{value}}}"#
        ));
    }
    frames.push(format!("{}{}", r#"{"type":"client:publish","a":"#.repeat(80), "}".repeat(80)));
    frames.push(format!(r#"{{"type":"{}"}}"#, "x".repeat(500_000)));
    frames.push(format!(r#"{{"type":"subscribe","topic":"{}"}}"#, "t".repeat(100_000)));
    frames
}
