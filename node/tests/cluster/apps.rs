//! Apps that talk to each other over `mesh/`, and the broker as any MQTT client knows it.

use serde_json::json;

use crate::harness::Cluster;
use crate::mqtt::{self, Subscriber, V5, VERSIONS};

#[test]
fn what_is_said_on_the_mesh_is_heard_at_every_site_that_listens() {
    let cluster = Cluster::start();
    let [a, b] = ["a", "b"].map(|name| cluster.edge(name));
    let nodes = [&cluster.cloud, &a, &b];
    let listeners = nodes.map(|node| Subscriber::start(node, V5, "mesh/orders/#"));
    for (speaker, version) in nodes.into_iter().flat_map(|node| VERSIONS.map(|version| (node, version))) {
        let payload = json!({ "from": speaker.name, "by": version });
        // A site's wish to listen takes a moment to get round.
        crate::process::eventually(&format!("{payload} is heard by all"), || {
            mqtt::say(speaker, version, "mesh/orders/new", &payload.to_string());
            let heard = |listener: &Subscriber| listener.messages().iter().any(|m| m.json() == payload);
            let deaf = listeners.iter().zip(nodes).filter(|(listener, _)| !heard(listener));
            let deaf: Vec<&str> = deaf.map(|(_, node)| node.name.as_str()).collect();
            if deaf.is_empty() { Ok(()) } else { Err(format!("not at {deaf:?}")) }
        });
    }
}

#[test]
fn what_is_outside_the_mesh_stays_at_its_site() {
    let cluster = Cluster::start();
    let [a, b] = ["a", "b"].map(|name| cluster.edge(name));
    let (here, there) = (Subscriber::start(&a, V5, "#"), Subscriber::start(&b, V5, "#"));
    mqtt::say(&a, V5, "local/news", "1");
    here.gets("local/news", "", &json!(1));
    crate::process::eventually("the mesh goes round", || {
        mqtt::say(&a, V5, "mesh/news", "2");
        let heard = there.messages().iter().any(|m| m.topic == "mesh/news");
        if heard { Ok(()) } else { Err(format!("{:?}", there.messages())) }
    });
    assert!(there.messages().iter().all(|m| m.topic != "local/news"), "{:?}", there.messages());
}
