//! `kubebus policy`.

use anyhow::Result;
use serde_json::{Value, json};

use super::cli::{PolicyCommand, PolicyTestArgs};
use super::commands::{post, show};
use super::exit::Exit;
use super::table;

pub(super) async fn carry_out(command: PolicyCommand) -> Result<Exit> {
    match command {
        PolicyCommand::Test(args) => test(args).await,
    }
}

async fn test(PolicyTestArgs { from, to, protocol, port, ask }: PolicyTestArgs) -> Result<Exit> {
    let body = json!({ "from": from, "to": to, "protocol": protocol, "port": port });
    let answer = post(&ask.place, "/kubebus/v1/policy/test", &body).await?;
    show(&answer, ask.output, table::policy_test)?;
    Ok(if answer["allowed"] == Value::Bool(true) { Exit::Ok } else { Exit::Denied })
}
