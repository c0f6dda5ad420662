//! The control thread: brings backend and kernel in line with what is wanted, and looks once a second how clients are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::{WireguardKey, WireguardPeer, with_causes};
use ipnet::IpNet;
use tracing::{info, warn};
use wireguard_control::{
    AllowedIp, Device as Configured, DeviceUpdate, InterfaceName, Key, PeerConfigBuilder, PeerInfo,
};

use super::kernel::{self, Interface};
use super::userspace::Device;
use super::{Backend, CLIENT_MTU, Settings, Shared, StartError, Tunnel, Wanted, lock};
use crate::Guard;
use crate::io::device::OVERLAY_METRIC;
use crate::io::netlink::{KernelRoute, Netlink, NetlinkError};
use crate::io::sysctl;
use crate::io::tun::Tun;

/// How old what is shown of clients may be.
const LOOK: Duration = Duration::from_secs(1);

/// What works, and why the kernel's does not.
type Started = SyncSender<Result<(Backend, Option<String>), StartError>>;
type Parts = (Arc<Mutex<Guard>>, Arc<Mutex<Shared>>);

/// Starts a backend, says so, and serves until it is stopped.
pub(super) fn run(settings: &Settings, (guard, shared): Parts, bell: &Receiver<()>, told: &Started) {
    let (mut control, instead) = match Control::start(settings, &guard) {
        Ok(started) => started,
        Err(error) => return drop(told.send(Err(error))),
    };
    // Whoever started the thread waits.
    let _ = told.send(Ok((control.backend(), instead)));
    loop {
        match bell.recv_timeout(LOOK) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let (clients, lease) = {
            let shared = lock(&shared);
            if shared.stopped {
                return;
            }
            (shared.clients.clone(), shared.lease)
        };
        let outcome = control.sync(&clients, lease.map(|(v4, v6)| [v4.into(), v6.into()]));
        match control.connected(&settings.overlay) {
            Ok(connected) => lock(&guard).set_connected(connected),
            Err(why) => warn!(%why, "cannot tell which networks this host is in"),
        }
        let mut shared = lock(&shared);
        let problem = match outcome {
            Ok(tunnels) => {
                shared.tunnels = tunnels;
                None
            }
            Err(error) => Some(with_causes(&error)),
        };
        match (&shared.problem, &problem) {
            (None, Some(why)) => warn!(why, "WireGuard clients are not as they should be"),
            (Some(_), None) => info!("WireGuard clients are as they should be again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        shared.problem = problem;
    }
}

/// Why clients are not as they should be.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error("the WireGuard device has ended")]
    Ended,
    #[error("cannot read WireGuard's clients")]
    Read(#[source] io::Error),
    #[error("cannot change WireGuard's clients")]
    Change(#[source] io::Error),
    #[error(transparent)]
    Routes(#[from] NetlinkError),
}

enum Running {
    Kernel(Interface),
    Userspace(Device),
}

struct Control {
    name: InterfaceName,
    /// The node's namespace.
    outside: Netlink,
    has_ipv6: bool,
    running: Running,
}

impl Control {
    fn start(settings: &Settings, guard: &Arc<Mutex<Guard>>) -> Result<(Self, Option<String>), StartError> {
        let Settings { interface, port, key, backend, .. } = settings;
        let name = interface.parse().map_err(|_| StartError::Name(interface.clone()))?;
        let tun = Tun::open(interface, CLIENT_MTU.into())?;
        let mut outside = Netlink::open()?;
        outside.link_up(interface)?;
        let has_ipv6 = sysctl::has_ipv6(interface);
        let clone = || tun.try_clone().map_err(|error| StartError::Device(error.into()));
        let usable = match backend {
            Wanted::Userspace => Err(None),
            Wanted::Any => Self::probe(&mut outside).map_err(Some),
            Wanted::Kernel => Ok(()),
        };
        let (running, instead) = match usable {
            Ok(()) => {
                let started = Interface::start(interface, &mut outside, clone()?, guard.clone())?;
                (Running::Kernel(started), None)
            }
            Err(why) => {
                free_port(*port)?;
                let device = Device::start(interface, tun, guard.clone())?;
                (Running::Userspace(device), why.map(|why| with_causes(&why)))
            }
        };
        let control = Self { name, outside, has_ipv6, running };
        let update =
            DeviceUpdate::new().set_private_key(key.0.clone()).set_listen_port(*port).replace_peers();
        control.apply(update).map_err(StartError::Configure)?;
        Ok((control, instead))
    }

    /// Whether the kernel has WireGuard, and lets this process use it: makes an interface beside the one that is there, and
    /// takes it away.
    fn probe(outside: &mut Netlink) -> Result<(), StartError> {
        let here = File::open("/proc/thread-self/ns/net").map_err(StartError::Namespace)?;
        // No other process has the name, also if one before this ended in the middle.
        let probe = format!("kbwg{}", std::process::id());
        outside.wireguard_create(&probe, here.as_fd()).map_err(StartError::Kernel)?;
        outside.link_del(&probe)?;
        kernel::may_enter_own_namespace().map_err(StartError::Namespace)
    }

    fn backend(&self) -> Backend {
        match self.running {
            Running::Kernel(_) => Backend::Kernel,
            Running::Userspace(_) => Backend::Userspace,
        }
    }

    fn apply(&self, update: DeviceUpdate) -> io::Result<()> {
        update.apply(&self.name, self.backend().control())
    }

    /// The networks that this host is in by itself. What the overlay gave it is its own there too.
    fn connected(&mut self, overlay: &str) -> Result<Vec<IpNet>, NetlinkError> {
        let own = self.name.to_string();
        self.outside.connected(&[&own, overlay])
    }

    /// Removes, adds and changes what differs; who stays as he is, is not touched. Then routes.
    fn sync(
        &mut self,
        clients: &[WireguardPeer],
        sources: Option<[IpAddr; 2]>,
    ) -> Result<Vec<Tunnel>, SyncError> {
        if let Running::Userspace(device) = &self.running
            && !device.is_there()
        {
            return Err(SyncError::Ended);
        }
        let read = || Configured::get(&self.name, self.backend().control()).map_err(SyncError::Read);
        let mut there = read()?.peers;
        if let Some(update) = difference(&there, clients) {
            self.apply(update).map_err(SyncError::Change)?;
            there = read()?.peers;
        }
        if let Some(sources) = sources {
            self.sync_routes(clients, sources)?;
        }
        Ok(there.iter().map(tunnel).collect())
    }

    fn sync_routes(&mut self, clients: &[WireguardPeer], [v4, v6]: [IpAddr; 2]) -> Result<(), NetlinkError> {
        let name = self.name.to_string();
        let prefixes = || clients.iter().flat_map(WireguardPeer::addresses);
        let usable = |prefix: &IpNet| self.has_ipv6 || prefix.addr().is_ipv4();
        let outside = |prefix: IpNet| {
            let source = if prefix.addr().is_ipv4() { v4 } else { v6 };
            KernelRoute { destination: prefix, via: None, source: Some(source), metric: OVERLAY_METRIC }
        };
        let wanted: BTreeSet<KernelRoute> = prefixes().filter(usable).map(outside).collect();
        bring_in_line(&mut self.outside, &name, &wanted)?;
        if let Running::Kernel(interface) = &mut self.running {
            let inside =
                |prefix| KernelRoute { destination: prefix, via: None, source: None, metric: OVERLAY_METRIC };
            let wanted: BTreeSet<KernelRoute> = prefixes().filter(usable).map(inside).collect();
            bring_in_line(&mut interface.netlink, &name, &wanted)?;
        }
        Ok(())
    }
}

/// Fails where another socket has the port: gotatun would say no more than that something is wrong.
fn free_port(port: u16) -> Result<(), StartError> {
    let bound = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port));
    bound.map(drop).map_err(|source| StartError::Port { port, source })
}

fn bring_in_line(
    netlink: &mut Netlink,
    dev: &str,
    wanted: &BTreeSet<KernelRoute>,
) -> Result<(), NetlinkError> {
    let there: BTreeSet<KernelRoute> = netlink.route_list(dev)?.into_iter().collect();
    for old in there.difference(wanted) {
        netlink.route_del(dev, old)?;
    }
    wanted.difference(&there).try_for_each(|new| netlink.route_add(dev, new))
}

/// What to tell a device that has `there` so that it lets in `wanted`; `None`: nothing.
fn difference(there: &[PeerInfo], wanted: &[WireguardPeer]) -> Option<DeviceUpdate> {
    let by_key: BTreeMap<[u8; 32], &WireguardPeer> =
        wanted.iter().map(|client| (client.public_key.0, client)).collect();
    let known: BTreeMap<[u8; 32], &PeerInfo> =
        there.iter().map(|info| (info.config.public_key.0, info)).collect();
    let gone = known.keys().filter(|key| !by_key.contains_key(*key));
    let gone = gone.map(|key| PeerConfigBuilder::new(&Key(*key)).remove());
    let other = by_key.iter().filter(|(key, client)| known.get(*key).is_none_or(|info| !is_as(info, client)));
    let other = other.map(|(_, client)| builder(client));
    let changes: Vec<PeerConfigBuilder> = gone.chain(other).collect();
    (!changes.is_empty()).then(|| DeviceUpdate::new().add_peers(&changes))
}

fn is_as(info: &PeerInfo, client: &WireguardPeer) -> bool {
    let allowed: BTreeSet<(IpAddr, u8)> =
        info.config.allowed_ips.iter().map(|ip| (ip.address, ip.cidr)).collect();
    let wanted: BTreeSet<_> =
        client.addresses().into_iter().map(|net| (net.addr(), net.prefix_len())).collect();
    let preshared = info.config.preshared_key.as_ref().map(|key| key.0);
    preshared == Some(client.preshared_key.0) && allowed == wanted
}

fn builder(client: &WireguardPeer) -> PeerConfigBuilder {
    let allowed = client.addresses().map(|net| AllowedIp { address: net.addr(), cidr: net.prefix_len() });
    PeerConfigBuilder::new(&Key(client.public_key.0))
        .set_preshared_key(Key(client.preshared_key.0))
        .replace_allowed_ips()
        .add_allowed_ips(&allowed)
}

fn tunnel(info: &PeerInfo) -> Tunnel {
    Tunnel {
        public_key: WireguardKey(info.config.public_key.0),
        endpoint: info.config.endpoint,
        last_handshake: info.stats.last_handshake_time,
        received: info.stats.rx_bytes,
        sent: info.stats.tx_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus::Name;

    fn client(last: u8) -> WireguardPeer {
        WireguardPeer {
            name: Name::new("phone").unwrap(),
            public_key: WireguardKey([last; 32]),
            preshared_key: WireguardKey([9; 32]),
            v4: [10, 86, 32, last].into(),
            v6: format!("fd00::1:0:{last}").parse().unwrap(),
        }
    }

    fn as_configured(client: &WireguardPeer) -> PeerInfo {
        let config = builder(client).into_peer_config();
        PeerInfo { config, ..PeerInfo::from_public_key(Key([0; 32])) }
    }

    #[test]
    fn only_what_differs_is_told() {
        let (one, two, three) = (client(1), client(2), client(3));
        let there = [as_configured(&one), as_configured(&two)];
        assert_eq!(difference(&there, &[one, two.clone()]), None);
        let rekeyed = WireguardPeer { preshared_key: WireguardKey([8; 32]), ..two };
        let want = DeviceUpdate::new().add_peers(&[
            PeerConfigBuilder::new(&Key([1; 32])).remove(),
            builder(&rekeyed),
            builder(&three),
        ]);
        assert_eq!(difference(&there, &[three, rekeyed]), Some(want));
    }
}
