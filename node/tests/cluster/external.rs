//! A node that uses the broker of its site: mosquitto.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::harness::{Cluster, Node};
use crate::mqtt::{self, Subscriber, V5, VERSIONS, tool};
use crate::process::{Ran, becomes, eventually, run, run_with};
use crate::twins::Plant;

/// How often the node tries to connect, at the least: a test that looks for nothing to happen waits longer.
const SEVERAL_TRIES: Duration = Duration::from_secs(3);

/// mosquitto in the place of a node's broker: the same address, so that clients find it there.
struct Mosquitto {
    dir: PathBuf,
    process: Option<Child>,
}

impl Mosquitto {
    /// Not running. With `persistence` it knows after a clean stop what it knew before.
    fn new(node: &Node, persistence: bool) -> Self {
        let dir = node.config().with_file_name("mosquitto");
        std::fs::create_dir(&dir).unwrap();
        let (at, room) = (node.mqtt(), dir.display());
        let config = format!(
            "listener {} {}\nallow_anonymous true\nuser root\npersistence {persistence}\n\
             persistence_location {room}/\nmax_queued_messages 10000\npassword_file {room}/passwords\n",
            at.port(),
            at.ip()
        );
        std::fs::write(dir.join("config"), config).unwrap();
        std::fs::write(dir.join("passwords"), "").unwrap();
        Self { dir, process: None }
    }

    /// Adds a user. Read at the next start.
    #[track_caller]
    fn set_password(&self, user: &str, password: &str) {
        let file = self.dir.join("passwords");
        let mut command = Command::new("mosquitto_passwd");
        command.arg("-b").arg(file).args([user, password]);
        run(command).expect(0);
    }

    /// Read at the next start.
    fn set_rights(&self, rights: &str) {
        let (acl, config) = (self.dir.join("acl"), self.dir.join("config"));
        std::fs::write(&acl, rights).unwrap();
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(config, format!("{text}acl_file {}\n", acl.display())).unwrap();
    }

    fn start(&mut self) {
        let mut command = Command::new("mosquitto");
        command
            .arg("-c")
            .arg(self.dir.join("config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.process = Some(
            command
                .spawn()
                .unwrap_or_else(|error| panic!("mosquitto: {error}; install it: apt-get install mosquitto")),
        );
    }

    fn end(&mut self, signal: Signal) {
        let mut process = self.process.take().unwrap();
        kill_process(Pid::from_child(&process), signal).unwrap();
        process.wait().unwrap();
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// What the documentation gives mosquitto as `acl_file`.
fn documented_rights() -> String {
    let page = include_str!("../../../docs/mqtt.md");
    let (_, rest) = page.split_once("```acl\n").unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// Lets a node use the broker at its own address, from its next start on.
fn use_external(node: &Node, more: &str) {
    let text = std::fs::read_to_string(node.config()).unwrap();
    let embedded = format!("mqtt: {{listen: '{}'}}", node.mqtt());
    assert!(text.contains(&embedded), "{text}");
    let external = format!("mqtt: {{external: {{address: '{}'{more}}}}}", node.mqtt());
    std::fs::write(node.config(), text.replace(&embedded, &external)).unwrap();
}

fn external_state(node: &Node) -> String {
    node.ask(&["status"])["mqtt"]["external"].as_str().unwrap().to_owned()
}

#[track_caller]
fn is_connected(node: &Node) {
    let connected = format!("connected to {}", node.mqtt());
    becomes(&format!("{} is at its broker", node.name), &connected, || external_state(node));
}

/// A plant whose edge uses mosquitto.
#[track_caller]
fn plant() -> (Plant, Mosquitto) {
    let mut broker = None;
    let prepare = |node: Node| {
        let mut mosquitto = Mosquitto::new(&node, false);
        mosquitto.start();
        use_external(&node, "");
        broker = Some(mosquitto);
        node
    };
    let plant = Plant::start_in(Cluster::start(), prepare);
    is_connected(&plant.a);
    (plant, broker.unwrap())
}

#[test]
fn sensors_apps_and_mappers_meet_the_node_at_the_sites_broker() {
    let (plant, _mosquitto) = plant();
    let cloud = &plant.cluster.cloud;
    for (count, version) in VERSIONS.into_iter().enumerate() {
        let watcher = Subscriber::start(&plant.a, version, "twin/#");
        let value = json!(100 + count);
        mqtt::say(&plant.a, version, "twin/water/meter/report/count", &value.to_string());
        watcher.gets("twin/water/meter/reported/count", "/value", &value);
        cloud.twin_becomes(("water/meter", "count"), "/reported/value", value.clone());
        let late = Subscriber::start(&plant.a, version, "twin/water/meter/reported/count");
        assert!(late.gets("twin/water/meter/reported/count", "/value", &value).retained);

        mqtt::say(&plant.a, version, "twin/water/meter/report/count", "\"many\"");
        let answer = watcher.gets("twin/water/meter/result", "/outcome", &json!("rejected")).json();
        assert!(answer["detail"].as_str().unwrap().contains("many"), "{answer}");
    }
    let watcher = Subscriber::start(&plant.a, V5, "twin/water/valve/result");
    mqtt::say(&plant.a, V5, "twin/water/valve/set/position", "20");
    watcher.gets("twin/water/valve/result", "/outcome", &json!("succeeded"));
    assert_eq!(plant.valve.value("position"), json!(20.0));
    let order = json!({ "id": "c1", "args": { "setpoint": 3 }, "ttlMs": 20_000 });
    mqtt::say(&plant.a, V5, "twin/water/valve/command/set", &order.to_string());
    let end = watcher.gets("twin/water/valve/result", "/command", &json!("c1")).json();
    assert_eq!((&end["outcome"], plant.valve.value("setpoint")), (&json!("succeeded"), json!(3.0)), "{end}");
    // KubeEdge's topics as well.
    let watcher = Subscriber::start(&plant.a, V5, "$hw/events/device/water/meter/twin/update/result");
    let report =
        json!({ "twin": { "count": { "actual": { "value": "7" }, "metadata": { "type": "int" } } } });
    mqtt::say(&plant.a, V5, "$hw/events/device/water/meter/twin/update", &report.to_string());
    watcher.gets("$hw/events/device/water/meter/twin/update/result", "/twin/count/actual/value", &json!("7"));
    cloud.twin_becomes(("water/meter", "count"), "/reported/value", json!(7));
}

#[test]
fn a_broker_that_starts_anew_without_its_memory_is_told_everything_again() {
    let (plant, mut mosquitto) = plant();
    mqtt::say(&plant.a, V5, "twin/water/meter/report/count", "5");
    plant.a.twin_becomes(("water/meter", "count"), "/reported/value", json!(5));
    mosquitto.end(Signal::KILL);
    plant.a.twin_becomes(("water/valve", "position"), "/state/state", json!("offline"));
    let state = external_state(&plant.a);
    assert!(state.starts_with(&format!("not connected to {}", plant.a.mqtt())), "{state}");
    // What is wished meanwhile is a setting: it is done when it can be.
    plant.cluster.cloud.say(&["twin", "set", "water/valve", "setpoint", "3.5"]);
    plant.cluster.cloud.say(&["twin", "set", "water/valve", "position", "77"]);
    plant.a.twin_becomes(("water/valve", "setpoint"), "/desired", json!(3.5));
    // The wish for the position is meant for five seconds.
    std::thread::sleep(Duration::from_secs(6));
    mosquitto.start();
    is_connected(&plant.a);
    plant.a.twin_becomes(("water/valve", "setpoint"), "/reported/value", json!(3.5));
    let late = Subscriber::start(&plant.a, V5, "twin/water/meter/reported/count");
    assert!(late.gets("twin/water/meter/reported/count", "/value", &json!(5)).retained);
    assert_eq!(plant.valve.written(), [("setpoint".to_owned(), json!(3.5))], "nothing stale moved the valve");
}

#[test]
fn what_was_wished_while_the_node_was_away_moves_nothing() {
    let (mut plant, _mosquitto) = plant();
    plant.a.terminate();
    mqtt::say(&plant.a, V5, "twin/water/valve/set/position", "66");
    let retained = mqtt::publish_with(&plant.a, V5, "twin/water/valve/set/position", "67", &["-r"]);
    assert_eq!(retained.stderr, "");
    plant.a.start();
    is_connected(&plant.a);
    std::thread::sleep(SEVERAL_TRIES);
    assert_eq!(plant.valve.written(), []);
    let watcher = Subscriber::start(&plant.a, V5, "twin/water/valve/result");
    mqtt::say(&plant.a, V5, "twin/water/valve/set/position", "20");
    watcher.gets("twin/water/valve/result", "/outcome", &json!("succeeded"));
    assert_eq!(plant.valve.written(), [("position".to_owned(), json!(20.0))]);
}

#[test]
fn a_wrong_password_is_told_with_what_to_do_and_the_node_comes_in_once_it_is_right() {
    let cluster = Cluster::start();
    let node = cluster.stranger("a");
    let mut mosquitto = Mosquitto::new(&node, false);
    mosquitto.set_password("kubebus", "right");
    mosquitto.set_rights(&documented_rights());
    mosquitto.start();
    let password = cluster.file("password", "wrong\n");
    use_external(&node, &format!(", username: kubebus, password-file: {}", password.display()));
    let mut a = cluster.admit(node);
    eventually("its status says why", || {
        let state = external_state(&a);
        let is_told = state.contains("see mqtt.external.username and password-file");
        if is_told { Ok(()) } else { Err(state) }
    });
    assert!(a.logged("not connected to the site's MQTT broker") <= 4, "a reason is logged when it is new");
    // The site's administrator mends it at the broker.
    mosquitto.end(Signal::TERM);
    mosquitto.set_password("kubebus", "wrong");
    mosquitto.start();
    is_connected(&a);
    // With the rights of the documentation clients say what is theirs, and nothing of what is the node's.
    let watcher = Subscriber::start(&a, V5, "twin/#");
    mqtt::say(&a, V5, "twin/water/valve/set/position", "1");
    watcher.gets("twin/water/valve/result", "/outcome", &json!("rejected"));
    for topic in ["mapper/virtual/write", "mapper/virtual/config", "twin/water/valve/reported/position"] {
        let ran = mqtt::publish(&a, V5, topic, "1");
        assert!(ran.stderr.contains("Not authorized"), "{topic}: {ran:?}");
    }
    let (status, took) = a.terminate();
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
}

/// Everything that waits at the broker for the kept session `app`, in order.
#[track_caller]
fn waiting_for_app(node: &Node, count: u64) -> Vec<u64> {
    let mut command = tool("mosquitto_sub", node, V5);
    command.args(["-c", "-i", "app", "-x", "3600", "-q", "1", "-t", "mesh/#", "-W", "30"]);
    command.args(["-C", &count.to_string()]);
    let Ran { stdout, .. } = run(command);
    stdout.lines().filter_map(|line| line.parse().ok()).collect()
}

#[test]
fn sites_exchange_messages_whoever_has_which_broker_over_restarts_of_broker_and_node() {
    let cluster = Cluster::start();
    let node = cluster.stranger("a");
    let mut mosquitto = Mosquitto::new(&node, true);
    mosquitto.start();
    // What this site wants of others says nothing of what it has for them.
    use_external(&node, ", subscribe: ['mesh/from-b']");
    let mut a = cluster.admit(node);
    is_connected(&a);
    let b = cluster.edge("b");
    let at_b = Subscriber::start(&b, V5, "mesh/from-a");
    let heard_at_b = || -> Vec<u64> {
        at_b.messages().iter().filter_map(|message| message.payload.parse().ok()).collect()
    };
    let say_at = |node: &Node, topic: &str, numbers: std::ops::RangeInclusive<u64>| {
        let lines: String = numbers.map(|number| format!("{number}\n")).collect();
        let mut command = tool("mosquitto_pub", node, V5);
        command.args(["-q", "1", "-t", topic, "-l"]);
        run_with(command, &lines).expect(0);
    };
    let all = |last: u64| (1..=last).collect::<Vec<u64>>();
    say_at(&a, "mesh/from-a", 1..=100);
    becomes("b hears the clients of a's broker", &all(100), heard_at_b);
    // While the node is away its broker keeps what clients say.
    a.terminate();
    say_at(&a, "mesh/from-a", 101..=200);
    a.start();
    becomes("b hears what was said meanwhile", &all(200), heard_at_b);

    // A client with a kept session at a's broker; what comes for it while that broker is down, comes when it is back.
    let mut command = tool("mosquitto_sub", &a, V5);
    command.args(["-c", "-i", "app", "-x", "3600", "-q", "1", "-t", "mesh/#", "-E"]);
    run(command).expect(0);
    say_at(&b, "mesh/from-b", 1..=50);
    assert_eq!(waiting_for_app(&a, 50), all(50));
    mosquitto.end(Signal::TERM);
    say_at(&b, "mesh/from-b", 51..=150);
    mosquitto.start();
    is_connected(&a);
    // At least once: the broker may have ended before the node read that it had taken the first fifty, and those come again.
    let app = Subscriber::start_with(&a, V5, "mesh/#", &["-c", "-i", "app", "-x", "3600"]);
    becomes("the app hears what came while its broker was down", &(51..=150).collect::<Vec<u64>>(), || {
        let numbers = app.messages().into_iter().filter_map(|message| message.payload.parse::<u64>().ok());
        numbers.filter(|number| *number > 50).collect()
    });
    assert_eq!(heard_at_b(), all(200), "nothing came back around");
}

#[test]
fn a_node_that_stood_still_does_not_act_on_what_came_meanwhile() {
    let (plant, _mosquitto) = plant();
    let pid = Pid::from_raw(plant.a.pid().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    mqtt::say(&plant.a, V5, "twin/water/valve/set/position", "66");
    std::thread::sleep(Duration::from_secs(17));
    kill_process(pid, Signal::CONT).unwrap();
    eventually("the node notices", || {
        if plant.a.logged("this node stood still") > 0 { Ok(()) } else { Err("not yet".to_owned()) }
    });
    is_connected(&plant.a);
    let watcher = Subscriber::start(&plant.a, V5, "twin/water/valve/result");
    mqtt::say(&plant.a, V5, "twin/water/valve/set/position", "20");
    watcher.gets("twin/water/valve/result", "/outcome", &json!("succeeded"));
    assert_eq!(plant.valve.written(), [("position".to_owned(), json!(20.0))]);
}

#[test]
fn others_see_whether_the_node_is_there_and_are_answered_where_they_may_ask_for_it() {
    let (mut plant, _mosquitto) = plant();
    let state = Subscriber::start(&plant.a, V5, "kubebus/kubebus-a/state");
    let last = || state.messages().last().map(|message| message.payload.clone());
    becomes("it says that it is there", &Some("online".to_owned()), last);
    let everywhere = Subscriber::start(&plant.a, V5, "#");
    for topic in ["elsewhere/valve/set", "answers/me"] {
        let order = json!({ "args": { "setpoint": 2 }, "ttlMs": 20_000 });
        let mut command = tool("mosquitto_pub", &plant.a, V5);
        command.args(["-q", "1", "-t", "twin/water/valve/command/set", "-m", &order.to_string()]);
        command.args(["-D", "publish", "response-topic", topic]);
        run(command).expect(0);
    }
    everywhere.gets("answers/me", "/outcome", &json!("succeeded"));
    assert!(everywhere.messages().iter().all(|message| message.topic != "elsewhere/valve/set"));
    plant.a.kill();
    becomes("its will says that it is gone", &Some("offline".to_owned()), last);
    plant.a.start();
    becomes("it is back", &Some("online".to_owned()), last);
    plant.a.terminate();
    becomes("it says that it goes", &Some("offline".to_owned()), last);
}

#[test]
fn a_mapper_of_kubeedges_is_served_once_it_reports() {
    let (plant, _mosquitto) = plant();
    plant.cluster.apply(
        "apiVersion: devices.kubeedge.io/v1beta1\nkind: DeviceModel\n\
         metadata: {name: thermostat, namespace: default}\n\
         spec: {properties: [{name: temperature, type: INT, accessMode: ReadWrite}]}\n---\n\
         apiVersion: devices.kubeedge.io/v1beta1\nkind: Device\n\
         metadata: {name: thermostat, namespace: default}\n\
         spec: {deviceModelRef: {name: thermostat}, nodeName: a, protocol: {protocolName: gpio}}\n",
    );
    plant.a.twin_becomes(("default/thermostat", "temperature"), "/device", json!("default/thermostat"));
    let topic = "$hw/events/device/thermostat/twin/update";
    let mapper = Subscriber::start(&plant.a, V5, &format!("{topic}/delta"));
    let report =
        |value: u8| json!({ "twin": { "temperature": { "actual": { "value": value.to_string() } } } });
    mqtt::say(&plant.a, V5, topic, &report(25).to_string());
    plant.cluster.cloud.twin_becomes(("default/thermostat", "temperature"), "/reported/value", json!(25));
    plant.cluster.cloud.say(&["twin", "set", "default/thermostat", "temperature", "21"]);
    mapper.gets(&format!("{topic}/delta"), "/delta/temperature", &json!("21"));
    mqtt::say(&plant.a, V5, topic, &report(21).to_string());
    plant.cluster.cloud.twin_becomes(("default/thermostat", "temperature"), "/converged", json!(true));
}

#[test]
fn the_mapper_finds_the_node_again_after_both_were_away() {
    let (mut plant, mut mosquitto) = plant();
    plant.a.terminate();
    mosquitto.end(Signal::KILL);
    mosquitto.start();
    plant.a.start();
    is_connected(&plant.a);
    plant.a.twin_becomes(("water/valve", "position"), "/state/state", json!("online"));
    mqtt::say(&plant.a, V5, "twin/water/valve/set/position", "20");
    plant.a.twin_becomes(("water/valve", "position"), "/reported/value", json!(20.0));
}
