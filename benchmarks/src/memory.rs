//! What an edge with many devices holds in memory.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::cluster::{Cluster, EDGE, Node};
use crate::mqtt::Mqtt;
use crate::table::Table;

const DEVICES: usize = 1000;
const PROPERTIES: usize = 20;

/// Manifests of one file: a document is read up to a size.
const DEVICES_A_FILE: usize = 100;

/// Every second property of a device is reported anew this often.
const ROUNDS: usize = 3;

/// Devices of which one property is wished for.
const WISHES: usize = 100;

/// Connected at a time.
const CLIENTS: usize = 100;

/// What the edge is to stay below.
const AIM_MIB: f64 = 32.0;

pub(crate) fn run(program: &Path, room: &Path) -> Result<Table> {
    let mut cluster = Cluster::start(program, room, Ok)?;
    let title = format!("memory: an edge with {DEVICES} devices of {PROPERTIES} properties");
    let mut table = Table::new(title, &["", "resident", "of it anonymous", "peak", "resident / aim"]);
    table.row(Memory::of(&cluster.edge)?.cells("no device"));
    cluster.apply(&model())?;
    for first in (0..DEVICES).step_by(DEVICES_A_FILE) {
        cluster.apply(&devices(first..first + DEVICES_A_FILE))?;
    }
    cluster.in_step()?;
    table.row(Memory::of(&cluster.edge)?.cells("devices bound"));
    report(&cluster)?;
    cluster.in_step()?;
    ensure!(known(&cluster.cloud, "reported")? == DEVICES * PROPERTIES, "the cloud does not know all values");
    table.row(Memory::of(&cluster.edge)?.cells("all values reported"));
    wish(&cluster)?;
    cluster.in_step()?;
    table.row(Memory::of(&cluster.edge)?.cells("and some wished for"));
    let clients = watchers(&cluster)?;
    table.row(Memory::of(&cluster.edge)?.cells(&format!("and {CLIENTS} clients connected")));
    drop(clients);
    cluster.edge.kill()?;
    cluster.start_edge()?;
    cluster.in_step()?;
    table.row(Memory::of(&cluster.edge)?.cells("after a restart"));
    ensure!(known(&cluster.edge, "desired")? == WISHES, "the edge does not know all wishes");
    table.note(format!("aim: {AIM_MIB} MiB resident; resident counts the program's own pages too"));
    Ok(table)
}

/// As somebody with KubeEdge would write it.
fn model() -> String {
    let mut text = "apiVersion: devices.kubeedge.io/v1beta1\nkind: DeviceModel\n\
         metadata: {name: station, namespace: plant}\nspec:\n  protocol: modbus\n  properties:\n"
        .to_owned();
    for property in 0..PROPERTIES {
        let access = if property % 4 == 0 { "ReadWrite" } else { "ReadOnly" };
        let _ = writeln!(
            text,
            "  - {{name: value-{property:02}, type: DOUBLE, accessMode: {access}, minimum: '0', maximum: '1000', unit: kPa}}"
        );
    }
    text
}

fn devices(numbers: std::ops::Range<usize>) -> String {
    let mut text = String::new();
    for device in numbers {
        let _ = write!(
            text,
            "---\napiVersion: devices.kubeedge.io/v1beta1\nkind: Device\n\
             metadata: {{name: {}, namespace: plant}}\nspec:\n  deviceModelRef: {{name: station}}\n  nodeName: {EDGE}\n  \
             protocol: {{protocolName: modbus, configData: {{slaveID: {device}}}}}\n  properties:\n",
            name(device)
        );
        for property in 0..PROPERTIES {
            let _ = writeln!(
                text,
                "  - {{name: value-{property:02}, collectCycle: 1000, visitors: {{protocolName: modbus, \
                 configData: {{register: HoldingRegister, offset: {property}, limit: 1}}}}}}"
            );
        }
    }
    text
}

fn name(device: usize) -> String {
    format!("station-{device:04}")
}

fn report(cluster: &Cluster) -> Result<()> {
    let mut mapper = Mqtt::connect(cluster.edge.mqtt(), "bench-mapper");
    for round in 0..ROUNDS {
        for device in 0..DEVICES {
            let properties = (0..PROPERTIES).filter(|property| round == 0 || property % 2 == round % 2);
            let values: Vec<String> = properties.map(|p| value(p, device, round)).collect();
            let topic = format!("twin/plant/{}/report", name(device));
            mapper.publish(&topic, format!("{{{}}}", values.join(",")))?;
        }
    }
    mapper.settle()
}

fn value(property: usize, device: usize, round: usize) -> String {
    format!("\"value-{property:02}\":{}.25", (property * 37 + device * 11 + round * 3) % 999)
}

/// Properties of which a node knows this.
fn known(node: &Node, what: &str) -> Result<usize> {
    let twins = node.ask("twins")?;
    Ok(twins.as_array().into_iter().flatten().filter(|twin| !twin[what].is_null()).count())
}

fn wish(cluster: &Cluster) -> Result<()> {
    let mut app = Mqtt::connect(cluster.cloud.mqtt(), "bench-app");
    for device in 0..WISHES {
        app.publish(&format!("twin/plant/{}/set/value-00", name(device)), "512.5".to_owned())?;
    }
    app.settle()
}

/// Each watches ten devices, and has what is retained of them.
fn watchers(cluster: &Cluster) -> Result<Vec<Mqtt>> {
    (0..CLIENTS)
        .map(|client| {
            let mut watcher = Mqtt::connect(cluster.edge.mqtt(), &format!("bench-watcher-{client}"));
            for device in (0..DEVICES).skip(client * DEVICES / CLIENTS).take(10) {
                watcher.subscribe(&format!("twin/plant/{}/#", name(device)))?;
            }
            Ok(watcher)
        })
        .collect()
}

/// From `/proc/<pid>/status`, in MiB.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) resident: f64,
    anonymous: f64,
    peak: f64,
}

impl Memory {
    pub(crate) fn of(node: &Node) -> Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid()?)).context("memory")?;
        let field = |name: &str| -> Result<f64> {
            let line = status.lines().find(|line| line.starts_with(name)).context("a field of /proc")?;
            let kib = line.split_whitespace().nth(1).context("a field of /proc")?;
            Ok(kib.parse::<f64>().context("a field of /proc")? / 1024.0)
        };
        Ok(Self { resident: field("VmRSS:")?, anonymous: field("RssAnon:")?, peak: field("VmHWM:")? })
    }

    fn cells(&self, when: &str) -> Vec<String> {
        let mib = |value: f64| format!("{value:.1} MiB");
        let ratio = format!("{:.2}", self.resident / AIM_MIB);
        vec![when.to_owned(), mib(self.resident), mib(self.anonymous), mib(self.peak), ratio]
    }
}
