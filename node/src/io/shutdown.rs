//! Signals: the first asks for an orderly end, the second ends at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::Exit;

/// SIGINT and SIGTERM.
#[derive(Debug)]
pub struct Shutdown {
    interrupt: Signal,
    terminate: Signal,
}

impl Shutdown {
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Returns at the first signal; from then on the next one ends the process.
    pub async fn requested(&mut self) {
        self.wait().await;
        self.end_at_the_next();
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the one task of this module; it ends with the process")]
    fn end_at_the_next(&mut self) {
        if let Ok(mut again) = Self::listen() {
            tokio::spawn(async move {
                again.wait().await;
                std::process::exit(Exit::Failure as i32);
            });
        }
    }
}
