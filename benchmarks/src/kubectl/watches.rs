//! A hundred clients that watch all devices at once.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{CHANGES, User, WATCHES};
use crate::cluster::{Cluster, wait};
use crate::manifests::device;
use crate::memory::Memory;
use crate::mqtt::Mqtt;

/// What the watchers have had together.
#[derive(Debug, Default)]
struct Seen {
    open: AtomicUsize,
    events: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

impl Seen {
    fn has_failed(&self) -> bool {
        self.failed.lock().is_ok_and(|failed| !failed.is_empty())
    }

    fn check(&self) -> Result<()> {
        let failed = self.failed.lock().map_err(|_| anyhow::anyhow!("a watcher panicked"))?;
        ensure!(failed.is_empty(), "watches failed: {}", failed.join("; "));
        Ok(())
    }
}

/// Opens them, changes some devices, and says how it went. They stay open until the process ends.
pub(super) fn run(cluster: &Cluster, users: &[User]) -> Result<String> {
    let configs = users.iter().map(|user| Ok(Arc::new(config(user)?))).collect::<Result<Vec<_>>>()?;
    let version = cluster.cloud.get("/apis/devices.kubeedge.io/v1beta1/devices?limit=1")?["metadata"]["resourceVersion"]
        .as_str()
        .context("the list's version")?
        .to_owned();
    let seen = Arc::new(Seen::default());
    let before = Memory::of(&cluster.cloud)?;
    for number in 0..WATCHES {
        let (config, one) = (Arc::clone(&configs[number % configs.len()]), Arc::clone(&seen));
        let (version, address) = (version.clone(), cluster.cloud.api());
        thread::spawn(move || {
            if let Err(why) = watch(config, &one, &version, address) {
                one.failed.lock().map(|mut failed| failed.push(format!("{why:#}"))).unwrap_or_default();
            }
        });
        wait("a watch to stand", || seen.open.load(Ordering::Relaxed) > number || seen.has_failed())?;
    }
    seen.check()?;
    let open = Memory::of(&cluster.cloud)?;
    let start = Instant::now();
    let mut app = Mqtt::connect(cluster.cloud.mqtt(), "bench-app");
    for number in 0..CHANGES {
        app.publish(&format!("twin/plant/{}/set/value-00", device(number)), "512.5".to_owned())?;
    }
    app.settle()?;
    let all = WATCHES * CHANGES;
    wait("all watches to have seen all changes", || {
        seen.events.load(Ordering::Relaxed) >= all || seen.has_failed()
    })?;
    let took = start.elapsed();
    thread::sleep(Duration::from_secs(1));
    seen.check()?;
    Ok(format!(
        "{WATCHES} watches take {:.1} kB each; {CHANGES} changed devices were seen by all of them after {:.2} s",
        (open.resident - before.resident) * 1024.0 / WATCHES as f64,
        took.as_secs_f64()
    ))
}

fn config(user: &User) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(user.authority()?).context("the authority")? {
        roots.add(certificate.context("the authority")?).context("the authority")?;
    }
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(user.certificate()?).context("the certificate")?.collect();
    let key = PrivateKeyDer::from_pem_file(user.key()?).context("the key")?;
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS")?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.context("the certificate")?, key)
        .context("the user's certificate")
}

fn watch(config: Arc<ClientConfig>, seen: &Seen, version: &str, address: std::net::SocketAddr) -> Result<()> {
    let name = ServerName::from(address.ip());
    let connection = ClientConnection::new(config, name).context("TLS")?;
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address).context("connect")?);
    write!(
        stream,
        "GET /apis/devices.kubeedge.io/v1beta1/devices?watch=1&resourceVersion={version} HTTP/1.1\r\nhost: node\r\n\r\n"
    )
    .context("ask")?;
    let mut lines = BufReader::new(stream).lines();
    let status = lines.next().context("an answer")?.context("an answer")?;
    ensure!(status.contains(" 200 "), "{status}");
    seen.open.fetch_add(1, Ordering::Relaxed);
    for line in lines {
        let events = line.context("an event")?.matches("\"type\":\"MODIFIED\"").count();
        seen.events.fetch_add(events, Ordering::Relaxed);
    }
    Ok(())
}
