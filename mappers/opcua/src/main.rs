//! `kubebus-mapper-opcua [HOST:PORT]`: the mapper as a process of its own, at the broker's address.

use std::process::ExitCode;

use kubebus_sdk::{Name, Options};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// What the library says of each request is said better by the SDK.
const QUIET: &str = "info,opcua_client=off,opcua_core=off,opcua_crypto=off";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| QUIET.into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let broker = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1883".to_owned());
    match serve(&broker).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(broker: &str) -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::new(Name::new("opcua")?, broker)?;
    let mut terminate = signal(SignalKind::terminate())?;
    mapper_opcua::run(options, async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    })
    .await;
    Ok(())
}
