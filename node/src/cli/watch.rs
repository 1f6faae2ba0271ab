//! Watch: a branch's changes as a client sees them, so that a first try needs no other program.

use std::process::ExitCode;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use super::node_client::NodeClient;
use super::{CliError, WatchArgs, out};

pub(super) const EXAMPLES: &str = "\
Examples:
  mishkah watch --branch dar
  mishkah watch --branch dar --node http://127.0.0.1:3201 --full";

/// How soon a lost connection is made anew.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

pub(super) async fn run(args: &WatchArgs) -> Result<ExitCode, CliError> {
    let url = format!("{}/ws", NodeClient::new(&args.node.url).url().replacen("http", "ws", 1));
    let mut was_connected = false;
    loop {
        match follow(&url, args, &mut was_connected).await {
            Ok(None) if out::is_closed() => return Ok(ExitCode::SUCCESS),
            Ok(None) => out::note(format!("- {url} closed the connection; trying again")),
            Ok(Some(refused)) => return Err(refused.into()),
            Err(error) if was_connected => {
                out::note(format!("- the connection to {url} broke ({error}); trying again"));
            }
            Err(error) => {
                return Err(format!(
                    "no node answers at {url} ({error}); is it running? name another with --node URL"
                )
                .into());
            }
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// Follows the branch until the connection ends, or until the node says why it cannot.
async fn follow(
    url: &str,
    args: &WatchArgs,
    was_connected: &mut bool,
) -> Result<Option<String>, tokio_tungstenite::tungstenite::Error> {
    let (mut socket, _) = connect_async(url).await?;
    *was_connected = true;
    let hello = json!({"type": "client:hello", "branchId": args.branch, "role": "watch"});
    socket.send(Message::text(hello.to_string())).await?;
    out::note(format!("- following {} at {url}; Ctrl-C ends it", args.branch));
    while let Some(frame) = socket.next().await {
        match frame? {
            Message::Text(text) => {
                if let Some(refused) = refused(text.as_str()) {
                    return Ok(Some(refused));
                }
                out::line(shown(text.as_str(), args.full));
                if out::is_closed() {
                    return Ok(None);
                }
            }
            Message::Close(_) => return Ok(None),
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
    Ok(None)
}

/// What a frame says against the branch that was asked for: waiting would not bring it.
fn refused(text: &str) -> Option<String> {
    let frame = serde_json::from_str::<Value>(text).ok()?;
    let of_hello = matches!(frame["code"].as_str(), Some("branch-not-found" | "invalid-name"));
    let refused = frame["type"] == "server:error" && of_hello;
    refused.then(|| frame["message"].as_str().unwrap_or("there is no such branch").to_owned())
}

/// A frame as it came, except that a snapshot is summed up.
fn shown(text: &str, full: bool) -> String {
    let Ok(frame) = serde_json::from_str::<Value>(text) else { return text.to_owned() };
    let modules = frame.get("modules").and_then(Value::as_object);
    let (false, Some("server:snapshot"), Some(modules)) = (full, frame["type"].as_str(), modules)
    else {
        return frame.to_string();
    };
    let summed: serde_json::Map<String, Value> = modules
        .iter()
        .map(|(id, module)| {
            let tables = module["tables"].as_object();
            let records: usize = tables
                .into_iter()
                .flat_map(serde_json::Map::values)
                .map(|rows| rows.as_array().map_or(0, Vec::len))
                .sum();
            let tables = tables.map_or(0, serde_json::Map::len);
            let sum = json!({
                "version": module["version"], "tables": tables, "records": records,
            });
            (id.clone(), sum)
        })
        .collect();
    json!({"type": "server:snapshot", "branchId": frame["branchId"], "modules": summed,
           "note": "summed up; --full prints it whole"})
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_that_is_not_there_ends_the_watch() {
        let refusal = r#"{"type":"server:error","code":"branch-not-found","message":"no dar"}"#;
        assert_eq!(refused(refusal).as_deref(), Some("no dar"));
        assert_eq!(refused(r#"{"type":"server:error","code":"busy","message":"later"}"#), None);
        assert_eq!(refused(r#"{"type":"server:snapshot"}"#), None);
    }

    #[test]
    fn a_snapshot_is_summed_up_and_other_frames_are_not() {
        let snapshot = r#"{"type":"server:snapshot","branchId":"dar","modules":{"pos":{"version":3,
            "tables":{"a":[{},{}],"b":[{}]}}}}"#;
        let sum: Value = serde_json::from_str(&shown(snapshot, false)).unwrap();
        assert_eq!(sum["modules"]["pos"], json!({"version": 3, "tables": 2, "records": 3}));
        assert!(shown(snapshot, true).contains("[{},{}]"));
        assert_eq!(shown(r#"{"type":"pong"}"#, false), r#"{"type":"pong"}"#);
        assert_eq!(shown("not JSON", false), "not JSON");
    }
}
