//! How a device is reached: our own settings, and those of KubeEdge's mapper.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use kubebus_sdk::JsonSchema;
use serde::Deserialize;

use crate::frame::Framing;
use crate::loose::{number, number_schema, shortened, switch, switch_schema};
use crate::serial::{Parity, Speed};

/// Of Modbus on TCP.
const PORT: u16 = 502;

/// How long a device may take to answer, unless its settings say otherwise.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Longest wait for an answer: the SDK gives up a reading after 10 s.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(8);

/// Up to here KubeEdge's `timeout` is in seconds, above in milliseconds.
const SECONDS_UP_TO: u64 = 60;

/// Addresses of devices on a serial line (MODBUS over Serial Line V1.02, §2.2); 0 is a broadcast, which nobody answers.
const SERIAL_UNITS: std::ops::RangeInclusive<u8> = 1..=247;

/// What a person writes. One of `tcp`, `rtu_over_tcp`, `serial`, or KubeEdge's keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Host and port of a device or gateway that speaks Modbus TCP; without a port 502.
    tcp: Option<String>,
    /// Host and port of a gateway that passes serial frames on as they are.
    rtu_over_tcp: Option<String>,
    /// A serial port, such as /dev/ttyUSB0.
    serial: Option<PathBuf>,
    /// The device's address on the line, or behind the gateway; 1 if not given.
    #[serde(deserialize_with = "number")]
    #[schemars(schema_with = "number_schema")]
    unit: Option<u8>,
    /// Bits a second; 9600 if not given.
    #[serde(deserialize_with = "number")]
    #[schemars(schema_with = "number_schema")]
    baud: Option<u32>,
    /// `none`, `even` (if not given) or `odd`.
    parity: Option<String>,
    /// 7 or 8 (if not given).
    #[serde(deserialize_with = "number")]
    #[schemars(schema_with = "number_schema")]
    data_bits: Option<u8>,
    /// 1 or 2; without parity 2 if not given, as the specification wants it, else 1.
    #[serde(deserialize_with = "number")]
    #[schemars(schema_with = "number_schema")]
    stop_bits: Option<u8>,
    /// How long the device may take to answer, 10 to 8000; 1000 if not given.
    #[serde(deserialize_with = "number")]
    #[schemars(schema_with = "number_schema")]
    timeout_ms: Option<u64>,
    /// Whether the device answers function 8 at all, if only by refusing it; `true` if not given. Serial lines only.
    #[serde(deserialize_with = "switch")]
    #[schemars(schema_with = "switch_schema")]
    echo: Option<bool>,

    /// KubeEdge: `TCP` or `RTU`.
    #[serde(rename = "communicateMode")]
    communicate_mode: Option<String>,
    /// KubeEdge: the host of `tcp`.
    ip: Option<String>,
    /// KubeEdge: the port of `tcp`.
    #[serde(deserialize_with = "number")]
    #[schemars(schema_with = "number_schema")]
    port: Option<u16>,
    /// KubeEdge: `unit`.
    #[serde(rename = "slaveID", deserialize_with = "number")]
    #[schemars(schema_with = "number_schema")]
    slave_id: Option<u8>,
    /// KubeEdge: `serial`.
    #[serde(rename = "serialPort")]
    serial_port: Option<PathBuf>,
    /// KubeEdge: `serial`.
    #[serde(rename = "serialName")]
    serial_name: Option<PathBuf>,
    /// KubeEdge: `baud`.
    #[serde(rename = "baudRate", deserialize_with = "number")]
    #[schemars(schema_with = "number_schema")]
    baud_rate: Option<u32>,
    /// KubeEdge: `data_bits`.
    #[serde(rename = "dataBits", deserialize_with = "number")]
    #[schemars(schema_with = "number_schema")]
    kubeedge_data_bits: Option<u8>,
    /// KubeEdge: `stop_bits`.
    #[serde(rename = "stopBits", deserialize_with = "number")]
    #[schemars(schema_with = "number_schema")]
    kubeedge_stop_bits: Option<u8>,
    /// KubeEdge: up to 60 seconds, above milliseconds.
    #[serde(deserialize_with = "number")]
    #[schemars(schema_with = "number_schema")]
    timeout: Option<u64>,
    /// KubeEdge: not used, the kernel's driver switches the direction of an RS-485 line.
    #[serde(rename = "serialType")]
    serial_type: Option<String>,
}

/// How a device is reached: by TCP, by a serial port, or by a gateway that passes serial frames on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
#[serde(try_from = "Settings")]
pub struct Config {
    #[schemars(skip)]
    pub(crate) link: Link,
    #[schemars(skip)]
    pub(crate) peer: Peer,
}

/// What one or more devices hang on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    Tcp { address: String, framing: Framing },
    Serial { path: PathBuf, speed: Speed },
}

/// One device on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) unit: u8,
    pub(crate) timeout: Duration,
    pub(crate) echo: bool,
}

impl Link {
    pub(crate) fn framing(&self) -> Framing {
        match self {
            Self::Tcp { framing, .. } => *framing,
            Self::Serial { .. } => Framing::Rtu,
        }
    }
}

/// The name of the bus: whatever its speed, a port is one port.
impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { address, .. } => f.write_str(address),
            Self::Serial { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

impl TryFrom<Settings> for Config {
    type Error = String;

    fn try_from(settings: Settings) -> Result<Self, String> {
        let link = settings.link()?;
        let peer = settings.peer()?;
        if link.framing() == Framing::Rtu && !SERIAL_UNITS.contains(&peer.unit) {
            return Err(format!(
                "unit: a device on a serial line has an address from 1 to 247, not {}",
                peer.unit
            ));
        }
        Ok(Self { link, peer })
    }
}

impl Settings {
    fn link(&self) -> Result<Link, String> {
        let ports =
            [("serial", &self.serial), ("serialPort", &self.serial_port), ("serialName", &self.serial_name)];
        let hosts = [("tcp", &self.tcp), ("rtu_over_tcp", &self.rtu_over_tcp), ("ip", &self.ip)];
        let given_ports = ports.into_iter().filter_map(|(key, path)| Some((key, path.as_ref()?.clone())));
        let given_hosts = hosts.into_iter().filter_map(|(key, host)| Some((key, host.clone()?)));
        match (&given_ports.collect::<Vec<_>>()[..], &given_hosts.collect::<Vec<_>>()[..], self.mode()?) {
            ([], [(key, host)], None | Some(Mode::Tcp)) => self.tcp_link(key, host),
            // KubeEdge's example manifests carry the settings of both.
            ([(key, path)], [] | [("ip", _)], Some(Mode::Rtu)) | ([(key, path)], [], None) => {
                self.serial_link(key, path.clone())
            }
            ([_], [("ip", host)], Some(Mode::Tcp)) => self.tcp_link("ip", host),
            ([], [], None) => {
                Err("where is the device? tcp: \"host:502\", rtu_over_tcp: \"host:port\" or serial: \
                                   \"/dev/ttyUSB0\" says it"
                    .to_owned())
            }
            ([], _, Some(Mode::Rtu)) => Err("communicateMode: RTU needs a serialPort".to_owned()),
            (_, [], Some(Mode::Tcp)) => Err("communicateMode: TCP needs an ip".to_owned()),
            (ports, hosts, _) => {
                let keys = ports.iter().map(|(key, _)| *key).chain(hosts.iter().map(|(key, _)| *key));
                Err(format!(
                    "{}: only one of them may say where the device is",
                    keys.collect::<Vec<_>>().join(", ")
                ))
            }
        }
    }

    fn mode(&self) -> Result<Option<Mode>, String> {
        match self.communicate_mode.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None => Ok(None),
            Some("tcp") => Ok(Some(Mode::Tcp)),
            Some("rtu") => Ok(Some(Mode::Rtu)),
            Some(other) => Err(format!("communicateMode: TCP or RTU, not '{}'", shortened(other))),
        }
    }

    fn tcp_link(&self, key: &str, host: &str) -> Result<Link, String> {
        let framing = if key == "rtu_over_tcp" { Framing::Rtu } else { Framing::Tcp };
        let (host, port) =
            split(host).ok_or_else(|| format!("{key}: '{}' is no host:port", shortened(host)))?;
        if port.is_some() && self.port.is_some() && port != self.port {
            return Err(format!("port: {key} names another one"));
        }
        let port = port.or(self.port).unwrap_or(PORT);
        Ok(Link::Tcp { address: format!("{host}:{port}"), framing })
    }

    fn serial_link(&self, key: &str, path: PathBuf) -> Result<Link, String> {
        let parity = match self.parity.as_deref().map(str::to_ascii_lowercase).as_deref() {
            Some("none" | "n") => Parity::None,
            None if key != "serial" => Parity::None, // as KubeEdge's mapper takes it
            None | Some("even" | "e") => Parity::Even,
            Some("odd" | "o") => Parity::Odd,
            Some(other) => return Err(format!("parity: none, even or odd, not '{}'", shortened(other))),
        };
        let data_bits = one("data_bits", self.data_bits, "dataBits", self.kubeedge_data_bits)?.unwrap_or(8);
        let stop_bits = one("stop_bits", self.stop_bits, "stopBits", self.kubeedge_stop_bits)?
            .unwrap_or(if parity == Parity::None { 2 } else { 1 });
        let baud = one("baud", self.baud, "baudRate", self.baud_rate)?.unwrap_or(9600);
        let checked = |key: &str, value, allowed: &[u8]| {
            if allowed.contains(&value) { Ok(value) } else { Err(format!("{key}: {allowed:?}, not {value}")) }
        };
        if !(300..=4_000_000).contains(&baud) {
            return Err(format!("baud: 300 to 4000000, not {baud}"));
        }
        let data_bits = checked("data_bits", data_bits, &[7, 8])?;
        let stop_bits = checked("stop_bits", stop_bits, &[1, 2])?;
        Ok(Link::Serial { path, speed: Speed { baud, parity, data_bits, stop_bits } })
    }

    fn peer(&self) -> Result<Peer, String> {
        let timeout = match (self.timeout_ms, self.timeout) {
            (Some(_), Some(_)) => return Err("timeout_ms, timeout: only one of them".to_owned()),
            (None, None) => TIMEOUT,
            (Some(ms), None) => Duration::from_millis(ms),
            (None, Some(s)) if s <= SECONDS_UP_TO => Duration::from_secs(s).min(LONGEST_TIMEOUT),
            (None, Some(ms)) => Duration::from_millis(ms).min(LONGEST_TIMEOUT),
        };
        if !(Duration::from_millis(10)..=LONGEST_TIMEOUT).contains(&timeout) {
            return Err(format!(
                "timeout_ms: 10 to {}, not {}",
                LONGEST_TIMEOUT.as_millis(),
                timeout.as_millis()
            ));
        }
        let unit = one("unit", self.unit, "slaveID", self.slave_id)?.unwrap_or(1);
        Ok(Peer { unit, timeout, echo: self.echo.unwrap_or(true) })
    }
}

#[derive(Clone, Copy)]
enum Mode {
    Tcp,
    Rtu,
}

/// One setting under two names.
fn one<T: PartialEq>(name: &str, a: Option<T>, other: &str, b: Option<T>) -> Result<Option<T>, String> {
    if a.is_some() && b.is_some() && a != b {
        return Err(format!("{name}, {other}: only one of them"));
    }
    Ok(a.or(b))
}

/// Host and perhaps port; an IPv6 address with a port stands in brackets.
fn split(text: &str) -> Option<(&str, Option<u16>)> {
    let is_bare_v6 = text.matches(':').count() > 1 && !text.starts_with('[');
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !is_bare_v6 && !text.ends_with(']') => (host, Some(port.parse().ok()?)),
        _ => (text, None),
    };
    let is_host = !host.is_empty() && !host.contains(['/', ' ']) && port != Some(0);
    (is_host && !is_bare_v6).then_some((host, port))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
