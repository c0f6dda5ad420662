//! The overlay interface: brings the kernel in line with a lease and routes, again and again.
//!
//! This is the lower half of the router. It keeps no memory of what it did: each [`Overlay::sync`] lists what the
//! kernel has on the interface, compares it with the [`Plan`], and changes the difference. So it also mends what
//! somebody else broke, and a restarted node finds its way from any state. Routes on other interfaces are never
//! touched.

use std::collections::BTreeSet;
use std::io;

use bus::{Lease, NodeId, Route};
use ipnet::IpNet;
use thiserror::Error;

use super::netlink::{KernelRoute, Netlink, NetlinkError};
use super::sysctl;
use super::tun::{Tun, TunError};
use crate::offload::Offload;
use crate::plan::{Plan, PlannedRoute};

/// The largest packet on the overlay, in bytes. With our head it fits a datagram on a path of 1452 bytes and more: Ethernet
/// under IPv6, PPPoE. Narrower paths carry it in two parts.
pub const OVERLAY_MTU: u16 = 1400;

/// Loses against what the machine's own networks brought (0 for attached ones, 100 to 1024 for DHCP and announced
/// ones): where a site's LAN has the prefix of a remote one, the site goes on working.
pub const OVERLAY_METRIC: u32 = 2048;

/// The overlay interface and the kernel state on it.
#[derive(Debug)]
pub struct Overlay {
    tun: Tun,
    netlink: Netlink,
    has_ipv6: bool,
}

/// What a sync changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SyncReport {
    pub addresses_added: Vec<IpNet>,
    pub addresses_removed: Vec<IpNet>,
    pub routes_added: Vec<IpNet>,
    pub routes_removed: Vec<IpNet>,
    /// Left out: another interface has a route of that prefix and [`OVERLAY_METRIC`].
    pub routes_taken: Vec<IpNet>,
    /// IPv6 is off on the interface, so the overlay carries IPv4 only.
    pub without_ipv6: bool,
}

/// Why there is no overlay interface.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error(transparent)]
    Tun(#[from] TunError),
    #[error("cannot reach the kernel's network tables")]
    Netlink(#[from] NetlinkError),
}

impl Overlay {
    /// Creates the interface `name` in the calling thread's network namespace; [`Self::sync`] acts there too, from
    /// whatever thread.
    pub fn open(name: &str) -> Result<Self, OpenError> {
        let netlink = Netlink::open()?;
        let mut tun = Tun::open(name, OVERLAY_MTU.into())?;
        tun.enable_offload();
        Ok(Self { netlink, has_ipv6: sysctl::has_ipv6(tun.name()), tun })
    }

    /// What the kernel hands over uncut.
    pub fn offload(&self) -> Offload {
        self.tun.offload()
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        self.tun.name()
    }

    /// Another handle on the TUN, for the shard. The interface goes when the last handle is dropped, and addresses and
    /// routes with it.
    pub fn tun(&self) -> io::Result<Tun> {
        self.tun.try_clone()
    }

    /// Brings the interface in line: up, MTU, the lease's addresses, and the routes of others. What else is on it goes.
    ///
    /// Old routes go before new addresses come, and old addresses last: a route must not name a source address that
    /// is gone. On an error the rest is left as it is; the next sync starts from there.
    pub fn sync(&mut self, lease: &Lease, me: &NodeId, routes: &[Route]) -> Result<SyncReport, NetlinkError> {
        let plan = self.plan(lease, me, routes);
        let mut report = SyncReport { without_ipv6: !self.has_ipv6, ..SyncReport::default() };
        self.netlink.set_mtu(self.tun.name(), OVERLAY_MTU.into())?;
        self.netlink.link_up(self.tun.name())?;

        let old_addresses = self.addresses()?;
        let old_routes = self.routes()?;
        let routes = plan.routes.into_iter().map(kernel_route).collect();
        self.remove_routes(&old_routes - &routes, &mut report)?;
        self.add_addresses(&plan.addresses - &old_addresses, &mut report)?;
        self.add_routes(&routes - &old_routes, &mut report)?;
        self.remove_addresses(&old_addresses - &plan.addresses, &mut report)?;
        Ok(report)
    }

    fn plan(&self, lease: &Lease, me: &NodeId, routes: &[Route]) -> Plan {
        let plan = Plan::new(lease, me, routes);
        if self.has_ipv6 { plan } else { plan.without_ipv6() }
    }

    /// Without the link-local address that the kernel gives to every interface.
    fn addresses(&mut self) -> Result<BTreeSet<IpNet>, NetlinkError> {
        let mut addresses = self.netlink.address_list(self.tun.name())?;
        addresses.retain(|a| !matches!(a, IpNet::V6(v6) if v6.addr().is_unicast_link_local()));
        Ok(addresses.into_iter().collect())
    }

    fn routes(&mut self) -> Result<BTreeSet<KernelRoute>, NetlinkError> {
        Ok(self.netlink.route_list(self.tun.name())?.into_iter().collect())
    }

    fn add_addresses(&mut self, new: BTreeSet<IpNet>, report: &mut SyncReport) -> Result<(), NetlinkError> {
        for address in new {
            self.netlink.address_replace(self.tun.name(), address)?;
            report.addresses_added.push(address);
        }
        Ok(())
    }

    fn remove_addresses(
        &mut self,
        old: BTreeSet<IpNet>,
        report: &mut SyncReport,
    ) -> Result<(), NetlinkError> {
        for address in old {
            gone_is_fine(self.netlink.address_del(self.tun.name(), address))?;
            report.addresses_removed.push(address);
        }
        Ok(())
    }

    fn add_routes(
        &mut self,
        new: BTreeSet<KernelRoute>,
        report: &mut SyncReport,
    ) -> Result<(), NetlinkError> {
        for route in new {
            match self.netlink.route_add(self.tun.name(), &route) {
                Ok(()) => report.routes_added.push(route.destination),
                Err(error) if error.refused_with() == Some(libc::EEXIST) => {
                    report.routes_taken.push(route.destination);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn remove_routes(
        &mut self,
        old: BTreeSet<KernelRoute>,
        report: &mut SyncReport,
    ) -> Result<(), NetlinkError> {
        for route in old {
            gone_is_fine(self.netlink.route_del(self.tun.name(), &route))?;
            report.routes_removed.push(route.destination);
        }
        Ok(())
    }
}

fn kernel_route(planned: PlannedRoute) -> KernelRoute {
    let PlannedRoute { prefix, source } = planned;
    KernelRoute { destination: prefix, via: None, source: Some(source), metric: OVERLAY_METRIC }
}

/// Somebody else, or the kernel itself, was faster.
fn gone_is_fine(removed: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match removed {
        Err(error) if matches!(error.refused_with(), Some(libc::ESRCH | libc::EADDRNOTAVAIL)) => Ok(()),
        other => other,
    }
}
