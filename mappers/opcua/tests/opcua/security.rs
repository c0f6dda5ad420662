//! Whom we trust, and who trusts us.

use kubebus_sdk::testing::Driven;
use kubebus_sdk::{Error, Quality, Value};
use mapper_opcua::OpcUaMapper;
use serde_json::{Value as Json, json};

use crate::bench::{driven, write};
use crate::server::{Server, certify};

const LEVEL: [(&str, &str, &str); 1] = [("level", "float", "ns=2;s=level")];

/// A server with a new certificate, and `more`.
async fn secured(policies: Json, more: Json) -> (Server, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = certify(dir.path());
    let mut spec = json!({ "policies": policies, "certificate": certificate, "key": key });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let nodes = json!([{ "node": "ns=2;s=level", "type": "Double", "value": 3.5, "writable": true }]);
    (Server::start(nodes, spec).await, dir)
}

fn device(server: &Server, dir: &tempfile::TempDir, more: Json) -> Driven<OpcUaMapper> {
    let mut connection =
        json!({ "url": server.url(), "timeout": 9, "identity": dir.path().join("identity") });
    connection.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    driven(connection, &LEVEL)
}

async fn refused(driven: &Driven<OpcUaMapper>) -> Error {
    driven.open().await.expect_err("it was let in")
}

async fn works(driven: &Driven<OpcUaMapper>) {
    let mut session = driven.open().await.unwrap();
    assert_eq!(driven.read(&mut session).await.unwrap()["level"], Ok((Value::Float(3.5), Quality::Good)));
    write(driven, &mut session, "level", Value::Float(3.5)).await.unwrap();
}

#[tokio::test]
async fn an_unknown_certificate_is_refused_and_what_the_error_says_to_do_helps() {
    let (server, dir) = secured(json!(["None", "Basic256Sha256"]), json!({})).await;
    let Error::Auth(why) = refused(&device(&server, &dir, json!({ "policy": "Basic256Sha256" }))).await
    else {
        panic!("another error")
    };
    let fingerprint = why.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap();
    works(&device(&server, &dir, json!({ "security": "sign-and-encrypt", "trust": fingerprint }))).await;

    let other = format!("sha256:{}", "ab".repeat(32));
    let impostor =
        refused(&device(&server, &dir, json!({ "policy": "Basic256Sha256", "trust": other }))).await;
    assert!(
        matches!(&impostor, Error::Auth(why) if why.contains("set trust to this fingerprint")),
        "{impostor}"
    );
}

#[tokio::test]
async fn certificates_are_trusted_as_files_and_in_the_directory_beside_our_own() {
    let (server, dir) = secured(json!(["Basic256Sha256"]), json!({})).await;
    let certificate = dir.path().join("server.der");
    works(&device(&server, &dir, json!({ "policy": "Basic256Sha256", "trust": certificate }))).await;
    std::fs::copy(certificate, dir.path().join("identity/trusted/press.der")).unwrap();
    works(&device(&server, &dir, json!({ "policy": "Basic256Sha256" }))).await;
}

#[tokio::test]
async fn each_policy_is_spoken() {
    let policies = ["Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"];
    let (server, dir) =
        secured(json!([policies.as_slice(), &["Basic256Sha256-sign"]].concat()), json!({})).await;
    let trust = dir.path().join("server.der");
    for policy in policies {
        works(&device(&server, &dir, json!({ "policy": policy, "trust": trust }))).await;
    }
    works(&device(&server, &dir, json!({ "security": "sign", "trust": trust }))).await;
    let unsigned = refused(&device(&server, &dir, json!({}))).await;
    assert!(matches!(&unsigned, Error::Config(why) if why.contains("Basic256Sha256")), "{unsigned}");
}

/// Keys are renewed at three quarters of their life, which the server makes as short as it likes.
#[tokio::test]
async fn keys_are_renewed_between_calls() {
    let (server, dir) = secured(json!(["Basic256Sha256"]), json!({ "lifetime": 2000 })).await;
    let trust = dir.path().join("server.der");
    let device = device(&server, &dir, json!({ "policy": "Basic256Sha256", "trust": trust }));
    let mut session = device.open().await.unwrap();
    for n in 1..=2u8 {
        tokio::time::sleep(std::time::Duration::from_millis(1700)).await;
        write(&device, &mut session, "level", Value::Float(n.into())).await.unwrap();
        let readings = device.read(&mut session).await.unwrap();
        assert_eq!(readings["level"], Ok((Value::Float(n.into()), Quality::Good)));
    }
    assert_eq!(server.writes().len(), 2);
}

#[tokio::test]
async fn a_server_that_does_not_know_us_is_named_our_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let stranger = dir.path().join("stranger");
    std::fs::create_dir(&stranger).unwrap();
    let (someone, _) = certify(&stranger);
    let (server, dir) = secured(json!(["Basic256Sha256"]), json!({ "trusts": someone })).await;
    let trust = dir.path().join("server.der");
    let error = refused(&device(&server, &dir, json!({ "policy": "Basic256Sha256", "trust": trust }))).await;
    assert!(matches!(&error, Error::Auth(why) if why.contains("own/certificate.der")), "{error}");
}

#[tokio::test]
async fn a_user_is_let_in_by_password_and_nobody_else() {
    let user = json!({ "user": ["operator", "hunter2"] });
    let (server, dir) = secured(json!(["Basic256Sha256", "Basic256Sha256-sign"]), user).await;
    let trust = dir.path().join("server.der");
    for security in ["sign", "sign-and-encrypt"] {
        let device = |user: &str, password: &str| {
            let more = json!({ "security": security, "trust": trust, "user": user, "password": password });
            device(&server, &dir, more)
        };
        works(&device("operator", "hunter2")).await;
        for (user, password) in [("operator", "hunter3"), ("admin", "hunter2")] {
            let error = refused(&device(user, password)).await;
            assert!(matches!(error, Error::Auth(_)), "{user}: {error}");
        }
    }
    let anonymous = refused(&device(&server, &dir, json!({ "security": "sign", "trust": trust }))).await;
    assert!(matches!(&anonymous, Error::Auth(why) if why.contains("set user and password")), "{anonymous}");
}
