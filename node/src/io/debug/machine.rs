//! What Linux says of this machine: files under `/proc` and `/sys`, and a few system calls.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipnet::Ipv4Net;

use crate::config::Config;
use crate::diagnose::{Role, Taken};

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// As capabilities(7) numbers it.
const CAP_NET_ADMIN: u32 = 12;

pub(super) fn may_net_admin() -> bool {
    let effective = field("/proc/self/status", "CapEff:");
    let bits = effective.and_then(|hex| u64::from_str_radix(&hex, 16).ok()).unwrap_or_default();
    bits >> CAP_NET_ADMIN & 1 == 1
}

/// Bytes that may be had without anybody suffering; of the control group, if that has less.
pub(super) fn memory_available() -> Option<u64> {
    let machine = field("/proc/meminfo", "MemAvailable:")?.parse::<u64>().ok()? << 10;
    let of_group = |name: &str| number(Path::new("/sys/fs/cgroup").join(name));
    let left =
        of_group("memory.max").zip(of_group("memory.current")).map(|(max, used)| max.saturating_sub(used));
    Some(left.map_or(machine, |left| left.min(machine)))
}

pub(super) fn udp_receive_max() -> Option<u64> {
    number("/proc/sys/net/core/rmem_max")
}

/// Why the TUN driver is not there for us.
pub(super) fn tun_problem() -> Option<String> {
    let opened = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    opened.err().map(|why| why.to_string())
}

/// Whether somebody sets the clock (adjtimex(2)); `None` if the kernel does not say.
#[expect(
    unsafe_code,
    reason = "adjtimex is a function of C, and writes into the one structure that it is given"
)]
pub(super) fn clock_synchronised() -> Option<bool> {
    // SAFETY: a `timex` of zeros is valid and asks for nothing to be changed.
    let state = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        libc::adjtimex(&mut timex)
    };
    (state >= 0).then_some(state != libc::TIME_ERROR)
}

/// Of the file system that a directory is on, or will be.
pub(super) fn free_bytes(dir: &Path) -> Option<u64> {
    let there = dir.ancestors().find(|path| path.exists())?;
    let stat = rustix::fs::statvfs(there).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Flushes that are measured: one alone may meet another program's.
const FLUSHES: usize = 5;

/// A file as a store's commit is small, written and flushed; it is gone afterwards. The middle time, or why not.
pub(super) fn flush_time(dir: &Path) -> std::io::Result<Duration> {
    let path = dir.join(format!(".kubebus-debug-{}", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
    let mut once = || {
        let start = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        Ok(start.elapsed())
    };
    let times: std::io::Result<Vec<Duration>> = (0..FLUSHES).map(|_| once()).collect();
    let _ = fs::remove_file(&path);
    let mut times = times?;
    times.sort();
    Ok(times[FLUSHES / 2])
}

pub(super) fn name_servers() -> Vec<String> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.strip_prefix("nameserver"));
    servers.map(|server| server.trim().to_owned()).collect()
}

/// What the node is to listen on, and somebody else has. Of no use while the node runs.
pub(super) fn taken(role: Option<Role>, config: &Config) -> Vec<Taken> {
    let mut taken = Vec::new();
    let mut note = |key: &str, protocol: &str, address: SocketAddr, bound: std::io::Result<()>| {
        if bound.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse) {
            let (key, by) = (key.to_owned(), owner_of(protocol, address));
            taken.push(Taken { key, address: format!("{protocol} {address}"), by });
        }
    };
    if role == Some(Role::Cloud) {
        let listen = config.cloud.listen;
        note("cloud.listen", "udp", listen, UdpSocket::bind(listen).map(drop));
    }
    if config.mqtt.external.is_none() {
        let more = config.mqtt.listeners.iter().map(|listener| ("mqtt.listeners", listener.address));
        for (key, address) in std::iter::once(("mqtt.listen", config.mqtt.listen)).chain(more) {
            note(key, "tcp", address, TcpListener::bind(address).map(drop));
        }
    }
    taken
}

/// Which program has an address, as far as we may see.
fn owner_of(protocol: &str, wanted: SocketAddr) -> Option<String> {
    let inodes: Vec<String> = ["", "6"]
        .iter()
        .filter_map(|family| fs::read_to_string(format!("/proc/net/{protocol}{family}")).ok())
        .flat_map(|text| text.lines().filter_map(|line| inode_at(line, wanted)).collect::<Vec<_>>())
        .collect();
    let is_process =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit());
    let processes = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path()).filter(is_process);
    let has_it = |process: &Path| {
        let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let links = files.filter_map(|file| fs::read_link(file.path()).ok());
        links
            .into_iter()
            .any(|link| inodes.iter().any(|inode| link.as_os_str() == format!("socket:[{inode}]").as_str()))
    };
    let process = processes.into_iter().find(|process| has_it(process))?;
    let name = fs::read_to_string(process.join("comm")).ok()?;
    Some(format!("{} (process {})", name.trim(), process.file_name()?.to_str()?))
}

/// A line of `/proc/net/tcp`: `sl local_address rem_address st .. inode`; of a socket that listens, or a UDP one, and is in
/// the way of `wanted`.
fn inode_at(line: &str, wanted: SocketAddr) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let local = local_address(fields.get(1)?)?;
    let listens = matches!(*fields.get(3)?, "0A" | "07");
    let [here, there] = [local.ip().to_canonical(), wanted.ip().to_canonical()];
    let meets = here == there || here.is_unspecified() || there.is_unspecified();
    (listens && meets && local.port() == wanted.port())
        .then(|| fields.get(9).copied().unwrap_or_default().to_owned())
}

/// Words of the machine's byte order in hexadecimal, then the port.
fn local_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| Some(u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip: IpAddr = match ip.len() {
        8 => word(0)?.into(),
        _ => <[u8; 16]>::try_from([word(0)?, word(8)?, word(16)?, word(24)?].concat()).ok()?.into(),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// IPv4 networks that lie at this machine's interfaces, by interface.
pub(super) fn networks() -> Vec<(String, Ipv4Net)> {
    let text = fs::read_to_string("/proc/net/route").unwrap_or_default();
    text.lines().skip(1).filter_map(network).collect()
}

/// `Iface Destination Gateway Flags .. Mask`, in the machine's byte order.
fn network(line: &str) -> Option<(String, Ipv4Net)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let address = |index: usize| {
        let number = u32::from_str_radix(fields.get(index)?, 16).ok()?;
        Some(Ipv4Addr::from(number.to_ne_bytes()))
    };
    let net = Ipv4Net::with_netmask(address(1)?, address(7)?).ok()?;
    (net.prefix_len() > 0).then(|| (fields[0].to_owned(), net))
}

/// What of `/etc/resolv.conf` and the like is looked up: a name, not an address.
pub(super) fn is_name(host: &str) -> bool {
    host.parse::<IpAddr>().is_err()
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.to_owned())
}

fn number(path: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_traced_to_the_program_that_has_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let owner = owner_of("tcp", listener.local_addr().unwrap()).unwrap();
        assert!(owner.ends_with(&format!("(process {})", std::process::id())), "{owner}");
    }

    #[test]
    fn routes_are_read_as_the_kernel_writes_them() {
        let word = |address: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(address));
        let line =
            format!("eth0 {} 00000000 0001 0 0 0 {} 0 0 0", word([192, 168, 1, 0]), word([255, 255, 255, 0]));
        assert_eq!(network(&line), Some(("eth0".to_owned(), "192.168.1.0/24".parse().unwrap())));
        assert_eq!(network("eth0 00000000 0101A8C0 0003 0 0 0 00000000 0 0 0"), None, "the default route");
    }

    #[test]
    fn this_machine_answers() {
        assert!(memory_available().unwrap() > 0);
        assert!(free_bytes(Path::new("/nowhere/at/all")).unwrap() > 0);
        let dir = tempfile::tempdir().unwrap();
        flush_time(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
