//! A simulated device to try the mapper on: `cargo run --example simulator [HOST:PORT]`.

#[path = "../tests/simulated/mod.rs"]
mod simulated;

use std::time::{Duration, Instant};

use simulated::Simulated;
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:7070".to_owned());
    let listener = TcpListener::bind(&address).await?;
    eprintln!("a device at {address}: GET speed, SET speed 1200");
    let device = Simulated::new();
    tokio::select! {
        () = warm(device.clone()) => {}
        () = device.serve(listener) => {}
    }
    Ok(())
}

/// Its temperature goes up and down once a minute.
async fn warm(device: Simulated) {
    let start = Instant::now();
    loop {
        let turn = start.elapsed().as_secs_f64() / 60.0 * std::f64::consts::TAU;
        device.set("temperature", &format!("{:.2}", 20.0 + 5.0 * turn.sin()));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
