//! From a client of one site, over the cloud, to a client of another; against mosquittos that are bridged the same way.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::broker::{ROUNDS, load, rounds, row};
use crate::cluster::Cluster;
use crate::mosquitto::Mosquitto;
use crate::relay::{Link, Relay, delayed};
use crate::table::Table;

/// One way between a site and the cloud, on the slower of the two paths.
const DELAY: Duration = Duration::from_millis(25);

/// So wide that nothing waits for it.
const LINK: Link = Link { bits_per_second: 1e9, delay: DELAY, queue: Duration::from_secs(1) };

/// Reconnects, keeps its session, and says back nothing that came from there. `site` is its name in the middle.
fn bridge(site: &str, to: SocketAddr) -> String {
    format!(
        "connection {site}\nremote_clientid {site}\naddress {to}\ntopic mesh/# both 1\nbridge_protocol_version mqttv50\n\
         cleansession false\nnotifications false\nrestart_timeout 1\n"
    )
}

pub(crate) fn run(program: &Path, room: &Path) -> Result<Table> {
    let mut table = Table::new(
        "sites: from a client of one site to a client of another, over the cloud, 100 messages/s of 64 bytes",
        &["", "kubebus", "mosquitto, bridged", "kubebus : mosquitto", "aim"],
    );
    for (path, delay) in [("on one machine", None), ("over links of 50 ms", Some(DELAY))] {
        let through = |cloud| match delay {
            Some(_) => Relay::start(cloud, LINK).map(|relay| relay.address),
            None => Ok(cloud),
        };
        let cluster = Cluster::start(program, room, through)?;
        let second = cluster.another_edge("second", 4, through(cluster.cloud.quic())?)?;
        let middle = Mosquitto::start(room, 5, "")?;
        let towards = || delay.map_or(Ok(middle.address), |delay| delayed(middle.address, delay));
        let sites = [
            Mosquitto::start(room, 6, &bridge("a", towards()?))?,
            Mosquitto::start(room, 7, &bridge("b", towards()?))?,
        ];
        let ways = [[cluster.edge.mqtt(), second.mqtt()], [sites[0].address, sites[1].address]]
            .map(|[a, b]| format!("{a},{b}"));
        for qos in ["qos0", "qos1"] {
            let [ours, theirs] = rounds(|which| load(&ways[which], &format!("across-{qos}")))?;
            let split = |of: fn(&(f64, f64)) -> f64| [&ours, &theirs].map(|all| all.iter().map(of).collect());
            let millis = |value: f64| format!("{:.2} ms", value / 1000.0);
            let level = if qos == "qos0" { "QoS 0" } else { "QoS 1" };
            row(&mut table, &format!("{path}, {level}: median"), "", millis, split(|both| both.0));
            row(
                &mut table,
                &format!("{path}, {level}: 99 of 100"),
                "1 or less",
                millis,
                split(|both| both.1),
            );
        }
    }
    table.note(format!(
        "medians of {ROUNDS} rounds in turn; mosquitto: a bridge from each site to a third in the middle;"
    ));
    table.note("QoS 1: on the disk of both sites and of the cloud at kubebus, in memory at mosquitto");
    Ok(table)
}
