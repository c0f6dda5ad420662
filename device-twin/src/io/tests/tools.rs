//! mosquitto's command line tools as clients: what a technician has at hand.

use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use super::{World, within};

/// Starts one of mosquitto's tools against the broker.
fn start(world: &World, tool: &str, version: &str, args: &[&str]) -> Child {
    start_at(world.address(), tool, version, args)
}

pub(super) fn start_at(address: SocketAddr, tool: &str, version: &str, args: &[&str]) -> Child {
    Command::new(tool)
        .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string(), "-V", version])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("cannot run {tool} ({error}); install it: apt-get install mosquitto-clients")
        })
}

/// Waits for its end.
pub(super) async fn ended(child: Child) -> Output {
    let waiting = tokio::task::spawn_blocking(move || child.wait_with_output());
    within("the end of a tool", waiting).await.unwrap().unwrap()
}

/// Waits for its end and says what it printed; it must have succeeded.
pub(super) async fn output(child: Child) -> String {
    let output = ended(child).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn filters_become(world: &World, count: u64) {
    let reached = async {
        while world.broker.stats().hub.filters != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("a subscription", reached).await;
}

#[tokio::test]
async fn mosquitto_pub_and_sub_talk_in_both_versions_at_every_qos() {
    let world = World::new().await;
    for (version, qos) in ["mqttv311", "5"].into_iter().flat_map(|v| ["0", "1", "2"].map(|q| (v, q))) {
        let args = ["-t", "größe/#", "-q", qos, "-C", "2", "-W", "15", "-F", "%t %q %r %p"];
        world.publish("größe/kept", "before", true).await;
        let subscriber = start(&world, "mosquitto_sub", version, &args);
        filters_become(&world, 1).await;
        let publisher = start(&world, "mosquitto_pub", version, &["-t", "größe/live", "-q", qos, "-m", "ä"]);
        output(publisher).await;
        let heard = output(subscriber).await;
        assert_eq!(heard, format!("größe/kept {qos} 1 before\ngröße/live {qos} 0 ä\n"), "{version}");
        filters_become(&world, 0).await;
    }
}

#[tokio::test]
async fn mosquitto_pub_waits_until_the_node_has_the_message() {
    let mut world = World::new().await;
    for version in ["mqttv311", "5"] {
        let args = ["-i", "tool", "-t", "twin/w/tank/report/level", "-q", "1", "-m", "7"];
        let mut publisher = start(&world, "mosquitto_pub", version, &args);
        let (heard, ticket) = world.heard().await;
        assert_eq!(heard, "tool: twin/w/tank/report/level = 7");
        tokio::time::sleep(super::QUIET).await;
        assert!(publisher.try_wait().unwrap().is_none(), "acknowledged before it was accepted");
        world.broker.accept(ticket.unwrap());
        output(publisher).await;
    }
}

#[tokio::test]
async fn mosquitto_sub_gets_properties_and_what_is_left_of_the_expiry() {
    let world = World::new().await;
    let args = ["-t", "q", "-C", "1", "-W", "15", "-F", "%p %R %D %E %C"];
    let subscriber = start(&world, "mosquitto_sub", "5", &args);
    filters_become(&world, 1).await;
    let properties = [
        ["-D", "publish", "response-topic", "answers/here"],
        ["-D", "publish", "correlation-data", "c-1"],
        ["-D", "publish", "message-expiry-interval", "60"],
        ["-D", "publish", "content-type", "text/plain"],
    ];
    let mut args = vec!["-t", "q", "-m", "x", "-q", "1"];
    args.extend(properties.as_flattened());
    output(start(&world, "mosquitto_pub", "5", &args)).await;
    assert_eq!(output(subscriber).await, "x answers/here c-1 60 text/plain\n");
}
