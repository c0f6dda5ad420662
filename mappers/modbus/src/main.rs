//! `kubebus-mapper-modbus [HOST:PORT]`: the mapper as a process of its own, at the broker's address.

use std::process::ExitCode;

use kubebus_sdk::{Name, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let broker = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1883".to_owned());
    let options = Name::new("modbus").map_err(|e| e.to_string());
    let options = options.and_then(|name| Options::new(name, &broker).map_err(|e| e.to_string()));
    match options {
        Ok(options) => {
            mapper_modbus::run(options, async { drop(tokio::signal::ctrl_c().await) }).await;
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
