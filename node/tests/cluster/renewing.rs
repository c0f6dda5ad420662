//! Certificates that end while nodes run, and while they do not.

use serde_json::json;

use crate::harness::{Cluster, QUICK_LINK};
use crate::mqtt::{self, Subscriber};
use crate::process::{becomes, eventually};

/// What a node says when it shows its next certificate.
const RENEWED: &str = "this node has its next certificate";

/// A cloud that signs for 12 s: what ninety days bring, in half a minute.
fn short_lived() -> Cluster {
    Cluster::start_cloud(QUICK_LINK, |cloud| {
        let config = std::fs::read_to_string(cloud.config()).unwrap();
        let config = config.replace("cloud: {", "cloud: {certificate-validity: 12s, ");
        std::fs::write(cloud.config(), config).unwrap();
        cloud
    })
}

#[test]
fn edges_renew_under_traffic_and_late_unless_they_were_revoked() {
    let cluster = short_lived();
    let [mut a, b, mut late, mut revoked] = ["a", "b", "late", "revoked"].map(|name| cluster.edge(name));
    late.kill();
    revoked.kill();
    cluster.cloud.say(&["delete", "node", "revoked"]);
    let first = a.ask(&["status"])["certificate"]["until"].clone();

    // Messages that are promised to arrive once and in order, over links that are made anew.
    let heard = Subscriber::start(&b, "5", "mesh/count");
    let mut sent = 0;
    while a.logged(RENEWED) < 3 || b.logged(RENEWED) < 3 {
        mqtt::say(&a, "5", "mesh/count", &sent.to_string());
        sent += 1;
        assert!(sent < 5000, "no third renewal");
    }
    let expected: Vec<String> = (0..sent).map(|number| number.to_string()).collect();
    becomes("what b heard", &expected, || {
        heard.messages().iter().map(|message| message.payload.clone()).collect()
    });
    let certificate = a.ask(&["status"])["certificate"].clone();
    assert_eq!((&certificate["state"], &certificate["failed"]), (&json!("renews itself"), &json!(0)));
    assert!(certificate["until"].as_u64() > first.as_u64(), "{certificate}");
    assert!(cluster.cloud.logged(RENEWED) >= 2, "the cloud renews its own");

    // A crash, and the newest pair is there.
    a.kill();
    a.start();
    cluster.in_step("a");

    // Back after its certificate's end.
    late.start();
    cluster.in_step("late");
    assert!(late.logged(RENEWED) >= 1);

    // Its site works, and its cloud is lost to it.
    revoked.start();
    mqtt::say(&revoked, "5", "local", "still here");
    eventually("a revoked edge hears why", || {
        let status = revoked.ask(&["status"]);
        let why = status["certificate"]["last_failure"]["why"].as_str().unwrap_or_default();
        if why.contains("not a member") { Ok(()) } else { Err(status.to_string()) }
    });
    assert!(!cluster.is_connected("revoked"));
    assert_eq!(revoked.logged(RENEWED), 0);

    // The certificate of the joining, found again, is no way in.
    a.kill();
    std::fs::remove_file(a.data_dir().join("node.pem")).unwrap();
    std::fs::remove_file(a.data_dir().join("node.former.pem")).unwrap();
    a.start();
    eventually("a superseded certificate is refused", || {
        let status = a.ask(&["status"]);
        let why = status["certificate"]["last_failure"]["why"].as_str().unwrap_or_default();
        if why.contains("superseded") { Ok(()) } else { Err(status.to_string()) }
    });
}

#[test]
fn a_cloud_that_was_put_back_before_a_renewal_knows_the_certificate_before() {
    let mut cluster = short_lived();
    let a = cluster.edge("a");
    cluster.cloud.kill();
    let copy = cluster.cloud.copy_data();
    cluster.cloud.start();
    eventually("the edge renews", || match a.logged(RENEWED) {
        0 => Err("not yet".to_owned()),
        _ => Ok(()),
    });
    cluster.cloud.kill();
    cluster.cloud.put_back(&copy);
    cluster.cloud.start();
    cluster.in_step("a");
    assert!(a.logged("the one before is tried") >= 1);
}
