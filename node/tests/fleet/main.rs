//! How a fleet is seen, with real processes: the document, the metrics, `status`, `top`, and what an edge sends for it.
#![cfg(feature = "io")]

#[cfg(test)]
#[allow(dead_code, reason = "this suite needs a part of it")]
#[path = "../harness/mod.rs"]
mod harness;
#[cfg(test)]
mod otlp;
#[cfg(test)]
mod screen;

#[cfg(test)]
use harness::process;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use serde_json::Value;

    use crate::harness::{Cluster, Node};
    use crate::process::{PATIENCE, eventually};

    /// One request on the admin socket, as any tool could make it.
    fn http(node: &Node, path: &str) -> String {
        let mut stream = UnixStream::connect(node.data_dir().join("admin.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: kubebus\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    fn node_of(at: &Node, name: &str) -> Value {
        let fleet: Value = serde_json::from_str(&http(at, "/kubebus/v1/fleet")).unwrap();
        fleet["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .find(|node| node["node"] == name)
            .cloned()
            .unwrap_or_default()
    }

    fn metric(text: &str, name: &str) -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// Waits until the cloud has heard the edge on its present link.
    fn heard(cluster: &Cluster, name: &str) -> Value {
        eventually(&format!("{name} is heard"), || {
            let node = node_of(&cluster.cloud, name);
            let is_heard = node["state"] == "connected"
                && node["heard_ms_ago"].as_u64().is_some_and(|ago| ago < 5_000)
                && node["links"].as_array().is_some_and(|links| links.len() == 2);
            if is_heard { Ok(node) } else { Err(node.to_string()) }
        })
    }

    #[test]
    fn a_cloud_knows_how_its_edge_is_and_that_it_went_and_came_back() {
        let cluster = Cluster::start();
        let began = Instant::now();
        let mut edge = cluster.edge("a");
        let node = heard(&cluster, "edge/a");
        assert_eq!((&node["site"], &node["disk"]), (&"plant".into(), &"ok".into()));
        assert_eq!(
            (&node["links"][0]["path"], &node["links"][0]["peer"]),
            (&"quic".into(), &"cloud/cloud".into())
        );
        assert!(node["links"][0]["rtt_ms"].as_f64().unwrap() > 0.0);
        assert_eq!(node["sync"], serde_json::json!({ "behind": 0, "outbox": 0, "outbox_oldest_ms": 0 }));

        let text = http(&cluster.cloud, "/metrics");
        let labels = "{node=\"edge/a\",site=\"plant\"}";
        assert_eq!(metric(&text, &format!("kubebus_node_up{labels}")), Some(1.0), "{text}");
        // The bound of a minute is tested in virtual time; here, that the frames of real figures are as small.
        let text = http(&cluster.cloud, "/metrics?node=edge/a");
        assert!(metric(&text, &format!("kubebus_store_commits_total{labels}")).is_some(), "{text}");
        let text = http(&edge, "/metrics");
        let sent = metric(&text, &format!("kubebus_health_sent_bytes_total{labels}")).unwrap();
        // One report a look of ten seconds at most, be the machine as slow as it likes.
        let reports = 1.0 + began.elapsed().as_secs_f64() / 8.0;
        assert!(sent > 0.0 && sent < 1_000.0 * reports, "{sent} in {reports}");

        edge.kill();
        eventually("the edge is lost", || {
            let node = node_of(&cluster.cloud, "edge/a");
            if node["state"] == "lost" { Ok(()) } else { Err(node["state"].to_string()) }
        });
        let text = http(&cluster.cloud, "/metrics");
        assert_eq!(metric(&text, &format!("kubebus_node_up{labels}")), Some(0.0));
        assert!(metric(&text, &format!("kubebus_resident_memory_bytes{labels}")).is_some());
        let shown = cluster.cloud.say(&["status"]);
        assert!(shown.contains("edge/a: it is not connected\n    see that the machine has power"), "{shown}");
        assert_eq!(cluster.cloud.say(&["status", "-o", "name"]), "cloud/cloud\nedge/a");

        edge.start();
        heard(&cluster, "edge/a");
        let shown = cluster.cloud.say(&["top", "--once"]);
        assert!(shown.starts_with("cloud/cloud of water") && shown.contains("edge/a"), "{shown}");
    }

    #[test]
    fn an_edge_without_its_cloud_says_why_and_what_to_do() {
        let mut cluster = Cluster::start();
        let edge = cluster.edge("a");
        cluster.cloud.kill();
        let error = eventually("the edge says why", || {
            let node = node_of(&edge, "edge/a");
            let text = node["last_error"]["text"].as_str().unwrap_or_default();
            let is_told = node["state"] == "connected" && text.starts_with("cannot reach the cloud");
            if is_told { Ok(node) } else { Err(node.to_string()) }
        });
        assert!(error["problems"][0]["advice"].as_str().unwrap().contains("UDP"), "{error}");
        let status = edge.say(&["status"]);
        assert!(status.contains("edge/a: the cloud is not connected; the site goes on"), "{status}");
        assert_eq!(edge.ask(&["status"])["fleet"]["nodes"][1]["state"], "lost");
    }
}
