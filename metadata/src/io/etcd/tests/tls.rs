//! An etcd that talks TLS and asks for a client's certificate.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::*;

/// One member; it ends with this.
struct Guarded {
    room: TempDir,
    endpoint: String,
    process: Child,
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Writes `ca.pem`, and certificate and key of `etcd` and of `cloud`, which it signed.
fn write_certificates(room: &TempDir) {
    let write = |name: &str, text: String| std::fs::write(room.path().join(name), text).unwrap();
    let mut ca = CertificateParams::new([]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    write("ca.pem", ca.self_signed(&ca_key).unwrap().pem());
    let issuer = Issuer::new(ca, ca_key);
    for (name, host) in [("etcd", "127.0.0.1"), ("cloud", "cloud")] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([host.to_owned()]).unwrap();
        write(&format!("{name}.pem"), params.signed_by(&key, &issuer).unwrap().pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

fn start() -> Guarded {
    let room = tempfile::tempdir().unwrap();
    write_certificates(&room);
    let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [client, peer] = held.each_ref().map(|listener| listener.local_addr().unwrap());
    drop(held);
    let (endpoint, peer) = (format!("https://{client}"), format!("http://{peer}"));
    let mut command = Command::new("etcd");
    command
        .args([
            "--data-dir",
            "data",
            "--cert-file",
            "etcd.pem",
            "--key-file",
            "etcd.key",
            "--log-level",
            "warn",
        ])
        .args(["--trusted-ca-file", "ca.pem", "--client-cert-auth"])
        .args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .current_dir(room.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let process = command
        .spawn()
        .unwrap_or_else(|why| panic!("cannot start etcd ({why}): apt-get install etcd-server"));
    Guarded { room, endpoint, process }
}

#[test]
fn over_https_only_who_shows_a_certificate_is_let_in() {
    let etcd = start();
    let read = |name: &str| std::fs::read(etcd.room.path().join(name)).unwrap();
    let config = |identity| EtcdConfig {
        endpoints: vec![etcd.endpoint.clone()],
        tls: Some(EtcdTls { ca: read("ca.pem"), identity }),
        prefix: "/kubebus/tls/".into(),
        me: "a test".into(),
        writer: 1,
        run: fresh(),
    };
    let known = config(Some((read("cloud.pem"), read("cloud.key"))));
    let mut store = EtcdStore::new(&known).unwrap();
    assert_eq!(store.stand().unwrap(), Turn::Ours);
    store.commit(&[put(1, "/c/a", "1")]).unwrap();
    assert_eq!(store.load().unwrap(), [row("/c/a", 1, Some("1"))]);
    let why = EtcdStore::new(&config(None)).unwrap().stand().unwrap_err();
    assert!(matches!(why, StoreError::Unreachable { .. }), "{why:?}");
}
