//! The cluster as its cloud knows it at start, and what the cloud writes of itself.

use bus::{Lease, Name, NodeId, Now, Route, SubnetKind};
use ipnet::IpNet;
use metadata::Keyspace;
use thiserror::Error;

use crate::endpoints;
use crate::lan::{InvalidLan, Lan, overlap};
use crate::lease::{self, GrantError};
use crate::plan::Plan;
use crate::record::DamagedRecord;
use crate::{nodes, route, site, wireguard};

/// What a joining node is told, and what the address plan follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    pub name: Name,
    /// The cloud that answers.
    pub cloud: Name,
    pub ca_der: Vec<u8>,
    /// Where edges dial, `host:port`.
    pub endpoints: Vec<String>,
    pub plan: Plan,
}

/// Networks that lie behind the cloud itself, from its configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CloudSubnets {
    pub vms: Vec<IpNet>,
    pub containers: Vec<IpNet>,
}

/// Why the address plan does not fit what the store holds.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EstablishError {
    #[error("{owner} holds {held}, outside the pool {pool}; a new pool must contain the old one")]
    LeaseOutsidePool { owner: NodeId, held: IpNet, pool: IpNet },
    #[error("the pool {pool} overlaps {prefix}, which lies behind {owner}; choose another pool or remove that node", prefix = .route.behind(), owner = .route.owner)]
    RouteInPool { pool: IpNet, route: Box<Route> },
    #[error("the cloud's subnet {subnet} overlaps the overlay's pool {pool}")]
    SubnetInPool { subnet: IpNet, pool: IpNet },
    #[error("the cloud's subnet {subnet} overlaps {prefix}, which lies behind {owner}", prefix = .route.behind(), owner = .route.owner)]
    SubnetTaken { subnet: IpNet, route: Box<Route> },
    #[error("the cloud's subnets {0} and {1} overlap")]
    SubnetTwice(IpNet, IpNet),
    #[error("the cloud's subnet {given} cannot be routed")]
    Subnet { given: IpNet, source: InvalidLan },
    #[error(transparent)]
    Grant(#[from] GrantError),
    #[error(transparent)]
    Damaged(#[from] DamagedRecord),
}

impl Cluster {
    pub fn cloud_id(&self) -> NodeId {
        NodeId::cloud(self.cloud.clone())
    }

    /// To be called at each start of the cloud, before any join: checks the plan against what was given out, takes
    /// the cloud's own lease (the first slot, when the store is new), sets its routes, and tells edges where to dial and
    /// which site each node is in.
    /// Writes nothing if it fails.
    pub fn establish(
        &self,
        subnets: &CloudSubnets,
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<Lease, EstablishError> {
        self.check_leases(ks)?;
        self.check_routes(ks)?;
        let own = self.subnet_routes(subnets, ks)?;
        let lease = lease::grant(&self.plan, &self.cloud_id(), ks, now)?;
        lease::announce_pool(&self.plan, ks)?;
        let kinds = (SubnetKind::CloudVm, SubnetKind::CloudContainer);
        let routes = [lease_routes(&lease, &self.cloud_id(), kinds), own].concat();
        route::replace(&self.cloud_id(), &routes, ks)?;
        site::put(&self.cloud_id(), &self.cloud, ks);
        nodes::announce_sites(ks)?;
        endpoints::tell(&self.endpoints, ks);
        Ok(Lease { pool_v4: self.plan.v4(), pool_v6: self.plan.v6(), ..lease })
    }

    fn check_leases(&self, ks: &Keyspace) -> Result<(), EstablishError> {
        for record in lease::records(ks)? {
            for held in prefixes(&record.lease) {
                let pool = self.pool_of(&held);
                if !pool.contains(&held) {
                    return Err(EstablishError::LeaseOutsidePool { owner: record.owner, held, pool });
                }
            }
        }
        if let Some((client, held)) = wireguard::check(&self.plan, ks)? {
            let (owner, pool) = (NodeId::wireguard(client), self.plan.v4().into());
            return Err(EstablishError::LeaseOutsidePool { owner, held, pool });
        }
        Ok(())
    }

    /// LANs, and subnets of other clouds; an own subnet that stays is checked with the configuration.
    fn check_routes(&self, ks: &Keyspace) -> Result<(), EstablishError> {
        for route in route::list(ks)?.into_iter().filter(|route| route.kind == SubnetKind::Lan) {
            let pool = self.pool_of(&route.prefix);
            if overlap(&pool, &route.behind()) {
                return Err(EstablishError::RouteInPool { pool, route: Box::new(route) });
            }
        }
        Ok(())
    }

    fn subnet_routes(&self, subnets: &CloudSubnets, ks: &Keyspace) -> Result<Vec<Route>, EstablishError> {
        let vms = subnets.vms.iter().map(|net| (*net, SubnetKind::CloudVm));
        let containers = subnets.containers.iter().map(|net| (*net, SubnetKind::CloudContainer));
        let mut routes: Vec<Route> = Vec::new();
        for (subnet, kind) in vms.chain(containers) {
            self.check_subnet(subnet, ks)?;
            if let Some(other) = routes.iter().find(|route| overlap(&route.prefix, &subnet)) {
                return Err(EstablishError::SubnetTwice(other.prefix, subnet));
            }
            routes.push(Route { prefix: subnet, owner: self.cloud_id(), kind, real: None, peer: None });
        }
        Ok(routes)
    }

    fn check_subnet(&self, subnet: IpNet, ks: &Keyspace) -> Result<(), EstablishError> {
        Lan::new(subnet).map_err(|source| EstablishError::Subnet { given: subnet, source })?;
        let pool = self.pool_of(&subnet);
        if overlap(&pool, &subnet) {
            return Err(EstablishError::SubnetInPool { subnet, pool });
        }
        match route::clash(&subnet, &self.cloud_id(), ks)? {
            Some(route) => Err(EstablishError::SubnetTaken { subnet, route: Box::new(route) }),
            None => Ok(()),
        }
    }

    /// The pool of the prefix's own family.
    fn pool_of(&self, prefix: &IpNet) -> IpNet {
        match prefix {
            IpNet::V4(_) => self.plan.v4().into(),
            IpNet::V6(_) => self.plan.v6().into(),
        }
    }
}

/// What a lease puts behind its node; `kinds` are those of its address and of its containers.
pub(crate) fn lease_routes(lease: &Lease, owner: &NodeId, kinds: (SubnetKind, SubnetKind)) -> Vec<Route> {
    let [v4, v6, container_v4, container_v6] = prefixes(lease);
    [(v4, kinds.0), (v6, kinds.0), (container_v4, kinds.1), (container_v6, kinds.1)]
        .map(|(prefix, kind)| Route { prefix, owner: owner.clone(), kind, real: None, peer: None })
        .to_vec()
}

pub(crate) fn prefixes(lease: &Lease) -> [IpNet; 4] {
    [
        IpNet::from(std::net::IpAddr::V4(lease.v4)),
        IpNet::from(std::net::IpAddr::V6(lease.v6)),
        lease.container_v4.into(),
        lease.container_v6.into(),
    ]
}

#[cfg(test)]
mod tests;
