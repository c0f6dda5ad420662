//! Certificates that count no more.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::mqtt::{Subscriber, V5, tool};
use crate::process::{Ran, eventually, run};
use crate::{Cluster, Node};

/// A listener of the node for clients with certificates.
fn beside(node: &Node) -> SocketAddr {
    SocketAddr::new(node.mqtt().ip(), node.mqtt().port() + 1)
}

/// How a mosquitto tool comes in by a certificate.
fn card(cluster: &Cluster, edge: &Node, papers: &str) -> Vec<String> {
    let dir = cluster.path(papers);
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (ca, certificate, key) = (file("cluster-ca.pem"), file("mapper-pump.pem"), file("mapper-pump.key"));
    let port = beside(edge).port().to_string();
    // The node's certificate names the node, not the host.
    let args = ["-p", &port, "--cafile", &ca, "--cert", &certificate, "--key", &key, "--insecure"];
    args.map(str::to_owned).to_vec()
}

fn publish(edge: &Node, card: &[String]) -> Ran {
    let mut command = tool("mosquitto_pub", edge, V5);
    command.args(["-q", "1", "-t", "mapper/pump/state", "-m", "online"]).args(card);
    run(command)
}

fn failed_handshakes(edge: &Node) -> u64 {
    edge.ask(&["status"])["counters"]["mqtt_handshakes_failed"].as_u64().unwrap()
}

#[test]
fn a_mapper_that_is_revoked_is_cut_off_and_stays_out_where_the_cloud_is_away() {
    let mut cluster = Cluster::start();
    let edge = cluster.stranger("a");
    let config = std::fs::read_to_string(edge.config()).unwrap();
    let listen = format!("mqtt: {{listen: '{}'", edge.mqtt());
    let with = format!(
        "{listen}, listeners: [{{address: '{}', tls: {{client-certificate: required}}}}]",
        beside(&edge)
    );
    std::fs::write(edge.config(), config.replace(&listen, &with)).unwrap();
    let edge = cluster.admit(edge);
    for papers in ["one", "two"] {
        let out = cluster.path(papers);
        cluster.cloud.say(&["mqtt", "certificate", "mapper/pump", "--out", out.to_str().unwrap()]);
    }
    let listed = cluster.cloud.ask(&["mqtt", "list"]);
    let ids: Vec<String> = listed[0]["certificates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["key"].as_str().unwrap()[..12].to_owned())
        .collect();
    assert_eq!(
        (listed.as_array().unwrap().len(), ids.len(), &listed[0]["client"]),
        (1, 2, &json!("mapper/pump"))
    );
    assert_eq!(edge.ask(&["mqtt", "list"]), json!([]), "what counts is nothing that an edge needs to know");

    // One of two: the connection that it has ends, and the other one's goes on.
    let [one, two] = ["one", "two"].map(|papers| card(&cluster, &edge, papers));
    let args: Vec<&str> = one.iter().map(String::as_str).collect();
    let _connected = Subscriber::start_with(&edge, V5, "mapper/pump/write/#", &args);
    publish(&edge, &two).expect(0);
    let before = failed_handshakes(&edge);
    cluster.cloud.say(&["mqtt", "revoke", "mapper/pump", "--certificate", &ids[0]]);
    eventually("it is cut off, and not let in again", || match failed_handshakes(&edge) {
        failed if failed > before => Ok(()),
        failed => Err(failed.to_string()),
    });
    let told = edge.ask(&["mqtt", "list"]);
    assert_eq!(told[0]["certificates"].as_array().unwrap().len(), 1, "{told}");
    assert!(told[0]["certificates"][0]["key"].as_str().unwrap().starts_with(&ids[0]), "{told}");
    assert_ne!(publish(&edge, &one).code, Some(0));
    publish(&edge, &two).expect(0);

    // All, and it is not forgotten by an edge that starts without its cloud.
    cluster.cloud.say(&["mqtt", "revoke", "mapper/pump"]);
    let is_out = || match publish(&edge, &two).code {
        Some(0) => Err("let in".to_owned()),
        _ => Ok(()),
    };
    eventually("both are out", is_out);
    let audit = cluster.cloud.ask(&["audit"]);
    let revoked =
        |line: &&Value| line["what"].as_str().is_some_and(|what| what.ends_with("mapper/pump/revoke"));
    assert_eq!(audit.as_array().unwrap().iter().filter(revoked).count(), 2, "{audit}");
    let mut edge = edge;
    cluster.cloud.kill();
    edge.kill();
    edge.start();
    assert_ne!(publish(&edge, &two).code, Some(0));
    edge.run(&["mqtt", "revoke", "mapper/pump"]).refused(1, &["only the cloud can do this"]);

    // What is issued afterwards counts.
    cluster.cloud.start();
    cluster.in_step("a");
    let out = cluster.path("three");
    cluster.cloud.say(&["mqtt", "certificate", "mapper/pump", "--out", out.to_str().unwrap()]);
    let three = card(&cluster, &edge, "three");
    eventually("the new one is let in", || match publish(&edge, &three) {
        Ran { code: Some(0), .. } => Ok(()),
        ran => Err(format!("{ran:?}")),
    });
    assert_ne!(publish(&edge, &one).code, Some(0));
    cluster.cloud.run(&["mqtt", "revoke", "edge/a"]).refused(2, &["'edge/a' is no client"]);
    let unknown = cluster.cloud.run(&["mqtt", "revoke", "mapper/pump", "--certificate", "ffffffffffffffff"]);
    unknown.refused(4, &["no certificate of mapper/pump", "kubebus mqtt list"]);
}
