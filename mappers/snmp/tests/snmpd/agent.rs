//! Debian's `snmpd` on a loopback port, with objects that the tests can set and count the writes of.

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_snmp::{Auth, Client, Oid, Retry};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep};

/// Where the objects of a test live: Net-SNMP's playpen.
pub(crate) const BASE: &str = "1.3.6.1.4.1.8072.9999.9999";

/// Longest wait of a test for anything that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The objects of a device, each below [`BASE`]: its type as `pass_persist` of snmpd.conf(5) names it, and its value.
pub(crate) const OBJECTS: [(&str, &str, &str); 8] = [
    ("1.0", "integer", "7"),
    ("2.0", "string", "hall"),
    ("3.0", "gauge", "50"),
    ("4.0", "octet", "00 ff 10"),
    ("5.0", "timeticks", "4200"),
    ("6.0", "ipaddress", "10.0.0.1"),
    ("7.0", "objectid", ".1.3.6.1"),
    ("8.0", "counter", "4000000000"),
];

/// A running agent. Ended with the test.
pub(crate) struct Snmpd {
    pub(crate) address: SocketAddr,
    dir: tempfile::TempDir,
    process: Mutex<Option<Child>>,
}

impl Snmpd {
    pub(crate) async fn start() -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let free = UdpSocket::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .map_err(|e| e.to_string())?;
        prepare(dir.path(), free).map_err(|e| e.to_string())?;
        let snmpd = Self { address: free, dir, process: Mutex::new(None) };
        for (object, kind, value) in OBJECTS {
            snmpd.put(object, kind, value);
        }
        snmpd.up().await?;
        Ok(snmpd)
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it (again), and waits until it answers for an object.
    pub(crate) async fn up(&self) -> Result<(), String> {
        *self.process() = Some(spawn(self.dir.path())?);
        let oid = Oid::parse(&format!("{BASE}.1.0")).map_err(|e| e.to_string())?;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let client = Client::builder(self.address, Auth::v2c("plant")).retry(Retry::none());
            let client = client
                .request_timeout(Duration::from_millis(300))
                .connect()
                .await
                .map_err(|e| e.to_string())?;
            if client
                .get(&oid)
                .await
                .is_ok_and(|answer| answer.single().is_some_and(|v| !v.value.is_exception()))
            {
                return Ok(());
            }
            sleep(Duration::from_millis(30)).await;
        }
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        Err(format!("snmpd does not come up: {log}"))
    }

    /// Ends it, as a power cut does.
    pub(crate) fn down(&self) {
        if let Some(mut child) = self.process().take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = self.process().as_ref() {
            kill_process(Pid::from_child(child), signal).unwrap();
        }
    }

    fn object(&self, object: &str) -> PathBuf {
        self.dir.path().join("objects").join(object)
    }

    /// Gives an object a value, past the agent.
    pub(crate) fn put(&self, object: &str, kind: &str, value: &str) {
        let new = self.dir.path().join("new");
        std::fs::write(&new, format!("{kind}\n{value}")).unwrap();
        std::fs::rename(new, self.object(object)).unwrap();
    }

    pub(crate) fn take_away(&self, object: &str) {
        std::fs::remove_file(self.object(object)).unwrap();
    }

    /// The value that an object holds, as text.
    pub(crate) fn get(&self, object: &str) -> String {
        let text = std::fs::read_to_string(self.object(object)).unwrap();
        text.split_once('\n').unwrap().1.to_owned()
    }

    /// Every write that was carried out: object and value.
    pub(crate) fn writes(&self) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(self.object("writes")).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(o, v)| (o.to_owned(), v.to_owned()))
            .collect()
    }
}

impl Drop for Snmpd {
    fn drop(&mut self) {
        self.down();
    }
}

/// Settings of version 2c for an agent at this address.
pub(crate) fn plain(at: SocketAddr) -> Json {
    json!({ "agent": at.to_string(), "community": "plant", "timeout_ms": 3000, "retries": 1 })
}

/// Settings of version 3 for an agent at this address.
pub(crate) fn secure(at: SocketAddr) -> Json {
    json!({
        "agent": at.to_string(), "version": "3", "timeout_ms": 3000, "retries": 1,
        "user": "plant", "auth": "sha256", "auth_password": "auth-password",
        "privacy": "aes128", "privacy_password": "privacy-password",
    })
}

/// An object below [`BASE`].
pub(crate) fn at(object: &str) -> Json {
    json!({ "oid": format!("{BASE}.{object}") })
}

fn prepare(dir: &Path, address: SocketAddr) -> std::io::Result<()> {
    std::fs::create_dir(dir.join("objects"))?;
    // snmpd hands the command to a shell, and may not find what is below a directory of somebody else.
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?;
    std::fs::write(dir.join("objects.py"), include_str!("objects.py"))?;
    let objects = dir.join("objects");
    let script = dir.join("objects.py");
    std::fs::write(dir.join("snmp.conf"), "sendMessageMaxSize 1400\n")?;
    let config = format!(
        "agentaddress udp:{address}\n\
         rwcommunity plant 127.0.0.1\n\
         rocommunity watch 127.0.0.1\n\
         createUser plant SHA-256 auth-password AES privacy-password\n\
         createUser old SHA auth-password AES privacy-password\n\
         createUser older MD5 auth-password\n\
         createUser open\n\
         rwuser plant priv\n\
         rwuser old priv\n\
         rouser older auth\n\
         rouser open noauth\n\
         pass_persist .{BASE} /usr/bin/env python3 {} {}\n",
        script.display(),
        objects.display()
    );
    std::fs::write(dir.join("snmpd.conf"), config)
}

fn spawn(dir: &Path) -> Result<Child, String> {
    let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("snmpd");
    command
        .env("PATH", path)
        .env("MIBS", "")
        .env("SNMPCONFPATH", format!("{}:{}", dir.display(), dir.join("kept").display()))
        .env("SNMP_PERSISTENT_DIR", dir.join("kept"));
    command.arg("-f").arg("-Lf").arg(dir.join("log")).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|_| "these tests need snmpd: apt-get install snmpd".to_owned())
}
