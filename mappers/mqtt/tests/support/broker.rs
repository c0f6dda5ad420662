//! Mosquitto.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::PATIENCE;

/// Mosquitto on a loopback port, with one user; ended with the test.
pub(crate) struct Broker {
    pub(crate) port: u16,
    dir: tempfile::TempDir,
    process: Child,
}

impl Broker {
    pub(crate) async fn start(more: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let config =
            format!("listener {port} 127.0.0.1\npersistence false\nmax_queued_messages 10000\n{more}");
        let config = config.replace("DIR", &dir.path().display().to_string());
        std::fs::write(dir.path().join("mosquitto.conf"), config).unwrap();
        std::fs::write(dir.path().join("passwords"), PASSWORDS).unwrap();
        let process = spawn(&dir);
        let broker = Self { port, dir, process };
        broker.wait().await;
        broker
    }

    pub(crate) async fn open() -> Self {
        Self::start("allow_anonymous true\n").await
    }

    async fn wait(&self) {
        let up = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, up).await.expect("mosquitto does not come up");
    }

    /// A broker that forgets everything, as after a power cut.
    pub(crate) async fn restart(&mut self) {
        self.end();
        self.again().await;
    }

    /// Stops it in the middle of whatever it does (`STOP`), or lets it go on (`CONT`).
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(self.process.id().to_string()).status();
        assert!(sent.unwrap().success(), "kill -{signal}");
    }

    /// Starts it again after its end.
    pub(crate) async fn again(&mut self) {
        self.process = spawn(&self.dir);
        self.wait().await;
    }

    pub(crate) fn end(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// The user `mapper` with the password `right`, as `mosquitto_passwd` writes it.
const PASSWORDS: &str = include_str!("passwords");

impl Drop for Broker {
    fn drop(&mut self) {
        self.end();
    }
}

fn spawn(dir: &tempfile::TempDir) -> Child {
    let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("mosquitto");
    command.env("PATH", path).arg("-c").arg(dir.path().join("mosquitto.conf"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("these tests need mosquitto: apt-get install mosquitto")
}
