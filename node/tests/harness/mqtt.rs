//! mosquitto's tools as clients: what a technician has at hand.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::Node;
use super::process::{Ran, eventually, run, run_with};

/// MQTT 3.1.1 and 5.0, as mosquitto's `-V` calls them.
pub(crate) const VERSIONS: [&str; 2] = ["mqttv311", "mqttv5"];
pub(crate) const V5: &str = "mqttv5";

/// Tells a message from mosquitto_sub's own remarks.
const MARK: &str = "> ";

/// By line, also into a pipe: mosquitto_sub's own remarks would else wait for its first message.
pub(crate) fn tool(name: &str, node: &Node, version: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    assert!(is_there, "{name} is not there; install it: apt-get install mosquitto-clients");
    let at = node.mqtt();
    let mut command = Command::new("stdbuf");
    command.args(["-oL", name]).args([
        "-h",
        &at.ip().to_string(),
        "-p",
        &at.port().to_string(),
        "-V",
        version,
    ]);
    command
}

/// Publishes with QoS 1: ends when the PUBACK is there.
#[track_caller]
pub(crate) fn publish(node: &Node, version: &str, topic: &str, payload: &str) -> Ran {
    publish_with(node, version, topic, payload, &[])
}

#[track_caller]
pub(crate) fn publish_with(node: &Node, version: &str, topic: &str, payload: &str, more: &[&str]) -> Ran {
    let mut command = tool("mosquitto_pub", node, version);
    command.args(["-q", "1", "-t", topic, "-m", payload]).args(more);
    run(command).expect(0)
}

/// Publishes something that the node takes.
#[track_caller]
pub(crate) fn say(node: &Node, version: &str, topic: &str, payload: &str) {
    let ran = publish(node, version, topic, payload);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""), "{topic} {payload}");
}

/// Publishes each line as a message of its own, with QoS 1 and as fast as it goes.
#[track_caller]
pub(crate) fn say_lines(node: &Node, topic: &str, lines: &str) {
    let mut command = tool("mosquitto_pub", node, V5);
    command.args(["-q", "1", "-t", topic, "-l"]);
    let ran = run_with(command, lines).expect(0);
    assert_eq!(ran.stderr, "", "{topic}");
}

/// Counts on a topic, one message a number from 1 on with QoS 1, until `enough` are acknowledged; then `interrupt`
/// is called in the middle of it. Returns the last number whose PUBACK came.
#[track_caller]
pub(crate) fn count_until(
    node: &mut Node,
    topic: &str,
    enough: u64,
    interrupt: impl FnOnce(&mut Node),
) -> u64 {
    let mut command = tool("mosquitto_pub", node, V5);
    command.args(["-d", "-q", "1", "-t", topic, "-l"]);
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
    // Ends with the process that reads.
    std::thread::spawn(move || (1_u64..).try_for_each(|number| writeln!(stdin, "{number}")));
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    // The tool numbers its messages from 1 on as well.
    let acknowledged =
        |line: String| line.split_once("received PUBACK (Mid: ")?.1.split(',').next()?.parse().ok();
    let reached = lines.by_ref().filter_map(acknowledged).find(|number: &u64| *number >= enough);
    interrupt(node);
    process.kill().unwrap();
    process.wait().unwrap();
    lines.filter_map(acknowledged).chain(reached).max().unwrap_or_default()
}

/// One message as a subscriber got it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: String,
    pub(crate) retained: bool,
}

impl Message {
    fn parse(line: &str) -> Option<Self> {
        let (retained, rest) = line.strip_prefix(MARK)?.split_once(' ')?;
        let (topic, payload) = rest.split_once(' ')?;
        Some(Self { topic: topic.to_owned(), payload: payload.to_owned(), retained: retained == "1" })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.payload).unwrap_or_default()
    }
}

/// A running mosquitto_sub.
pub(crate) struct Subscriber {
    process: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Subscriber {
    /// Subscribes and waits for the SUBACK.
    #[track_caller]
    pub(crate) fn start(node: &Node, version: &str, filter: &str) -> Self {
        Self::start_with(node, version, filter, &[])
    }

    /// The same, with further arguments.
    #[track_caller]
    pub(crate) fn start_with(node: &Node, version: &str, filter: &str, more: &[&str]) -> Self {
        let mut command = tool("mosquitto_sub", node, version);
        command.args(["-d", "-q", "1", "-t", filter, "-F", &format!("{MARK}%r %t %p")]).args(more);
        let mut process =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (kept, stdout) = (Arc::clone(&lines), process.stdout.take().unwrap());
        std::thread::spawn(move || {
            BufReader::new(stdout)
                .lines()
                .map_while(Result::ok)
                .for_each(|line| kept.lock().unwrap().push(line));
        });
        let subscriber = Self { process, lines };
        subscriber.remarks("Subscribed (mid");
        subscriber
    }

    fn find<T>(&self, look: impl Fn(&str) -> Option<T>) -> Result<T, String> {
        let lines = self.lines.lock().unwrap();
        lines.iter().find_map(|line| look(line)).ok_or_else(|| lines.join("\n"))
    }

    /// All messages so far.
    pub(crate) fn messages(&self) -> Vec<Message> {
        self.lines.lock().unwrap().iter().filter_map(|line| Message::parse(line)).collect()
    }

    /// Waits for a remark of mosquitto_sub's own.
    #[track_caller]
    pub(crate) fn remarks(&self, words: &str) {
        eventually(words, || self.find(|line| line.contains(words).then_some(())));
    }

    /// Waits for a message on `topic` with `expected` at a JSON pointer.
    #[track_caller]
    pub(crate) fn gets(&self, topic: &str, pointer: &str, expected: &Value) -> Message {
        eventually(&format!("{topic} {pointer} = {expected}"), || {
            self.find(|line| {
                let is_it = |m: &Message| m.topic == topic && m.json().pointer(pointer) == Some(expected);
                Message::parse(line).filter(is_it)
            })
        })
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
