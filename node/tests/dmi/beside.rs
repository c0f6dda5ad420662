//! Three mappers at one edge, each with a device of its own: KubeEdge's over DMI, the SDK's `virtual`, and the Python
//! package's (`lines.py`). The latter two have the same simulated device.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::device::{self, Device};
use crate::harness::Node;
use crate::process::eventually;
use crate::tests::Plant;

/// Devices `sdk` and `py`, each with a simulator's socket.
fn manifests(plant: &Plant) -> String {
    let device = |name: &str, protocol: &str| {
        let socket = plant.cluster.path(&format!("{name}.sock"));
        format!(
            "---\napiVersion: devices.kubeedge.io/v1beta1\nkind: Device\nmetadata: {{name: {name}, namespace: plant}}\n\
             spec:\n  deviceModelRef: {{name: valve}}\n  nodeName: a\n\
             \x20 protocol: {{protocolName: {protocol}, configData: {{socket: '{}'}}}}\n\
             \x20 properties: [{{name: position, collectCycle: 200, visitors: {{protocolName: {protocol}, \
             configData: {{register: position}}}}}}]\n",
            socket.display()
        )
    };
    device("sdk", "virtual") + &device("py", "lines")
}

/// The Python package's mapper as a process.
struct Lines(Child);

impl Lines {
    fn start(node: &Node) -> Self {
        let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../python/venv/bin/python");
        assert!(python.is_file(), "{} is not there: run `cargo xtask python`", python.display());
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(python);
        command.arg("-B").arg(here.join("tests/dmi/lines.py")).args(["--log", "WARNING"]);
        command.args(["--broker", &node.mqtt().to_string()]);
        command.env("PYTHONPATH", here.join("../python/src"));
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How often each device was told each position.
fn told(dmi: &crate::mapper::Mapper, simulated: [&Device; 2], position: u32) -> [usize; 3] {
    // It prints what it writes, a little later than it acknowledges it.
    let text = json!(position.to_string());
    dmi.says_with("written", "/value", &text);
    let by_dmi = |w: &&Value| w["property"] == "position" && w["value"] == text;
    let count = |device: &Device| {
        let wanted = |(_, value): &&(String, Value)| value.as_f64() == Some(f64::from(position));
        device.written().iter().filter(wanted).count()
    };
    let [sdk, py] = simulated.map(count);
    [dmi.written().iter().filter(by_dmi).count(), sdk, py]
}

impl Plant {
    /// Wishes the same of several devices at the cloud, and waits until each has acknowledged it.
    #[track_caller]
    fn wish(&self, devices: &[&str], position: u32) {
        for device in devices {
            let id = format!("plant/{device}");
            self.cluster.cloud.say(&["twin", "set", &id, "position", &position.to_string()]);
            let done = json!([position, true]);
            eventually(&format!("{id} is set to {position}"), || {
                let twin = self.cluster.cloud.twin(&id, "position");
                let seen = json!([twin["desired"], twin["converged"]]);
                if seen == done { Ok(()) } else { Err(twin.to_string()) }
            });
        }
    }

    #[track_caller]
    fn reports(&self, device: &str, position: u32) {
        let id = format!("plant/{device}");
        self.cluster.cloud.twin_becomes((&id, "position"), "/reported/value", json!(position));
    }

    #[track_caller]
    fn state(&self, device: &str, word: &str) {
        let id = format!("plant/{device}");
        self.cluster.cloud.twin_becomes((&id, "position"), "/state/state", json!(word));
    }
}

#[test]
fn three_kinds_of_mappers_serve_their_devices_side_by_side_and_none_needs_another() {
    let plant = Plant::start();
    let simulator = |name: &str| {
        let path = plant.cluster.path(&format!("{name}.sock"));
        Device::start(&path, &[("position", json!(10))])
    };
    let (sdk_device, py_device) = (simulator("sdk"), simulator("py"));
    let simulated = [&sdk_device, &py_device];
    plant.cluster.apply(&manifests(&plant));
    let dmi = plant.mapper("/etc/kubeedge/dmi.sock");
    dmi.says("given");
    let sdk = device::Mapper::start(&plant.a);
    let py = Lines::start(&plant.a);

    // What each reads reaches the cloud.
    dmi.ask("report plant v1 position 11");
    plant.reports("v1", 11);
    plant.reports("sdk", 10);
    plant.reports("py", 10);
    assert_eq!((sdk_device.written().len(), py_device.written().len()), (0, 0), "nothing was wished");

    // A wish to each is carried out, once.
    plant.wish(&["v1", "sdk", "py"], 40);
    plant.reports("sdk", 40);
    plant.reports("py", 40);
    assert_eq!(told(&dmi, simulated, 40), [1, 1, 1]);

    // One after the other is killed: the others go on.
    drop(py);
    plant.state("py", "offline");
    plant.wish(&["v1", "sdk"], 41);
    let py = Lines::start(&plant.a);
    plant.state("py", "online");
    plant.wish(&["py"], 42);

    drop(sdk);
    plant.state("sdk", "offline");
    plant.wish(&["v1", "py"], 43);
    let _sdk = device::Mapper::start(&plant.a);
    plant.state("sdk", "online");
    plant.wish(&["sdk"], 44);

    for position in [41, 43] {
        assert_eq!(told(&dmi, simulated, position)[0], 1, "{position}");
    }
    drop(dmi);
    plant.wish(&["sdk", "py"], 45);
    plant.reports("sdk", 45);
    plant.reports("py", 45);
    let dmi = plant.mapper("/etc/kubeedge/dmi.sock");
    dmi.says("given");
    plant.wish(&["v1"], 46);
    let written = |device: &Device| device.written().into_iter().map(|(_, value)| value).collect::<Vec<_>>();
    assert_eq!(written(&sdk_device), [40, 41, 44, 45].map(|position| json!(position)));
    assert_eq!(written(&py_device), [40, 42, 43, 45].map(|position| json!(position)));
    assert_eq!(told(&dmi, simulated, 46), [1, 0, 0]);
    assert!(plant.a.panics().is_empty(), "{:#?}", plant.a.panics());
    drop(py);
}
