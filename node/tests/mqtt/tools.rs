//! mosquitto's tools, as one uses them at a desk.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use crate::mqtt::{V5, VERSIONS, tool};
use crate::process::run;
use crate::{Cluster, Node};

/// mosquitto_sub that prints what `format` says of each message; waits for the SUBACK.
struct Listener {
    process: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Listener {
    #[track_caller]
    fn start(node: &Node, version: &str, format: &str, more: &[&str]) -> Self {
        let mut command = tool("mosquitto_sub", node, version);
        // `-W`: it ends by itself where nothing comes.
        command.args(["-d", "-W", "40", "-F", &format!("> {format}")]).args(more);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut listener = Self { process, lines };
        listener.line("Subscribed (mid");
        listener
    }

    /// The next line that begins so, without that.
    #[track_caller]
    fn line(&mut self, prefix: &str) -> String {
        let found =
            self.lines.by_ref().map_while(Result::ok).find_map(|l| Some(l.strip_prefix(prefix)?.to_owned()));
        found.unwrap_or_else(|| panic!("mosquitto_sub ended before it said '{prefix}'"))
    }

    #[track_caller]
    fn message(&mut self) -> String {
        self.line("> ")
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[track_caller]
fn publish(node: &Node, version: &str, args: &[&str]) {
    let mut command = tool("mosquitto_pub", node, version);
    command.args(args);
    assert_eq!(run(command).expect(0).stderr, "", "{args:?}");
}

/// mosquitto_sub that ends by itself.
#[track_caller]
fn listen(node: &Node, version: &str, args: &[&str]) -> String {
    let mut command = tool("mosquitto_sub", node, version);
    command.args(args);
    run(command).expect(0).stdout
}

#[test]
fn every_qos_works_with_the_tools() {
    let cluster = Cluster::start();
    for version in VERSIONS {
        let mut listener =
            Listener::start(&cluster.cloud, version, "%t %q %p", &["-q", "2", "-t", "tools/#"]);
        for qos in ["0", "1", "2"] {
            publish(&cluster.cloud, version, &["-q", qos, "-t", "tools/größe", "-m", "é"]);
            assert_eq!(listener.message(), format!("tools/größe {qos} é"), "{version}");
        }
    }
}

#[test]
fn a_retained_value_is_kept_and_cleared_with_the_tools() {
    let cluster = Cluster::start();
    let node = &cluster.cloud;
    for version in VERSIONS {
        publish(node, version, &["-q", "1", "-r", "-t", "tools/kept", "-m", "42"]);
        let found = listen(node, version, &["-t", "tools/kept", "-C", "1", "-W", "20", "-F", "%r %p"]);
        assert_eq!(found, "1 42\n", "{version}");
        publish(node, version, &["-q", "1", "-r", "-t", "tools/kept", "-n"]);
        publish(node, version, &["-q", "1", "-r", "-t", "tools/end", "-m", "end"]);
        let found = listen(node, version, &["-t", "tools/#", "-C", "1", "-W", "20", "-F", "%t"]);
        assert_eq!(found, "tools/end\n", "{version}");
    }
}

#[test]
fn messages_wait_for_a_tool_with_a_session() {
    let cluster = Cluster::start();
    let node = &cluster.cloud;
    for version in VERSIONS {
        let id = format!("away-{version}");
        let session = ["-c", "-i", &id, "-q", "1", "-t", "tools/queue"];
        // `-E`: ends when it is subscribed.
        listen(node, version, &[&session[..], &["-E"]].concat());
        for number in ["1", "2", "3"] {
            publish(node, version, &["-q", "1", "-t", "tools/queue", "-m", number]);
        }
        let got = listen(node, version, &[&session[..], &["-C", "3", "-W", "20"]].concat());
        assert_eq!(got, "1\n2\n3\n", "{version}");
    }
}

#[test]
fn a_will_of_a_killed_tool_is_heard() {
    let cluster = Cluster::start();
    let node = &cluster.cloud;
    for version in VERSIONS {
        let mut heir = Listener::start(node, version, "%t %p", &["-q", "1", "-t", "tools/will"]);
        let will = ["--will-topic", "tools/will", "--will-payload", "gone", "--will-qos", "1", "-t", "other"];
        drop(Listener::start(node, version, "%p", &will));
        assert_eq!(heir.message(), "tools/will gone", "{version}");
    }
}

#[test]
fn a_request_with_mosquitto_rr_is_answered() {
    let cluster = Cluster::start();
    let node = &cluster.cloud;
    let mut responder = Listener::start(node, V5, "%R %D %p", &["-q", "1", "-t", "tools/request"]);
    let mut request = tool("mosquitto_rr", node, V5);
    request.args(["-q", "1", "-t", "tools/request", "-e", "tools/response", "-m", "how much?", "-W", "20"]);
    request.args(["-D", "publish", "correlation-data", "17"]).stdout(Stdio::piped());
    let asking = request.spawn().unwrap();
    assert_eq!(responder.message(), "tools/response 17 how much?");
    let answer = ["-q", "1", "-t", "tools/response", "-m", "42", "-D", "publish", "correlation-data", "17"];
    publish(node, V5, &answer);
    let done = asking.wait_with_output().unwrap();
    assert_eq!((done.status.code(), String::from_utf8(done.stdout).unwrap().as_str()), (Some(0), "42\n"));
}

#[test]
fn tools_share_a_subscription() {
    let cluster = Cluster::start();
    let node = &cluster.cloud;
    let group = ["-q", "1", "-t", "$share/crew/tools/work", "-t", "tools/end"];
    let mut crew = [0, 1].map(|_| Listener::start(node, V5, "%p", &group));
    for number in 0..20 {
        publish(node, V5, &["-q", "1", "-t", "tools/work", "-m", &number.to_string()]);
    }
    publish(node, V5, &["-q", "1", "-t", "tools/end", "-m", "end"]);
    let shares = crew
        .each_mut()
        .map(|member| -> Vec<u32> { std::iter::from_fn(|| member.message().parse().ok()).collect() });
    let mut all = shares.concat();
    all.sort_unstable();
    assert_eq!(all, (0..20).collect::<Vec<_>>(), "each once: {shares:?}");
    assert!(shares.iter().all(|share| share.len() >= 4), "both work: {shares:?}");
}
