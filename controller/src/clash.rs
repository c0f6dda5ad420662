//! LANs that more than one site has, and what the overlay knows them by.
//!
//! 1. A LAN that overlaps no other is known by its own prefix.
//! 2. When LANs of two sites overlap, both are known by virtual prefixes from then on ([`Plan::virtual_pool`]), one each:
//!    neither's hosts could reach the other by addresses that they have at home. The one that was there first is
//!    renumbered, since a host answers from one address only: an alias beside it would answer from the wrong one.
//! 3. A LAN keeps its virtual prefix for as long as it lies behind its edge, also when the other one is gone. For 30 days
//!    more it is kept for both, should they come again, and from others (`retired`).
//! 4. What is no LAN is not translated: a LAN that overlaps the cloud's own subnets is refused.
//! 5. Within a site there is one network of a prefix: a LAN that lies behind another edge of the site already is refused,
//!    or the second edge would renumber it.

mod choose;

use bus::{Name, NodeId, Now, Route, SubnetKind};
use ipnet::IpNet;
use metadata::Keyspace;
use thiserror::Error;

use self::choose::choose_virtual;
use crate::lan::{Lan, overlap};
use crate::lease;
use crate::plan::Plan;
use crate::record::DamagedRecord;
use crate::{retired, route, site, wireguard};

/// What becomes of routes when an edge comes with its LANs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// The edge's own.
    pub(crate) lans: Vec<Route>,
    /// Of other edges, which were known by their own prefixes before.
    pub(crate) renumbered: Vec<Route>,
}

/// Why LANs cannot be told apart.
#[derive(Debug, Error)]
pub(crate) enum Unsettled {
    #[error(
        "{lan} of this token overlaps {prefix}, which lies behind {owner}; renumber one of them, or create a token \
         without it", prefix = shared(*.lan, .route), owner = .route.owner
    )]
    Fixed { lan: Lan, route: Box<Route> },
    #[error(
        "{lan} of this token overlaps {prefix}, which lies behind {owner}, and {pool}, where both would get virtual \
         prefixes, has no room for {wanted}; create tokens for smaller parts of that network, or start the cloud with a \
         wider pool", prefix = .route.behind(), owner = .route.owner
    )]
    NoRoom { lan: Lan, route: Box<Route>, wanted: IpNet, pool: IpNet },
    #[error(transparent)]
    Damaged(#[from] DamagedRecord),
}

/// Says by which prefixes the LANs of `owner`, which is in `site`, and those that they clash with, are to be known.
/// Writes nothing.
pub(crate) fn settle(
    lans: &[Lan],
    (owner, site): (&NodeId, &Name),
    plan: &Plan,
    ks: &Keyspace,
    now: Now,
) -> Result<Settled, Unsettled> {
    let (routes, sites) = (route::list(ks)?, site::list(site::PREFIX, ks));
    let (mut kept, others): (Vec<_>, Vec<_>) = routes.into_iter().partition(|route| route.owner == *owner);
    let (own, retired): (Vec<_>, Vec<_>) =
        retired::list(ks, now)?.into_iter().partition(|route| route.owner == *owner);
    kept.extend(own);
    let mut chooser = Chooser { plan, taken: taken(&[&kept, &others, &retired], ks)? };
    let mut settled = Settled::default();
    for lan in lans {
        let rivals = rivals(*lan, &others, |owner| sites.get(owner) == Some(site))?;
        for rival in rivals.iter().filter(|rival| rival.real.is_none()) {
            if !settled.renumbered.iter().any(|known| is_same_network(known, rival)) {
                settled.renumbered.push(chooser.translated(rival, *lan, rival)?);
            }
        }
        let own =
            Route { prefix: lan.net(), owner: owner.clone(), kind: SubnetKind::Lan, real: None, peer: None };
        let translated = kept.iter().find(|route| route.real == Some(lan.net()));
        settled.lans.push(match (translated, rivals.first()) {
            (Some(translated), _) => translated.clone(),
            (None, Some(rival)) => chooser.translated(&own, *lan, rival)?,
            (None, None) => own,
        });
    }
    Ok(settled)
}

/// All that lies in the pools, or might be taken for it.
fn taken(routes: &[&[Route]], ks: &Keyspace) -> Result<Vec<IpNet>, DamagedRecord> {
    let leases = lease::records(ks)?;
    let held = leases.iter().flat_map(|record| crate::cluster::prefixes(&record.lease));
    let clients = wireguard::held(ks)?;
    Ok(routes.iter().copied().flatten().map(|route| route.prefix).chain(held).chain(clients).collect())
}

/// What will become of the LANs of a token for `site`, where that is not what one would think; as text for people.
pub fn forecast(lans: &[IpNet], site: &Name, ks: &Keyspace) -> Result<Vec<String>, DamagedRecord> {
    let (routes, sites) = (route::list(ks)?, site::list(site::PREFIX, ks));
    let mut forecast = Vec::new();
    for lan in lans {
        let shares = |route: &&Route| overlap(&route.behind(), lan) || overlap(&route.prefix, lan);
        let Some(rival) = routes.iter().find(shares) else { continue };
        let (prefix, owner) = (rival.behind(), &rival.owner);
        let becomes = match (rival.kind, sites.get(owner), &rival.real) {
            (SubnetKind::Lan, at, _) if at == Some(site) => {
                format!("of the same site: only {owner} can join with this token")
            }
            (SubnetKind::Lan, _, Some(_)) => {
                "and is known by a virtual prefix: so will this one be, from when an edge joins".to_owned()
            }
            (SubnetKind::Lan, _, None) => {
                "of another site: both will be known by virtual prefixes from when an edge joins, and by these no more"
                    .to_owned()
            }
            _ => "and is no LAN: no edge can join with this token".to_owned(),
        };
        forecast.push(format!("{lan} overlaps {prefix}, which lies behind {owner} {becomes}"));
    }
    Ok(forecast)
}

/// The LANs of other sites that overlap this one.
fn rivals(lan: Lan, others: &[Route], is_here: impl Fn(&NodeId) -> bool) -> Result<Vec<Route>, Unsettled> {
    let is_rival = |route: &&Route| overlap(&route.behind(), &lan.net());
    let is_lan = |route: &Route| route.kind == SubnetKind::Lan && !is_here(&route.owner);
    let is_virtual = |route: &Route| route.real.is_some() && overlap(&route.prefix, &lan.net());
    let is_fixed = |route: &&Route| is_virtual(route) || (is_rival(route) && !is_lan(route));
    match others.iter().find(is_fixed) {
        Some(route) => Err(Unsettled::Fixed { lan, route: Box::new(route.clone()) }),
        None => Ok(others.iter().filter(is_rival).cloned().collect()),
    }
}

/// What of a route overlaps the LAN.
fn shared(lan: Lan, route: &Route) -> IpNet {
    if overlap(&route.behind(), &lan.net()) { route.behind() } else { route.prefix }
}

fn is_same_network(one: &Route, other: &Route) -> bool {
    (&one.owner, one.behind()) == (&other.owner, other.behind())
}

/// Gives out virtual prefixes.
struct Chooser<'a> {
    plan: &'a Plan,
    taken: Vec<IpNet>,
}

impl Chooser<'_> {
    /// The route for the same network by a virtual prefix, which it needs as `lan` and `rival` clash.
    fn translated(&mut self, route: &Route, lan: Lan, rival: &Route) -> Result<Route, Unsettled> {
        let (wanted, pool) = (route.prefix, self.plan.virtual_pool(route.prefix));
        let prefix = choose_virtual(wanted, &self.taken, pool).ok_or_else(|| Unsettled::NoRoom {
            lan,
            route: Box::new(rival.clone()),
            wanted,
            pool,
        })?;
        self.taken.push(prefix);
        Ok(Route { prefix, real: Some(wanted), ..route.clone() })
    }
}

#[cfg(test)]
mod tests;
