//! A simulated device behind a Unix socket, and the bundled mapper that speaks to it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::harness::{Node, kubebus};

/// Registers, and all that was ever written to them, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Device(Arc<Mutex<Registers>>);

#[derive(Debug, Default)]
struct Registers {
    values: BTreeMap<String, Value>,
    written: Vec<(String, Value)>,
}

impl Device {
    /// Serves at `path` as long as the test runs.
    pub(crate) fn start(path: &Path, registers: &[(&str, Value)]) -> Self {
        let device = Self::default();
        let values = registers.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        device.0.lock().unwrap().values.extend(values);
        let (listener, served) = (UnixListener::bind(path).unwrap(), device.clone());
        std::thread::spawn(move || {
            for line in listener.incoming().map_while(Result::ok) {
                let served = served.clone();
                std::thread::spawn(move || served.serve(&line));
            }
        });
        device
    }

    fn serve(&self, line: &UnixStream) {
        for request in BufReader::new(line).lines().map_while(Result::ok) {
            let answer = self.answer(&serde_json::from_str(&request).unwrap_or_default());
            if writeln!(&mut &*line, "{answer}").is_err() {
                return;
            }
        }
    }

    fn answer(&self, request: &Value) -> Value {
        let mut registers = self.0.lock().unwrap();
        if let Some(written) = request["write"].as_object() {
            for (name, value) in written {
                registers.values.insert(name.clone(), value.clone());
                registers.written.push((name.clone(), value.clone()));
            }
            return json!({ "ok": true });
        }
        let asked = request["read"].as_array().cloned().unwrap_or_default();
        let known = |name: &Value| registers.values.get_key_value(name.as_str()?);
        json!({ "values": asked.iter().filter_map(known).collect::<BTreeMap<_, _>>() })
    }

    pub(crate) fn written(&self) -> Vec<(String, Value)> {
        self.0.lock().unwrap().written.clone()
    }

    pub(crate) fn value(&self, register: &str) -> Value {
        self.0.lock().unwrap().values.get(register).cloned().unwrap_or_default()
    }
}

/// A running `kubebus mapper run virtual`.
pub(crate) struct Mapper(Child);

impl Mapper {
    pub(crate) fn start(node: &Node) -> Self {
        let mut command = kubebus(&["mapper", "run", "virtual", "--mqtt", &node.mqtt().to_string()]);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
