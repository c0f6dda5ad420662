//! `kubebus-mapper-mqtt [BROKER]`: see the library's page. The node's broker is at 127.0.0.1:1883 if nothing is said.

use kubebus_sdk::{Mapper, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1883".to_owned());
    let options = Options::new(mapper_mqtt::MqttMapper::manifest().protocol.parse()?, &broker)?;
    mapper_mqtt::run(options, async { drop(tokio::signal::ctrl_c().await) }).await;
    Ok(())
}
