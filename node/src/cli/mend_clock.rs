//! Mend clock: brings a module's commit time back to the present, over REST.

use std::process::ExitCode;

use serde_json::json;

use super::node_client::NodeClient;
use super::{CliError, MendClockArgs, out};

pub(super) const EXAMPLES: &str = "\
Example:
  mishkah mend-clock dar pos --reason 'the clock of node 2 was wrong' --requested-by ada";

pub(super) async fn run(args: &MendClockArgs) -> Result<ExitCode, CliError> {
    let MendClockArgs { branch, module, reason, requested_by, node } = args;
    let path = format!("/api/branches/{branch}/modules/{module}/clock");
    let body = json!({ "reason": reason, "requestedBy": requested_by });
    let answer = NodeClient::new(&node.url).post(&path, &body).await?;
    let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    out::line(if answer["mended"].as_bool() == Some(true) {
        format!("{branch}/{module} was at {} and is at {} again", text("before"), text("now"))
    } else {
        format!("{branch}/{module} is not ahead: nothing was done")
    });
    Ok(ExitCode::SUCCESS)
}
