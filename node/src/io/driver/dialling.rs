//! Dials of the cloud and of neighbours, and where the cloud is.

use std::net::SocketAddr;
use std::time::Duration;

use bus::{Identity, NodeId};
use router::io::shard::{Command, Expect, Lane};
use tracing::{debug, info, warn};

use super::Driver;
use crate::admin::describe;
use crate::diagnose::LinkFault;
use crate::health::TroubleKind;
use crate::io::join::resolve;
use crate::io::upstream::{Target, Upstream};
use crate::seam::{DialLane, Input, Line};

/// How long a name server may take to tell where the cloud is.
const LOOKUP: Duration = Duration::from_secs(5);

/// Where an endpoint is, for a dial.
pub(super) type Lookup = (Line, DialLane, u64, Result<SocketAddr, NotFound>);

/// A host, and why nobody tells where it is.
type NotFound = (String, String);

impl Driver {
    /// The lookup is a task: without its cloud a site has no name server either, and must go on meanwhile.
    pub(super) fn dial(&mut self, line: Line, lane: DialLane, attempt: u64) {
        match self.upstream.as_mut().and_then(|upstream| upstream.next(line, lane)) {
            Some(Target::Address(address)) => self.on_lookup((line, lane, attempt, Ok(address))),
            Some(Target::Endpoint((host, port))) => {
                self.state.lookups.spawn(async move {
                    let found = tokio::time::timeout(LOOKUP, resolve(&host, port)).await;
                    let address = found.map_err(|_| format!("no name server tells where {host} is"));
                    let address = address.and_then(|found| found.map_err(|why| describe(&why)));
                    (line, lane, attempt, address.map_err(|why| (host, why)))
                });
            }
            None => self.handle(Input::DialFailed { attempt, retry_after: None }),
        }
    }

    pub(super) fn on_lookup(&mut self, (line, lane, attempt, found): Lookup) {
        let Some(upstream) = &self.upstream else { return };
        match found {
            Ok(address) if upstream.is_taken(line, address) => {
                debug!(%address, "the other line to the cloud leads there");
                self.handle(Input::DialFailed { attempt, retry_after: None });
            }
            Ok(address) => {
                let (expect, lane) = (Expect::Node(upstream.cloud.clone()), lane_of(lane));
                self.state.dials.insert(attempt, (line, address));
                self.command(Command::Dial { attempt, address, expect, lane, in_reserve: true });
            }
            Err((host, why)) => {
                info!("{why}");
                self.state.failures.record(LinkFault::Lookup, host, why.clone(), self.clock.now().wall.0);
                self.on_trouble(TroubleKind::Name, why);
                self.handle(Input::DialFailed { attempt, retry_after: None });
            }
        }
    }

    pub(super) fn dial_neighbour(&mut self, lane: DialLane, attempt: u64, peer: NodeId, address: SocketAddr) {
        let Some(Upstream { cloud, .. }) = &self.upstream else { return };
        let expect = Expect::Node(Identity { cluster: cloud.cluster.clone(), node: peer });
        self.state.neighbours.insert(attempt);
        let lane = lane_of(lane);
        self.command(Command::Dial { attempt, address, expect, lane, in_reserve: false });
    }

    pub(super) fn on_endpoints(&mut self, endpoints: &[String]) {
        let Some(upstream) = &mut self.upstream else { return };
        for invalid in upstream.handle_told(endpoints) {
            warn!("{invalid}");
        }
    }
}

fn lane_of(lane: DialLane) -> Lane {
    match lane {
        DialLane::Bus => Lane::Bus,
        DialLane::Packets => Lane::Packets,
    }
}
