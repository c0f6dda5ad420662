//! What the node says of itself: clock, overlay, broker, edges, devices, policies.

use super::period;
use crate::diagnose::facts::{Device, Facts, Node, Peer};
use crate::diagnose::finding::{Cause, Certainty, Finding};

/// From here on rules by the hour, certificates and logs are visibly off.
const SKEW_MS: u64 = 10_000;

pub(super) fn clock(facts: &Facts) -> Vec<Finding> {
    let own = facts.upstream.as_ref().and_then(|upstream| upstream.clock_offset_ms);
    let advice = "set this machine's clock ('timedatectl set-ntp true'); twins are safe meanwhile, schedules and logs are not";
    let mut found = Vec::new();
    if let Some(offset) = own.filter(|offset| offset.unsigned_abs() > SKEW_MS) {
        let about = facts.identity.name.as_deref().unwrap_or_default();
        let mut finding =
            Finding::new(Cause::ClockSkew, about, advice).since(apart("the cloud's clock", offset));
        if facts.clock_synchronised == Some(false) {
            finding = finding.since("this machine's kernel says that nobody sets its clock");
        }
        found.push(finding);
    }
    let peers = facts.peers.iter().filter_map(|peer| Some((peer, peer.clock_offset_ms?)));
    for (peer, offset) in peers.filter(|(_, offset)| offset.unsigned_abs() > SKEW_MS) {
        let told = apart(&format!("the cloud's clock, seen from {},", peer.node), offset);
        found.push(Finding::new(Cause::ClockSkew, &peer.node, advice).since(told));
    }
    found
}

fn apart(whose: &str, offset: i64) -> String {
    let way = if offset > 0 { "ahead" } else { "behind" };
    format!("{whose} is {} {way}", period(offset.unsigned_abs()))
}

pub(super) fn clash(facts: &Facts) -> Vec<Finding> {
    let Some(clash) = &facts.clash else { return Vec::new() };
    let told =
        format!("{} on {} and the overlay's {} overlap", clash.network, clash.interface, clash.overlay);
    let advice = "give the overlay another pool at the cloud ('overlay.pool', before the first edge joins), or this network \
                  other addresses; docs/overlapping-sites.md";
    vec![Finding::new(Cause::OverlayClash, &clash.interface, advice).certain(Certainty::Likely).since(told)]
}

pub(super) fn broker(facts: &Facts) -> Vec<Finding> {
    let Some((broker, problem)) =
        facts.broker.as_ref().and_then(|broker| Some((broker, broker.problem.as_ref()?)))
    else {
        return Vec::new();
    };
    if facts.node != Node::Answers && !broker.is_external {
        return Vec::new();
    }
    let advice = match broker.is_external {
        true => {
            "start the site's broker, or correct 'mqtt.external' (address, username, password-file), and restart the node"
        }
        false => {
            "check 'mqtt.listen' and what stands before it; the node's log says what clients are refused for"
        }
    };
    vec![Finding::new(Cause::Broker, &broker.address, advice).since(problem)]
}

pub(super) fn edges(facts: &Facts) -> Vec<Finding> {
    let away = facts.peers.iter().filter(|peer| !peer.connected);
    let find = |peer: &Peer| {
        let advice =
            "run 'kubebus debug diagnose' on that machine: it knocks here and says what stands in the way";
        let finding = Finding::new(Cause::EdgeAway, &peer.node, advice).since("it has no link to this cloud");
        match &peer.last_error {
            Some(error) => finding.since(format!("it said last: {error}")),
            None => finding,
        }
    };
    away.map(find).collect()
}

pub(super) fn troubled_edges(facts: &Facts) -> Vec<Finding> {
    let advice = "run 'kubebus debug diagnose' on that machine";
    let told = |peer: &Peer| {
        let why = peer.disk.as_ref()?;
        Some(
            Finding::new(Cause::EdgeTrouble, &peer.node, advice)
                .since(format!("its disk refuses writes{why}")),
        )
    };
    facts.peers.iter().filter(|peer| peer.connected).filter_map(told).collect()
}

pub(super) fn devices(facts: &Facts) -> Vec<Finding> {
    let is_away = |device: &&Device| device.state == "offline" && device.reason.ends_with("is not connected");
    let away = facts.devices.iter().filter(is_away).map(|device| {
        let advice = "start its mapper ('kubebus mapper run NAME', or the vendor's program) and let it connect to the node's \
                      MQTT broker; 'kubebus mapper list' names the bundled ones";
        Finding::new(Cause::MapperAway, &device.id, advice).since(&device.reason)
    });
    let named = facts.devices.iter().filter_map(nameless);
    let is_bad = |device: &&Device| matches!(device.state.as_str(), "offline" | "degraded");
    let is_troubled = |device: &&Device| is_bad(device) && !is_away(device) && device.unresolved.is_none();
    let troubled = facts.devices.iter().filter(is_troubled).map(|device| {
        let advice = "check the device, its line and its address in the manifest; the mapper's log says more";
        Finding::new(Cause::DeviceTrouble, &device.id, advice)
            .since(format!("{}: {}", device.state, device.reason))
    });
    away.chain(named).chain(troubled).collect()
}

/// Its mapper may run on another machine, with another name server.
fn nameless(device: &Device) -> Option<Finding> {
    let why = device.unresolved.as_ref()?;
    let advice = "check the name in the device's manifest (protocol.configData), and this machine's name server \
                  (/etc/resolv.conf); an address works without one";
    Some(Finding::new(Cause::DeviceName, &device.id, advice).certain(Certainty::Likely).since(why))
}

pub(super) fn wishes(facts: &Facts) -> Vec<Finding> {
    let find = |device: &Device| {
        let advice = format!("'kubebus twin audit {}' says who wished it and why it was not done", device.id);
        let finding = Finding::new(Cause::WishRefused, &device.id, advice);
        device.refused.iter().cloned().fold(finding, Finding::since)
    };
    facts.devices.iter().filter(|device| !device.refused.is_empty()).map(find).collect()
}

pub(super) fn reach(facts: &Facts) -> Vec<Finding> {
    let Some(reach) = &facts.reach else { return Vec::new() };
    let denied = reach.denied.as_ref().map(|why| {
        let advice =
            "allow it with an AccessPolicy (docs/access-policy.md); 'kubebus policy test' tries one out";
        Finding::new(Cause::PolicyDenies, &reach.to, advice).since(why)
    });
    let problem = reach.problem.as_ref().map(|why| {
        let advice = "'kubebus route list' shows what lies behind whom, 'kubebus trace' where packets end";
        Finding::new(Cause::NoRoute, &reach.to, advice).since(why)
    });
    problem.into_iter().chain(denied).collect()
}
