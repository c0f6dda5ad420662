//! Whether a machine is fit to be a node: what was measured, and what to think of it.

use std::time::Duration;

use bus::RENEWABLE_FOR;
use serde::Serialize;

use super::facts::{Role, Taken};

/// What was measured; `None` is what could not be.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Machine {
    pub role: Option<Role>,
    pub is_running: bool,
    pub kernel: String,
    /// Why the configuration file cannot be used.
    pub config: Option<String>,
    /// Why the collector of `telemetry.otlp` cannot be used.
    pub telemetry: Option<String>,
    pub data_dir: DataDir,
    /// Whether packets are wanted: `overlay.enabled`.
    pub wants_packets: bool,
    /// Why `/dev/net/tun` cannot be opened.
    pub tun: Option<String>,
    pub may_net_admin: bool,
    pub taken: Vec<Taken>,
    /// Bytes that the kernel lets a socket ask for.
    pub udp_receive_max: Option<u64>,
    pub disk_free: Option<u64>,
    /// The middle one of several flushes.
    pub flush: Option<Duration>,
    pub memory_available: Option<u64>,
    pub clock_synchronised: Option<bool>,
    /// Milliseconds since 1970.
    pub now_ms: u64,
    pub name_servers: Vec<String>,
    /// Hosts that have to be looked up, and why that failed.
    pub lookups: Vec<(String, Option<String>)>,
    /// Of the node's certificate, if it has one: milliseconds since 1970.
    pub certificate_ends_ms: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DataDir {
    pub path: String,
    pub exists: bool,
    pub mode: u32,
    /// Why nothing can be written there.
    pub unwritable: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    Ok,
    /// It works, and worse than it could.
    Warn,
    /// It does not work.
    Fail,
}

impl Grade {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    pub check: &'static str,
    pub grade: Grade,
    pub found: String,
    /// Why it matters; empty if all is well.
    pub why: &'static str,
    /// What to do; empty if all is well.
    pub advice: String,
}

impl Line {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, grade: Grade::Ok, found: found.into(), why: "", advice: String::new() }
    }

    fn bad(
        check: &'static str,
        grade: Grade,
        found: impl Into<String>,
        why: &'static str,
        advice: impl Into<String>,
    ) -> Self {
        Self { check, grade, found: found.into(), why, advice: advice.into() }
    }
}

/// What to think of a machine, a line for each thing.
pub fn judge(machine: &Machine) -> Vec<Line> {
    let mut lines = vec![kernel(machine), config(machine), data_dir(machine)];
    if machine.wants_packets {
        lines.extend([tun(machine), capabilities(machine)]);
    }
    lines.push(ports(machine));
    lines.extend(telemetry(machine));
    let measured = [buffers, free, flush, memory, clock, certificate];
    lines.extend(measured.iter().filter_map(|check| check(machine)));
    lines.extend(resolver(machine));
    lines
}

/// Linux 5.4 is the oldest that distributions still mend; TUN's UDP offload came with 6.2.
const OLDEST_KERNEL: (u32, u32) = (5, 4);
const FAST_KERNEL: (u32, u32) = (6, 2);

fn kernel(machine: &Machine) -> Line {
    let mut numbers = machine.kernel.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    let version: (u32, u32) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let found = format!("Linux {}", machine.kernel);
    if version < OLDEST_KERNEL {
        return Line::bad("kernel", Grade::Warn, found, "nobody tests KubeBus on it", "take 5.4 or newer");
    }
    if version < FAST_KERNEL && machine.wants_packets {
        let why = "UDP of hosts goes packet by packet: about half of the speed";
        return Line::bad("kernel", Grade::Warn, found, why, "6.2 or newer has UDP offload for TUNs");
    }
    Line::ok("kernel", found)
}

fn telemetry(machine: &Machine) -> Option<Line> {
    let why = machine.telemetry.as_ref()?;
    let meaning = "a node starts, and sends no metrics and no log until it is put right";
    Some(Line::bad(
        "telemetry",
        Grade::Warn,
        why,
        meaning,
        "correct telemetry.otlp, or the file of telemetry.ca",
    ))
}

fn config(machine: &Machine) -> Line {
    match &machine.config {
        None => Line::ok("configuration", "valid"),
        Some(why) => Line::bad(
            "configuration",
            Grade::Fail,
            why,
            "a node does not start with it",
            "correct the file; kubebus.example.yaml has all keys",
        ),
    }
}

fn data_dir(machine: &Machine) -> Line {
    let DataDir { path, exists, mode, unwritable } = &machine.data_dir;
    if let Some(why) = unwritable {
        let advice = format!("run as the node's user, or make it: install -d -m 0700 {path}");
        return Line::bad(
            "data directory",
            Grade::Fail,
            format!("{path}: {why}"),
            "identity and store live there",
            advice,
        );
    }
    if *exists && mode & 0o077 != 0 {
        let why = "other users of this machine see what the node keeps, its key excepted";
        return Line::bad(
            "data directory",
            Grade::Warn,
            format!("{path}: mode {:04o}", mode & 0o7777),
            why,
            format!("chmod 0700 {path}"),
        );
    }
    Line::ok("data directory", if *exists { path.clone() } else { format!("{path}: will be made") })
}

fn tun(machine: &Machine) -> Line {
    match &machine.tun {
        None => Line::ok("tun", "/dev/net/tun opens"),
        Some(why) => Line::bad(
            "tun",
            Grade::Fail,
            format!("/dev/net/tun: {why}"),
            "packets come and go by it",
            "modprobe tun; in a container: --device /dev/net/tun; or set 'overlay: {enabled: false}'",
        ),
    }
}

fn capabilities(machine: &Machine) -> Line {
    if machine.may_net_admin {
        return Line::ok("capabilities", "CAP_NET_ADMIN");
    }
    Line::bad(
        "capabilities",
        Grade::Fail,
        "no CAP_NET_ADMIN",
        "without it there is no overlay interface, and no route",
        "run as root, or 'setcap cap_net_admin+ep kubebus'; or set 'overlay: {enabled: false}'",
    )
}

fn ports(machine: &Machine) -> Line {
    if machine.taken.is_empty() {
        return Line::ok("ports", if machine.is_running { "the node has them" } else { "free" });
    }
    let told = |taken: &Taken| {
        let by = taken.by.as_deref().unwrap_or("another program");
        format!("{} ({}) is in use by {by}", taken.address, taken.key)
    };
    let found: Vec<String> = machine.taken.iter().map(told).collect();
    let keys: Vec<&str> = machine.taken.iter().map(|taken| taken.key.as_str()).collect();
    let advice = format!("stop that program, or change {}", keys.join(" and "));
    Line::bad("ports", Grade::Fail, found.join("; "), "the node does not start", advice)
}

/// A fifth of a second at 20 Mbit/s; most distributions start at 208 KiB.
const GOOD_BUFFER: u64 = 512 << 10;

fn buffers(machine: &Machine) -> Option<Line> {
    let max = machine.udp_receive_max?;
    let found = format!("net.core.rmem_max is {} KiB", max >> 10);
    if max >= GOOD_BUFFER || machine.role == Some(Role::Edge) {
        return Some(Line::ok("udp buffers", found));
    }
    let advice = "sysctl -w net.core.rmem_max=4194304 net.core.wmem_max=4194304";
    Some(Line::bad(
        "udp buffers",
        Grade::Warn,
        found,
        "a cloud drops packets when many edges send at once",
        advice,
    ))
}

const LEAST_DISK: u64 = 64 << 20;
const GOOD_DISK: u64 = 512 << 20;

fn free(machine: &Machine) -> Option<Line> {
    let free = machine.disk_free?;
    let found = format!("{} MiB free", free >> 20);
    let why = "the store, and the history of devices, need room";
    let advice = format!("make room under {}", machine.data_dir.path);
    Some(match free {
        0..LEAST_DISK => Line::bad("disk", Grade::Fail, found, why, advice),
        LEAST_DISK..GOOD_DISK => Line::bad("disk", Grade::Warn, found, why, advice),
        GOOD_DISK.. => Line::ok("disk", found),
    })
}

/// A good SD card takes 20 ms; an acknowledgement waits for one flush.
const SLOW_FLUSH: Duration = Duration::from_millis(100);
const DEAD_FLUSH: Duration = Duration::from_secs(2);

fn flush(machine: &Machine) -> Option<Line> {
    let took = machine.flush?;
    let found = format!("fsync takes {:.1} ms", took.as_secs_f64() * 1000.0);
    let why = "what is acknowledged waits for it";
    let advice = "put data-dir on another disk, or look whether this one fails (dmesg)";
    Some(match took {
        took if took > DEAD_FLUSH => Line::bad("fsync", Grade::Fail, found, why, advice),
        took if took > SLOW_FLUSH => Line::bad("fsync", Grade::Warn, found, why, advice),
        _ => Line::ok("fsync", found),
    })
}

/// An edge runs in this.
const LEAST_MEMORY: u64 = 64 << 20;

fn memory(machine: &Machine) -> Option<Line> {
    let available = machine.memory_available?;
    let found = format!("{} MiB available", available >> 20);
    if available >= LEAST_MEMORY || machine.is_running {
        return Some(Line::ok("memory", found));
    }
    Some(Line::bad("memory", Grade::Warn, found, "an edge takes up to 64 MiB", "stop something, or add swap"))
}

/// Before this program was written: 2025-01-01.
const SURELY_PAST_MS: u64 = 1_735_689_600_000;

fn clock(machine: &Machine) -> Option<Line> {
    let why = "certificates have dates, and rules run by the hour";
    let advice = "timedatectl set-ntp true, or install chrony";
    if machine.now_ms < SURELY_PAST_MS {
        return Some(Line::bad("clock", Grade::Fail, "it says a time that is long past", why, advice));
    }
    Some(match machine.clock_synchronised? {
        true => Line::ok("clock", "synchronised"),
        false => Line::bad("clock", Grade::Warn, "nobody sets it", why, advice),
    })
}

const DAY_MS: u64 = 24 * 3600 * 1000;

fn certificate(machine: &Machine) -> Option<Line> {
    let ends = machine.certificate_ends_ms?;
    let why = "the cloud lets nobody in without";
    let advice = "it renews itself: see in 'kubebus status' why it did not";
    let Some(left) = ends.checked_sub(machine.now_ms) else {
        let is_lost = u128::from(machine.now_ms - ends) > RENEWABLE_FOR.as_millis();
        return Some(if is_lost {
            let advice = "join again with a new token";
            Line::bad("certificate", Grade::Fail, "expired more than 90 days ago", why, advice)
        } else {
            Line::bad(
                "certificate",
                Grade::Warn,
                "expired",
                why,
                "the node renews it once it reaches its cloud",
            )
        });
    };
    let found = format!("valid for {} days", left / DAY_MS);
    Some(if left < 7 * DAY_MS {
        Line::bad("certificate", Grade::Warn, found, why, advice)
    } else {
        Line::ok("certificate", found)
    })
}

fn resolver(machine: &Machine) -> Vec<Line> {
    let failed = machine.lookups.iter().find_map(|(host, why)| Some((host, why.as_ref()?)));
    if let Some((host, why)) = failed {
        let why_it_matters = "the cloud is dialled by its name";
        let advice = "check /etc/resolv.conf, or give the cloud's address instead of its name";
        return vec![Line::bad("dns", Grade::Fail, format!("{host}: {why}"), why_it_matters, advice)];
    }
    let found = match machine.name_servers.as_slice() {
        [] => "no name server is configured".to_owned(),
        servers => servers.join(", "),
    };
    vec![Line::ok("dns", found)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit() -> Machine {
        Machine {
            role: Some(Role::Cloud),
            kernel: "6.8.0-31-generic".into(),
            data_dir: DataDir {
                path: "/var/lib/kubebus".into(),
                exists: true,
                mode: 0o40700,
                unwritable: None,
            },
            wants_packets: true,
            may_net_admin: true,
            udp_receive_max: Some(4 << 20),
            disk_free: Some(8 << 30),
            flush: Some(Duration::from_millis(2)),
            memory_available: Some(1 << 30),
            clock_synchronised: Some(true),
            now_ms: 1_764_000_000_000,
            certificate_ends_ms: Some(1_764_000_000_000 + 60 * DAY_MS),
            lookups: vec![("cloud.example".into(), None)],
            ..Machine::default()
        }
    }

    type Flaw = fn(&mut Machine);

    fn bad(machine: &Machine) -> Vec<(&'static str, Grade)> {
        judge(machine)
            .iter()
            .filter(|line| line.grade > Grade::Ok)
            .map(|line| (line.check, line.grade))
            .collect()
    }

    #[test]
    fn a_fit_machine_passes_and_each_flaw_is_named_alone() {
        assert_eq!(bad(&fit()), []);
        let flaws: [(&str, Grade, Flaw); 21] = [
            ("kernel", Grade::Warn, |m| m.kernel = "4.19.0".into()),
            ("kernel", Grade::Warn, |m| m.kernel = "5.15.0".into()),
            ("configuration", Grade::Fail, |m| m.config = Some("unknown field `links`".into())),
            ("telemetry", Grade::Warn, |m| m.telemetry = Some("no certificate".into())),
            ("data directory", Grade::Warn, |m| m.data_dir.mode = 0o40755),
            ("data directory", Grade::Fail, |m| m.data_dir.unwritable = Some("read-only".into())),
            ("tun", Grade::Fail, |m| m.tun = Some("no such file".into())),
            ("capabilities", Grade::Fail, |m| m.may_net_admin = false),
            ("ports", Grade::Fail, |m| m.taken.push(Taken { key: "mqtt.listen".into(), ..Taken::default() })),
            ("udp buffers", Grade::Warn, |m| m.udp_receive_max = Some(212_992)),
            ("disk", Grade::Warn, |m| m.disk_free = Some(100 << 20)),
            ("disk", Grade::Fail, |m| m.disk_free = Some(1 << 20)),
            ("fsync", Grade::Warn, |m| m.flush = Some(Duration::from_millis(300))),
            ("fsync", Grade::Fail, |m| m.flush = Some(Duration::from_secs(3))),
            ("memory", Grade::Warn, |m| m.memory_available = Some(32 << 20)),
            ("clock", Grade::Fail, |m| m.now_ms = 0),
            ("clock", Grade::Warn, |m| m.clock_synchronised = Some(false)),
            ("certificate", Grade::Warn, |m| m.certificate_ends_ms = Some(m.now_ms + DAY_MS)),
            ("certificate", Grade::Warn, |m| m.certificate_ends_ms = Some(m.now_ms - 1)),
            ("certificate", Grade::Fail, |m| m.certificate_ends_ms = Some(m.now_ms - 91 * DAY_MS)),
            ("dns", Grade::Fail, |m| m.lookups = vec![("cloud.example".into(), Some("no such name".into()))]),
        ];
        for (check, grade, flaw) in flaws {
            let mut machine = fit();
            flaw(&mut machine);
            assert_eq!(bad(&machine), [(check, grade)], "{machine:?}");
            let lines = judge(&machine);
            let line = lines.iter().find(|line| line.grade > Grade::Ok).unwrap();
            assert!(!line.why.is_empty() && !line.advice.is_empty() && !line.found.is_empty(), "{line:?}");
        }
    }

    #[test]
    fn a_machine_without_packets_needs_no_privileges() {
        let machine = Machine { wants_packets: false, may_net_admin: false, tun: Some("no".into()), ..fit() };
        assert_eq!(bad(&machine), []);
    }
}
